/**
 * The model of one limit as an answer states it, and of what reads it.
 */
import type * as Headers from "effect/http/Headers"

/**
 * What an answer says of one limit. Times are milliseconds from now.
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
  /** How much the limit allows in its `window`. */
  readonly quota?: number | undefined
  /** The time that the `quota` is for. */
  readonly window?: number | undefined
  /** What is counted, such as "tokens". Absent where requests are. */
  readonly unit?: string | undefined
  /** Until a request that was refused may be sent again. Counts on a refusal alone, and there before any `reset`. */
  readonly retryAfter?: number | undefined
  /** Whether the server wants the request to be sent again at all. True makes a refusal of any answer from 400 on. */
  readonly retry?: boolean | undefined
  /** True where an answer from 400 on says that it refuses for want of capacity, whatever its status. */
  readonly refused?: boolean | undefined
}

/**
 * What a parser may look at besides the headers.
 *
 * @see {@link Parser} for what is given it
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  /** The status code. */
  readonly status: number
  /**
   * The first 8 KiB of the body, as text. It is read only if a parser looks at this property, only of an answer from 400 on
   * that names no time otherwise, and for 1 second at most; undefined until then, and where there is no body. The
   * caller of the request still reads the body from its beginning.
   */
  readonly body: string | undefined
}

/**
 * Reads one dialect of limits from an answer.
 *
 * **Details**
 *
 * `now` is the server's clock in milliseconds since 1970: its `Date` field, or where there is none the client's clock. So
 * instants that the server names are measured by the server's own clock. A pure function, which may be called more than once
 * for an answer; for fields that are absent or malformed it returns an empty array. Of times only numbers above 0 are waited
 * for. What a parser that throws would have read is ignored.
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
export type Parser = (headers: Headers.Headers, now: number, answer?: Answer) => ReadonlyArray<Limit>
