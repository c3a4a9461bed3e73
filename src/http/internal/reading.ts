/**
 * Reads an answer: whether it refuses, for how long nothing should be sent, and the limits that say so. Pure functions.
 */
import type * as Headers from "effect/http/Headers"
import * as Result from "effect/Result"
import type { Answer, Limit, Parser } from "../limits.ts"
import type { Refusal } from "../refusals.ts"
import { isOld, type ServerClock, unknown } from "./freshness.ts"
import { instantOf, isTime, numberOf, valuesOf } from "./values.ts"

/** What is read of an answer. */
export interface Reading {
  /** How it refuses; undefined where it does not. */
  readonly refusal: Refusal | undefined
  /** Milliseconds for which no request should be sent; 0 where it names no time. */
  readonly wait: number
  /** The field that named the wait. */
  readonly from: string | undefined
  /** Whether the server wants the request again; undefined where it does not say. */
  readonly retry: boolean | undefined
  readonly limits: ReadonlyArray<Limit>
  /** Whether it came from a cache. Then its fields describe the past and were not read. */
  readonly isCached: boolean
  /** The instant of its `Date`, in milliseconds since 1970; undefined where there is none, or an `Age`. */
  readonly date: number | undefined
  /** Whether a parser needs the body, which has not been read. */
  readonly needsBody: boolean
}

/** What is known of the server's clock at a monotonic instant, in milliseconds. */
export interface Known {
  readonly known: ServerClock
  readonly at: number
}

/** `now` is the client's clock, in milliseconds since 1970. */
export const readAnswer = (
  answer: { readonly status: number; readonly headers: Headers.Headers; readonly body?: string | undefined },
  options: { readonly parsers: ReadonlyArray<Parser>; readonly statuses: Readonly<Record<number, Refusal>> },
  now: number,
  clock?: Known
): Reading => {
  const { body, headers, status } = answer
  let isBodyWanted = false
  const seen: Answer = {
    status,
    get body() {
      isBodyWanted = true
      return body
    }
  }
  const limitsAt = (now: number) => options.parsers.flatMap((parser) => limitsBy(parser, headers, now, seen))
  // Not of nothing: to find no date in it takes an error with its stack.
  const date = headers["date"] === undefined ? undefined : instantOf(headers["date"].trim())
  const hasAge = headers["age"] !== undefined && valuesOf(headers["age"]).some((age) => isTime(numberOf(age)))
  const ofServer = hasAge ? [] : limitsAt(date ?? now)
  const refusal = refusalOf(ofServer, status, options.statuses)
  const isCached = hasAge ||
    (refusal === undefined && date !== undefined && isOfCache(ofServer, date, now, limitsAt, clock))
  const limits = isCached ? [] : ofServer
  const { from, wait } = refusal === undefined ? longest(limits, resetOfUsedUp) : waitAfter(refusal, limits)
  return {
    refusal,
    wait,
    from,
    retry: retryOf(limits),
    limits,
    isCached,
    date: hasAge ? undefined : date,
    needsBody: isBodyWanted && body === undefined && status >= 400 && !(refusal !== undefined && wait > 0)
  }
}

/**
 * Whether an answer without an `Age` came from a cache. Where the server's clock is not known, an old `Date` may be one of a
 * clock that is slow; but a reset that is over by the client's clock is more likely to be of the past.
 */
const isOfCache = (
  limits: ReadonlyArray<Limit>,
  date: number,
  now: number,
  limitsAt: (now: number) => ReadonlyArray<Limit>,
  { at, known }: Known = { known: unknown, at: 0 }
): boolean => {
  const old = isOld(known, date, now, at)
  if (old !== "unknown" || !limits.some(({ reset }) => isTime(reset))) return old === true
  const byClient = limitsAt(now)
  return limits.some(({ reset }, i) => isTime(reset) && !isTime(byClient[i]?.reset))
}

const retryOf = (limits: ReadonlyArray<Limit>): boolean | undefined =>
  limits.find(({ retry }) => retry !== undefined)?.retry

/** A field that its parser cannot bear must not cost the answer that it came with. */
const limitsBy = (parser: Parser, headers: Headers.Headers, now: number, answer: Answer): ReadonlyArray<Limit> => {
  const limits = Result.getOrElse(Result.try(() => parser(headers, now, answer)), () => [])
  return Array.isArray(limits) ? limits : []
}

/** How an answer refuses, by its status or else by what it says. */
const refusalOf = (
  limits: ReadonlyArray<Limit>,
  status: number,
  statuses: Readonly<Record<number, Refusal>>
): Refusal | undefined => {
  const listed = statuses[status]
  if (listed !== undefined || status < 400) return listed
  const saysLimit = limits.some((limit) => limit.refused === true || (status === 403 && forbidsByLimit(limit)))
  return saysLimit ? "limit" : retryOf(limits) === true ? "overload" : undefined
}

/** A 403 that says when to come back, or that nothing remains (GitHub). Also where that is now: servers state whole seconds. */
const forbidsByLimit = ({ remaining, reset, retryAfter }: Limit): boolean =>
  (retryAfter !== undefined && retryAfter >= 0) || (reset !== undefined && remaining !== undefined && remaining < 1)

interface Wait {
  readonly wait: number
  readonly from: string | undefined
}

/** How long to wait after a refusal: the first of these that names a time. */
const waitAfter = (refusal: Refusal, limits: ReadonlyArray<Limit>): Wait =>
  [({ retryAfter }: Limit) => retryAfter, resetOfUsedUp, resetAlone].map((waitOf) => longest(limits, waitOf))
    .find(({ wait }) => wait > 0) ?? (refusal === "limit" ? waitForAmount(limits) : none)

/**
 * Refused though something is left of each limit: of one that counts requests that cannot be the reason, of one that counts
 * tokens it can, since a request may need more than are left. Of several it is the one of which least is left. A reset below a
 * second is none, for a bucket that is nearly full again was no reason.
 */
const waitForAmount = (limits: ReadonlyArray<Limit>): Wait => {
  const shareOf = ({ quota = 1, remaining = 0 }: Limit) => remaining / quota
  const amounts = limits.filter(({ reset = 0, unit }) => unit?.includes("token") && reset >= 1_000)
  if (amounts.length === 0) return none
  const { from, reset = 0 } = amounts.reduce((best, limit) => shareOf(limit) < shareOf(best) ? limit : best)
  return { wait: reset, from }
}

const none: Wait = { wait: 0, from: undefined }

const resetOfUsedUp = ({ remaining, reset }: Limit): number | undefined =>
  remaining !== undefined && remaining < 1 ? reset : undefined

const resetAlone = ({ remaining, reset }: Limit): number | undefined => remaining === undefined ? reset : undefined

const longest = (limits: ReadonlyArray<Limit>, waitOf: (limit: Limit) => number | undefined): Wait => {
  let found = none
  for (const limit of limits) {
    const wait = waitOf(limit)
    // What is no number is not greater either.
    if (wait !== undefined && wait > found.wait) found = { wait, from: limit.from }
  }
  return found
}
