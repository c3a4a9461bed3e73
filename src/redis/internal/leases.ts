/**
 * Permits are leases: renewed together while any is held. One that is lost interrupts the work under it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { noise } from "../../internal/state.ts"
import { ThrottleError } from "../../ThrottleError.ts"
import * as Client from "./client.ts"
import { failing, leaseLost } from "./refuse.ts"
import { current, type Grant, type Lease, type Limiter, rest, run, signal, sleepFor, time } from "./state.ts"

/** The lease under which an effect runs: its fencing number, larger than that of whoever held the permits before. */
export const CurrentLease = Context.Reference<{ readonly key: string; readonly fence: number } | undefined>(
  "effect-throttle/redis/CurrentLease",
  { defaultValue: () => undefined }
)

/** Fails as soon as the lease is lost. */
export const lost = (limiter: Limiter, lease: Lease, isInline: boolean): Effect.Effect<never, ThrottleError> =>
  Effect.callback((resume) => {
    const fail = () => resume(failing(leaseLost(limiter, lease), isInline))
    if (lease.isLost) return fail()
    const before = lease.onLost
    lease.onLost = () => {
      before?.()
      fail()
    }
  })

export const underLease = <A, E, R>(
  limiter: Limiter,
  lease: Lease,
  self: Effect.Effect<A, E, R>,
  isInline: boolean
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.suspend(() =>
    // A race would begin the work all the same.
    lease.isLost ? failing(leaseLost(limiter, lease), isInline) : Effect.raceFirst(
      Effect.suspend(() => {
        lease.fiber = current()
        return Effect.provideService(self, CurrentLease, { key: limiter.settings.key, fence: lease.fence })
      }),
      lost(limiter, lease, isInline)
    )
  )

/** The work is over. */
export const end = (limiter: Limiter, { ask, lease }: Grant): void => {
  if (!ask.holds) return
  limiter.counters.running--
  limiter.series.running--
  if (lease !== undefined) release(limiter, lease)
  rest(limiter)
}

export const release = (limiter: Limiter, lease: Lease): void => {
  if (!forget(limiter, lease)) return
  limiter.releases.push(lease.name)
  signal(limiter)
}

export const lose = (limiter: Limiter, lease: Lease): void => {
  forget(limiter, lease)
  lease.isLost = true
  if (limiter.slot?.grant.lease === lease) {
    limiter.slot = undefined
    signal(limiter)
  }
  lease.onLost?.()
}

const forget = (limiter: Limiter, lease: Lease): boolean => {
  if (!limiter.leases.delete(lease)) return false
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

/** Keeps the leases while there are any. One that may be over, as far as this process can know, is lost. */
const renewing = (limiter: Limiter): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { client, key, timeout, ttl } = limiter.settings
    let pause = ttl / 3
    while (limiter.leases.size > 0) {
      const now = time(limiter)
      let until = Infinity
      for (const lease of limiter.leases) until = Math.min(until, lease.until)
      yield* limiter.clock.sleep(sleepFor(Math.min(pause, until - now)))
      const sent = time(limiter)
      for (const lease of limiter.leases) if (lease.until <= sent + noise) lose(limiter, lease)
      const leases = [...limiter.leases]
      if (leases.length === 0) break
      // An answer that comes after the first of them has ended comes too late.
      const left = Math.min(...leases.map((lease) => lease.until)) - sent
      const answer = yield* Effect.exit(
        Client.renew(client, Math.min(timeout, left), key, leases.map(({ name }) => name), ttl / 1e3)
      )
      if (Exit.isSuccess(answer)) {
        limiter.unheardSince = undefined
        leases.forEach((lease, i) => {
          if (answer.value[i]) lease.until = sent + ttl
          else if (limiter.leases.has(lease)) lose(limiter, lease)
        })
      }
      // One that could not be renewed is tried again soon.
      pause = Exit.isSuccess(answer) ? ttl / 3 : ttl / 20
    }
  })
