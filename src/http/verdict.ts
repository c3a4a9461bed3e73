/**
 * What an answer means for those who send requests: fields in, waits out. Pure functions.
 */
import type * as Headers from "effect/http/Headers"
import { dialects } from "./dialects.ts"
import { readAnswer } from "./internal/reading.ts"
import type { Parser } from "./limits.ts"
import { type Refusal, statuses } from "./refusals.ts"

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
 * - Refused is a request whose status is one of `byStatus` ({@link statuses}), or whose answer says so otherwise: a 403 that
 *   says when to come back or that nothing remains (GitHub), or a parser's `refused` or `retry`.
 * - A refused request waits for what `Retry-After` says; else until the reset of what is used up, or that does not say
 *   what remains.
 * - Whatever the status, where nothing remains and there is a reset, it is waited for. Of several the longest counts.
 * - An answer from a cache (`Age` above 0) tells of the past: its fields are not read.
 *
 * `now` is the client's clock in milliseconds since 1970, used where the answer has no `Date` of its own. `body` is as much of
 * the body as parsers shall see.
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
  answer: { readonly status: number; readonly headers: Headers.Headers; readonly body?: string | undefined },
  now: number,
  parsers: ReadonlyArray<Parser> = dialects,
  byStatus: Readonly<Record<number, Refusal>> = statuses
): Verdict => {
  const { from, refusal, retry, wait } = readAnswer(answer, { parsers, statuses: byStatus }, now)
  return { refused: refusal !== undefined, wait, from, retry }
}
