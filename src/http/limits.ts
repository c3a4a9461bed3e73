/**
 * What an answer's fields say of one limit, and what reads them.
 */
import type * as Headers from "effect/http/Headers"

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
