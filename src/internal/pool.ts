/**
 * The permits of one part: a count that decisions read, and a Semaphore that enforces it.
 *
 * Invariant: the Semaphore has at least as many permits as are held. An admitted call takes its permits from the
 * Semaphore some steps after the decision; because of the invariant it never waits there, whatever an update does in
 * between. So a Semaphore is never made smaller than what is held: it shrinks as permits come back.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type * as Types from "effect/Types"
import type { Holding } from "./plan.ts"

export interface Pool extends Types.Mutable<Holding> {
  readonly semaphore: Semaphore.Semaphore
  /** Permits that the next call may take; below 0 while more are held than the limit allows. */
  free: number
  /** How many permits the Semaphore has. */
  size: number
}

export const make = (part: Holding): Pool => ({
  ...part,
  semaphore: Semaphore.makeUnsafe(part.limit),
  free: part.limit,
  size: part.limit
})

export const isHeld = (pool: Pool): boolean => pool.free < pool.limit

/** Takes another limit over. Permits that are held stay held. */
export const update = (pool: Pool, part: Holding): Pool => {
  pool.free += part.limit - pool.limit
  Object.assign(pool, part)
  fit(pool)
  return pool
}

/** Returns permits that the Semaphore has back already. */
export const release = (pool: Pool, amount: number): void => {
  pool.free += amount
  if (pool.size > pool.limit) fit(pool)
}

/** The effect, holding permits of the Semaphore while it runs. They were taken from `free`, so it does not wait. */
export const holding = <A, E, R>(pool: Pool, amount: number, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  amount === 0 ? self : amount === 1 ? pool.semaphore.withPermit(self) : pool.semaphore.withPermits(amount)(self)

/** Makes the Semaphore as large as the limit, or as what is held. At once, so that no step comes in between. */
const fit = (pool: Pool): void => {
  const size = Math.max(pool.limit, pool.limit - pool.free)
  if (size === pool.size) return
  pool.size = size
  Effect.runSync(pool.semaphore.resize(size))
}
