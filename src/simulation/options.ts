/** How options are read, and what is said of bad ones. */
import * as Duration from "effect/Duration"
import { format } from "effect/Formatter"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

/** What an option must be: its value as a number, or NaN. */
interface Rule {
  readonly allowed: string
  readonly read: (input: unknown) => number
}

const within = (value: number, isAllowed: boolean): number => isAllowed ? value : NaN

/** Whole milliseconds and fractions of them. A number is taken as it is: what is none would become a duration of 0. */
const millis = (input: unknown): number =>
  typeof input === "number"
    ? input
    : Option.getOrElse(Option.map(Duration.fromInput(input as Duration.Input), Duration.toMillis), () => NaN)

const amount = (input: unknown): number => typeof input === "number" ? input : NaN

/** So long a clock tells microseconds apart: 100 years. */
const longest = 36_525 * 86_400_000

export const duration: Rule = {
  allowed: "a finite duration of at least 0 and at most 100 years",
  read: (input) => within(millis(input), millis(input) >= 0 && millis(input) <= longest)
}

export const longDuration: Rule = {
  allowed: "a finite duration longer than 0 and of at most 100 years",
  read: (input) => within(millis(input), millis(input) > 0 && millis(input) <= longest)
}

export const anyDuration: Rule = {
  allowed: "a duration of at least 0",
  read: (input) => within(millis(input), millis(input) >= 0)
}

export const positive: Rule = {
  allowed: "a finite number above 0",
  read: (input) => within(amount(input), amount(input) > 0 && amount(input) < Infinity)
}

export const natural: Rule = {
  allowed: "a finite number of at least 0",
  read: (input) => within(amount(input), amount(input) >= 0 && amount(input) < Infinity)
}

export const columns: Rule = {
  allowed: "a whole number of at least 40",
  read: (input) => within(amount(input), Number.isSafeInteger(input) && amount(input) >= 40)
}

export const width: Rule = {
  allowed: "a finite number of at least 320",
  read: (input) => within(amount(input), amount(input) >= 320 && amount(input) < Infinity)
}

export const count: Rule = {
  allowed: "a whole number of at least 1",
  read: (input) => within(amount(input), Number.isSafeInteger(input) && amount(input) >= 1)
}

/** Reads one value, or throws a RangeError that names it. */
export const value = (where: string, name: string, rule: Rule, input: unknown): number => {
  const read = rule.read(input)
  if (!Number.isNaN(read)) return read
  throw new RangeError(`${where}: ${name} must be ${rule.allowed}, got ${format(input)}`)
}

/** Refuses what is no object. */
export const object = (where: string, name: string, input: unknown): void => {
  if (!Predicate.isObject(input)) throw new RangeError(`${where}: ${name} must be an object, got ${format(input)}`)
}

/** Refuses what is neither a string nor left out. */
export const text = (where: string, name: string, input: unknown): void => {
  if (input === undefined || Predicate.isString(input)) return
  throw new RangeError(`${where}: ${name} must be a string, got ${format(input)}`)
}

/** Refuses what is no array. */
export const array = (where: string, name: string, input: unknown): void => {
  if (!Array.isArray(input)) throw new RangeError(`${where}: ${name} must be an array, got ${format(input)}`)
}

const units = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"]

/** A duration by its units, as `{ seconds: 1 }`. */
export const isUnits = (input: object): boolean =>
  Object.keys(input).length > 0 && Object.keys(input).every((name) => units.includes(name))

/** Refuses what is no object, and options that nobody knows. */
export const known = (where: string, options: object, names: ReadonlyArray<string>, name = "options"): void => {
  object(where, name, options)
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue
    throw new RangeError(`${where}: unknown option ${format(name)}; it takes ${names.join(", ")}`)
  }
}
