/**
 * The order in which waiting calls start.
 *
 * A limiter keeps its waiters in a list by arrival. The queue chooses the head: the only one that may start.
 */
import type { Caller } from "../caller.ts"
import type { Demand } from "../demand.ts"

export interface Queue<W> {
  /** The waiter that starts next; undefined if no call waits. */
  readonly peek: () => W | undefined
  /** Adds a call that begins to wait. */
  readonly push: (waiter: W) => void
  /** Removes a waiter that started (`hasStarted`), was rejected or was interrupted. */
  readonly remove: (waiter: W, hasStarted: boolean) => void
  /** Undefined if calls start in the order in which they arrived. */
  readonly ranking: Ranking<W> | undefined
}

/** What an order has in addition if a call may start before one that arrived earlier. */
export interface Ranking<in out W> {
  /** Whether a call that arrives now would be the head. */
  readonly isFirst: (newcomer: Newcomer) => boolean
  /** The waiting calls that start before a call that arrives now, in order, if no other call comes. */
  readonly before: (newcomer: Newcomer) => Iterable<W>
  /** Chooses the head anew, since ranks may change as time passes. */
  readonly refresh: () => void
  /** The instant at which the head may be another one by the passage of time alone; Infinity if it stays. */
  readonly changesAt: () => number
  /** A call that started from this queue has ended. */
  readonly ended: (call: W) => void
  /** The cost of such a call was settled. */
  readonly settled: (call: W, actual: Demand) => void
  /** Such a call was cancelled. */
  readonly cancelled: (call: W) => void
  /** The demands of the waiting calls are those of another plan. */
  readonly replanned: () => void
  /** By how many nanoseconds of the whole throttle callers have used more than their share. */
  readonly ahead: () => Iterable<readonly [key: string, nanos: number]>
  /** Whether the past no longer affects the order of calls that are still to come. */
  readonly isSettled: () => boolean
}

/** A call that arrives, as an order sees it. */
export interface Newcomer {
  readonly arrival: number
  caller: Caller
  demand: Demand
}

/** A waiting call, as an order sees it. */
export interface Queued extends Newcomer {
  /** Whether something may be charged or returned after its start. */
  readonly settlement: unknown
  /** What its queue keeps of it; undefined once it need not be told of the call any more. */
  place: unknown
}
