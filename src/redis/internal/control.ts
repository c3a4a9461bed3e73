/**
 * What is asked of a throttle on a store at work, and what changes it: estimates, what is left, pauses, resets, and other
 * limits.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Caller from "../../internal/caller.ts"
import type { PolicyData } from "../../internal/data/schema.ts"
import * as Demand from "../../internal/demand.ts"
import * as Observe from "../../internal/observe.ts"
import * as Pauses from "../../internal/pauses.ts"
import type { Plan } from "../../internal/plan.ts"
import * as Orders from "../../internal/queue/orders.ts"
import * as Remaining from "../../internal/remaining.ts"
import * as Waiters from "../../internal/waiter.ts"
import type { Left } from "../ThrottleStore.ts"
import * as Client from "./client.ts"
import * as Errors from "./errors.ts"
import { type Fallback, shareOf } from "./fallback.ts"
import { release } from "./leases.ts"
import type { Limiter } from "./limiter.ts"
import * as Shared from "./limiter.ts"
import { dropReservations, rejectLate } from "./queue.ts"
import { send } from "./request.ts"
import { haveSameMeters, micros, nanos, rulesOf } from "./rules.ts"

/** How long a new call would wait; none where that cannot be estimated. */
export const estimateWait = (
  limiter: Limiter,
  demand: Demand.Demand
): Effect.Effect<Option.Option<Duration.Duration>> => {
  if (limiter.phase !== "open" || demand.exceeds !== undefined) return Effect.succeedNone
  return Effect.uninterruptibleMask((restore) =>
    Effect.match(send(limiter, [demand], { isDry: true }, restore), {
      onFailure: () => Option.none(),
      onSuccess: ({ isBusy, wait = Infinity }) => {
        const paused = Shared.pausedFor(limiter)
        if (isBusy || Math.max(paused, wait) === Infinity) return Option.none()
        // The store knows of the slot; of the calls behind it, only this process does.
        const behind = Errors.timeFor(limiter.plan, limiter.meters, limiter.slot?.grant.demand, undefined)
        return Option.some(Duration.millis(Math.max(paused, wait + behind) / 1e6))
      }
    })
  )
}

/**
 * What is left of each part for calls that come now: nothing if newcomers are refused. Without an answer of the store it is
 * what is left of the share of this process, or unknown: no parts.
 */
export const remaining = (limiter: Limiter): Effect.Effect<ReadonlyArray<Remaining.PartRemaining>> =>
  Effect.uninterruptibleMask((restore) => {
    const { phase, plan, settings: { onStoreError } } = limiter
    if (phase !== "open") return Effect.succeed(describe(plan, () => nothing))
    return Effect.matchEffect(send(limiter, [], { isDry: true, asksLeft: true }, restore), {
      onFailure: () => typeof onStoreError === "string" ? Effect.succeed([]) : onStoreError.throttle.remaining,
      onSuccess: ({ left }) => Effect.succeed(describe(plan, (i) => here(limiter, left[i]!)))
    })
  })

const describe = (plan: Plan, leftOf: (part: number) => Left): ReadonlyArray<Remaining.PartRemaining> =>
  Remaining.partsOf(plan).map((part, i) => {
    const { permits, untilFull, untilMore } = leftOf(i)
    return Remaining.describe(part, permits, untilMore, untilFull)
  })

const nothing: Left = { permits: 0, untilMore: undefined, untilFull: undefined }

/** What is left in this process, whose waiting calls and whose pause the store may not know of. Times are nanoseconds. */
const here = (limiter: Limiter, { permits, untilFull, untilMore }: Left): Left => {
  if (limiter.phase !== "open" || limiter.waiters.size > 0) return nothing
  const paused = Shared.pausedFor(limiter)
  const atLeast = (time: number | undefined) => time === undefined ? undefined : Math.max(paused, nanos(time))
  return { permits: paused > 0 ? 0 : permits, untilMore: atLeast(untilMore), untilFull: atLeast(untilFull) }
}

/** Forgets what is spent and owed, in the store. Calls that wait in this process are decided about again. */
export const reset = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { client, key, timeout } = limiter.settings
    const stored = Effect.match(Client.send(client, key, timeout, client.store.reset(key)), {
      onFailure: () => {},
      onSuccess: () => {
        limiter.resets++
        dropReservations(limiter)
        Shared.signal(limiter)
      }
    })
    return Effect.andThen(locally(limiter, ({ throttle }) => throttle.reset), stored)
  })

/** Lets no call start for so many nanoseconds: here at once, in other processes from their next decision on. */
export const pause = (limiter: Limiter, nanos: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { pauses, plan, settings: { client, key, timeout } } = limiter
    const until = Shared.now(limiter) + nanos
    const isLonger = until > Math.max(limiter.pausedUntil, limiter.answer.pausedUntil)
    const log = isLonger
      ? Observe.pauseLog(Fiber.getCurrent()!, () => ({
        throttle: plan.name,
        policy: plan.description,
        ...(nanos === Infinity ? undefined : { wait: nanos / 1e6 })
      }))
      : undefined
    const unreportedBefore = limiter.unreportedPause
    limiter.pausedUntil = Math.max(limiter.pausedUntil, until)
    Pauses.extend(pauses, Shared.now(limiter), until)
    // Until the store has answered, or the limiter of an idle key would be dropped.
    limiter.unreportedPause = Math.max(unreportedBefore, until)
    Shared.signal(limiter)
    const reported = Effect.match(Client.send(client, key, timeout, client.store.pause(key, micros(nanos))), {
      onSuccess: () => {
        if (limiter.unreportedPause === until) limiter.unreportedPause = unreportedBefore
      },
      onFailure: () => {}
    })
    return Effect.andThen(locally(limiter, ({ throttle }) => throttle.pause(Duration.millis(nanos / 1e6))), reported)
      .pipe(
        Effect.andThen(log ?? Effect.void)
      )
  })

/** Ends a pause: of what this process knows at once, so that a pause which begins before the store has answered lasts. */
export const resume = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { client, key, timeout } = limiter.settings
    limiter.pausedUntil = -Infinity
    limiter.unreportedPause = -Infinity
    const reported = Effect.ignore(Client.send(client, key, timeout, client.store.pause(key, 0)))
    const ended = Effect.sync(() => {
      if (Shared.pausedFor(limiter) > 0) return
      limiter.answer = { ...limiter.answer, pausedUntil: -Infinity }
      Pauses.end(limiter.pauses, Shared.now(limiter))
      Shared.signal(limiter)
    })
    return Effect.andThen(locally(limiter, ({ throttle }) => throttle.resume), Effect.andThen(reported, ended))
  })

/** Sets other limits, in this process. What is spent stays spent in the store. */
export const update = (limiter: Limiter, plan: Plan, data: PolicyData): Effect.Effect<void> =>
  Effect.suspend(() => {
    setPlan(limiter, plan)
    return locally(limiter, ({ share, throttle }) => throttle.update(shareOf(data, share)))
  })

const locally = (
  { settings: { onStoreError } }: Limiter,
  f: (fallback: Fallback) => Effect.Effect<void>
): Effect.Effect<void> => typeof onStoreError === "string" ? Effect.void : f(onStoreError)

const setPlan = (limiter: Limiter, plan: Plan): void => {
  const { plan: former } = limiter
  limiter.plan = { ...plan, name: limiter.plan.name }
  limiter.rules = rulesOf(plan)
  limiter.meters = plan.meters.map(Shared.liveMeter)
  limiter.one = Demand.one(limiter.plan)
  limiter.since = undefined
  limiter.askAgainAt = -Infinity
  const back = [...limiter.unused, ...limiter.unwanted, ...(limiter.slot === undefined ? [] : [limiter.slot.grant])]
  limiter.slot = undefined
  limiter.unused = []
  limiter.unwanted = []
  if (haveSameMeters(former, limiter.plan)) {
    limiter.unwanted = back.map((grant) => ({ ...grant, demand: Demand.forPlan(limiter.plan, grant.demand) }))
  } else {
    // The store would take them for those of other parts: what is spent stays spent.
    limiter.settlements = []
    for (const { lease } of back) if (lease !== undefined) release(limiter, lease)
  }
  const waiters = Shared.waitersOf(limiter)
  limiter.callers.clear()
  for (const waiter of waiters) {
    waiter.demand = Demand.forPlan(limiter.plan, waiter.demand)
    waiter.meters = limiter.meters
    if (limiter.plan.asksCaller) waiter.caller = waiter.fiber.getRef(Caller.Caller)
    Waiters.count(limiter, waiter, 1)
  }
  limiter.queue = Orders.continued(limiter.queue, former.order, plan.order, limiter.waiters, () => Shared.now(limiter))
  for (const waiter of waiters) {
    if (waiter.demand.exceeds === undefined || waiter.state !== "waiting" || waiter.admission !== undefined) continue
    Waiters.reject(limiter, waiter, () => Errors.exceeds(limiter, waiter.demand))
  }
  rejectLate(limiter)
  Shared.signal(limiter)
}
