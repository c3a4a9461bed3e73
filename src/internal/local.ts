/**
 * Decides about calls in this process.
 *
 * - A call that finds no waiting call and every part ready is charged and starts in that step. Every other call enters
 *   the queue.
 * - Only the head of the queue may start. It is examined when it becomes the head, when permits are released, when a
 *   pause, an update or a settlement may have changed the decision, and when the timer ends: when it is ready, or when
 *   it may no longer be the head. It reserves nothing while it waits.
 * - A head that may start is resumed. The decision is made again, and the call is charged, in the step in which its
 *   effect begins.
 * - No call waits on a Semaphore: an admitted call finds its permits there (see `pool.ts`).
 *
 * `backend.ts` documents the functions of the backend.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Backend, Call, Restore, Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Budget from "./budget.ts"
import * as Commit from "./commit.ts"
import * as Counts from "./counts.ts"
import type { Demand } from "./demand.ts"
import * as Errors from "./errors.ts"
import * as Estimate from "./estimate.ts"
import { type Grant, noGrant } from "./grant.ts"
import * as Head from "./head.ts"
import { isRefusing, type Limiter, make as makeLimiter, timesOutAt } from "./limiter.ts"
import * as List from "./list.ts"
import * as Metrics from "./metrics.ts"
import type { Plan } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Reentry from "./reentry.ts"
import * as Scheduler from "./scheduler.ts"
import * as Shadow from "./shadow.ts"
import * as Time from "./time.ts"
import * as Waiters from "./waiter.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Calls that arrive
// ---------------------------------------------------------------------------------------------------------------------

/** Whether everything but the meters lets an arriving call start now. It never overtakes waiting calls. */
const isOpenTo = (limiter: Limiter, demand: Demand): boolean =>
  limiter.phase === "inForce" && limiter.waiters.size === 0 && demand.exceeds === undefined &&
  !isPaused(limiter) && Budget.hasPermits(limiter.pools, demand)

/** Whether no call may start now. Reads the clock only if the latest reading does not decide. */
const isPaused = ({ pauses, time }: Limiter): boolean =>
  pauses.until > time.read && pauses.until > Time.now(time) + Budget.tolerance

/** Charges an arriving call, if the meters let it start now; returns whether they do. */
const tryCharge = (limiter: Limiter, demand: Demand, now: number, settlement: Call["settlement"]): boolean => {
  const { charged: { ref }, examined, lateness } = limiter
  const isLate = now < lateness.until
  if (!isLate && settlement === undefined) {
    const next = Budget.chargeIfReady(limiter, ref.current, demand, now)
    if (next !== undefined) ref.current = next
    return next !== undefined
  }
  // After a late start a call is treated as if it had arrived as much earlier (see `Lateness`), but not in a pause.
  const from = isLate ? Math.max(examined.countFrom, limiter.pauses.until, now - lateness.nanos) : now
  const readyAt = Budget.readyAt(limiter, ref.current, demand, from)
  if (readyAt > now + Budget.tolerance) return false
  Commit.charge(limiter, demand, readyAt, now, settlement)
  if (isLate) Commit.noteLateness(limiter, readyAt, now)
  return true
}

/** Starts an arriving call, if it may start in this step; returns whether it does. */
export const startNow = (limiter: Limiter, demand: Demand, settlement: Call["settlement"]): boolean => {
  if (!isOpenTo(limiter, demand)) return false
  // Without meters the clock is not read.
  const now = limiter.meters.length > 0 ? Time.now(limiter.time) : 0
  if (!tryCharge(limiter, demand, now, settlement)) return false
  Commit.takePermits(limiter, demand)
  return true
}

const startHoldingNothing = (limiter: Limiter, demand: Demand): boolean =>
  limiter.pools.length === 0 && startNow(limiter, demand, undefined)

/** Not in force every call is allowed, or interrupted; a demand that can never be granted is an error. */
const mayAllow = ({ phase, queue }: Limiter, demand: Demand): boolean =>
  phase !== "inForce" || demand.exceeds !== undefined || queue.ranking !== undefined

const tryStart = (limiter: Limiter, call: Call): Grant | undefined => {
  if (limiter.phase === "shadow") return Shadow.start(limiter, call)
  const { demand, endedBy, fiber, settlement } = call
  if (!startNow(limiter, demand, settlement)) {
    return limiter.queue.ranking === undefined || limiter.waiters.size === 0 ? undefined : startFirst(limiter, call)
  }
  if (!demand.holdsPermits && settlement === undefined) return noGrant
  if (settlement !== undefined && demand.holdsPermits) settlement.semaphores = "due"
  const { meters, plan, pools, time } = limiter
  const startedAt = plan.learns ? Time.now(time) : 0
  const grant: Grant = {
    prev: undefined,
    next: undefined,
    fiber,
    demand,
    meters,
    pools,
    endedBy,
    settlement,
    startedAt
  }
  if (demand.holdsPermits) List.add(limiter.holders, grant)
  return grant
}

/** Starts an arriving call before the waiting ones, if it ranks first and may start in this step. */
const startFirst = (limiter: Limiter, call: Call): Grant | undefined => {
  const { demand } = call
  const { examined, queue } = limiter
  if (limiter.phase !== "inForce" || demand.exceeds !== undefined) return undefined
  refreshHead(limiter)
  const now = Time.now(limiter.time)
  const newcomer = Waiters.make(limiter, call, now)
  if (!queue.ranking!.isFirst(newcomer)) return undefined
  const from = Math.max(now, limiter.pauses.until)
  const decision = Budget.decide(limiter, limiter.charged.ref.current, demand, from)
  if (!Budget.isReady(decision, now)) return undefined
  Head.forgetDecision(limiter, now)
  examined.countFrom = Math.max(examined.countFrom, now)
  queue.push(newcomer)
  queue.remove(newcomer, true)
  newcomer.state = "started"
  Commit.charge(limiter, demand, now, now, call.settlement)
  Commit.takePermits(limiter, demand)
  if (limiter.plan.learns) newcomer.startedAt = now
  if (demand.holdsPermits) List.add(limiter.holders, newcomer)
  if (call.settlement !== undefined && demand.holdsPermits) call.settlement.semaphores = "due"
  Scheduler.drainSoon(limiter.scheduler)
  return demand.holdsPermits || call.settlement !== undefined ? newcomer : noGrant
}

/** Chooses the head anew, for an order in which time may change it. */
const refreshHead = (limiter: Limiter): void => {
  const { queue, scheduler } = limiter
  if (queue.ranking === undefined) return
  const former = queue.peek()
  queue.ranking.refresh()
  if (queue.peek() !== former) Scheduler.drainSoon(scheduler)
}

/**
 * Returns the effect that replaces a newcomer; undefined if the limiter admits newcomers. A call of a fiber that holds
 * permits is let through while the limiter drains, or that fiber could not finish.
 */
const refusal = (limiter: Limiter, call: Call): Effect.Effect<never, ThrottleError> | undefined => {
  const { phase } = limiter
  if (!isRefusing(limiter) || (phase !== "closed" && Reentry.isNested(limiter, call))) return undefined
  const { demand, fiber } = call
  return phase === "draining"
    ? Waiters.rejection(limiter, fiber, demand, Errors.draining(limiter, demand), 0)
    : Effect.interrupt
}

const enqueueOrReject = (limiter: Limiter, call: Call): Waiter | Effect.Effect<any, any, any> => {
  const refused = refusal(limiter, call)
  if (refused !== undefined) return refused
  const { demand, fiber, self } = call
  const now = Time.now(limiter.time)
  const waiter = Waiters.make(limiter, call, now)
  if (limiter.mayReject) Bounds.apply(fiber, waiter)
  const reason = Errors.reasonOf(limiter, demand, now, waiter.own)
  if (reason !== undefined) {
    const error = Errors.make(limiter, demand, now, reason, undefined, waiter.own)
    return Waiters.rejection(limiter, fiber, demand, error, 0)
  }
  // With a timeout, a call for permits that its own fiber holds times out instead.
  const own = Bounds.timeoutOf(limiter.plan, waiter.own) === Infinity ? Reentry.ownPool(limiter, call) : undefined
  if (own?.part.onReentry === "die") return Effect.die(Reentry.deadlock(limiter.plan.name, own.part.name))
  if (own !== undefined) {
    Counts.admitted(limiter.counts, false)
    return self
  }
  // Before it enters the queue, since the estimate is that of the calls ahead of it.
  waiter.observation = Waiters.observation(
    limiter,
    fiber,
    now,
    limiter.waiters.size + 1,
    () => Estimate.reportedWait(limiter, demand, now)
  )
  enqueue(limiter, waiter)
  return waiter
}

/** Adds a waiter to the queue. */
export const enqueue = (limiter: Limiter, waiter: Waiter): void => {
  const former = limiter.queue.peek()
  Commit.enqueue(limiter, waiter)
  const head = limiter.queue.peek()
  // A call may make another one the head, by being the next of its caller. (If it is the head itself, it parks first.)
  if (former !== undefined && head !== former && head !== waiter) Scheduler.drainSoon(limiter.scheduler)
}

const resolveIfAvailable = (
  limiter: Limiter,
  call: Call,
  restore: Restore
): Effect.Effect<never, ThrottleError> | undefined => {
  const refused = refusal(limiter, call)
  if (refused !== undefined) return restore(refused)
  const { demand, fiber } = call
  return demand.exceeds === undefined
    ? undefined
    : restore(Waiters.rejection(limiter, fiber, demand, Errors.exceeds(limiter, demand), 0))
}

// ---------------------------------------------------------------------------------------------------------------------
// The head of the queue
// ---------------------------------------------------------------------------------------------------------------------

/** Maximum number of waiters examined in one task; then other fibers have a turn. */
const batch = 512

/**
 * The timer sleeps until 0.125 ms before a deadline, and then the rest. A release at exactly the deadline was usually
 * scheduled before that last sleep, so it happens first, and the call starts instead of timing out.
 */
const lastSleep = 125e3

/** The instant at which the head may start; Infinity if it is unknown. */
const headReadyAt = (limiter: Limiter, waiter: Waiter, now: number): number => {
  // An update has put the policy into shadow while the call waited.
  if (limiter.phase === "shadow") return now
  const decision = Head.examine(limiter, waiter, now)
  return decision._tag === "ReadyAt" ? decision.at : Infinity
}

/**
 * Admits waiters from the head until one has to wait, rejects those past their deadline, and sets the timer for the
 * next event. Returns false if it stopped because the batch is full.
 */
const drain = (limiter: Limiter): boolean => {
  const { scheduler, time } = limiter
  for (let examined = 0; examined < batch; examined++) {
    const { queue } = limiter
    queue.ranking?.refresh()
    const head = queue.peek()
    if (head === undefined || limiter.phase === "closed") return true
    const now = Time.now(time)
    // A head that is ahead is not resumed here; only deadlines are left to see to. In shadow it gives up its place.
    const isAhead = head.isAhead && limiter.phase !== "shadow"
    const readyAt = isAhead ? Infinity : headReadyAt(limiter, head, now)
    if (readyAt <= now + Budget.tolerance && readyAt <= Bounds.deadlineOf(limiter.plan, head) + Budget.tolerance) {
      // A head that is not parked is about to start, or to park and be examined then.
      if (head.resume === undefined) return true
      Waiters.resumeToStart(limiter, head)
      // It was resumed but has not started yet: its start drains again.
      if (queue.peek() === head && head.resume === undefined) return true
      continue
    }
    const first = Bounds.earliest(limiter)!
    const deadline = Bounds.deadlineOf(limiter.plan, first)
    if (deadline <= now + Budget.tolerance) {
      Waiters.reject(limiter, first, () => Errors.timedOut(limiter, first, now))
      continue
    }
    const until = readyAt <= deadline ? readyAt : deadline - now > lastSleep ? deadline - lastSleep : deadline
    const changesAt = queue.ranking?.changesAt() ?? Infinity
    Scheduler.drainAt(scheduler, head.fiber.context, now, Math.min(until, changesAt))
    return true
  }
  return false
}

const onPark = (limiter: Limiter, waiter: Waiter): void => {
  if (limiter.queue.peek() === waiter || waiter.own !== undefined) Scheduler.drainNow(limiter.scheduler)
}

const startIfReady = (limiter: Limiter, waiter: Waiter): boolean => {
  if (limiter.phase === "closed" || limiter.queue.peek() !== waiter) return false
  const now = Time.now(limiter.time)
  const readyAt = headReadyAt(limiter, waiter, now)
  if (readyAt > now + Budget.tolerance) return false
  Commit.startWaiter(limiter, waiter, readyAt, now)
  if (waiter.settlement !== undefined && waiter.demand.holdsPermits && limiter.phase !== "shadow") {
    waiter.settlement.semaphores = "due"
  }
  Scheduler.drainSoon(limiter.scheduler)
  return true
}

const leave = (limiter: Limiter, waiter: Waiter): void => {
  const { examined, queue, scheduler, time } = limiter
  const former = queue.peek()
  Commit.dequeue(limiter, waiter, false)
  if (queue.peek() === former) return
  examined.countFrom = Math.max(examined.countFrom, Math.min(Time.now(time), timesOutAt(limiter, waiter)))
  Scheduler.drainSoon(scheduler)
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls that run
// ---------------------------------------------------------------------------------------------------------------------

const runHolding = <A, E, R>(limiter: Limiter, grant: Grant, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  // In shadow more calls run than there are permits. Permits for a scope are taken by `takeForScope` instead.
  if (limiter.phase === "shadow" || grant.settlement !== undefined) return self
  const { demand, pools } = grant
  for (let i = 0; i < pools.length; i++) self = Pool.holding(pools[i]!, demand.pools[i]!, self)
  return self
}

const takeForScope = (_limiter: Limiter, grant: Grant): Effect.Effect<unknown> | undefined => {
  if (grant.settlement!.semaphores !== "due") return undefined
  grant.settlement!.semaphores = "taken"
  return forEachPool(grant, Pool.take)
}

const returnFromScope = (_limiter: Limiter, grant: Grant): Effect.Effect<unknown> | undefined => {
  if (grant.settlement!.semaphores !== "taken") return undefined
  grant.settlement!.semaphores = "none"
  return forEachPool(grant, Pool.giveBack)
}

const forEachPool = (
  { demand, pools }: Grant,
  f: (pool: Pool.Pool, amount: number) => Effect.Effect<unknown>
): Effect.Effect<void> =>
  Effect.forEach(pools.filter((_, i) => demand.pools[i]! > 0), (pool) => f(pool, demand.pools[pools.indexOf(pool)]!), {
    discard: true
  })

const settle = (limiter: Limiter, grant: Grant, actual: Demand): void => {
  if (Shadow.isSimulated(grant)) Shadow.settle(limiter, grant, actual)
  else {
    limiter.queue.ranking?.settled(grant as Waiter, actual)
    Commit.settle(limiter, grant, actual, Time.now(limiter.time))
  }
  if (limiter.phase !== "shadow") reconsider(limiter)
}

const cancel = (limiter: Limiter, grant: Grant): void => {
  if (Shadow.isSimulated(grant)) Shadow.cancel(limiter, grant)
  else {
    limiter.queue.ranking?.cancelled(grant as Waiter)
    Commit.cancel(limiter, grant, Time.now(limiter.time))
  }
  if (limiter.phase !== "shadow") reconsider(limiter)
}

const release = (
  limiter: Limiter,
  grant: Grant,
  exit: Exit.Exit<unknown, unknown>,
  isCharged: boolean
): void => {
  if (Shadow.isSimulated(grant)) {
    Shadow.end(limiter, grant, exit, isCharged)
    if (limiter.phase !== "shadow") reconsider(limiter)
    return
  }
  limiter.queue.ranking?.ended(grant as Waiter)
  if (grant.settlement !== undefined) Commit.close(limiter, grant)
  if (!grant.demand.holdsPermits) return
  const { examined, phase, plan, scheduler, simulation, time } = limiter
  const now = phase === "shadow" || plan.chargesReleases || plan.learns ? Time.now(time) : 0
  if (phase === "shadow") {
    Shadow.advance(limiter, now)
    simulation.permitsSince = now
  }
  if (plan.learns) learn(grant, exit, now)
  Commit.release(limiter, grant, isCharged, now)
  // A head that is ready at an instant has its permits, so a release does not change its decision.
  if (examined.decision?._tag !== "ReadyAt" || examined.waiter !== limiter.queue.peek()) Scheduler.drainSoon(scheduler)
}

const learn = ({ demand, pools, startedAt }: Grant, exit: Exit.Exit<unknown, unknown>, now: number): void =>
  pools.forEach((pool, i) => {
    const { held, part: { limit: { onEnd } } } = pool
    if (onEnd === undefined) return
    Pool.setLimit(pool, onEnd({ exit, heldNanos: now - startedAt, permits: demand.pools[i]!, held }))
  })

/** Decides anew about the head, after a change of what decisions depend on. */
export const reconsider = (limiter: Limiter): void => {
  if (limiter.waiters.size === 0) return
  Head.forgetDecision(limiter, Time.now(limiter.time))
  Scheduler.drainSoon(limiter.scheduler)
}

// ---------------------------------------------------------------------------------------------------------------------
// Limiters
// ---------------------------------------------------------------------------------------------------------------------

const backend: Backend<Limiter> = {
  startHoldingNothing,
  mayAllow,
  tryStart,
  enqueueOrReject,
  resolveIfAvailable,
  onPark,
  startIfReady,
  leave,
  runHolding,
  takeForScope,
  returnFromScope,
  settle,
  cancel,
  release
}

/** `watchers`: those that it shares with other limiters. */
export const makeUnsafe = (
  plan: Plan,
  series: Metrics.Series,
  time: Time.Time,
  mayReject: boolean,
  watchers?: Counts.Watchers
): Limiter => makeLimiter(plan, series, time, mayReject, backend, drain, watchers)

/** Makes a limiter on the current Clock that closes with the scope. */
export const make = (plan: Plan, mayReject = true): Effect.Effect<Limiter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.withFiber((fiber) =>
      Effect.succeed(
        makeUnsafe(plan, Metrics.acquire(fiber.context, plan.name), Time.make(fiber.getRef(Clock.Clock)), mayReject)
      )
    ),
    (limiter) =>
      Effect.sync(() => {
        close(limiter)
        Metrics.release(limiter.counts.series)
      })
  )

/** Closes a limiter: waiting calls are interrupted, and so are later ones. */
export const close = (limiter: Limiter): void => {
  if (limiter.phase === "shadow") Shadow.closeAll(limiter)
  limiter.phase = "closed"
  for (const waiter of Array.from(List.values(limiter.waiters))) Waiters.endWith(waiter, Effect.interrupt)
}
