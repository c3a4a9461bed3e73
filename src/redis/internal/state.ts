/**
 * What a process's half of a shared throttle is made of.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Ask } from "../../internal/ask.ts"
import * as Line from "../../internal/line.ts"
import * as Observe from "../../internal/observe.ts"
import type * as Pauses from "../../internal/pauses.ts"
import type { Plan } from "../../internal/plan.ts"
import { type AnyFiber, type Limiter as LocalLimiter, noise } from "../../internal/state.ts"
import type { Settlement } from "../ThrottleStore.ts"
import * as Client from "./client.ts"
import type { Fallback } from "./fallback.ts"
import type { Rules } from "./rules.ts"

/** What becomes of a call that the store gives no decision for. */
export type OnStoreError = "fail" | "allow" | Fallback

export interface Settings {
  /** The key in the store. */
  readonly key: string
  /** The channel of all throttles with its prefix. */
  readonly channel: string
  readonly client: Client.Client
  /** How long to wait for a decision, in nanoseconds. */
  readonly timeout: number
  /** How long a lease lasts unless renewed, in nanoseconds. */
  readonly ttl: number
  /** How long after its start a call may be settled, in nanoseconds. */
  readonly settleWithin: number
  readonly onStoreError: OnStoreError
}

/** Permits that are held, or will be when a slot is due. Instants are nanoseconds of this process's clock. */
export interface Lease {
  readonly name: string
  readonly fence: number
  readonly ask: Ask
  /** Until when nobody else can have its permits. */
  until: number
  isLost: boolean
  /** What is to be done when it is lost. */
  onLost: (() => void) | undefined
  /** The fiber that works under it, if it ends it. */
  fiber: AnyFiber | undefined
}

/** What the store has granted. */
export interface Grant {
  readonly ask: Ask
  /** When it was charged, in the store's microseconds. */
  readonly at: number
  /** The state of the key in which it can be taken back; undefined where nothing was charged. */
  version: number | undefined
  readonly isSlot: boolean
  readonly lease: Lease | undefined
}

interface Slot {
  readonly grant: Grant
  /** In nanoseconds. */
  readonly due: number
}

/** A call in line. */
export interface Call extends Line.Place<Call> {
  ask: Ask
  readonly fiber: AnyFiber
  /** In nanoseconds. */
  readonly arrival: number
  /** For how long the throttle had been paused until then, in nanoseconds. */
  readonly pausedBefore: number
  readonly traced: boolean
  readonly heard: boolean
  /** What it runs when its turn comes. */
  readonly run: (grant: Grant) => Effect.Effect<any, any, any>
  /** What it runs when the store fails and this process decides by itself. */
  readonly runLocally: (fallback: Fallback) => Effect.Effect<any, any, any>
  /** Whether what it is charged may be settled later. */
  readonly isOpen: boolean
  /** Whether a failure of the store is a defect, since the call's type knows no such error. */
  readonly isInline: boolean
  state: "waiting" | "granted" | "started" | "gone"
  /** Whether it knows that it has to wait. */
  isTold: boolean
  /** Whether its wait has begun to be traced, or heard of. */
  isWatched: boolean
  queued: number
  expected: number | undefined
  grant: Grant | undefined
  /** What it runs instead, where the store has failed. */
  instead: Effect.Effect<any, any, any> | undefined
  /** Lets its fiber go on; set while that is parked. */
  resume: ((effect: Effect.Effect<any, any, any>) => void) | undefined
  /** What it goes on with, where that came before it was parked. */
  next: Effect.Effect<any, any, any> | undefined
}

export interface Limiter {
  readonly settings: Settings
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  plan: Plan
  rules: Rules
  one: Ask
  readonly line: Line.Line<Call>
  /** Of those in line, how many know that they have to wait: either all, or those at the front. */
  told: number
  /** What those in line ask of each timing part, and how many of them do. */
  ahead: ReadonlyArray<{ total: number; calls: number }>
  slot: Slot | undefined
  /** Granted, and due, to calls that are gone: for others, or to be taken back. */
  surplus: Array<Grant>
  /** Slots that nobody waits for any more: to be taken back. */
  unwanted: Array<Grant>
  settlements: Array<Settlement>
  releases: Array<string>
  readonly leases: Set<Lease>
  /** When the store first did not hear what it was told, if it has heard nothing since. */
  unheardSince: number | undefined
  /** When the last slot was due, in the store's microseconds: from then on the next one has been the head. */
  since: number | undefined
  /** The part that the head waits for, and when the store will know more of it. */
  inTheWay: number
  /** Whether the head waits for permits; then this process stands in the store's line. */
  isBusy: boolean
  nextExpiry: number | undefined
  /** Whether the store has said that permits may be free, since it was asked last. */
  mayBeFree: boolean
  storePausedUntil: number
  pausedUntil: number
  /** The pauses that this process knows of. */
  readonly pauses: Pauses.Pauses
  /** End of a pause of which the store has not heard: until then this process has to remember it. */
  unheardPauseUntil: number
  readonly counters: LocalLimiter["counters"]
  readonly series: Observe.Series
  pump: AnyFiber | undefined
  readonly startPump: () => void
  /** Ends the pump's rest. */
  wake: (() => void) | undefined
  /** Whether something has happened since the pump last looked. */
  isSignalled: boolean
  keeper: AnyFiber | undefined
  renewer: AnyFiber | undefined
  /** When it has become idle: nobody waits, nothing is held, nothing is to be told. */
  readonly onIdle: () => void
  closed: boolean
}

export const time = (limiter: Limiter): number => Number(limiter.clock.monotonicTimeNanosUnsafe())

export const run = (limiter: Limiter) => Effect.runForkWith(limiter.context)

/** In whole microseconds, as the store counts. */
export const sleepFor = (nanos: number): Duration.Duration => Duration.millis(Math.max(1, Math.ceil(nanos / 1e3)) / 1e3)

export const pausedFor = (limiter: Limiter): number => {
  const left = limiter.pausedUntil - time(limiter)
  return left > noise ? left : 0
}

export const isSame = (one: Ask, other: Ask): boolean =>
  one === other || (one.plan === other.plan &&
    one.timings.every((amount, i) => amount === other.timings[i]) &&
    one.holdings.every((amount, i) => amount === other.holdings[i]))

export const count = (limiter: Limiter, ask: Ask, sign: 1 | -1): void => {
  for (let i = 0; i < limiter.ahead.length; i++) {
    const amount = ask.timings[i]!
    if (amount === 0) continue
    limiter.ahead[i]!.total += sign * amount
    limiter.ahead[i]!.calls += sign
  }
}

/** Something has happened that the pump does not know of. */
export const signal = (limiter: Limiter): void => {
  limiter.isSignalled = true
  if (limiter.wake !== undefined) limiter.wake()
  else limiter.startPump()
}

/** Whether the store is to be told something. */
export const hasWork = ({ isBusy, line, releases, settlements, surplus, unwanted }: Limiter): boolean =>
  releases.length + settlements.length + surplus.length + unwanted.length > 0 || (isBusy && line.size === 0)

/** Calls `onIdle` if no call waits, nothing is held, nothing is to be told and no pause is known here alone. */
export const rest = (limiter: Limiter): void => {
  if (
    limiter.line.size === 0 && limiter.leases.size === 0 && limiter.pump === undefined && limiter.slot === undefined &&
    limiter.renewer === undefined && !hasWork(limiter) && limiter.unheardPauseUntil <= time(limiter) + noise
  ) limiter.onIdle()
}

/** The fiber whose step this is. */
export const current = (): AnyFiber => Fiber.getCurrent()!
