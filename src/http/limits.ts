/**
 * What a server's answer says of its limits: fields in, waits out. Pure functions; a field that makes no sense says
 * nothing.
 */
import * as DateTime from "effect/DateTime"
import * as Headers from "effect/http/Headers"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { type Bare, dictionary, type Item, list } from "./internal/structured.ts"

/**
 * What an answer's fields say of one limit. Times are milliseconds from now.
 *
 * @see {@link Parser} for what gives it
 * @category models
 * @since 0.1.0
 */
export interface Limit {
  /** The field that says so, for logs. */
  readonly from: string
  /** What is left. Below 1 nothing more should be sent until `reset`. */
  readonly remaining?: number | undefined
  /** Until there is more. */
  readonly reset?: number | undefined
  /** Until a request that was refused may be sent again. Counts on a refusal alone, and there before any `reset`. */
  readonly retryAfter?: number | undefined
  /** Whether the server wants the request to be sent again at all. */
  readonly retry?: boolean | undefined
}

/**
 * Reads one dialect of limits from an answer's headers.
 *
 * **Details**
 *
 * `now` is the server's clock in milliseconds since 1970: its `Date` field, or where there is none the client's clock. So
 * instants that the server names are measured by the server's own clock. A pure function; for fields that are absent or
 * malformed it gives nothing. A time that is no number above 0 is as good as absent, and so is what a parser that throws
 * would have read.
 *
 * **Example**
 *
 * ```ts
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * // A server that says `X-Backoff: 2.5` when it wants to be left alone for so many seconds
 * const backoff: HttpThrottle.Parser = (headers) => {
 *   const seconds = Number(headers["x-backoff"])
 *   return seconds > 0 ? [{ from: "x-backoff", remaining: 0, reset: seconds * 1000 }] : []
 * }
 *
 * const parsers = [...HttpThrottle.dialects, backoff]
 * ```
 *
 * @see {@link dialects} for those that are read by default
 * @category models
 * @since 0.1.0
 */
export type Parser = (headers: Headers.Headers, now: number) => ReadonlyArray<Limit>

// ---------------------------------------------------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------------------------------------------------

/** Digits, with a fraction or without. No sign, no exponent, nothing around it. */
const numberOf = (text: string | undefined): number | undefined => {
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
const instantOf = (text: string): number | undefined => {
  if (text.length > mostCharacters) return undefined
  const date = /^\d{4}-\d\d-\d\dT/.test(text)
    ? Option.getOrUndefined(DateTime.make(text))
    : Result.getOrUndefined(Headers.parseHttpDate(text))
  return date && DateTime.toEpochMillis(date)
}

const until = (text: string, now: number): number | undefined => {
  const instant = instantOf(text)
  return instant === undefined ? undefined : instant - now
}

/** What stands in a reset field: seconds left, seconds or milliseconds since 1970, a span, or a date. */
const resetOf = (text: string | undefined, now: number): number | undefined => {
  const trimmed = text?.trim()
  if (trimmed === undefined) return undefined
  const number = numberOf(trimmed)
  // 10^9 s since 1970 was in 2001, and 10^9 s left would be 31 years; 10^11 s since 1970 is in the year 5138.
  if (number !== undefined) return number >= 1e11 ? number - now : number >= 1e9 ? number * 1e3 - now : number * 1e3
  return spanOf(trimmed) ?? until(trimmed, now)
}

/** A finer field may say 0 where the coarser one beside it says how long: a time that is none above 0 is no time. */
const isTime = (millis: number | undefined): millis is number => millis !== undefined && millis > 0

// ---------------------------------------------------------------------------------------------------------------------
// Dialects
// ---------------------------------------------------------------------------------------------------------------------

/**
 * `Retry-After` in seconds or as an HTTP-date (RFC 9110); before it `Retry-After-Ms` and `X-Ms-Retry-After-Ms`, which are
 * finer.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * HttpThrottle.retryAfter(Headers.fromInput({ "retry-after": "120" }), 0) // [{ from: "retry-after", retryAfter: 120_000 }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const retryAfter: Parser = (headers, now) => {
  for (const from of ["retry-after-ms", "x-ms-retry-after-ms"]) {
    const millis = numberOf(headers[from])
    if (isTime(millis)) return [{ from, retryAfter: millis }]
  }
  const value = headers["retry-after"]?.trim()
  if (value === undefined) return []
  const seconds = numberOf(value)
  const wait = seconds === undefined ? until(value, now) : seconds * 1e3
  return isTime(wait) ? [{ from: "retry-after", retryAfter: wait }] : []
}

const families = ["x-ratelimit-", "x-rate-limit-", "ratelimit-"]

/**
 * Limits in three fields: `X-RateLimit-Remaining` and `X-RateLimit-Reset` (GitHub, GitLab, Discord and most others),
 * `X-Rate-Limit-*` (X), `RateLimit-Remaining` and `RateLimit-Reset` (drafts 0 to 6 of the IETF), each also a bucket at a
 * time, as `X-RateLimit-Remaining-Tokens` (OpenAI).
 *
 * **Details**
 *
 * The reset is in seconds left, in seconds or milliseconds since 1970, a span such as `6m0s`, or a date;
 * `X-RateLimit-Reset-After` is read before it. A bucket without a reset of its own above 0 has that of the family. Spans and
 * dates of more than 64 characters are none.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const headers = Headers.fromInput({ "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s" })
 *
 * HttpThrottle.rateLimitFields(headers, 0) // [{ from: "x-ratelimit-remaining-requests", remaining: 0, reset: 360_000 }]
 * ```
 *
 * @see {@link rateLimit} for the fields of the later drafts
 * @category dialects
 * @since 0.1.0
 */
export const rateLimitFields: Parser = (headers, now) => {
  const names = Object.keys(headers)
  return families.flatMap((family) => {
    const ownNames = names.filter((name) => name.startsWith(family))
    if (ownNames.length === 0) return []
    const resetIn = (what: string) => resetOf(headers[`${family}${what}`], now)
    // Once, and not for each bucket: there may be as many as fit into an answer's head.
    const shared = [resetIn("reset-after"), resetIn("reset")].find(isTime)
    return ownNames.flatMap((name): ReadonlyArray<Limit> => {
      const [, what, bucket = ""] = /^(remaining|reset)(-.+)?$/.exec(name.slice(family.length)) ?? []
      const remaining = `${family}remaining${bucket}`
      // A reset is read with what remains, or alone.
      if (what === undefined || bucket === "-after" || (what === "reset" && remaining in headers)) return []
      const own = bucket === "" ? undefined : resetIn(`reset${bucket}`)
      return limitOf(name, numberOf(headers[remaining]), isTime(own) ? own : shared)
    })
  })
}

const limitOf = (from: string, remaining: number | undefined, reset: number | undefined): ReadonlyArray<Limit> =>
  remaining === undefined && reset === undefined
    ? []
    : [{
      from,
      ...(remaining === undefined ? undefined : { remaining }),
      ...(reset === undefined ? undefined : { reset })
    }]

/**
 * `Anthropic-RateLimit-Requests-Remaining` and `-Reset`, and the same for each kind of tokens; the reset is a date and
 * time by RFC 3339.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const headers = Headers.fromInput({
 *   "anthropic-ratelimit-tokens-remaining": "0",
 *   "anthropic-ratelimit-tokens-reset": "1970-01-01T00:00:30Z"
 * })
 *
 * HttpThrottle.anthropic(headers, 0) // [{ from: "anthropic-ratelimit-tokens-remaining", remaining: 0, reset: 30_000 }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const anthropic: Parser = (headers, now) =>
  Object.keys(headers).flatMap((name) => {
    const [, bucket, what] = /^(anthropic-ratelimit-.+-)(remaining|reset)$/.exec(name) ?? []
    if (bucket === undefined || (what === "reset" && `${bucket}remaining` in headers)) return []
    return limitOf(name, numberOf(headers[`${bucket}remaining`]), resetOf(headers[`${bucket}reset`], now))
  })

/**
 * The structured fields `RateLimit` and `RateLimit-Policy` of the IETF draft: `"default";r=0;t=30` (drafts 8 to 10) and
 * `limit=100, remaining=0, reset=30` (draft 7).
 *
 * **Details**
 *
 * Where `t` is missing, the window `w` of the policy of that name stands for it.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * HttpThrottle.rateLimit(Headers.fromInput({ ratelimit: `"default";r=0;t=30` }), 0)
 * // [{ from: "ratelimit", remaining: 0, reset: 30_000 }]
 * ```
 *
 * @see {@link rateLimitFields} for one field a number
 * @category dialects
 * @since 0.1.0
 */
export const rateLimit: Parser = (headers) => {
  const field = headers["ratelimit"]
  if (field === undefined) return []
  const policies = list(headers["ratelimit-policy"] ?? "") ?? []
  const windowOf = (name: Bare) => parameter(policies.find(({ value }) => value === name), "w")
  const items = list(field)
  if (items !== undefined) {
    return items.flatMap((item) => {
      const remaining = parameter(item, "r")
      // Without what remains it is no item of this field.
      if (remaining === undefined) return []
      return limitOf("ratelimit", remaining, inMillis(parameter(item, "t") ?? windowOf(item.value)))
    })
  }
  const members = dictionary(field)
  const limit = count(members?.get("limit")?.value)
  return limitOf(
    "ratelimit",
    count(members?.get("remaining")?.value),
    inMillis(count(members?.get("reset")?.value) ?? (limit === undefined ? undefined : windowOf(limit)))
  )
}

const count = (value: Bare | undefined): number | undefined =>
  typeof value === "number" && value >= 0 ? value : undefined

const parameter = (item: Item | undefined, name: string): number | undefined => count(item?.parameters.get(name))

const inMillis = (seconds: number | undefined): number | undefined => seconds === undefined ? undefined : seconds * 1e3

/**
 * `X-Shopify-Shop-Api-Call-Limit: 40/40`, how full a leaky bucket is. It empties itself in 20 seconds (40 at 2 per second,
 * 400 at 20), so a full one has a place again after 20 seconds divided by its size.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * HttpThrottle.shopify(Headers.fromInput({ "x-shopify-shop-api-call-limit": "40/40" }), 0)
 * // [{ from: "x-shopify-shop-api-call-limit", remaining: 0, reset: 500 }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const shopify: Parser = (headers) => {
  const from = "x-shopify-shop-api-call-limit"
  const [, used, size] = /^\s*(\d+)\/(\d+)\s*$/.exec(headers[from] ?? "")?.map(Number) ?? []
  if (used === undefined || size === undefined || size === 0) return []
  return [{ from, remaining: Math.max(0, size - used), reset: 20_000 / size }]
}

/**
 * `Stripe-Should-Retry` and `X-Should-Retry`, "true" or "false": whether to send a request again that was refused.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * HttpThrottle.shouldRetry(Headers.fromInput({ "stripe-should-retry": "false" }), 0)
 * // [{ from: "stripe-should-retry", retry: false }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const shouldRetry: Parser = (headers) =>
  ["stripe-should-retry", "x-should-retry"].flatMap((from) => {
    const value = headers[from]?.trim().toLowerCase()
    return value === "true" || value === "false" ? [{ from, retry: value === "true" }] : []
  })

/**
 * The dialects that are read unless told otherwise.
 *
 * @category dialects
 * @since 0.1.0
 */
export const dialects: ReadonlyArray<Parser> = [
  retryAfter,
  rateLimit,
  rateLimitFields,
  anthropic,
  shopify,
  shouldRetry
]

// ---------------------------------------------------------------------------------------------------------------------
// The verdict
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What an answer means for those who send requests.
 *
 * @see {@link read} for where it comes from
 * @category models
 * @since 0.1.0
 */
export interface Verdict {
  /** Whether the request was refused for want of capacity. */
  readonly refused: boolean
  /** Milliseconds for which no request should be sent; 0 where the answer names no time. */
  readonly wait: number
  /** The field that named the wait. */
  readonly from: string | undefined
  /** Whether the server said that it wants the request again, or does not; undefined where it did not say. */
  readonly retry: boolean | undefined
}

/**
 * Reads an answer's limits.
 *
 * **Details**
 *
 * - Refused is a request that is answered by 429 or 503, or by a 403 that says when to come back or that nothing remains
 *   (GitHub).
 * - A refused request waits for what `Retry-After` says; else until the reset of what is used up, or that does not say
 *   what remains.
 * - Whatever the status, where nothing remains and there is a reset, it is waited for. Of several the longest counts.
 * - An answer from a cache (`Age` above 0) tells of the past: its fields are not read.
 *
 * `now` is the client's clock in milliseconds since 1970, used where the answer has no `Date` of its own.
 *
 * **Example**
 *
 * ```ts
 * import { Headers } from "effect/http"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const headers = Headers.fromInput({ "ratelimit-remaining": "0", "ratelimit-reset": "7" })
 *
 * HttpThrottle.read({ status: 200, headers }, 0)
 * // { refused: false, wait: 7_000, from: "ratelimit-remaining", retry: undefined }
 * ```
 *
 * @see {@link dialects} for what is read
 * @category limits
 * @since 0.1.0
 */
export const read = (
  answer: { readonly status: number; readonly headers: Headers.Headers },
  now: number,
  parsers: ReadonlyArray<Parser> = dialects
): Verdict => {
  const { headers, status } = answer
  const isCached = (numberOf(headers["age"]) ?? 0) > 0
  const date = headers["date"]
  const serverNow = (date === undefined ? undefined : instantOf(date.trim())) ?? now
  const limits = isCached ? [] : parsers.flatMap((parser) => readBy(parser, headers, serverNow))

  const said = longest(limits, ({ retryAfter }) => retryAfter)
  const usedUp = longest(limits, ({ remaining, reset }) => remaining !== undefined && remaining < 1 ? reset : undefined)
  const refused = status === 429 || status === 503 || (status === 403 && (said.wait > 0 || usedUp.wait > 0))
  const reset = refused && usedUp.wait === 0
    ? longest(limits, ({ remaining, reset }) => remaining === undefined ? reset : undefined)
    : usedUp
  return {
    ...(refused && said.wait > 0 ? said : reset),
    refused,
    retry: limits.find(({ retry }) => retry !== undefined)?.retry
  }
}

/** A field that its parser cannot bear must not cost the answer that it came with. */
const readBy = (parser: Parser, headers: Headers.Headers, now: number): ReadonlyArray<Limit> =>
  Result.getOrElse(Result.try(() => parser(headers, now)), () => [])

const longest = (
  limits: ReadonlyArray<Limit>,
  waitOf: (limit: Limit) => number | undefined
): { readonly wait: number; readonly from: string | undefined } => {
  let found: { readonly wait: number; readonly from: string | undefined } = { wait: 0, from: undefined }
  for (const limit of limits) {
    const wait = waitOf(limit)
    // What is no number is not greater either.
    if (wait !== undefined && wait > found.wait) found = { wait, from: limit.from }
  }
  return found
}
