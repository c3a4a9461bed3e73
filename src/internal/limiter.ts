/**
 * The state of a limiter: the runtime state of one policy in this process.
 */
import * as Ref from "effect/Ref"
import * as Agenda from "./agenda.ts"
import type { Backend, Host, Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Budget from "./budget.ts"
import * as Caller from "./caller.ts"
import * as Counts from "./counts.ts"
import * as Demand from "./demand.ts"
import type { AnyFiber, Grant, LiveMeter } from "./grant.ts"
import * as List from "./list.ts"
import type * as Metrics from "./metrics.ts"
import type { Wall } from "./part/meter.ts"
import * as Pauses from "./pauses.ts"
import { orderOf, type Plan } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Orders from "./queue/orders.ts"
import type { Newcomer, Queue } from "./queue/queue.ts"
import * as Scheduler from "./scheduler.ts"
import * as Time from "./time.ts"

export interface Limiter extends Host<Limiter> {
  phase: Phase
  readonly wall: Wall
  /** What all meters have charged. */
  readonly charged: Ref.Ref<Budget.Charged>
  queue: Queue<Waiter>
  readonly examined: Examined
  readonly scheduler: Scheduler.Scheduler
  /** The calls that hold permits. */
  readonly holders: List.List<Grant>
  /** The number of calls whose cost may still be settled. */
  unsettled: number
  readonly lateness: Lateness
  readonly simulation: Simulation
  /** The instant of the latest update. */
  updatedAt: number
}

/**
 * - inForce
 * - shadow: every call starts at once.
 * - draining: newcomers are rejected; calls that wait start as in force.
 * - closing: the same, but newcomers are interrupted, since the type of calls has no error.
 * - closed: no call starts.
 */
export type Phase = "inForce" | "shadow" | "draining" | "closing" | "closed"

/** Whether newcomers are refused. */
export const isRefusing = ({ phase }: Pick<Limiter, "phase">): boolean => phase !== "inForce" && phase !== "shadow"

/** The state of a limiter that decisions and estimates read. An idle key of a map has a view without a limiter. */
export type View = Readonly<
  Pick<
    Limiter,
    "plan" | "meters" | "pools" | "one" | "wall" | "charged" | "phase" | "pauses" | "waiters" | "callers" | "queue"
  >
>

/** The latest examination of the head of the queue. */
export interface Examined {
  waiter: Waiter | undefined
  /** Undefined if it has to be decided anew. */
  decision: Budget.Decision | undefined
  /**
   * The instant from which the head's start is counted: the scheduled start of the call before it, so that a late start
   * does not delay the schedule, or the latest change since.
   */
  countFrom: number
}

/**
 * How late the latest start was, and until when that matters.
 *
 * A program that makes one call after the other makes each next call late by the lateness of the previous start, and
 * would fall behind the schedule. Until the lateness tolerance has passed, an arriving call is therefore treated as if
 * it had arrived as much earlier.
 */
export interface Lateness {
  nanos: number
  until: number
}

/** The state of a simulated queue, besides the queue itself. */
export interface Simulation {
  /** Ends, settlements and cancellations that are still to happen in the simulation. */
  readonly agenda: Agenda.Agenda
  /** When permits were released last, or an update may have added some. */
  permitsSince: number
}

export const make = (
  plan: Plan,
  series: Metrics.Series,
  time: Time.Time,
  mayReject: boolean,
  backend: Backend<Limiter>,
  drain: (limiter: Limiter) => boolean,
  watchers?: Counts.Watchers
): Limiter => {
  const waiters = List.make<Waiter>()
  const limiter: Limiter = {
    backend,
    plan,
    meters: plan.meters.map(liveMeter),
    pools: plan.pools.map(Pool.make),
    one: Demand.one(plan),
    time,
    counts: Counts.make(series, watchers),
    pauses: Pauses.none(),
    waiters,
    callers: new Map(),
    bounded: Bounds.deadlines(),
    mayReject,
    phase: plan.shadow ? "shadow" : "inForce",
    wall: time.wall,
    charged: Ref.makeUnsafe(Budget.starting(plan, Time.now(time))),
    queue: makeQueue(plan, waiters, time),
    examined: { waiter: undefined, decision: undefined, countFrom: -Infinity },
    scheduler: Scheduler.make({
      clock: time.clock,
      head: () => parkedHead(limiter),
      drain: () => drain(limiter)
    }),
    holders: List.make(),
    unsettled: 0,
    lateness: { nanos: 0, until: -Infinity },
    simulation: { agenda: Agenda.make(), permitsSince: -Infinity },
    updatedAt: -Infinity,
    afterCall: undefined
  }
  return limiter
}

const makeQueue = (plan: Plan, waiters: List.List<Waiter>, time: Time.Time): Queue<Waiter> =>
  Orders.make(orderOf(plan), waiters, () => Time.now(time))

/** The fiber of the head of the queue, if it is parked. */
const parkedHead = ({ queue }: Limiter): AnyFiber | undefined => {
  const head = queue.peek()
  return head?.resume === undefined ? undefined : head.fiber
}

export const liveMeter = (): LiveMeter => ({ waitingCalls: 0, waitingCost: 0 })

/** Restores the initial state, except for the charges. Only for a limiter that no call uses. */
export const reset = (limiter: Limiter): void => {
  limiter.examined.countFrom = -Infinity
  limiter.lateness.until = -Infinity
  Object.assign(limiter.pauses, Pauses.none())
  // An order remembers how long calls ran.
  if (limiter.queue.ranking !== undefined) limiter.queue = makeQueue(limiter.plan, limiter.waiters, limiter.time)
  Counts.reset(limiter.counts.own)
}

/** Returns the first instant, at or after `now`, that is not in a pause. */
export const afterPause = ({ pauses }: View, now: number): number => Math.max(now, pauses.until)

/** The instant at which a waiting call times out: with a timeout that an update has set not before that update. */
export const timesOutAt = (limiter: Limiter, waiter: Waiter): number =>
  Math.max(Bounds.deadlineOf(limiter.plan, waiter), limiter.updatedAt)

/** A call that the current fiber could make now. */
export const newcomer = (demand: Demand.Demand, now: number, caller = Caller.current()): Newcomer => ({
  arrival: now,
  caller,
  demand
})

/**
 * Whether a call that arrives at `now` could start, if the policy were in force. It overtakes waiting calls only in an
 * order in which it is first.
 */
export const mayStart = (view: View, demand: Demand.Demand, now: number): boolean =>
  (view.waiters.size === 0 || view.queue.ranking?.isFirst(newcomer(demand, now)) === true) &&
  Budget.isReady(Budget.decide(view, view.charged.ref.current, demand, afterPause(view, now)), now)
