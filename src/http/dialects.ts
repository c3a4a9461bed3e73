/**
 * A parser for each dialect that servers speak of limits. Pure functions; a malformed field is ignored.
 */
import { type Bare, dictionary, type Item, list } from "./internal/structured.ts"
import { isTime, numberOf, resetOf, until } from "./internal/values.ts"
import type { Limit, Parser } from "./limits.ts"

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
