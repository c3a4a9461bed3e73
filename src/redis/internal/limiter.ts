/**
 * The state of a throttle that processes share, in one of them: its queue, what the store has granted, and what is still to
 * be reported to the store. Instants are nanoseconds of this process's clock, unless they are said to be the store's.
 */
import type * as Context from "effect/Context"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Backend from "../../internal/backend.ts"
import * as Budget from "../../internal/budget.ts"
import type { Demand } from "../../internal/demand.ts"
import type { AnyFiber, EndedBy, LiveMeter } from "../../internal/grant.ts"
import * as List from "../../internal/list.ts"
import type { Queue } from "../../internal/queue/queue.ts"
import type { Scheduler } from "../../internal/scheduler.ts"
import type { Throttle } from "../../internal/service.ts"
import * as Time from "../../internal/time.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import type { Settlement } from "../ThrottleStore.ts"
import type { Client } from "./client.ts"
import type { Fallback } from "./fallback.ts"
import type { Rules } from "./rules.ts"

export interface Settings {
  /** The key in the store. */
  readonly key: string
  /** The channel of all throttles with its prefix. */
  readonly channel: string
  readonly client: Client
  /** Nanoseconds that a decision may take. */
  readonly timeout: number
  /** Nanoseconds that a lease lasts unless renewed. */
  readonly ttl: number
  /** Nanoseconds after its start within which a call may be settled. */
  readonly settleWithin: number
  /** What becomes of a call that the store gives no decision for. */
  readonly onStoreError: "fail" | "allow" | Fallback
}

/** What the store has granted to a call. */
export interface Grant {
  readonly demand: Demand
  /** The store's instant for which it was charged. */
  readonly at: number
  /** The version of the key in which it can be returned. */
  version: number
  readonly isSlot: boolean
  /** Whether the store lets a call with it settle its cost, or there is nothing to settle. */
  readonly maySettle: boolean
  /**
   * Whether it is of a call of several levels. If that does not start it is cancelled, since requests for other calls, at work
   * at the same time, make new versions.
   */
  readonly isOfLevels: boolean
  readonly lease: Lease | undefined
}

/** Permits that are held, or will be when a slot is due. */
export interface Lease {
  /** The key in the store. */
  readonly key: string
  readonly name: string
  readonly fence: number
  readonly demand: Demand
  /** Until then no other process can have its permits. */
  until: number
  /** Fails when the lease is lost. */
  readonly lost: Deferred.Deferred<never, ThrottleError>
  /** The fiber that works under it, whose end is that of the lease. */
  fiber: AnyFiber | undefined
  /** What ends it, once the call has started. */
  endedBy: EndedBy | undefined
}

/** Why a waiter may start. */
export type Admission =
  | { readonly _tag: "Granted"; readonly grant: Grant }
  /** Without a decision of the store: as if there were no throttle. */
  | { readonly _tag: "Allowed" }
  /** Without a decision of the store: by a throttle of this process. */
  | { readonly _tag: "Local"; readonly throttle: Throttle }

/**
 * A waiter on a store is asked for; then it is queued, if it has to wait; then it is admitted, which takes it out of the
 * queue, and starts in a later step.
 */
export interface Waiter extends Backend.Waiter {
  /** Undefined until it is known that it has to wait. */
  queued: { readonly position: number; readonly expected: number | undefined } | undefined
  admission: Admission | undefined
  /** The call of several levels that waits here; undefined for a call of this throttle alone. */
  several: Several | undefined
}

/** A call of several levels (`levels.ts`), of which each has a waiter. */
export interface Several {
  /** Whether it waits at this level. At the others it only keeps its place, as the head. */
  readonly isAt: (limiter: Limiter) => boolean
  /** Asks the store for it. */
  readonly ask: Effect.Effect<void>
  /** Begins to observe its wait. */
  readonly observe: (limiter: Limiter, waiter: Waiter) => void
}

/**
 * The fiber that sends requests.
 *
 * - idle: there is none. It starts with the next signal.
 * - active: it looks for what to do, or does it.
 * - signalled: the same, and it has to look again.
 * - resting: it waits for a signal, or for some time.
 */
export interface Pump {
  state: "idle" | "active" | "signalled" | "resting"
  fiber: AnyFiber | undefined
  /** Ends its rest. */
  wake: () => void
  readonly start: () => void
}

/**
 * - open
 * - draining: newcomers are rejected.
 * - closing: newcomers are interrupted, since the type of calls has no error.
 * - closed: no call starts.
 */
export type Phase = "open" | "draining" | "closing" | "closed"

export interface Limiter extends Backend.Host<Limiter> {
  /** The order within this process. Processes take turns, whatever the order. */
  queue: Queue<Backend.Waiter>
  readonly settings: Settings
  readonly context: Context.Context<never>
  rules: Rules
  phase: Phase
  readonly pump: Pump
  /** Its timer ends at the first deadline. */
  readonly deadlines: Scheduler
  /** What the store has reserved for the head of the queue, and when it is due. */
  slot: { readonly grant: Grant; readonly due: number } | undefined
  /** Grants that are due, of calls that did not start: for other waiters, or to be returned. */
  unused: Array<Grant>
  /** Slots that no waiter needs any more: to be returned. */
  unwanted: Array<Grant>
  settlements: Array<Settlement>
  /** The names of leases to release. */
  releases: Array<string>
  readonly leases: Set<Lease>
  renewer: AnyFiber | undefined
  /** Since when the store has answered nothing; undefined after an answer. */
  silentSince: number | undefined
  /**
   * The store's instant of the latest grant of calls, or at which the last slot was due: since then the next waiter has been
   * the head. Undefined where that makes up for no time, as after a pause.
   */
  since: number | undefined
  /** Until then a head that is a call of several levels is not asked for, since the store has said how long it has to wait. */
  askAgainAt: number
  /** How many calls of several levels are asked for at once: more with each that starts, one after one that may not. */
  atOnce: number
  /** What the store has said of the head: the part that it waits for, when the next lease ends, and the end of a pause. */
  answer: { readonly part: number; readonly nextExpiry: number | undefined; readonly pausedUntil: number }
  /**
   * This process's place in the store's queue for permits. free: it is in the queue, or has just asked, and has since been
   * notified that permits may be free.
   */
  place: "none" | "queued" | "free"
  /** How many resets of this process the store has answered. */
  resets: number
  /** The end of the pause that was made in this process. */
  pausedUntil: number
  /** The end of the pause that the store may not know of: until then this process has to remember it. */
  unreportedPause: number
  /** The operations of a map that have found it, and are not over. */
  users: number
}

export const liveMeter = (): LiveMeter => ({ waitingCalls: 0, waitingCost: 0 })

export const now = ({ time }: Limiter): number => Time.now(time)

export const run = ({ context }: Limiter) => Effect.runForkWith(context)

/** The call that starts next of those that wait in this process. */
export const headOf = ({ queue }: Limiter): Waiter | undefined => queue.peek() as Waiter | undefined

/** The calls in the queue. Copied, since one that is resumed may do anything, such as leave. */
export const waitersOf = ({ waiters }: Limiter): ReadonlyArray<Waiter> =>
  Array.from(List.values(waiters)) as Array<Waiter>

/** How many calls are known to have to wait: all, or those at the front. */
export const queuedCalls = ({ counts }: Limiter): number => counts.own.waiting

/** Nanoseconds left of a pause that was made in this process. */
export const pausedFor = (limiter: Limiter): number => {
  const left = limiter.pausedUntil - now(limiter)
  return left > Budget.tolerance ? left : 0
}

export const isSame = (one: Demand, other: Demand): boolean =>
  one === other || (one.plan === other.plan &&
    one.meters.every((amount, i) => amount === other.meters[i]) &&
    one.pools.every((amount, i) => amount === other.pools[i]))

/** Makes the pump look for what to do. */
export const signal = ({ pump }: Limiter): void => {
  switch (pump.state) {
    case "idle":
      return pump.start()
    case "active":
      pump.state = "signalled"
      return
    case "resting":
      return pump.wake()
  }
}

/** Whether something is to be reported to the store. */
export const hasReports = ({ place, releases, settlements, unused, unwanted, waiters }: Limiter): boolean =>
  releases.length + settlements.length + unused.length + unwanted.length > 0 || (place !== "none" && waiters.size === 0)

/** Whether nothing uses it, no call waits, nothing is held or to be reported, and the store knows of every pause. */
export const isIdle = (limiter: Limiter): boolean =>
  limiter.users === 0 && limiter.waiters.size === 0 && limiter.leases.size === 0 && limiter.pump.state === "idle" &&
  limiter.slot === undefined &&
  limiter.renewer === undefined && !hasReports(limiter) && limiter.unreportedPause <= now(limiter) + Budget.tolerance
