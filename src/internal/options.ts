/**
 * Rules for options, and the errors of invalid ones.
 */
import * as Duration from "effect/Duration"
import * as Formatter from "effect/Formatter"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"

export interface Rule<out A> {
  /** The allowed values, in words. */
  readonly allowed: string
  /** Returns the value to use; undefined if the received one is not allowed. */
  readonly read: (received: unknown) => A | undefined
}

/** A rule for values that are used as they are. */
export const rule = <A>(allowed: string, isAllowed: (received: unknown) => boolean): Rule<A> => ({
  allowed,
  read: (received) => isAllowed(received) ? received as A : undefined
})

export const integer = (minimum: number): Rule<number> =>
  rule(`an integer ≥ ${minimum}`, (received) => Number.isSafeInteger(received) && (received as number) >= minimum)

/** Allows Infinity, for no bound, in addition to the values of a rule. */
export const orInfinity = ({ allowed, read }: Rule<number>): Rule<number> => ({
  allowed: `${allowed} or Infinity`,
  read: (received) => received === Infinity ? Infinity : read(received)
})

/** A finite number. `isAbove`: whether the minimum itself is excluded. */
export const number = (minimum: number, isAbove = false): Rule<number> =>
  rule(
    `a finite number ${isAbove ? ">" : "≥"} ${minimum}`,
    (received) =>
      typeof received === "number" && Number.isFinite(received) && (isAbove ? received > minimum : received >= minimum)
  )

/**
 * Returns the milliseconds of a duration; NaN for any other value. Numbers are returned unchanged, since `Duration`
 * would turn invalid ones into 0.
 */
export const millisOf = (received: unknown): number =>
  typeof received === "number"
    ? received
    : Option.getOrElse(Option.map(Duration.fromInput(received as Duration.Input), Duration.toMillis), () => NaN)

/** A duration, read as milliseconds. */
export const duration = (allowed: string, isAllowed: (millis: number) => boolean): Rule<number> => ({
  allowed,
  read: (received) => {
    const millis = millisOf(received)
    return isAllowed(millis) ? millis : undefined
  }
})

/** Longer durations are not exact in milliseconds. */
export const finiteDuration = duration(
  "a finite duration > 0",
  (millis) => millis > 0 && millis <= Number.MAX_SAFE_INTEGER
)

export const anyDuration = duration("a duration ≥ 0", (millis) => millis >= 0)

export const text: Rule<string> = rule(
  "a non-empty string",
  (received) => typeof received === "string" && received !== ""
)

export const boolean: Rule<boolean> = rule("true or false", (received) => typeof received === "boolean")

export const object: Rule<object> = rule("an object", Predicate.isObject)

export const array: Rule<ReadonlyArray<unknown>> = rule("an array", Array.isArray)

export const func = <F>(signature: string): Rule<F> => rule(signature, (received) => typeof received === "function")

export const oneOf = <const A extends ReadonlyArray<unknown>>(...values: A): Rule<A[number]> =>
  rule(values.map((value) => Formatter.format(value)).join(" or "), (received) => values.includes(received))

/** Makes the error of an invalid option. `where`: the function or class that received it. */
export const invalid = (where: string, option: string, allowed: string, received: unknown): RangeError =>
  new RangeError(`${where}: "${option}" must be ${allowed}, received ${spell(received)}`)

export const spell = (value: unknown): string =>
  typeof value !== "function"
    ? Formatter.format(value)
    // A policy is a function with words of its own.
    : Object.hasOwn(value, "toString")
    ? String(value)
    : "a function"

/** Reads a value; throws a `RangeError` if it is not allowed. */
export const read = <A>(where: string, option: string, { allowed, read }: Rule<A>, received: unknown): A => {
  const value = read(received)
  if (value === undefined) throw invalid(where, option, allowed, received)
  return value
}

/** Throws a `RangeError` if `options` is not an object or has an unknown option. */
export const known = (where: string, options: unknown, names: Iterable<string>): void => {
  if (!Predicate.isObject(options)) {
    throw new RangeError(`${where}: options must be an object, received ${spell(options)}`)
  }
  const all = [...names]
  for (const name of Object.keys(options)) {
    if (all.includes(name)) continue
    throw unknown(where, name, all)
  }
}

/** Makes the error of an unknown option. */
export const unknown = (where: string, name: string, names: ReadonlyArray<string>): RangeError =>
  new RangeError(`${where}: unknown option ${Formatter.format(name)}; the options are ${names.join(", ")}`)

type Rules = Readonly<Record<string, Rule<unknown>>>

type Read<R extends Rules> = { readonly [K in keyof R]?: R[K] extends Rule<infer A> ? A : never }

/** Reads all options that are present; throws a `RangeError` for an invalid or unknown one. */
export const readAll = <R extends Rules>(where: string, rules: R, options: unknown): Read<R> => {
  known(where, options, Object.keys(rules))
  const values: Record<string, unknown> = {}
  for (const [name, received] of Object.entries(options as object)) {
    if (received !== undefined) values[name] = read(where, name, rules[name]!, received)
  }
  return values as Read<R>
}
