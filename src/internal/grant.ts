/**
 * The grant of an admitted call: what it holds until it is released.
 */
import type * as Fiber from "effect/Fiber"
import type * as Budget from "./budget.ts"
import type { Demand } from "./demand.ts"
import type * as List from "./list.ts"
import type { Pool } from "./pool.ts"

export type AnyFiber = Fiber.Fiber<unknown, unknown>

export interface Grant extends List.Node<Grant> {
  readonly fiber: AnyFiber
  demand: Demand
  /**
   * The parts to which the demand's amounts belong. An update keeps the object of a part that continues, so a part is
   * found by identity.
   */
  meters: ReadonlyArray<LiveMeter>
  pools: ReadonlyArray<Pool>
  readonly endedBy: EndedBy
  /** Undefined if the cost is final. */
  readonly settlement: Settlement | undefined
  /** The instant of its start: always set on a store, in this process only if a limit learns from durations. */
  startedAt: number
}

/** The waiting calls' demand of one meter of a limiter. (The meter's state is in the limiter's `charged`.) */
export interface LiveMeter {
  waitingCalls: number
  waitingCost: number
}

/**
 * What may end a call: "call": only its fiber; "permit": its fiber, or a `cancel` of its permit by any fiber; "scope":
 * any fiber that closes the scope.
 */
export type EndedBy = "call" | "permit" | "scope"

/** The state of a call whose cost may be settled once before it is released. */
export interface Settlement {
  state: "open" | "settled" | "cancelled" | "closed"
  tickets: Budget.Tickets
  /**
   * The permits of the Semaphores: none, since the call started in shadow; still to be taken for the scope; or taken. Decided at
   * the start, since an update may change the policy one step later.
   */
  semaphores: "none" | "due" | "taken"
}

/** The grant of a call that needs no release. */
export const noGrant: Grant = {
  prev: undefined,
  next: undefined,
  fiber: undefined as never,
  demand: undefined as never,
  meters: [],
  pools: [],
  endedBy: "call",
  settlement: undefined,
  startedAt: 0
}
