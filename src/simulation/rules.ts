/** The rules for the options of simulations. */
import * as Predicate from "effect/Predicate"
import * as Options from "../internal/options.ts"

/** A clock tells microseconds apart for so long: 100 years, in milliseconds. */
const longest = 36_525 * 86_400_000

export const duration = Options.duration(
  "a finite duration ≥ 0 and ≤ 100 years",
  (millis) => millis >= 0 && millis <= longest
)

export const interval = Options.duration(
  "a finite duration > 0 and ≤ 100 years",
  (millis) => millis > 0 && millis <= longest
)

export const positive = Options.number(0, true)

export const natural = Options.number(0)

export const count = Options.integer(1)

export const columns = Options.integer(40)

/** Pixels. */
export const width = Options.number(320)

export const string: Options.Rule<string> = {
  allowed: "a string",
  read: (received) => Predicate.isString(received) ? received : undefined
}

export const seed: Options.Rule<string | number> = {
  allowed: "a finite number or a string",
  read: (received) =>
    Predicate.isString(received) || Number.isFinite(received) ? received as string | number : undefined
}

/** An array of some of these values. */
export const someOf = <const A extends ReadonlyArray<unknown>>(
  ...values: A
): Options.Rule<ReadonlyArray<A[number]>> => ({
  allowed: `an array of ${values.join(", ")}`,
  read: (received) =>
    Array.isArray(received) && received.every((value) => values.includes(value)) ? received : undefined
})

const units = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"]

/** Whether an object is a duration by its units, as `{ seconds: 1 }`. */
export const isDurationObject = (input: object): boolean =>
  Object.keys(input).length > 0 && Object.keys(input).every((name) => units.includes(name))
