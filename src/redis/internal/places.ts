/**
 * The places of a call of several levels: a waiter in the queue of each level that it has entered.
 */
import * as Effect from "effect/Effect"
import type { Call, Host, Waiter as AnyWaiter } from "../../internal/backend.ts"
import * as Bounds from "../../internal/bounds.ts"
import type * as Counts from "../../internal/counts.ts"
import * as Demand from "../../internal/demand.ts"
import type { Throttle } from "../../internal/service.ts"
import * as Waiters from "../../internal/waiter.ts"
import * as Start from "./backend.ts"
import type { Limiter, Several, Waiter } from "./limiter.ts"
import * as Pump from "./pump.ts"
import { enqueue, makeWait } from "./queue.ts"

export interface Levels extends Host<Levels> {
  /** From the narrowest to the widest. */
  readonly limiters: ReadonlyArray<Limiter>
  /** Those of the level at which the call waits, for its logs and spans. */
  counts: Counts.Counts
  pauses: Limiter["pauses"]
}

/** The place of a call at a level: a waiter, or none where it runs without permits, since its own fiber holds them. */
export type Place = Waiter | "bypassed"

/** A call that arrived. */
export interface Climber extends AnyWaiter {
  readonly call: Call
  readonly several: Several
  /** Its place at each level that it has entered; once it is admitted, at all. */
  places: Array<Place>
  /** The level at which it waits. */
  level: number
  /** How it may start; "local": without a decision of the store, by this throttle of this process. */
  admission: "granted" | { readonly local: Throttle } | undefined
}

/** Stands for the effect of a call, by which a level tells that it lets the call run without permits. */
const bypass = Effect.suspend(() => Effect.void)

export const callAt = ({ plan }: Limiter, call: Call): Call => ({
  ...call,
  self: bypass,
  demand: Demand.forPlan(plan, call.demand)
})

/** Whether it waits, and no level has rejected it. */
export const isWaiting = ({ admission, places, state }: Climber): boolean =>
  state === "waiting" && admission === undefined &&
  places.every((place) => place === "bypassed" || place.state === "waiting")

/** Leaves the queues from a level on. */
export const leaveFrom = ({ limiters }: Levels, { places }: Climber, level: number): void => {
  places.splice(level).forEach((place, i) => {
    if (place === "bypassed" || place.state !== "waiting") return
    const limiter = limiters[level + i]!
    place.state = "left"
    place.resume = undefined
    limiter.backend.leave(limiter, place)
  })
}

/** Ends the call without a start. */
export const end = (levels: Levels, climber: Climber, effect: Effect.Effect<any, any, any>): void => {
  climber.state = "left"
  leaveFrom(levels, climber, 0)
  Waiters.resumeWith(climber, effect)
}

/** Enters the queue of the next level. Returns the effect that replaces the call if the level rejects it. */
export const enter = (levels: Levels, climber: Climber): Effect.Effect<any, any, any> | undefined => {
  const { call, places, several } = climber
  const limiter = levels.limiters[places.length]!
  const arrived = Start.enqueueOrReject(limiter, callAt(limiter, call), several)
  if (arrived === bypass) {
    places.push("bypassed")
    return undefined
  }
  if (!Waiters.isWaiter(arrived)) return arrived
  if (arrived.state === "left") return arrived.outcome!
  places.push(arrived)
  listen(levels, climber, arrived)
  return undefined
}

/** Enters the queue of the next level, which has let the call start, to keep its place there. No bound is asked. */
export const keepPlace = (levels: Levels, climber: Climber): void => {
  const { call, places, several } = climber
  const limiter = levels.limiters[places.length]!
  const place = Start.makeWaiter(limiter, callAt(limiter, call), undefined, several)
  Bounds.apply<AnyWaiter>(call.fiber, place)
  places.push(place)
  enqueue(limiter, place)
  listen(levels, climber, place)
}

/** The others at this level have to wait, since the call keeps its place before them while it waits at another level. */
export const holdBack = (limiter: Limiter, place: Place): void => {
  if (place === "bypassed" || place.state !== "waiting") return
  if (place.queued === undefined) makeWait(limiter, place, undefined)
  limiter.since = undefined
  Pump.queueOrReject(limiter, undefined)
}

/** A waiter is resumed only if its level rejects it, is closed, or interrupts it: then the call ends. */
const listen = (levels: Levels, climber: Climber, place: Waiter): void => {
  const resume = (effect: Effect.Effect<any, any, any>) => {
    if (climber.state === "waiting" && climber.admission === undefined) end(levels, climber, effect)
  }
  const { outcome } = place
  if (outcome === undefined) place.resume = resume
  else resume(outcome)
}
