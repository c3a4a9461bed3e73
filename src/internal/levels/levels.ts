/**
 * Calls that several limiters must admit, all or none, at one instant: those of a user, of an organisation, and of all.
 *
 * A call waits at one level at a time, from the first (the narrowest) to the last. Where it is the head and ready, it keeps
 * that place and enters the queue of the next level; nothing is charged. Once it is the head and ready at every level, all
 * of them are charged in that step. So a call that its own user's limit holds back is in no other queue, and holds back no
 * other user. If a level is no longer ready by then, the call leaves the queues behind that level and waits there again.
 *
 * For `admission.ts` and `waiter.ts` this is one more backend. At each level the call has a waiter of its own, which the
 * limiter treats as any other; when it is resumed, the call itself is.
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Admission from "../admission.ts"
import type { Backend, Call, Host, Waiter } from "../backend.ts"
import * as Bounds from "../bounds.ts"
import * as Budget from "../budget.ts"
import * as Counts from "../counts.ts"
import * as Demand from "../demand.ts"
import * as Errors from "../errors.ts"
import { type Grant, noGrant, type Settlement } from "../grant.ts"
import * as Head from "../head.ts"
import * as Heap from "../heap.ts"
import { type Limiter, mayStart } from "../limiter.ts"
import * as Local from "../local.ts"
import type { Plan } from "../plan.ts"
import * as Reentry from "../reentry.ts"
import * as Scheduler from "../scheduler.ts"
import * as Time from "../time.ts"
import * as Waiters from "../waiter.ts"
import * as Hosts from "./host.ts"

export interface Levels extends Host<Levels> {
  /** From the narrowest to the widest. */
  readonly limiters: ReadonlyArray<Limiter>
  /** What a call costs each level; undefined if it costs all the same. */
  readonly demands: ReadonlyArray<Demand.Demand> | undefined
  /** The level that decided last: at which the latest call waits, or which rejected it. */
  level: number
  /** Those of the level at which the call waits, for its logs and spans. */
  counts: Counts.Counts
  pauses: Limiter["pauses"]
}

/** What a call holds at each level. */
interface Held extends Grant {
  readonly levels: ReadonlyArray<Grant>
}

/**
 * The place of a call at a level: in its queue, or none, since the level is in shadow or lets the call run without
 * permits that its own fiber holds.
 */
type Place = Waiter | "shadow" | "bypassed"

/** A waiting call. */
interface Climber extends Waiter {
  readonly call: Call
  /** Its place at each level that it has entered. */
  readonly entered: Array<Place>
  /** The level at which it waits. */
  level: number
  /** What it holds, once it has started. */
  levels: ReadonlyArray<Grant>
}

// ---------------------------------------------------------------------------------------------------------------------
// One level
// ---------------------------------------------------------------------------------------------------------------------

const demandAt = ({ demands, limiters }: Levels, level: number, { demand }: Call): Demand.Demand =>
  Demand.forPlan(limiters[level]!.plan, demands?.[level] ?? demand)

/** A call as it is for one level. Its settlement is of its own, since each level has other meters. */
const callAt = (levels: Levels, level: number, call: Call, self = call.self): Call => ({
  ...call,
  self,
  demand: demandAt(levels, level, call),
  settlement: call.settlement && ({ state: "open", tickets: [], semaphores: "none" } satisfies Settlement)
})

/** Whether a level lets an arriving call start now. */
const isOpenTo = (levels: Levels, level: number, call: Call): boolean => {
  const limiter = levels.limiters[level]!
  return limiter.phase === "shadow" ||
    (limiter.phase === "inForce" && mayStart(limiter, demandAt(levels, level, call), Time.now(limiter.time)))
}

/** Whether a level in force lets a waiting call start now. */
const isReady = (limiter: Limiter, waiter: Waiter): boolean => {
  if (limiter.phase === "closed" || limiter.queue.peek() !== waiter) return false
  const now = Time.now(limiter.time)
  return Budget.isReady(Head.examine(limiter, waiter, now), now)
}

/** Stands for the effect of a call, by which a level tells that it lets the call run without permits. */
const bypass = Effect.suspend(() => Effect.void)

/**
 * Enters the queue of a level. Returns the effect that replaces the call if the level rejects it.
 */
const enter = (levels: Levels, climber: Climber): Effect.Effect<any, any, any> | undefined => {
  const { call, entered } = climber
  const level = entered.length
  const limiter = levels.limiters[level]!
  const own = callAt(levels, level, call, bypass)
  if (limiter.phase === "shadow") {
    entered.push("shadow")
    return undefined
  }
  if (isOpenTo(levels, level, call)) {
    // It does not wait here, so no bound is asked. It keeps a place while it waits at a wider level.
    const waiter = Waiters.make(limiter, own, Time.now(limiter.time))
    if (limiter.mayReject) Bounds.apply(call.fiber, waiter)
    Local.enqueue(limiter, waiter)
    entered.push(waiter)
    return undefined
  }
  const arrived = limiter.backend.enqueueOrReject(limiter, own)
  if (arrived === bypass) {
    entered.push("bypassed")
    return undefined
  }
  if (!Waiters.isWaiter(arrived)) return arrived
  limitWait(levels, climber, limiter, arrived)
  entered.push(arrived)
  return undefined
}

/** Lets a wait end with the deadlines of the levels before, at which the call waits no more. */
const limitWait = ({ limiters }: Levels, { entered }: Climber, limiter: Limiter, waiter: Waiter): void => {
  const deadlines = entered.map((place, i) =>
    typeof place === "string" ? Infinity : Bounds.deadlineOf(limiters[i]!.plan, place)
  )
  const timeout = Math.min(...deadlines) - waiter.arrival
  if (timeout >= Bounds.timeoutOf(limiter.plan, waiter.own)) return
  Bounds.remove(limiter, waiter)
  waiter.own = { maxWait: waiter.own?.maxWait ?? Infinity, timeout: Math.max(0, timeout), deadline: Heap.node(waiter) }
  Bounds.add(limiter, waiter)
}

/** Leaves the queue of a level. */
const leave = (limiter: Limiter, waiter: Waiter): void => {
  waiter.state = "left"
  waiter.resume = undefined
  limiter.backend.leave(limiter, waiter)
}

/** Leaves the queues from a level on. */
const leaveFrom = ({ limiters }: Levels, { entered }: Climber, level: number): void => {
  entered.splice(level).forEach((waiter, i) => {
    if (typeof waiter === "string" || waiter.state !== "waiting") return
    leave(limiters[level + i]!, waiter)
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// From level to level
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Goes on as far as the levels let the call. Returns "ready" if all of them do, "waiting" if the call has to wait at
 * `climber.level`, or the effect that replaces the call.
 */
const climb = (levels: Levels, climber: Climber): "ready" | "waiting" | Effect.Effect<any, any, any> => {
  const { entered } = climber
  const { limiters } = levels
  for (let i = 0; i < limiters.length; i++) {
    const limiter = limiters[i]!
    // A level that came out of shadow is entered anew, and one that went into it is left.
    if (entered[i] === "shadow" && limiter.phase !== "shadow") leaveFrom(levels, climber, i)
    if (limiter.phase === "shadow") giveUp(levels, climber, i)
    const rejection = i === entered.length ? enter(levels, climber) : undefined
    if (rejection !== undefined) return replace(levels, climber, i, rejection)
    const waiter = entered[i]!
    if (typeof waiter === "string") continue
    if (waiter.state === "left") return replace(levels, climber, i, waiter.outcome!)
    if (limiter.phase === "closed") return replace(levels, climber, i, Effect.interrupt)
    if (isReady(limiter, waiter)) continue
    leaveFrom(levels, climber, i + 1)
    waitAt(levels, climber, i)
    return "waiting"
  }
  return "ready"
}

const replace = (levels: Levels, climber: Climber, level: number, effect: Effect.Effect<any, any, any>) => {
  levels.level = level
  leaveFrom(levels, climber, 0)
  return effect
}

/** Gives up the place of a call at a level in shadow, which holds back no call. */
const giveUp = ({ limiters }: Levels, { entered }: Climber, level: number): void => {
  const place = entered[level]
  if (place === undefined || typeof place === "string" || place.state !== "waiting") return
  entered[level] = "shadow"
  leave(limiters[level]!, place)
}

/** Notes at which level a call waits. It keeps its places at those before. */
const waitAt = (levels: Levels, climber: Climber, level: number): void => {
  const { limiters } = levels
  const { counts, pauses, plan: { description, name } } = limiters[level]!
  climber.level = level
  levels.level = level
  levels.counts = counts
  levels.pauses = pauses
  levels.plan = { ...levels.plan, name, description }
  climber.entered.forEach((place, i) => {
    if (typeof place !== "string") place.isAhead = i < level
  })
}

/** Observes the wait of a call at its level, instead of that of its waiter there. */
const observe = (levels: Levels, climber: Climber): void => {
  const { entered, fiber, level } = climber
  const limiter = levels.limiters[level]!
  const place = entered[level] as Waiter
  // A place that was kept while the call waited for a wider level was not observed.
  const observation = place.observation ??
    Waiters.observation(limiter, fiber, Time.now(limiter.time), 0, () => undefined)
  climber.observation = observation && { ...observation, queued: limiter.waiters.size }
  place.observation = undefined
}

/** Makes the waiters of a parked call resume the call. */
const listen = (levels: Levels, climber: Climber): void =>
  climber.entered.forEach((waiter, i) => {
    if (typeof waiter === "string" || waiter.state !== "waiting") return
    waiter.resume = (effect) => {
      if (climber.state !== "waiting") return
      for (const one of climber.entered) if (typeof one !== "string") one.resume = undefined
      if (waiter.state === "waiting" && levels.limiters[i]!.phase !== "closed") {
        return Waiters.resumeToStart(levels, climber)
      }
      // Rejected, or closed.
      climber.state = "left"
      levels.level = i
      leaveFrom(levels, climber, 0)
      Waiters.resumeWith(climber, effect)
    }
  })

// ---------------------------------------------------------------------------------------------------------------------
// The backend
// ---------------------------------------------------------------------------------------------------------------------

const asClimber = (waiter: Waiter): Climber => waiter as Climber

const grantsOf = (grant: Grant): ReadonlyArray<Grant> => (grant as Held).levels

/** Does something at each level at which a call holds something. */
const forEachGrant = (
  { limiters }: Levels,
  grant: Grant,
  f: (limiter: Limiter, grant: Grant) => void
): void =>
  grantsOf(grant).forEach((one, i) => {
    // Closed: cancelled before by `cancelAt`.
    if (one !== noGrant && one.settlement?.state !== "closed") f(limiters[i]!, one)
  })

/**
 * Starts a call at every level, in one step: an arriving one, or one that has places. What a level in shadow would have
 * rejected would not have come to a wider one, so another level in shadow does not count it. (It is not known of a call
 * without a settlement, which may hold nothing.)
 */
const startAll = (levels: Levels, call: Call, waited?: Climber): ReadonlyArray<Grant> => {
  const places = waited?.entered.splice(0)
  let isRejected = false
  return levels.limiters.map((limiter, i) => {
    const place = places?.[i]
    if (place === "bypassed") return noGrant
    if (place !== undefined && place !== "shadow") return startPlace(limiter, place, i === waited!.level)
    if (limiter.phase === "shadow" && isRejected) return noGrant
    const grant = limiter.backend.tryStart(limiter, callAt(levels, i, call))!
    if (limiter.phase === "shadow" && call.settlement !== undefined) isRejected = grant === noGrant
    return grant
  })
}

const startPlace = (limiter: Limiter, place: Waiter, isLast: boolean): Grant => {
  // Where it was ready before, the time until now is not made up for: it waited for another level.
  if (!isLast) Head.restart(limiter, Time.now(limiter.time))
  limiter.backend.startIfReady(limiter, place)
  return place.demand.holdsPermits || place.settlement !== undefined ? place : noGrant
}

/** Whether a call still waits at its level: it is ready at those before, and not there. */
const waitsOn = ({ limiters }: Levels, waiter: Waiter): boolean => {
  const { entered, level, state } = asClimber(waiter)
  return state === "waiting" && entered.length === level + 1 && entered.every((place, i) => {
    const limiter = limiters[i]!
    if (typeof place === "string") return place === "bypassed" || limiter.phase === "shadow"
    return place.state === "waiting" && limiter.phase !== "closed" && limiter.phase !== "shadow" &&
      isReady(limiter, place) === i < level
  })
}

const backend: Backend<Levels> = {
  // The limiters of keys are given back by a hook, so there is no shorter path.
  startHoldingNothing: () => false,

  tryStart: (levels, call) => {
    if (!levels.limiters.every((_, i) => isOpenTo(levels, i, call))) return undefined
    const grants = startAll(levels, call)
    if (grants.every((grant) => grant === noGrant)) return noGrant
    const held: Held = { ...noGrant, ...call, levels: grants }
    return held
  },

  enqueueOrReject: (levels, call) => {
    const rejection = excess(levels, call)
    if (rejection !== undefined) return rejection
    const waiter = Waiters.make(levels, call, Time.now(levels.time))
    Bounds.apply(call.fiber, waiter)
    const climber: Climber = Object.assign(waiter, { call, entered: [], level: 0, levels: [] })
    const replaced = reentry(levels, climber)
    if (replaced !== undefined) return replaced
    const progress = climb(levels, climber)
    if (Effect.isEffect(progress)) return progress
    if (progress === "ready") return climber
    observe(levels, climber)
    return climber
  },

  resolveIfAvailable: (levels, call, restore) => {
    for (const [i, limiter] of levels.limiters.entries()) {
      if (limiter.phase === "shadow") continue
      levels.level = i
      const replaced = limiter.backend.resolveIfAvailable(limiter, callAt(levels, i, call), restore)
      if (replaced !== undefined) return replaced
    }
    return undefined
  },

  onPark: (levels, waiter) => {
    const climber = asClimber(waiter)
    // Something has changed since it was decided that it waits.
    if (!waitsOn(levels, waiter)) return Waiters.resumeToStart(levels, climber)
    listen(levels, climber)
    // The deadlines of those behind it are due as before.
    for (let i = 0; i < climber.level; i++) Scheduler.drainSoon(levels.limiters[i]!.scheduler)
    const limiter = levels.limiters[climber.level]!
    limiter.backend.onPark(limiter, climber.entered[climber.level] as Waiter)
  },

  startIfReady: (levels, waiter) => {
    const climber = asClimber(waiter)
    const { level } = climber
    const progress = climb(levels, climber)
    if (progress === "waiting") {
      if (climber.level !== level) observe(levels, climber)
      return false
    }
    if (progress === "ready") {
      climber.state = "started"
      climber.levels = startAll(levels, climber.call, climber)
      return true
    }
    climber.state = "left"
    climber.observation = undefined
    climber.outcome = progress
    return true
  },

  waitsOn,

  leave: (levels, waiter) => {
    const { entered, level } = asClimber(waiter)
    entered.forEach((place, i) => {
      // `abandon` counts the interruption at the level at which the call waits.
      if (typeof place !== "string" && i !== level) Counts.interrupted(levels.limiters[i]!.counts)
    })
    leaveFrom(levels, asClimber(waiter), 0)
  },

  runHolding: (levels, grant, self) => {
    if ((grant as Climber).state === "left") return (grant as Climber).outcome!
    return grantsOf(grant).reduceRight(
      (inner, one, i) => {
        const limiter = levels.limiters[i]!
        return one === noGrant ? inner : limiter.backend.runHolding(limiter, one, inner)
      },
      self
    )
  },

  takeForScope: (levels, grant) => each(levels, grant, (limiter, one) => limiter.backend.takeForScope(limiter, one)),

  returnFromScope: (levels, grant) =>
    each(levels, grant, (limiter, one) => limiter.backend.returnFromScope(limiter, one)),

  settle: (levels, grant, actual) =>
    forEachGrant(
      levels,
      grant,
      (limiter, one) => limiter.backend.settle(limiter, one, Demand.forPlan(limiter.plan, actual))
    ),

  cancel: (levels, grant) => forEachGrant(levels, grant, (limiter, one) => limiter.backend.cancel(limiter, one)),

  release: (levels, grant, exit: Exit.Exit<unknown, unknown>, isCharged) =>
    forEachGrant(levels, grant, (limiter, one) => {
      limiter.backend.release(limiter, one, exit, isCharged)
      limiter.afterCall?.()
    })
}

/** Rejects a call that a level can never grant, and interrupts one at a level that is closed. */
const excess = (levels: Levels, call: Call): Effect.Effect<never, ThrottleError> | undefined => {
  for (const [i, limiter] of levels.limiters.entries()) {
    levels.level = i
    if (limiter.phase === "closed") return Effect.interrupt
    const demand = demandAt(levels, i, call)
    if (limiter.phase === "inForce" && demand.exceeds !== undefined) {
      return Waiters.rejection(limiter, call.fiber, demand, Errors.exceeds(limiter, demand), 0)
    }
  }
  return undefined
}

/**
 * Returns the effect that replaces a nested call which would wait behind one that waits further out for permits of this
 * very fiber. (Where no call is ahead, each level finds such a call itself.)
 */
const reentry = (levels: Levels, { call, own }: Climber): Effect.Effect<any, any, any> | undefined => {
  const { limiters } = levels
  const first = limiters.findIndex(({ queue }) => queue.peek()?.isAhead === true)
  if (first < 0) return undefined
  for (let i = first + 1; i < limiters.length; i++) {
    const limiter = limiters[i]!
    if (limiter.phase !== "inForce" || Bounds.timeoutOf(limiter.plan, own) < Infinity) continue
    const pool = Reentry.ownPool(limiter, callAt(levels, i, call))
    if (pool?.part.onReentry === "die") return Effect.die(Reentry.deadlock(limiter.plan.name, pool.part.name))
    if (pool === undefined) continue
    for (const { counts } of limiters) Counts.admitted(counts, false)
    return call.self
  }
  return undefined
}

/** Joins the effects of all levels; undefined if there is none. */
const each = (
  levels: Levels,
  grant: Grant,
  f: (limiter: Limiter, grant: Grant) => Effect.Effect<unknown> | undefined
): Effect.Effect<unknown> | undefined => {
  const effects: Array<Effect.Effect<unknown>> = []
  forEachGrant(levels, grant, (limiter, one) => {
    const effect = f(limiter, one)
    if (effect !== undefined) effects.push(effect)
  })
  return effects.length === 0 ? undefined : Effect.all(effects, { discard: true })
}

/** Cancels what a call holds at one level; it stays charged at the others. */
export const cancelAt = ({ limiters }: Levels, grant: Grant, level: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const one = grantsOf(grant)[level]!
    return one === noGrant || grant.settlement?.state !== "open"
      ? Effect.void
      : Admission.permitOf(limiters[level]!, one.demand, one).cancel
  })

/**
 * Makes the levels of one call, or of several one after the other. `plan`: without parts; its units are those of all.
 * `demands`: what a call costs each level, if it does not cost all the same.
 */
export const make = (
  limiters: ReadonlyArray<Limiter>,
  plan: Plan,
  demands?: ReadonlyArray<Demand.Demand>
): Levels => ({ ...Hosts.make(limiters[0]!, plan), backend, limiters, demands, level: 0 })
