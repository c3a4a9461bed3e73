/**
 * Leases: the permits that this process holds, renewed together while there are any. A lease that is lost interrupts the
 * work under it.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Budget from "../../internal/budget.ts"
import * as Counts from "../../internal/counts.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Client from "./client.ts"
import * as Errors from "./errors.ts"
import { type Lease, type Limiter, now, run, signal } from "./limiter.ts"
import { micros, sleepAtLeast } from "./rules.ts"

/** The lease under which an effect runs: its fencing number is larger than that of the former holders of its permits. */
export const CurrentLease = Context.Reference<{ readonly key: string; readonly fence: number } | undefined>(
  "effect-throttle/redis/CurrentLease",
  { defaultValue: () => undefined }
)

/** Fails when one of the leases is lost. */
export const lostOf = ([first, ...others]: Leases): Effect.Effect<never, ThrottleError> =>
  others.length === 0
    ? Deferred.await(first.lost)
    : Effect.raceAllFirst([first, ...others].map(({ lost }) => Deferred.await(lost)))

/** The lease of a call; for one of several levels that of each which leases permits, the narrowest first. */
export type Leases = readonly [Lease, ...ReadonlyArray<Lease>]

/** Runs an effect while its leases last. */
export const underLease = <A, E, R>(
  leases: Leases,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.suspend(() => {
    const lost = leases.find((lease) => Deferred.isDoneUnsafe(lease.lost))
    // A race would begin the work all the same.
    if (lost !== undefined) return Deferred.await(lost.lost)
    const [{ fence, key }] = leases
    return Effect.raceFirst(
      Effect.suspend(() => {
        for (const lease of leases) lease.fiber = Fiber.getCurrent()!
        return Effect.provideService(self, CurrentLease, { key, fence })
      }),
      lostOf(leases)
    )
  })

/** Ends a lease, and reports that to the store. */
export const release = (limiter: Limiter, lease: Lease): void => {
  if (!remove(limiter, lease)) return
  limiter.releases.push(lease.name)
  signal(limiter)
}

/** Fails the work under a lease. */
export const lose = (limiter: Limiter, lease: Lease): void => {
  remove(limiter, lease)
  if (limiter.slot?.grant.lease === lease) {
    limiter.slot = undefined
    signal(limiter)
  }
  Deferred.doneUnsafe(lease.lost, Effect.fail(Errors.leaseLost(limiter, lease)))
}

const remove = (limiter: Limiter, lease: Lease): boolean => {
  if (!limiter.leases.delete(lease)) return false
  Counts.changed(limiter.counts)
  if (limiter.leases.size === 0) {
    limiter.renewer?.interruptUnsafe()
    limiter.renewer = undefined
  }
  return true
}

export const startRenewer = (limiter: Limiter): void => {
  if (limiter.renewer !== undefined) return
  const renewer = run(limiter)(renewing(limiter))
  limiter.renewer = renewer
  renewer.addObserver(() => {
    if (limiter.renewer === renewer) limiter.renewer = undefined
  })
}

const firstEnd = ({ leases }: Limiter): number => {
  let first = Infinity
  for (const { until } of leases) first = Math.min(first, until)
  return first
}

/** Renews the leases while there are any. One that may have ended, as far as this process can know, is lost. */
const renewing = (limiter: Limiter): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { client, key, timeout, ttl } = limiter.settings
    let interval = ttl / 3
    while (limiter.leases.size > 0) {
      yield* limiter.time.clock.sleep(sleepAtLeast(Math.min(interval, firstEnd(limiter) - now(limiter))))
      const sentAt = now(limiter)
      for (const lease of limiter.leases) if (lease.until <= sentAt + Budget.tolerance) lose(limiter, lease)
      const leases = [...limiter.leases]
      if (leases.length === 0) break
      // An answer that comes after the first of them has ended comes too late.
      const left = firstEnd(limiter) - sentAt
      const names = leases.map(({ name }) => name)
      const renewed = client.store.renew(key, names, micros(ttl))
      const answer = yield* Effect.exit(Client.send(client, key, Math.min(timeout, left), renewed))
      // After a failure it tries again soon.
      interval = Exit.isSuccess(answer) ? ttl / 3 : ttl / 20
      if (Exit.isFailure(answer)) continue
      limiter.silentSince = undefined
      leases.forEach((lease, i) => {
        if (answer.value[i]) lease.until = sentAt + ttl
        else if (limiter.leases.has(lease)) lose(limiter, lease)
      })
    }
  })
