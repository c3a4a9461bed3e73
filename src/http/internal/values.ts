/**
 * Reads numbers, spans and instants from the values of fields. A value that makes no sense is undefined.
 */
import * as DateTime from "effect/DateTime"
import * as Headers from "effect/http/Headers"
import * as Option from "effect/Option"
import * as Result from "effect/Result"

/** Digits, with a fraction or without. No sign, no exponent, nothing around it. */
export const numberOf = (text: string | undefined): number | undefined => {
  const trimmed = text?.trim()
  return trimmed !== undefined && /^\d+(?:\.\d+)?$/.test(trimmed) ? Number(trimmed) : undefined
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

/** What stands in a reset field: seconds left, seconds or milliseconds since 1970, a span, or a date. */
export const resetOf = (text: string | undefined, now: number): number | undefined => {
  const trimmed = text?.trim()
  if (trimmed === undefined) return undefined
  const number = numberOf(trimmed)
  // 10^9 s since 1970 was in 2001, and 10^9 s left would be 31 years; 10^11 s since 1970 is in the year 5138.
  if (number !== undefined) return number >= 1e11 ? number - now : number >= 1e9 ? number * 1e3 - now : number * 1e3
  return spanOf(trimmed) ?? until(trimmed, now)
}

/** A finer field may say 0 where the coarser one beside it says how long: a time that is none above 0 is no time. */
export const isTime = (millis: number | undefined): millis is number => millis !== undefined && millis > 0
