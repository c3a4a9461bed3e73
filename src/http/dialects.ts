/**
 * A parser for each dialect that servers speak of limits. Pure functions; a malformed field is ignored.
 */
import type * as Headers from "effect/http/Headers"
import { type Bare, dictionaries, type Item, list } from "./internal/structured.ts"
import { isTime, largest, numberOf, resetsOf, until, valuesOf } from "./internal/values.ts"
import type { Limit, Parser } from "./limits.ts"
import { refusalBodies } from "./refusalBodies.ts"

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
  const found = waits.flatMap((from) => {
    if (headers[from] === undefined) return []
    const wait = largest(
      valuesOf(headers[from]).map((value) => {
        const number = numberOf(value)
        if (from !== "retry-after") return number
        return number === undefined ? until(value, now) : number * 1e3
      })
    )
    return wait === undefined ? [] : [{ from, retryAfter: Math.max(0, wait) }]
  })
  // A time of 0 is still a word on limits.
  const [first] = found
  const best = found.find(({ retryAfter }) => isTime(retryAfter)) ?? first
  return best === undefined ? [] : [best]
}

/** The finer ones first. */
const waits = ["retry-after-ms", "x-ms-retry-after-ms", "retry-after"]

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
    const resetsIn = (what: string) => resetsOf(headers[`${family}${what}`], now)
    // Once, and not for each bucket: there may be as many as fit into an answer's head.
    const shared = firstTimes(resetsIn("reset-after"), resetsIn("reset"))
    return ownNames.flatMap((name): ReadonlyArray<Limit> => {
      const [, what, bucket = ""] = /^(remaining|reset)(-.+)?$/.exec(name.slice(family.length)) ?? []
      const remaining = `${family}remaining${bucket}`
      // A reset is read with what remains, or alone.
      if (what === undefined || bucket === "-after" || (what === "reset" && remaining in headers)) return []
      const quota = numbersOf(headers[`${family}limit${bucket}`])
      return limitsOf(name, {
        remaining: numbersOf(headers[remaining]),
        reset: bucket === "" ? shared : firstTimes(resetsIn(`reset${bucket}`), shared),
        quota,
        window: family === "ratelimit-" ? quota.map(windowOf(headers)) : [],
        unit: bucket.slice(1)
      })
    })
  })
}

type Values = ReadonlyArray<number | undefined>

const numbersOf = (text: string | undefined): Values => valuesOf(text).map(numberOf)

/** The first that names a time above 0, or else the first that names any. */
const firstTimes = (first: Values, second: Values): Values =>
  [first, second].find((times) => times.some(isTime)) ?? (first.length > 0 ? first : second)

/**
 * One limit for each hop that has written its fields. Where the hops of two fields cannot be matched, the worst
 * of each: the least that remains, and the latest reset.
 */
const limitsOf = (from: string, fields: {
  readonly remaining: Values
  readonly reset: Values
  readonly quota?: Values
  readonly window?: Values
  readonly unit?: string | undefined
}): ReadonlyArray<Limit> => {
  const { quota = [], remaining, reset, window = [] } = fields
  const unit = fields.unit === "" || fields.unit === "requests" ? undefined : fields.unit
  const hops = Math.max(remaining.length, reset.length)
  if (remaining.length !== reset.length && remaining.length > 1 && reset.length > 1) {
    const least = remaining.filter((value) => value !== undefined)
    return limitOf({
      from,
      remaining: least.length === 0 ? undefined : Math.min(...least),
      reset: largest(reset),
      unit
    })
  }
  const at = (values: Values, i: number) => values.length === 1 ? values[0] : values[i]
  return Array.from({ length: hops }, (_, i) =>
    limitOf({
      from,
      remaining: at(remaining, i),
      reset: at(reset, i),
      quota: quota.length === hops ? quota[i] : undefined,
      window: window.length === hops ? window[i] : undefined,
      unit
    })).flat()
}

/** Without what is not known. One by one, since this is done for every answer that has fields. */
const limitOf = (known: Limit): ReadonlyArray<Limit> => {
  const { from, quota, remaining, reset, unit, window } = known
  if (remaining === undefined && reset === undefined) return []
  const limit: { -readonly [K in keyof Limit]: Limit[K] } = { from }
  if (remaining !== undefined) limit.remaining = remaining
  if (reset !== undefined) limit.reset = reset
  if (quota !== undefined) limit.quota = quota
  if (window !== undefined) limit.window = window
  if (unit !== undefined) limit.unit = unit
  return [limit]
}

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
 * HttpThrottle.anthropic(headers, 0)
 * // [{ from: "anthropic-ratelimit-tokens-remaining", remaining: 0, reset: 30_000, unit: "tokens" }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const anthropic: Parser = (headers, now) =>
  Object.keys(headers).flatMap((name) => {
    const [, bucket, unit, what] = /^(anthropic-ratelimit-(.+)-)(remaining|reset)$/.exec(name) ?? []
    if (bucket === undefined || (what === "reset" && `${bucket}remaining` in headers)) return []
    return limitsOf(name, {
      remaining: numbersOf(headers[`${bucket}remaining`]),
      reset: resetsOf(headers[`${bucket}reset`], now),
      quota: numbersOf(headers[`${bucket}limit`]),
      unit
    })
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
  const items = list(field)
  if (items !== undefined) {
    const policies = list(headers["ratelimit-policy"] ?? "") ?? []
    return items.flatMap((item) => {
      const remaining = parameter(item, "r")
      // Without what remains it is no item of this field.
      if (remaining === undefined) return []
      const policy = policies.find(({ value }) => value === item.value)
      const window = inMillis(parameter(policy, "w"))
      const unit = policy?.parameters.get("qu")
      return limitsOf("ratelimit", {
        remaining: [remaining],
        reset: [inMillis(parameter(item, "t")) ?? window],
        quota: [parameter(policy, "q")],
        window: [window],
        unit: typeof unit === "string" ? unit : undefined
      })
    })
  }
  const window = windowOf(headers)
  return (dictionaries(field) ?? []).flatMap((members) => {
    const numberIn = (name: string) => count(members.get(name)?.value)
    const quota = numberIn("limit")
    return limitsOf("ratelimit", {
      remaining: [numberIn("remaining")],
      reset: [inMillis(numberIn("reset")) ?? window(quota)],
      quota: [quota],
      window: [window(quota)]
    })
  })
}

/** The window that `RateLimit-Policy` states for a quota, up to draft 7: `100;w=60`. */
const windowOf = (headers: Headers.Headers) => {
  const policies = list(headers["ratelimit-policy"] ?? "") ?? []
  return (quota: number | undefined): number | undefined =>
    quota === undefined ? undefined : inMillis(parameter(policies.find(({ value }) => value === quota), "w"))
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
 * // [{ from: "x-shopify-shop-api-call-limit", remaining: 0, reset: 500, quota: 40, window: 20_000 }]
 * ```
 *
 * @category dialects
 * @since 0.1.0
 */
export const shopify: Parser = (headers) => {
  const from = "x-shopify-shop-api-call-limit"
  return valuesOf(headers[from]).flatMap((value) => {
    const [, used, size] = /^(\d+)\/(\d+)$/.exec(value)?.map(Number) ?? []
    if (used === undefined || size === undefined || size === 0) return []
    return [{
      from,
      remaining: Math.max(0, size - used),
      reset: shopifyWindow / size,
      quota: size,
      window: shopifyWindow
    }]
  })
}

const shopifyWindow = 20_000

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
    if (headers[from] === undefined) return []
    const values = valuesOf(headers[from].toLowerCase())
    const said = ["false", "true"].find((word) => values.includes(word))
    return said === undefined ? [] : [{ from, retry: said === "true" }]
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
  shouldRetry,
  refusalBodies
]
