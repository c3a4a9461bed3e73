/**
 * Calls of several levels on a store: throttles whose keys are in one hash slot. All of them admit a call, or none, in one
 * decision of the store (`ThrottleStore.decideTogether`).
 *
 * A call waits at one level at a time, from the first (the narrowest) to the last, in the queue that this process has for the
 * level's key. As its head it is asked for at all levels at once. If another level does not let it start, it enters the queue
 * of that one, and keeps its places at the narrower ones; if a narrower one does not, it leaves the queues behind that. Where
 * calls of this process wait at a wider level, only the narrower ones are asked, without a charge, before it enters that
 * queue. So a call that its own user's limit holds back is in no other queue. Nothing is reserved while it waits.
 *
 * At each level the call has a waiter of its own, which the pump of the level asks for by `Several`.
 */
import * as Effect from "effect/Effect"
import { runWaiter } from "../../internal/admission.ts"
import type { Backend, Call, Restore, Waiter as AnyWaiter } from "../../internal/backend.ts"
import * as Counts from "../../internal/counts.ts"
import * as Demand from "../../internal/demand.ts"
import type { Grant as Held } from "../../internal/grant.ts"
import * as Local from "../../internal/levels/engine.ts"
import * as Hosts from "../../internal/levels/host.ts"
import type { Plan } from "../../internal/plan.ts"
import type { Throttle } from "../../internal/service.ts"
import * as Time from "../../internal/time.ts"
import * as Waiters from "../../internal/waiter.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Start from "./backend.ts"
import type { Failure } from "./client.ts"
import * as Errors from "./errors.ts"
import { type Leases, underLease } from "./leases.ts"
import * as Shared from "./limiter.ts"
import type { Grant, Limiter, Several, Waiter } from "./limiter.ts"
import {
  callAt,
  type Climber,
  end,
  enter,
  holdBack,
  isWaiting,
  keepPlace,
  leaveFrom,
  type Levels,
  type Place
} from "./places.ts"
import * as Pump from "./pump.ts"
import { dequeue, giveBack } from "./queue.ts"
import { type Answer, type Answers, discard, type Level, sendTogether } from "./request.ts"

// ---------------------------------------------------------------------------------------------------------------------
// From level to level
// ---------------------------------------------------------------------------------------------------------------------

/** Waits at another level from now on. */
const moveTo = (levels: Levels, climber: Climber, level: number): void => {
  const { limiters } = levels
  const { places } = climber
  const before = climber.level
  leaveFrom(levels, climber, level + 1)
  climber.level = level
  while (places.length < level) keepPlace(levels, climber)
  const rejected = places.length === level ? enter(levels, climber) : undefined
  if (rejected !== undefined) return end(levels, climber, rejected)
  if (places[level] === "bypassed") climber.level = before
  else for (let i = before; i < level; i++) if (isWaiting(climber)) holdBack(limiters[i]!, places[i]!)
  Shared.signal(limiters[climber.level]!)
}

/** A level at which the call waits no more in vain: it is no longer the head there, or a pause of this process has begun. */
const levelBefore = ({ limiters }: Levels, { level, places }: Climber): number =>
  places.slice(0, level).findIndex((place, i) => {
    const limiter = limiters[i]!
    return place !== "bypassed" && (Shared.headOf(limiter) !== place || Shared.pausedFor(limiter) > 0)
  })

/** The first wider level at which calls of this process wait, or that it has paused; the number of levels if there is none. */
const levelBehind = ({ limiters }: Levels, { level, places }: Climber): number => {
  const at = limiters.findIndex((limiter, i) =>
    i > level && places[i] === undefined && (Shared.queuedCalls(limiter) > 0 || Shared.pausedFor(limiter) > 0)
  )
  return at < 0 ? limiters.length : at
}

/** Asks the store for a call, for the pump of the level at which it waits as the head. */
const ask = (levels: Levels, climber: Climber): Effect.Effect<void> =>
  Effect.uninterruptibleMask((restore) => {
    // A level has rejected it, and its fiber is about to be told.
    if (!isWaiting(climber)) return Effect.yieldNow
    const { limiters } = levels
    if (limiters.some(({ phase }) => phase === "closed")) {
      end(levels, climber, Effect.interrupt)
      return Effect.void
    }
    const before = levelBefore(levels, climber)
    if (before >= 0) {
      moveTo(levels, climber, before)
      return Effect.void
    }
    const until = levelBehind(levels, climber)
    const { level } = climber
    const limiter = limiters[level]!
    const place = climber.places[level] as Waiter
    const joins = place.queued !== undefined || limiter.plan.maxQueue > 0
    // A message from now on may be about what the answer does not know of.
    if (limiter.place === "free") limiter.place = "queued"
    const asked = requestOf(levels, climber.call, climber.places, until, (i) =>
      i !== level
        ? {}
        : place.queued === undefined
        ? { joins }
        : { joins, waited: 1, since: limiter.since })
    return Effect.matchEffect(sendTogether(asked, restore), {
      onFailure: (failure) => Effect.sync(() => decideWithout(levels, climber, limiter, failure)),
      onSuccess: (answers) =>
        Effect.sync(() => {
          const at = asked.findIndex((one) => one.limiter === limiter)
          const { isBusy } = answers.answers[at]!
          if (joins) limiter.place = !isBusy ? "none" : limiter.place === "free" ? "free" : "queued"
          apply(levels, climber, asked, answers, until)
        })
    })
  })

/** How long what was granted to a call that does not start may be cancelled: 5 s, in nanoseconds. */
const cancelWithin = 5e9

/** What is asked of each level before `until`. If that is not all of them, nothing is to be charged. */
const requestOf = (
  { limiters }: Levels,
  call: Call,
  places: ReadonlyArray<Place | undefined>,
  until: number,
  optionsAt: (level: number) => Level["options"]
): ReadonlyArray<Level> =>
  limiters.slice(0, until).flatMap((limiter, i) => {
    const place = places[i]
    if (place === "bypassed") return []
    const settleWithin = call.settlement === undefined ? cancelWithin : limiter.settings.settleWithin
    return [{
      limiter,
      demand: place?.demand ?? Demand.forPlan(limiter.plan, call.demand),
      options: {
        ...optionsAt(i),
        isDry: until < limiters.length,
        settleWithin: limiter.rules.meters.length > 0 ? settleWithin : 0
      }
    }]
  })

const apply = (
  levels: Levels,
  climber: Climber,
  asked: ReadonlyArray<Level>,
  { answers, blocked, isGranted }: Answers,
  until: number
): void => {
  const { limiters } = levels
  const limiter = limiters[climber.level]!
  if (isGranted) {
    const grants = answers.map(({ grants }) => grants[0]!)
    // Unless an update since the request has added or removed the limit of running calls.
    const suit = asked.every(({ limiter }, i) =>
      Demand.forPlan(limiter.plan, climber.call.demand).holdsPermits === (grants[i]!.lease !== undefined)
    )
    if (isWaiting(climber) && suit && limiters.every(({ phase }) => phase !== "closed")) {
      const answer = answers[asked.findIndex((one) => one.limiter === limiter)]!
      Pump.note(limiter, answer)
      limiter.since = answer.now
      return give(levels, climber, asked, answers)
    }
    asked.forEach(({ limiter }, i) =>
      limiter.phase === "closed" ? discard(limiter, answers[i]!) : giveBack(limiter, grants[i]!)
    )
    return
  }
  if (!isWaiting(climber)) return
  const at = blocked === undefined ? until : limiters.indexOf(asked[blocked]!.limiter)
  if (at !== climber.level) {
    // One that was asked for with the head goes on when it is the head itself.
    if (at < climber.level || Shared.headOf(limiter) === climber.places[climber.level]) moveTo(levels, climber, at)
    return
  }
  limiter.atOnce = 1
  const answer = answers[blocked!]!
  const { isBusy, isPaused, receivedAt, wait } = answer
  Pump.note(limiter, answer)
  if (isBusy || isPaused) limiter.since = undefined
  else limiter.since ??= answer.now
  limiter.askAgainAt = isBusy || isPaused ? -Infinity : receivedAt + wait!
  Pump.queueOrReject(limiter, isBusy ? undefined : wait)
}

/** Lets a call start with what all levels have granted. */
const give = (
  levels: Levels,
  climber: Climber,
  asked: ReadonlyArray<Level>,
  answers: ReadonlyArray<Answer>
): void => {
  const { call, places } = climber
  climber.admission = "granted"
  climber.places = levels.limiters.map((limiter, i) => {
    const at = asked.findIndex((one) => one.limiter === limiter)
    if (at < 0) return "bypassed"
    const [grant] = answers[at]!.grants
    return admitPlace(limiter, places[i] as Waiter | undefined, call, grant!)
  })
  Waiters.resumeToStart(levels, climber)
}

const admitPlace = (limiter: Limiter, place: Waiter | undefined, call: Call, grant: Grant): Waiter => {
  const admitted = place ?? Start.makeWaiter(limiter, callAt(limiter, call), undefined)
  admitted.resume = undefined
  if (place !== undefined) dequeue(limiter, place, true)
  admitted.demand = grant.demand
  admitted.admission = { _tag: "Granted", grant }
  return admitted
}

// ---------------------------------------------------------------------------------------------------------------------
// Calls without a decision
// ---------------------------------------------------------------------------------------------------------------------

const errorWithout = ({ limiters }: Levels, call: Call, failure: Failure) => {
  const limiter = limiters.find(({ settings: { onStoreError } }) => onStoreError === "fail")
  return limiter && (() => Errors.storeError(limiter, Demand.forPlan(limiter.plan, call.demand), failure))
}

/** The throttle by which this process decides: the levels that have a share for it. Undefined where each allows the call. */
const localOf = ({ limiters }: Levels): Throttle | undefined => {
  const locals = limiters.flatMap(({ settings: { onStoreError } }) =>
    typeof onStoreError === "string" ? [] : [onStoreError.throttle]
  )
  return locals.length === 0 ? undefined : Local.make(locals)
}

/** A cost in the units of the levels that have a share. */
const localCost = ({ limiters }: Levels, { demand: { cost } }: Call): Demand.Cost => {
  const units = new Set(
    limiters.flatMap(({ plan: { units }, settings: { onStoreError } }) =>
      typeof onStoreError === "string" ? [] : [...(units ?? [])]
    )
  )
  return Object.fromEntries(Object.entries(Demand.byUnit(cost)).filter(([unit]) => units.has(unit)))
}

const decideWithout = (levels: Levels, climber: Climber, limiter: Limiter, failure: Failure): void => {
  limiter.since = undefined
  limiter.place = "none"
  if (!isWaiting(climber)) return
  Pump.countFallback(limiter)
  const error = errorWithout(levels, climber.call, failure)
  if (error !== undefined) return Waiters.reject(limiter, climber.places[climber.level] as Waiter, error)
  const local = localOf(levels)
  if (local === undefined) return allow(levels, climber)
  climber.admission = { local }
  leaveFrom(levels, climber, 0)
  Waiters.resumeToStart(levels, climber)
}

/** Lets a call start as if there were no throttle. */
const allow = (levels: Levels, climber: Climber): void => {
  const { call, places } = climber
  climber.admission = "granted"
  climber.places = levels.limiters.map((limiter, i) => {
    const place = places[i]
    if (place === "bypassed") return place
    const allowed = place ?? Start.makeWaiter(limiter, callAt(limiter, call), undefined)
    allowed.resume = undefined
    if (place !== undefined) dequeue(limiter, place, true)
    allowed.admission = { _tag: "Allowed" }
    return allowed
  })
  Waiters.resumeToStart(levels, climber)
}

// ---------------------------------------------------------------------------------------------------------------------
// The backend
// ---------------------------------------------------------------------------------------------------------------------

const asClimber = (waiter: AnyWaiter): Climber => waiter as Climber

/** Does something at each level at which a call has started. */
const forEachPlace = ({ limiters }: Levels, held: Held, f: (limiter: Limiter, place: Waiter) => void): void =>
  (held as Climber).places.forEach((place, i) => {
    if (place !== "bypassed") f(limiters[i]!, place)
  })

/** The leases of a call, the narrowest level's first. */
const leasesOf = (held: Held): Leases | undefined => {
  const leases = (held as Climber).places.flatMap((place) => {
    const lease = place === "bypassed" ? undefined : Start.leaseOf(place)
    return lease === undefined ? [] : [lease]
  })
  return leases.length === 0 ? undefined : leases as unknown as Leases
}

/** The effect that replaces a call which a level can never admit, or does not admit any more. */
const rejectionOf = ({ limiters }: Levels, call: Call): Effect.Effect<never, ThrottleError> | undefined => {
  for (const limiter of limiters) {
    const own = callAt(limiter, call)
    const refused = Start.refusal(limiter, own)
    if (refused !== undefined) return refused
    if (own.demand.exceeds !== undefined) {
      return Waiters.rejection(limiter, call.fiber, own.demand, Errors.exceeds(limiter, own.demand), 0)
    }
  }
  return undefined
}

const climberOf = (levels: Levels, call: Call): Climber => {
  const waiter = Waiters.make(levels, call, Time.now(levels.time))
  const several: Several = {
    isAt: (limiter) => levels.limiters[climber.level] === limiter,
    ask: Effect.suspend(() => ask(levels, climber)),
    observe: (limiter, place) => observe(levels, climber, limiter, place)
  }
  const climber: Climber = Object.assign(waiter, { call, several, places: [], level: 0, admission: undefined })
  return climber
}

/** Observes the wait of a parked call from when it is known to wait. */
const observe = (levels: Levels, climber: Climber, limiter: Limiter, { queued }: Waiter): void => {
  if (limiter !== levels.limiters[climber.level]) return
  const { counts, pauses, plan: { description, name } } = limiter
  levels.counts = counts
  levels.pauses = pauses
  levels.plan = { ...levels.plan, name, description }
  if (queued === undefined || climber.observation !== undefined || climber.resume === undefined) return
  const { expected, position } = queued
  const finite = expected === Infinity ? undefined : expected
  climber.observation = Waiters.observation(levels, climber.fiber, climber.arrival, position, () => finite)
  if (climber.observation !== undefined) Waiters.resumeWith(climber, Waiters.waitAndRun(levels, climber))
}

const resolveIfAvailable = (
  levels: Levels,
  call: Call,
  restore: Restore
): Effect.Effect<any, any, any> | undefined => {
  const { limiters } = levels
  const rejection = rejectionOf(levels, call)
  if (rejection !== undefined) return restore(rejection)
  if (limiters.some((limiter) => Shared.queuedCalls(limiter) > 0 || Shared.pausedFor(limiter) > 0)) return undefined
  const climber = climberOf(levels, call)
  const run = Effect.suspend(() => Effect.asSome(runWaiter(levels, climber, restore)))
  const asked = requestOf(levels, call, [], limiters.length, () => ({}))
  return Effect.matchEffect(sendTogether(asked, restore), {
    onSuccess: ({ answers, isGranted }) => {
      if (!isGranted) return Effect.succeedNone
      give(levels, climber, asked, answers)
      return run
    },
    onFailure: (failure) => {
      Pump.countFallback(limiters[0]!)
      const error = errorWithout(levels, call, failure)
      if (error !== undefined) {
        return restore(Waiters.rejection(limiters[0]!, call.fiber, call.demand, error(), 0))
      }
      const local = localOf(levels)
      if (local !== undefined) return restore(local.withPermitsIfAvailable(call.self, localCost(levels, call)))
      allow(levels, climber)
      return run
    }
  })
}

const backend: Backend<Levels> = {
  startHoldingNothing: () => false,

  tryStart: () => undefined,

  enqueueOrReject: (levels, call) => {
    const rejection = rejectionOf(levels, call)
    if (rejection !== undefined) return rejection
    const climber = climberOf(levels, call)
    // A level at which the call needs no permits has no queue for it.
    for (let i = 0; i < levels.limiters.length; i++) {
      climber.level = i
      const rejected = enter(levels, climber)
      if (rejected !== undefined) {
        leaveFrom(levels, climber, 0)
        return rejected
      }
      if (climber.places[i] === "bypassed") continue
      Shared.signal(levels.limiters[i]!)
      return climber
    }
    return call.self
  },

  resolveIfAvailable,

  onPark: (levels, waiter) => {
    const climber = asClimber(waiter)
    const place = climber.places[climber.level]
    if (place !== undefined && place !== "bypassed") observe(levels, climber, levels.limiters[climber.level]!, place)
  },

  startIfReady: (levels, waiter) => {
    const climber = asClimber(waiter)
    if (climber.admission === undefined) return false
    if (climber.admission !== "granted") {
      climber.state = "left"
      climber.observation = undefined
      return true
    }
    climber.state = "started"
    forEachPlace(levels, climber, (limiter, place) => limiter.backend.startIfReady(limiter, place))
    return true
  },

  leave: (levels, waiter) => {
    const climber = asClimber(waiter)
    climber.places.forEach((place, i) => {
      // `abandon` counts the interruption at the level at which the call waits.
      if (place !== "bypassed" && i !== climber.level) Counts.interrupted(levels.limiters[i]!.counts)
    })
    leaveFrom(levels, climber, 0)
  },

  runHolding: (levels, held, self) => {
    const { admission, call, settlement } = held as Climber
    if (admission !== "granted" && admission !== undefined) {
      const { local } = admission
      const cost = localCost(levels, call)
      // The caller's type has the error.
      return (settlement === undefined ? local.withPermits(self, cost) : local.takeScoped(cost)) as Effect.Effect<any>
    }
    const leases = leasesOf(held)
    return leases === undefined || settlement !== undefined ? self : underLease(leases, self) as typeof self
  },

  takeForScope: () => undefined,
  returnFromScope: () => undefined,

  describePermit: (_, held, permit) => {
    const leases = leasesOf(held)
    return leases === undefined ? permit : { ...permit, [Start.Leased]: leases }
  },

  settle: (levels, held, actual) =>
    forEachPlace(
      levels,
      held,
      (limiter, place) => limiter.backend.settle(limiter, place, Demand.forPlan(limiter.plan, actual))
    ),

  cancel: (levels, held) => forEachPlace(levels, held, (limiter, place) => limiter.backend.cancel(limiter, place)),

  release: (levels, held, exit, isCharged) =>
    forEachPlace(levels, held, (limiter, place) => {
      limiter.backend.release(limiter, place, exit, isCharged)
      limiter.afterCall?.()
    })
}

/** Makes the levels of one call. `plan`: without parts; its units are those of all. */
export const make = (limiters: ReadonlyArray<Limiter>, plan: Plan): Levels => ({
  ...Hosts.make(limiters[0]!, plan),
  backend,
  limiters
})
