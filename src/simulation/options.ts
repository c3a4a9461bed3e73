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

export const duration: Rule = {
  allowed: "a finite duration of at least 0",
  read: (input) => within(millis(input), millis(input) >= 0 && millis(input) < Infinity)
}

export const longDuration: Rule = {
  allowed: "a finite duration longer than 0",
  read: (input) => within(millis(input), millis(input) > 0 && millis(input) < Infinity)
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

/** Refuses what is no array. */
export const array = (where: string, name: string, input: unknown): void => {
  if (!Array.isArray(input)) throw new RangeError(`${where}: ${name} must be an array, got ${format(input)}`)
}

/** Refuses what is no object, and options that nobody knows. */
export const known = (where: string, options: object, names: ReadonlyArray<string>): void => {
  object(where, "options", options)
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue
    throw new RangeError(`${where}: unknown option ${format(name)}; it takes ${names.join(", ")}`)
  }
}
