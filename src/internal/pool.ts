/**
 * The permits of a permit-based part: a count, by which calls are admitted, and a Semaphore, which enforces the limit
 * whatever the queue does. The only file that touches a Semaphore.
 *
 * Invariant: the Semaphore has at least as many permits as are held by calls that take them from it. (Calls that are admitted
 * in shadow count as held and take none.) An admitted call takes its permits from the
 * Semaphore some steps after the decision, and because of the invariant it never waits there, whatever an update does
 * in between. When the limit is lowered, the Semaphore therefore shrinks only as permits are released.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { PoolPart } from "./plan.ts"

export interface Pool {
  /** Replaced by an update. */
  part: PoolPart
  limit: number
  held: number
  readonly semaphore: Semaphore.Semaphore
  /** The total permits of the Semaphore, taken or not. */
  size: number
}

export const make = (part: PoolPart): Pool => {
  const limit = part.limit.initial
  return { part, limit, held: 0, semaphore: Semaphore.makeUnsafe(limit), size: limit }
}

/** The free permits; negative while more are held than the limit allows. */
export const free = (pool: Pool): number => pool.limit - pool.held

/** Continues with another part of the same identity. Held permits stay held. */
export const update = (pool: Pool, part: PoolPart): Pool => {
  pool.part = part
  setLimit(pool, part.limit.initial)
  return pool
}

/** Counts permits as held; they are taken from the Semaphore some steps later. */
export const count = (pool: Pool, amount: number): void => {
  pool.held += amount
}

export const setLimit = (pool: Pool, limit: number): void => {
  pool.limit = limit
  fit(pool)
}

/** Releases permits that are already back in the Semaphore. */
export const release = (pool: Pool, amount: number): void => {
  pool.held -= amount
  if (pool.size > pool.limit) fit(pool)
}

/** Runs an effect while it holds permits of the Semaphore. They are already counted as held, so it does not wait. */
export const holding = <A, E, R>(pool: Pool, amount: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  amount === 0 ? self : amount === 1 ? pool.semaphore.withPermit(self) : pool.semaphore.withPermits(amount)(self)

/** Takes permits of the Semaphore until {@link giveBack}. They are already counted as held, so it does not wait. */
export const take = (pool: Pool, amount: number): Effect.Effect<unknown> => pool.semaphore.take(amount)

/** Returns permits to the Semaphore. */
export const giveBack = (pool: Pool, amount: number): Effect.Effect<unknown> => pool.semaphore.release(amount)

/**
 * Resizes the Semaphore to the limit, or to the held permits if those are more. Synchronous, so that the invariant
 * holds after each step.
 */
const fit = (pool: Pool): void => {
  const size = Math.max(pool.limit, pool.held)
  if (size === pool.size) return
  pool.size = size
  Effect.runSync(pool.semaphore.resize(size))
}
