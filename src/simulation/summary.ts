/** The numbers of a simulation. */
import type { Outcome, Refusal, Result } from "./run.ts"
import * as Series from "./series.ts"

/**
 * The numbers of a simulation. Times are milliseconds.
 *
 * @see {@link summary}, which returns them
 * @category models
 * @since 0.1.0
 */
export interface Summary {
  /** The number of calls that arrived. */
  readonly calls: number
  /** The number of calls that started. Each other call was rejected, interrupted while it waited, or waits for ever. */
  readonly started: number
  /** The numbers of rejected calls by reason; 0 for a reason that did not occur. */
  readonly refused: Readonly<Record<Refusal, number>>
  /** The number of calls that were interrupted while they waited or ran. */
  readonly interrupted: number
  /** The time from the first arrival to the last event. */
  readonly duration: number
  /** Starts per second, over the whole duration; 0 if that is 0. */
  readonly throughput: number
  /** The waits of calls that started; all 0 if none did. Percentiles by nearest rank. */
  readonly wait: {
    readonly mean: number
    readonly p50: number
    readonly p90: number
    readonly p99: number
    readonly max: number
  }
  /** The maximum number of waiting calls. */
  readonly longestLine: number
  /** The maximum number of running calls; calls that take no time do not count. */
  readonly mostRunning: number
}

/**
 * Computes the numbers of a simulation.
 *
 * **Details**
 *
 * Of two calls of which one ends and the other starts at the same instant, one counts as running at that instant.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.poisson({ rate: 9, duration: "1 hour" })
 * const { wait } = Simulation.summary(Simulation.run(Throttle.rate({ limit: 10 }), calls))
 *
 * console.log(`at 90 % load one of ten waits longer than ${wait.p90} ms`)
 * ```
 *
 * @see {@link text} for a picture in the terminal
 * @category reading
 * @since 0.1.0
 */
export const summary = (result: Result): Summary => {
  const { calls } = result
  const waits = calls.filter(({ start }) => start !== undefined).map(({ wait }) => wait).toSorted((a, b) => a - b)
  const rank = (share: number) => waits[Math.max(0, Math.ceil(share * waits.length) - 1)] ?? 0
  const over = calls.reduce((latest, { end = 0 }) => Math.max(latest, end), 0)
  const duration = Math.max(0, over - (calls[0]?.arrival ?? 0))
  const ended = (outcome: Outcome) => calls.reduce((n, call) => call.outcome === outcome ? n + 1 : n, 0)
  return {
    calls: calls.length,
    started: waits.length,
    refused: {
      QueueFull: ended("QueueFull"),
      WaitTooLong: ended("WaitTooLong"),
      TimedOut: ended("TimedOut"),
      PermitsExceedCapacity: ended("PermitsExceedCapacity"),
      Draining: ended("Draining")
    },
    interrupted: ended("interrupted"),
    duration,
    throughput: duration === 0 ? 0 : waits.length / duration * 1_000,
    wait: {
      mean: waits.length === 0 ? 0 : waits.reduce((sum, wait) => sum + wait, 0) / waits.length,
      p50: rank(0.5),
      p90: rank(0.9),
      p99: rank(0.99),
      max: waits.at(-1) ?? 0
    },
    longestLine: Series.highest(Series.waiting(result)),
    mostRunning: Series.highest(Series.running(result))
  }
}
