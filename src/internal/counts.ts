/**
 * Counts the calls of a throttle: in its own numbers, and in those of all throttles of its name, which metrics read.
 * Nothing else changes them.
 */
import * as Duration from "effect/Duration"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Metrics from "./metrics.ts"

export interface Counts {
  readonly own: Own
  readonly series: Metrics.Series
  readonly watchers: Watchers
}

/**
 * The functions that run whenever a call begins or ends to wait or to hold permits. They run within the step of that
 * change, so they must run no code of users.
 */
export type Watchers = Array<() => void>

export interface Own extends Metrics.Counters {
  /** The total wait of all admitted calls, and the longest, in nanoseconds. */
  waited: number
  longestWait: number
}

/** @see Throttle.CallerStatistics */
export interface CallerStatistics {
  /** Calls of this caller that wait now. */
  readonly waiting: number
  /**
   * By how much the caller has used more than its share, in time of the whole throttle. The caller for which this is
   * least, of those that wait, is next. Zero in any other order than "fair".
   */
  readonly ahead: Duration.Duration
}

/** @see Throttle.Statistics */
export interface Statistics {
  /** Calls admitted. */
  readonly admitted: number
  /** Calls rejected, by reason. */
  readonly rejected: { readonly [R in Metrics.Rejection]: number }
  /** Calls interrupted while they waited. */
  readonly interrupted: number
  /** Calls waiting now. */
  readonly waiting: number
  /** Calls holding permits now; 0 for policies that decide by time alone. */
  readonly running: number
  /** The total wait of all admitted calls. */
  readonly waited: Duration.Duration
  /** The longest of these waits. */
  readonly longestWait: Duration.Duration
  /**
   * The callers that wait and, in the order "fair", those that have used more than their share lately, by key. Absent if
   * the policy does not distinguish callers.
   */
  readonly callers?: ReadonlyMap<string, CallerStatistics>
}

export const none = (): Own => ({ ...Metrics.counters(), waited: 0, longestWait: 0 })

export const make = (series: Metrics.Series, watchers: Watchers = []): Counts => ({
  own: none(),
  series,
  watchers
})

/** Runs the watchers after a change of the calls that wait or hold permits. */
export const changed = ({ watchers }: Counts): void => {
  if (watchers.length > 0) { for (const look of watchers.slice()) look() }
}

export const admitted = ({ own, series }: Counts, holdsPermits: boolean): void => {
  own.admitted++
  series.admitted++
  if (!holdsPermits) return
  own.running++
  series.running++
}

export const released = (counts: Counts): void => {
  counts.own.running--
  counts.series.running--
  changed(counts)
}

/** Counts a call that begins to wait (1) or ends its wait (-1). */
export const waiting = (counts: Counts, change: 1 | -1): void => {
  counts.own.waiting += change
  counts.series.waiting += change
  changed(counts)
}

export const waited = ({ own, series }: Counts, nanos: number): void => {
  own.waited += nanos
  own.longestWait = Math.max(own.longestWait, nanos)
  Metrics.addWait(series.waits, nanos / 1e9)
}

/** Counts a rejection. A failure of a store is none. */
export const rejected = ({ own, series }: Counts, reason: ThrottleError["reason"]["_tag"]): void => {
  if (!Object.hasOwn(own.rejected, reason)) return
  own.rejected[reason as Metrics.Rejection]++
  series.rejected[reason as Metrics.Rejection]++
}

export const interrupted = ({ own, series }: Counts): void => {
  own.interrupted++
  series.interrupted++
}

/**
 * Adds the numbers of one throttle to a sum. Field by field, since a loop over the reasons took a sixth of the time of
 * a keyed call.
 */
export const add = (sum: Own, one: Own): void => {
  sum.admitted += one.admitted
  sum.interrupted += one.interrupted
  sum.waiting += one.waiting
  sum.running += one.running
  sum.waited += one.waited
  sum.longestWait = Math.max(sum.longestWait, one.longestWait)
  sum.rejected.QueueFull += one.rejected.QueueFull
  sum.rejected.WaitTooLong += one.rejected.WaitTooLong
  sum.rejected.TimedOut += one.rejected.TimedOut
  sum.rejected.PermitsExceedCapacity += one.rejected.PermitsExceedCapacity
  sum.rejected.Draining += one.rejected.Draining
}

/** Sets the numbers to 0, except for calls that wait or hold permits. */
export const reset = (own: Own): void => {
  own.admitted = 0
  own.interrupted = 0
  own.waited = 0
  own.longestWait = 0
  own.rejected.QueueFull = 0
  own.rejected.WaitTooLong = 0
  own.rejected.TimedOut = 0
  own.rejected.PermitsExceedCapacity = 0
  own.rejected.Draining = 0
}

export const statistics = ({ longestWait, rejected, waited, ...counters }: Own): Statistics => ({
  ...counters,
  rejected: { ...rejected },
  waited: Duration.millis(waited / 1e6),
  longestWait: Duration.millis(longestWait / 1e6)
})
