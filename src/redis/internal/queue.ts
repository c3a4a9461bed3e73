/**
 * The queue of a throttle on a store, in this process: which calls are known to wait, which of them get what the store has
 * granted, and which have waited for too long.
 */
import * as Deferred from "effect/Deferred"
import * as Bounds from "../../internal/bounds.ts"
import * as Budget from "../../internal/budget.ts"
import * as Counts from "../../internal/counts.ts"
import * as Scheduler from "../../internal/scheduler.ts"
import * as Waiters from "../../internal/waiter.ts"
import * as Errors from "./errors.ts"
import type { Admission, Grant, Limiter, Waiter } from "./limiter.ts"
import * as Shared from "./limiter.ts"

export const enqueue = (limiter: Limiter, waiter: Waiter): void => {
  Waiters.enqueue(limiter, waiter)
  limiter.queue.push(waiter)
  if (limiter.waiters.size === 1 || waiter.own !== undefined) rejectLate(limiter)
}

export const dequeue = (limiter: Limiter, waiter: Waiter, hasStarted: boolean): void => {
  const wasHead = Shared.headOf(limiter) === waiter
  Waiters.remove(limiter, waiter)
  limiter.queue.remove(waiter, hasStarted)
  if (waiter.queued === undefined) Counts.changed(limiter.counts)
  else Counts.waiting(limiter.counts, -1)
  if (limiter.waiters.size === 0) Scheduler.stop(limiter.deadlines)
  if (!wasHead) return
  limiter.askAgainAt = -Infinity
  Shared.signal(limiter)
}

/** It is known from now on that a call has to wait. `expected`: nanoseconds; undefined where that cannot be estimated. */
export const makeWait = (limiter: Limiter, waiter: Waiter, expected: number | undefined): void => {
  Counts.waiting(limiter.counts, 1)
  waiter.queued = { position: Shared.queuedCalls(limiter), expected }
  observeIfParked(limiter, waiter)
}

/** Begins to observe the wait of a parked call that is known to wait, unless it is observed. */
export const observeIfParked = (limiter: Limiter, waiter: Waiter): void => {
  const { arrival, fiber, observation, queued, resume, several } = waiter
  if (several !== undefined) return several.observe(limiter, waiter)
  if (queued === undefined || observation !== undefined || resume === undefined) return
  const { expected, position } = queued
  const finite = expected === Infinity ? undefined : expected
  waiter.observation = Waiters.observation(limiter, fiber, arrival, position, () => finite)
  if (waiter.observation !== undefined) Waiters.resumeWith(waiter, Waiters.waitAndRun(limiter, waiter))
}

/** Lets a waiter start. */
export const admit = (limiter: Limiter, waiter: Waiter, admission: Admission): void => {
  dequeue(limiter, waiter, true)
  waiter.admission = admission
  Waiters.resumeToStart(limiter, waiter)
}

export const give = (limiter: Limiter, waiter: Waiter, grant: Grant): void =>
  admit(limiter, waiter, { _tag: "Granted", grant })

/** Takes back a grant that its call did not use. */
export const giveBack = (limiter: Limiter, grant: Grant): void => {
  limiter.unused.push(grant)
  Shared.signal(limiter)
}

/**
 * Drops what was reserved or granted before a reset, and was not used. Its leases are released, and the store takes back
 * what it has charged since.
 */
export const dropReservations = (limiter: Limiter): void => {
  limiter.unwanted.push(...limiter.unused, ...(limiter.slot === undefined ? [] : [limiter.slot.grant]))
  limiter.unused = []
  limiter.slot = undefined
  limiter.since = undefined
  limiter.askAgainAt = -Infinity
}

/** Whether a call may start with a grant that was made for another. One of several levels is granted by all at once. */
const suits = ({ demand, maySettle }: Grant, waiter: Waiter): boolean =>
  waiter.several === undefined &&
  Shared.isSame(demand, waiter.demand) && (maySettle || waiter.settlement === undefined)

/** Gives unused grants to the head of the queue, as long as they suit it. */
export const giveUnused = (limiter: Limiter): void => {
  while (limiter.unused.length > 0 && Shared.pausedFor(limiter) === 0) {
    const head = Shared.headOf(limiter)
    if (head === undefined) return
    const i = limiter.unused.findIndex((grant) =>
      suits(grant, head) && (grant.lease === undefined || !Deferred.isDoneUnsafe(grant.lease.lost))
    )
    if (i < 0) return
    give(limiter, head, limiter.unused.splice(i, 1)[0]!)
  }
}

/** Gives the slot to the head of the queue when it is due. If it does not suit the head, it is returned. */
export const giveSlot = (limiter: Limiter): void => {
  const { slot } = limiter
  const head = Shared.headOf(limiter)
  if (slot === undefined) return
  if (head === undefined || !suits(slot.grant, head)) {
    limiter.slot = undefined
    limiter.unwanted.push(slot.grant)
  } else if (slot.due <= Shared.now(limiter) + Budget.tolerance && Shared.pausedFor(limiter) === 0) {
    limiter.slot = undefined
    limiter.since = slot.grant.at
    give(limiter, head, slot.grant)
  }
}

/** Rejects waiters whose time is up, and sets the timer for the next deadline. */
export const rejectLate = (limiter: Limiter): boolean => {
  for (let first = Bounds.earliest(limiter); first !== undefined; first = Bounds.earliest(limiter)) {
    const late = first
    const deadline = Bounds.deadlineOf(limiter.plan, late)
    const at = Shared.now(limiter)
    if (deadline > at + Budget.tolerance) {
      Scheduler.drainAt(limiter.deadlines, limiter.context, at, deadline)
      return true
    }
    // A slot that is due exactly then is in time.
    if (limiter.slot !== undefined && limiter.slot.due <= deadline + Budget.tolerance) giveSlot(limiter)
    if (Bounds.earliest(limiter) === first) Waiters.reject(limiter, first, () => Errors.timedOut(limiter, late))
  }
  Scheduler.stop(limiter.deadlines)
  return true
}
