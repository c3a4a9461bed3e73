/**
 * Simulates the queue of a policy in shadow, to count what the policy would have done.
 *
 * Every call in shadow runs at once. In the simulation a call that would have waited stands in the queue, starts when
 * the policy would have started it, and ends after it has run as long as it really ran. The simulation needs no timer:
 * whenever the limiter is used or changed, {@link advance} first simulates the time since the last use. Events after a
 * simulated start are in the agenda ({@link after}).
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Agenda from "./agenda.ts"
import type { Call, Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Budget from "./budget.ts"
import * as Caller from "./caller.ts"
import * as Commit from "./commit.ts"
import * as Counts from "./counts.ts"
import * as Demand from "./demand.ts"
import * as Errors from "./errors.ts"
import * as Estimate from "./estimate.ts"
import { type AnyFiber, type Grant, noGrant } from "./grant.ts"
import * as Head from "./head.ts"
import { type Limiter, mayStart, timesOutAt } from "./limiter.ts"
import * as List from "./list.ts"
import * as Observe from "./observe.ts"
import * as Reentry from "./reentry.ts"
import * as Time from "./time.ts"
import * as Waiters from "./waiter.ts"

/** A simulated call. Its effect runs whatever happens to it here. */
interface Simulated extends Waiter {
  /** What its events are read by, from its arrival on: a fiber that has ended has no context any more. */
  readonly source: Source
  /** The instant of its simulated start. */
  wouldStartAt: number
  /**
   * Events that happened while it was still waiting in the simulation: each with the nanoseconds since its real start,
   * and to happen as long after its simulated start.
   */
  readonly later: Array<{ readonly nanos: number; readonly action: (at: number) => void }>
}

interface Source extends Observe.Source {
  readonly context: AnyFiber["context"]
}

const sourceOf = ({ cache, context }: AnyFiber): Source => ({
  cache,
  context,
  getRef: (reference) => Context.get(context, reference)
})

export const isSimulated = (grant: Grant): grant is Simulated => "later" in grant

/** Maximum number of simulated waiters if `maxQueue` sets none. Further calls count as admitted. */
const mostWaiting = 10_000

// ---------------------------------------------------------------------------------------------------------------------
// The passage of time
// ---------------------------------------------------------------------------------------------------------------------

/** Simulates the time until now. At one instant, ends come first, then starts, then timeouts. */
export const advance = (limiter: Limiter, now: number): void => {
  if (limiter.phase !== "shadow") return
  const { counts, simulation, simulation: { agenda }, waiters } = limiter
  for (;;) {
    const head = simulatedHead(limiter)
    const decision = head && Head.examine(limiter, head, simulation.permitsSince)
    const readyAt = decision?._tag === "ReadyAt" ? decision.at : Infinity
    const endsAt = head === undefined ? Infinity : timesOutAt(limiter, head)
    const next = agenda.heap[0]?.at ?? Infinity
    const first = Math.min(readyAt, endsAt, next)
    if (first > now + Budget.tolerance || first === Infinity) break
    if (next <= first + Budget.tolerance) act(Agenda.next(agenda)!)
    else if (readyAt <= Bounds.deadlineOf(limiter.plan, head!) + Budget.tolerance) startWaiter(limiter, head!, readyAt)
    else reject(limiter, head!, () => Errors.timedOut(limiter, head!, endsAt), endsAt)
  }
  if (waiters.size === 0 && agenda.heap.length === 0) counts.series.outdated.delete(limiter)
}

/** Makes each metrics snapshot simulate the time until then, while there is anything to simulate. */
const refreshBeforeSnapshots = (limiter: Limiter): void => {
  limiter.counts.series.outdated.set(limiter, () => advance(limiter, Time.now(limiter.time)))
}

const act = ({ action, at }: Agenda.Entry, until = Infinity): void => action!(Math.min(at, until))

/** Does at once everything that is still on the agenda. */
const finish = ({ simulation: { agenda } }: Limiter, now: number): void => {
  for (let entry = Agenda.next(agenda); entry !== undefined; entry = Agenda.next(agenda)) act(entry, now)
}

/**
 * The head of the queue if it is simulated. A call that waited when the policy went into shadow is not: it starts by
 * itself, in one of the next steps.
 */
const simulatedHead = (limiter: Limiter): Simulated | undefined => {
  const head = limiter.queue.peek()
  return head !== undefined && isSimulated(head) ? head : undefined
}

const startWaiter = (limiter: Limiter, call: Simulated, at: number): void => {
  call.wouldStartAt = at
  Commit.startWaiter(limiter, call, at, at)
  for (const { action, nanos } of call.later) {
    Agenda.enter(limiter.simulation.agenda, at + nanos, action)
  }
  notifyEnd(limiter, call, "Admitted", at)
}

/** Rejects a simulated waiter. */
export const reject = (limiter: Limiter, call: Simulated, error: () => ThrottleError, at: number): void => {
  leave(limiter, call, at)
  notify(call, Waiters.notifyRejection(limiter, call.source, call.demand, error(), (at - call.arrival) / 1e6))
}

const leave = (limiter: Limiter, call: Simulated, at: number): void => {
  call.state = "left"
  if (limiter.queue.peek() === call) limiter.examined.countFrom = Math.max(limiter.examined.countFrom, at)
  Commit.dequeue(limiter, call, false)
}

/** Runs a notice in a fiber of its own, since the call does not wait for an observer, and may have ended. */
const notify = ({ source }: Simulated, notice: Effect.Effect<void> | undefined): void => {
  if (notice !== undefined) Effect.runForkWith(source.context)(notice)
}

const notifyEnd = (limiter: Limiter, call: Simulated, tag: "Admitted" | "Interrupted", at: number): void =>
  notify(
    call,
    Observe.notify(call.source, tag, () => ({
      _tag: tag,
      ...about(limiter, call),
      waited: (at - call.arrival) / 1e6
    }))
  )

const about = ({ plan }: Limiter, { demand, source }: Simulated) => ({
  throttle: plan.name,
  policy: plan.description,
  cost: demand.cost,
  ...Caller.fields(source.getRef(Caller.Caller)),
  shadow: true as const
})

// ---------------------------------------------------------------------------------------------------------------------
// Calls that arrive
// ---------------------------------------------------------------------------------------------------------------------

/** Simulates a call that arrives. Its effect starts now in any case. */
export const start = (limiter: Limiter, call: Call): Grant => {
  const now = Time.now(limiter.time)
  advance(limiter, now)
  const { demand, fiber } = call
  const isReady = mayStart(limiter, demand, now)
  // In force the call would not have run, which is not counted.
  if (call.ifAvailable && !isReady && demand.exceeds === undefined) return noGrant
  const simulated: Simulated = {
    ...Waiters.make(limiter, call, now),
    wouldStartAt: Infinity,
    later: [],
    source: sourceOf(fiber)
  }
  if (isReady) {
    startAtOnce(limiter, simulated, now)
    return demand.holdsPermits || call.settlement !== undefined ? simulated : noGrant
  }
  const reason = Errors.reasonOf(limiter, demand, now)
  if (reason !== undefined) {
    const error = Errors.make(limiter, demand, now, reason)
    notify(simulated, Waiters.notifyRejection(limiter, fiber, demand, error, 0))
    return noGrant
  }
  const { maxQueue, timeout } = limiter.plan
  const own = timeout === Infinity ? Reentry.ownPool(limiter, call) : undefined
  if (own?.part.onReentry === "bypass") {
    Counts.admitted(limiter.counts, false)
    return noGrant
  }
  if (maxQueue === Infinity && limiter.waiters.size >= mostWaiting) {
    Counts.admitted(limiter.counts, false)
    return noGrant
  }
  const notice = Observe.notify(fiber, "Waiting", () => {
    const expected = Estimate.reportedWait(limiter, demand, now)
    return {
      _tag: "Waiting",
      ...about(limiter, simulated),
      queued: limiter.waiters.size + 1,
      ...(expected === undefined ? undefined : { expected: expected / 1e6 })
    }
  })
  Commit.enqueue(limiter, simulated)
  refreshBeforeSnapshots(limiter)
  notify(simulated, notice)
  return simulated
}

const startAtOnce = (limiter: Limiter, call: Simulated, now: number): void => {
  call.state = "started"
  call.wouldStartAt = now
  Commit.charge(limiter, call.demand, now, now, call.settlement)
  Commit.takePermits(limiter, call.demand)
  if (call.demand.holdsPermits) List.add(limiter.holders, call)
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls that run
// ---------------------------------------------------------------------------------------------------------------------

/** Schedules an event as long after the simulated start as it now is after the real one. */
const after = (limiter: Limiter, call: Simulated, action: (at: number) => void): void => {
  const now = Time.now(limiter.time)
  advance(limiter, now)
  if (call.state === "left") return
  const nanos = now - call.arrival
  if (call.state === "waiting") call.later.push({ nanos, action })
  else if (limiter.phase !== "shadow") action(now)
  else {
    Agenda.enter(limiter.simulation.agenda, call.wouldStartAt + nanos, action)
    refreshBeforeSnapshots(limiter)
    advance(limiter, now)
  }
}

/**
 * Simulates the end of a call whose effect has really ended. A call that was interrupted, and still waits in the
 * simulation, is interrupted there while it waits.
 */
export const end = (
  limiter: Limiter,
  call: Simulated,
  exit: Exit.Exit<unknown, unknown>,
  isCharged: boolean
): void => {
  advance(limiter, Time.now(limiter.time))
  if (call.state === "waiting" && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) {
    return interrupt(limiter, call)
  }
  after(limiter, call, (at) => {
    if (call.settlement !== undefined) Commit.close(limiter, call)
    if (call.demand.holdsPermits) Commit.release(limiter, call, isCharged, at)
    limiter.simulation.permitsSince = at
  })
}

const interrupt = (limiter: Limiter, call: Simulated): void => {
  const now = Time.now(limiter.time)
  leave(limiter, call, now)
  Counts.interrupted(limiter.counts)
  notifyEnd(limiter, call, "Interrupted", now)
}

export const settle = (limiter: Limiter, call: Simulated, actual: Demand.Demand): void =>
  after(limiter, call, (at) => {
    // An update may have come since.
    Commit.settle(limiter, call, Demand.forPlan(limiter.plan, actual), at)
    Head.forgetDecision(limiter, at)
  })

export const cancel = (limiter: Limiter, call: Simulated): void =>
  after(limiter, call, (at) => {
    Commit.cancel(limiter, call, at)
    Head.forgetDecision(limiter, at)
  })

// ---------------------------------------------------------------------------------------------------------------------
// Changes of the policy
// ---------------------------------------------------------------------------------------------------------------------

const waiting = (limiter: Limiter): ReadonlyArray<Simulated> =>
  Array.from(List.values(limiter.waiters)).filter(isSimulated)

/**
 * Ends the simulation when an update puts the policy in force. Simulated waiters, which really run, become running
 * calls and count as admitted. Calls that have really ended release what they hold.
 */
export const putInForce = (limiter: Limiter, now: number): void => {
  advance(limiter, now)
  finish(limiter, now)
  for (const call of waiting(limiter)) {
    leave(limiter, call, -Infinity)
    call.state = "started"
    call.wouldStartAt = call.arrival
    if (call.settlement !== undefined) limiter.unsettled++
    Commit.takePermits(limiter, call.demand)
    if (call.demand.holdsPermits) List.add(limiter.holders, call)
    for (const { action } of call.later) action(now)
  }
  limiter.counts.series.outdated.delete(limiter)
}

/** Rejects the simulated waiters that the new plan can never grant. */
export const rejectExcessive = (limiter: Limiter, now: number): void => {
  for (const call of waiting(limiter)) {
    if (call.demand.exceeds !== undefined) reject(limiter, call, () => Errors.exceeds(limiter, call.demand), now)
  }
}

/** Ends the simulation when the throttle's scope closes: simulated waiters count as interrupted. */
export const closeAll = (limiter: Limiter): void => {
  const now = Time.now(limiter.time)
  advance(limiter, now)
  for (const call of waiting(limiter)) interrupt(limiter, call)
  finish(limiter, now)
  limiter.counts.series.outdated.delete(limiter)
}
