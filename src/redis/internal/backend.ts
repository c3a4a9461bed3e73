/**
 * Decides about calls by a store: a call enters the queue, the pump asks the store for it, and it starts with what the store
 * has granted. Makes and closes the limiters that do so.
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { type Permit, runWaiter } from "../../internal/admission.ts"
import type * as Backend from "../../internal/backend.ts"
import * as Bounds from "../../internal/bounds.ts"
import * as Counts from "../../internal/counts.ts"
import * as Demand from "../../internal/demand.ts"
import { type Grant as Held, noGrant } from "../../internal/grant.ts"
import * as List from "../../internal/list.ts"
import * as Metrics from "../../internal/metrics.ts"
import * as Pauses from "../../internal/pauses.ts"
import type { Plan, PoolPart } from "../../internal/plan.ts"
import * as Orders from "../../internal/queue/orders.ts"
import * as Reentry from "../../internal/reentry.ts"
import * as Scheduler from "../../internal/scheduler.ts"
import * as Time from "../../internal/time.ts"
import * as Waiters from "../../internal/waiter.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Errors from "./errors.ts"
import { type Leases, lose, release as releaseLease, underLease } from "./leases.ts"
import {
  type Admission,
  hasReports,
  headOf,
  isIdle,
  type Lease,
  type Limiter,
  liveMeter,
  now,
  pausedFor,
  queuedCalls,
  type Settings,
  type Several,
  signal,
  type Waiter,
  waitersOf
} from "./limiter.ts"
import { countFallback, report, start } from "./pump.ts"
import { dequeue, enqueue, giveBack, makeWait, observeIfParked, rejectLate } from "./queue.ts"
import { send } from "./request.ts"
import { haveSameMeters, rulesOf, sleepAtLeast } from "./rules.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Calls that arrive
// ---------------------------------------------------------------------------------------------------------------------

/** Only a policy without parts lets a call start without a request. */
const startHoldingNothing = ({ counts, phase, plan }: Limiter): boolean => {
  if (phase !== "open" || plan.units !== undefined) return false
  Counts.admitted(counts, false)
  return true
}

/**
 * Returns the effect that replaces a newcomer; undefined if newcomers are admitted. A fiber that holds permits may make
 * further calls while the limiter drains.
 */
export const refusal = (
  limiter: Limiter,
  { demand, fiber }: Backend.Call
): Effect.Effect<never, ThrottleError> | undefined => {
  const { leases, phase } = limiter
  if (phase === "open") return undefined
  if (phase !== "closed" && [...leases].some((lease) => lease.fiber === fiber)) return undefined
  return phase === "draining"
    ? Waiters.rejection(limiter, fiber, demand, Errors.draining(limiter, demand), 0)
    : Effect.interrupt
}

/** `several`: the call of several levels that it is for. */
export const enqueueOrReject = (
  limiter: Limiter,
  call: Backend.Call,
  several?: Several
): Waiter | Effect.Effect<any, any, any> => {
  const refused = refusal(limiter, call)
  if (refused !== undefined) return refused
  const { demand, fiber, self } = call
  if (demand.exceeds !== undefined) {
    return Waiters.rejection(limiter, fiber, demand, Errors.exceeds(limiter, demand), 0)
  }
  const waiter = makeWaiter(limiter, call, undefined, several)
  if (limiter.mayReject) Bounds.apply<Backend.Waiter>(fiber, waiter)
  const isFirst = limiter.queue.ranking?.isFirst(waiter) === true
  const own = ownPool(limiter, waiter, isFirst ? undefined : headOf(limiter))
  if (own?.onReentry === "die") return Effect.die(Reentry.deadlock(limiter.plan.name, own.name))
  if (own !== undefined) {
    Counts.admitted(limiter.counts, false)
    return self
  }
  const mustWait = queuedCalls(limiter) > 0 && !isFirst
  const expected = mustWait ? Errors.expectedWait(limiter, demand) : undefined
  const ofCaller = limiter.callers.get(waiter.caller.key) ?? 0
  const error = mustWait ? Errors.rejectionOf(limiter, waiter, ofCaller, expected) : undefined
  if (error !== undefined) return Waiters.rejection(limiter, fiber, demand, error, 0)
  enqueue(limiter, waiter)
  if (mustWait) makeWait(limiter, waiter, expected)
  // The pump may rest before it reports again to a store that fails. A call of several levels is not ready to be asked for yet.
  else if (several === undefined) signal(limiter)
  return waiter
}

/**
 * The part whose permits the fiber of a call holds itself, so many that the call would wait for ever, as in memory
 * (`reentry.ts`). `head`: the call that it waits behind.
 */
const ownPool = (
  { leases, plan }: Limiter,
  { demand, fiber, own: bounds }: Waiter,
  head: Waiter | undefined
): PoolPart | undefined => {
  if (leases.size === 0 || Bounds.timeoutOf(plan, bounds) < Infinity) return undefined
  const own = [...leases].filter((lease) => lease.fiber === fiber)
  const exhausted = plan.pools.filter((part, j) => {
    const canBypass = part.onReentry === "bypass"
    const wanted = canBypass ? Math.max(demand.pools[j]!, head?.demand.pools[j] ?? 0) : demand.pools[j]!
    const counted = own.filter(({ endedBy }) => endedBy === "call" || canBypass)
    const held = counted.reduce((sum, lease) => sum + heldOf(lease, part), 0)
    return held > 0 && wanted > 0 && held + wanted > part.limit.initial
  })
  return exhausted.find(({ onReentry }) => onReentry === "die") ?? exhausted[0]
}

/** The permits of a part that a lease holds, also if an update has replaced the plan since. */
const heldOf = ({ demand: { plan, pools } }: Lease, { identity }: PoolPart): number =>
  pools[plan.pools.findIndex((part) => part.identity === identity)] ?? 0

/** Asks the store for a call that must not wait. */
const resolveIfAvailable = (
  limiter: Limiter,
  call: Backend.Call,
  restore: Backend.Restore
): Effect.Effect<any, any, any> | undefined => {
  const { demand, fiber, self } = call
  const { onStoreError } = limiter.settings
  const refused = refusal(limiter, call)
  if (refused !== undefined) return restore(refused)
  if (demand.exceeds !== undefined) {
    return restore(Waiters.rejection(limiter, fiber, demand, Errors.exceeds(limiter, demand), 0))
  }
  // It does not pass waiting calls.
  if (queuedCalls(limiter) > 0 || pausedFor(limiter) > 0) return undefined
  const run = (admission: Admission) => {
    const waiter = makeWaiter(limiter, call, admission)
    Waiters.resumeToStart(limiter, waiter)
    return Effect.asSome(runWaiter(limiter, waiter, restore))
  }
  return Effect.matchEffect(send(limiter, [demand], {}, restore), {
    onSuccess: ({ grants: [grant] }) => grant === undefined ? Effect.succeedNone : run({ _tag: "Granted", grant }),
    onFailure: (failure) => {
      countFallback(limiter)
      return onStoreError === "fail"
        ? restore(Waiters.rejection(limiter, fiber, demand, Errors.storeError(limiter, demand, failure), 0))
        : onStoreError === "allow"
        ? run({ _tag: "Allowed" })
        : restore(onStoreError.throttle.withPermitsIfAvailable(self, localCost(limiter, demand)))
    }
  })
}

/** Not by a spread: such an object is slow to use. 256 callers took 25 µs of CPU each instead of 8. */
export const makeWaiter = (
  limiter: Limiter,
  call: Backend.Call,
  admission: Admission | undefined,
  several?: Several
): Waiter => {
  const waiter = Waiters.make(limiter, call, now(limiter)) as Waiter
  waiter.queued = undefined
  waiter.admission = admission
  waiter.several = several
  return waiter
}

// ---------------------------------------------------------------------------------------------------------------------
// Starts and ends
// ---------------------------------------------------------------------------------------------------------------------

/** Starts a waiter that was admitted. One that a throttle of this process decides about begins to wait there. */
const startIfReady = (limiter: Limiter, started: Backend.Waiter): boolean => {
  const waiter = started as Waiter
  const { admission, arrival, demand, queued } = waiter
  if (admission === undefined) return false
  if (admission._tag === "Local") {
    waiter.state = "left"
    waiter.observation = undefined
    return true
  }
  waiter.state = "started"
  waiter.startedAt = now(limiter)
  const lease = leaseOf(waiter)
  if (lease !== undefined) lease.endedBy = waiter.endedBy
  Counts.admitted(limiter.counts, demand.holdsPermits)
  if (queued !== undefined) Counts.waited(limiter.counts, waiter.startedAt - arrival)
  return true
}

const leave = (limiter: Limiter, left: Backend.Waiter): void => {
  const waiter = left as Waiter
  const { admission } = waiter
  if (admission === undefined) return dequeue(limiter, waiter, false)
  limiter.queue.ranking?.cancelled(waiter)
  if (admission._tag === "Granted") giveBack(limiter, admission.grant)
}

const runHolding = <A, E, R>(limiter: Limiter, held: Held, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const { admission, demand, settlement } = held as Waiter
  if (admission?._tag === "Local") {
    const { throttle } = admission
    const cost = localCost(limiter, demand)
    return (settlement === undefined ? throttle.withPermits(self, cost) : throttle.takeScoped(cost)) as Effect.Effect<
      any
    >
  }
  const lease = leaseOf(held)
  // What is held for a scope is held apart from the effect. The caller's type has the error.
  return lease === undefined || settlement !== undefined
    ? self
    : underLease([lease], self) as Effect.Effect<A, E, R>
}

/** The lease of a call, if its permits are leased. */
export const leaseOf = (held: Held) => {
  const { admission } = held as Waiter
  return admission?._tag === "Granted" ? admission.grant.lease : undefined
}

/** Under which a permit that is leased has its leases. */
export const Leased = Symbol("effect-throttle/redis/Leased")

export interface LeasedPermit extends Permit {
  readonly [Leased]?: Leases
}

/** A cost in the units that the current policy counts. A unit that an update has taken out costs nothing. */
const localCost = ({ plan: { units } }: Limiter, { cost }: Demand.Demand): Demand.Cost =>
  units === undefined || (typeof cost === "number" && units.has("permits"))
    ? cost
    : Object.fromEntries(Object.entries(Demand.byUnit(cost)).filter(([unit]) => units.has(unit)))

/** Reports a change of what a call was charged, if the store can still make it. */
const correct = (limiter: Limiter, held: Held, actual: ReadonlyArray<number>, isUndone: boolean): void => {
  const { admission, startedAt } = held as Waiter
  if (admission?._tag !== "Granted" || now(limiter) > startedAt + limiter.settings.settleWithin) return
  const { at, demand, version } = admission.grant
  // Another policy has other parts.
  if (!haveSameMeters(demand.plan, limiter.plan)) return
  const more = demand.meters.map((amount, i) => (actual[i] ?? 0) - amount)
  if (more.every((amount) => amount === 0)) return
  limiter.settlements.push({ version, at, isUndone, more })
  signal(limiter)
}

const release = (limiter: Limiter, held: Held): void => {
  limiter.queue.ranking?.ended(held as Waiter)
  if (!held.demand.holdsPermits) return
  Counts.released(limiter.counts)
  const lease = leaseOf(held)
  if (lease !== undefined) releaseLease(limiter, lease)
}

const backend: Backend.Backend<Limiter> = {
  startHoldingNothing,
  tryStart: (limiter) => startHoldingNothing(limiter) ? noGrant : undefined,
  enqueueOrReject: (limiter, call) => enqueueOrReject(limiter, call),
  resolveIfAvailable,
  onPark: (limiter, waiter) => observeIfParked(limiter, waiter as Waiter),
  startIfReady,
  leave,
  runHolding,
  takeForScope: () => undefined,
  returnFromScope: () => undefined,
  describePermit: (_, held, permit) => {
    const lease = leaseOf(held)
    return lease === undefined ? permit : { ...permit, [Leased]: [lease] }
  },
  settle: (limiter, held, actual) => {
    limiter.queue.ranking?.settled(held as Waiter, actual)
    correct(limiter, held, actual.meters, false)
  },
  cancel: (limiter, held) => {
    limiter.queue.ranking?.cancelled(held as Waiter)
    correct(limiter, held, [], true)
  },
  release
}

// ---------------------------------------------------------------------------------------------------------------------
// Limiters
// ---------------------------------------------------------------------------------------------------------------------

/**
 * `mayReject`: whether the type of all calls has an error. `onIdle` runs whenever nothing has to be remembered of the
 * throttle in this process.
 */
export const makeUnsafe = (
  plan: Plan,
  settings: Settings,
  context: Context.Context<never>,
  series: Metrics.Series,
  mayReject: boolean,
  onIdle: (() => void) | undefined,
  watchers?: Counts.Watchers
): Limiter => {
  const { clock } = settings.client
  const time = Time.make(clock)
  const waiters = List.make<Backend.Waiter>()
  const limiter: Limiter = {
    backend,
    plan,
    meters: plan.meters.map(liveMeter),
    // Permits are in the store.
    pools: [],
    one: Demand.one(plan),
    time,
    counts: Counts.make(series, watchers),
    pauses: Pauses.none(),
    waiters,
    queue: Orders.make(plan.order, waiters, () => Time.now(time)),
    callers: new Map(),
    bounded: Bounds.deadlines(),
    mayReject,
    afterCall: onIdle && (() => isIdle(limiter) ? onIdle() : undefined),
    settings,
    context,
    rules: rulesOf(plan),
    phase: "open",
    pump: { state: "idle", fiber: undefined, wake: () => {}, start: () => start(limiter) },
    deadlines: Scheduler.make({ clock, head: () => undefined, drain: () => rejectLate(limiter) }),
    slot: undefined,
    unused: [],
    unwanted: [],
    settlements: [],
    releases: [],
    leases: new Set(),
    renewer: undefined,
    silentSince: undefined,
    since: undefined,
    askAgainAt: -Infinity,
    atOnce: 1,
    answer: { part: 0, nextExpiry: undefined, pausedUntil: -Infinity },
    place: "none",
    pausedUntil: -Infinity,
    resets: 0,
    unreportedPause: -Infinity,
    users: 0
  }
  return limiter
}

/** A limiter that closes with the scope. */
export const make = (plan: Plan, settings: Settings, mayReject: boolean): Effect.Effect<Limiter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.withFiber(({ context }) =>
      Effect.succeed(makeUnsafe(plan, settings, context, Metrics.acquire(context, plan.name), mayReject, undefined))
    ),
    (limiter) => Effect.andThen(close(limiter), Effect.sync(() => Metrics.release(limiter.counts.series)))
  )

/**
 * Interrupts the calls that wait, and those that come later; work under a lease loses it. What is over is reported once that
 * work has ended, with its finalizers, or its lease has.
 */
export const close = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    limiter.phase = "closed"
    for (const waiter of waitersOf(limiter)) Waiters.resumeWith(waiter, Effect.interrupt)
    // A fiber that closes the scope itself cannot be waited for.
    const self = Fiber.getCurrent()
    const working = [...limiter.leases].filter(({ fiber }) => fiber !== undefined && fiber !== self)
    const left = Math.max(0, ...working.map(({ until }) => until - now(limiter)))
    for (const lease of limiter.leases) {
      limiter.releases.push(lease.name)
      lose(limiter, lease)
    }
    Scheduler.stop(limiter.deadlines)
    const stopped = Fiber.interruptAll([limiter.pump.fiber, limiter.renewer].filter((fiber) => fiber !== undefined))
    const ended = working.length === 0 ? Effect.void : Effect.raceFirst(
      Fiber.awaitAll(working.map(({ fiber }) => fiber!)),
      limiter.time.clock.sleep(sleepAtLeast(left))
    )
    return Effect.andThen(
      Effect.andThen(stopped, ended),
      // Only now, since interrupted waiters may not have left the queue before.
      Effect.uninterruptibleMask((restore) => {
        if (limiter.slot !== undefined) limiter.unwanted.push(limiter.slot.grant)
        limiter.slot = undefined
        return hasReports(limiter) ? Effect.ignore(report(limiter, [], restore)) : Effect.void
      })
    )
  })
