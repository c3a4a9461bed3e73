/** The numbers of a simulation. */
import type { Outcome, Refusal, Result } from "./run.ts"
import * as Series from "./series.ts"

/**
 * The numbers of a simulation. Times are milliseconds.
 *
 * @see {@link summary} for where they come from
 * @category models
 * @since 0.1.0
 */
export interface Summary {
  /** All that arrived. */
  readonly calls: number
  /** Those that started; each of the others was refused, interrupted while it waited, or waits for ever. */
  readonly started: number
  /** Those that were refused, by reason; a reason that did not occur is 0. */
  readonly refused: Readonly<Record<Refusal, number>>
  /** Those that were interrupted, while they waited or ran. */
  readonly interrupted: number
  /** From the first arrival until all was over. */
  readonly duration: number
  /** Starts per second, over the whole duration; 0 if that is 0. */
  readonly throughput: number
  /** How long those that started waited; all 0 if none did. Percentiles by nearest rank. */
  readonly wait: {
    readonly mean: number
    readonly p50: number
    readonly p90: number
    readonly p99: number
    readonly max: number
  }
  /** The most that waited at once. */
  readonly longestLine: number
  /** The most that ran at once; calls that take no time are not counted. */
  readonly mostRunning: number
}

/**
 * Adds up what happened.
 *
 * **Details**
 *
 * A line or a number of running calls counts if it lasted: of two calls that change places at one instant one is counted.
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
 * @see {@link text} for the same as a picture in the terminal
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
      PermitsExceedCapacity: ended("PermitsExceedCapacity")
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
