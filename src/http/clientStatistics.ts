/**
 * Statistics and metrics of a client.
 */
import * as Metric from "effect/Metric"

/**
 * What a client has learned of one key's server, and what became of its requests. It is remembered while there are requests,
 * and for a minute after the last one, or for the window that the server states.
 *
 * @see {@link Throttled} for where it comes from
 * @category models
 * @since 0.2.0
 */
export interface KeyStatistics {
  /** Requests a second that are started at most, apart from the policy's own limits; Infinity while no rate was learned. */
  readonly rate: number
  /** Whether the server's limit refills continuously, or all at once at the end of a window, as far as it is known. */
  readonly limit: "bucket" | "window" | "unknown"
  /** What is left of the server's limit, by its fields; Infinity while it states nothing. Below 0 after too many were sent. */
  readonly remaining: number
  /** Requests that wait for what was learned; those that wait for the policy are its throttle's. */
  readonly waiting: number
  /** Requests that have been sent and have no answer yet; 0 with `adapt: false`. */
  readonly running: number
  /** Answers that refused a request. */
  readonly refused: number
  /** Requests that were sent again. */
  readonly repeated: number
  /** Requests that the retry budget did not let be sent again. */
  readonly denied: number
}

/**
 * The metrics of clients, beside those of their throttles.
 *
 * **Details**
 *
 * `throttle_learned_rate` is a gauge: requests a second that a server allows, as estimated last, with the attributes
 * `throttle` and `key`. It has a series for each key whose limit was learned, of the first 1,000 of a client. `throttle_refused_total` counts answers that
 * refused a request, with the attributes `throttle` and `status`. `throttle_retries_denied_total` counts requests that the
 * retry budget did not let be sent again, with the attribute `throttle`.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const github = Metric.withAttributes(HttpThrottle.metrics.learnedRate, { throttle: "http", key: "https://api.example" })
 *
 * const program = Effect.map(Metric.value(github), ({ value }) => `${value} per second`)
 * ```
 *
 * @see {@link KeyStatistics} for the numbers of one key
 * @category observation
 * @since 0.2.0
 */
export const metrics = {
  learnedRate: Metric.gauge("throttle_learned_rate", {
    description: "Requests a second that a server allows, as estimated last"
  }),
  refused: Metric.counter("throttle_refused_total", {
    description: "Answers that refused a request",
    incremental: true
  }),
  retriesDenied: Metric.counter("throttle_retries_denied_total", {
    description: "Requests that the retry budget did not let be sent again",
    incremental: true
  })
} as const
