/**
 * What an answer means for those who send requests: fields in, waits out. Pure functions.
 */
import type * as Headers from "effect/http/Headers"
import * as Result from "effect/Result"
import { dialects } from "./dialects.ts"
import { instantOf, numberOf } from "./internal/values.ts"
import type { Limit, Parser } from "./limits.ts"

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
