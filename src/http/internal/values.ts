/**
 * Reads numbers, spans and instants from the values of fields. A value that makes no sense is undefined.
 */
import * as DateTime from "effect/DateTime"
import * as Headers from "effect/http/Headers"
import * as Option from "effect/Option"
import * as Result from "effect/Result"

/** Digits, with a fraction or without. No sign, no exponent, nothing around it. However many digits: a finite number. */
export const numberOf = (text: string | undefined): number | undefined => {
  const trimmed = text?.trim()
  return trimmed !== undefined && /^\d+(?:\.\d+)?$/.test(trimmed)
    ? Math.min(Number(trimmed), 1e30)
    : undefined
}

/** More values of one field are not read. */
const mostValues = 16

/**
 * The values of a field. Where several hops have each written it, HTTP joins them by commas; a date has a comma of its own,
 * after its weekday.
 */
export const valuesOf = (text: string | undefined): ReadonlyArray<string> => {
  if (text === undefined) return []
  if (!text.includes(",")) return [text.trim()]
  const values: Array<string> = []
  for (const part of text.split(",", mostValues)) {
    const last = values.at(-1)
    if (last !== undefined && /^[A-Z][a-z]{2,8}$/.test(last)) values[values.length - 1] = `${last}, ${part.trim()}`
    else values.push(part.trim())
  }
  return values
}

const units: Readonly<Record<string, number>> = {
  d: 864e5,
  h: 36e5,
  m: 6e4,
  s: 1e3,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6
}
const span = /(\d+(?:\.\d+)?)(ms|us|µs|ns|[dhms])/g
const onlySpans = /^(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|[dhms]))+$/

/** No span or date that a server means is longer. What reads them is not made for 16 kB, and needs no time for this. */
const mostCharacters = 64

/** "6m0s", "1h2m3.5s", "12ms": durations as Go prints them. */
const spanOf = (text: string): number | undefined =>
  text.length <= mostCharacters && onlySpans.test(text)
    ? Array.from(text.matchAll(span), ([, amount, unit]) => Number(amount) * units[unit!]!).reduce((a, b) => a + b)
    : undefined

/** The instant of an HTTP-date, or of a date and time by RFC 3339, in milliseconds since 1970. */
export const instantOf = (text: string): number | undefined => {
  if (text.length > mostCharacters) return undefined
  const date = /^\d{4}-\d\d-\d\dT/.test(text)
    ? Option.getOrUndefined(DateTime.make(text))
    : Result.getOrUndefined(Headers.parseHttpDate(text))
  return date && DateTime.toEpochMillis(date)
}

export const until = (text: string, now: number): number | undefined => {
  const instant = instantOf(text)
  return instant === undefined ? undefined : instant - now
}

/** No limit is for longer than a year: a reset beyond that is a mistake of its unit. */
const longestReset = 366 * 864e5

/** What stands in a reset field: seconds left, an instant since 1970, a span, or a date. */
const resetOf = (text: string, now: number): number | undefined => {
  const number = numberOf(text)
  const millis = number === undefined ? spanOf(text) ?? until(text, now) : resetOfNumber(number, now)
  return millis !== undefined && millis <= longestReset ? millis : undefined
}

/**
 * 10^9 s since 1970 was in 2001, and 10^9 s left would be 31 years. By the same distance milliseconds, microseconds and
 * nanoseconds since 1970 are told apart.
 */
const resetOfNumber = (number: number, now: number): number | undefined => {
  if (number < 1e9) return number * 1e3
  const unit = [1e3, 1, 1e-3, 1e-6].find((unit) => number * unit < 1e14)
  return unit === undefined ? undefined : number * unit - now
}

/** The resets that a field names, in milliseconds from now. */
export const resetsOf = (text: string | undefined, now: number): ReadonlyArray<number | undefined> =>
  valuesOf(text).map((value) => resetOf(value, now))

/** A finer field may say 0 where the coarser one beside it says how long: a time that is none above 0 is no time. */
export const isTime = (millis: number | undefined): millis is number => millis !== undefined && millis > 0

/** The largest, of those that are numbers. */
export const largest = (values: ReadonlyArray<number | undefined>): number | undefined => {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? undefined : Math.max(...known)
}
