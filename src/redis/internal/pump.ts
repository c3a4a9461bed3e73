/**
 * The fiber that sends requests to the store. It is alive while calls wait, or something is to be reported.
 *
 * - Calls that arrive together are asked for together, in order. While a request is under way, more arrive.
 * - Where the first of them has to wait for time, the store reserves one slot. The pump sleeps until then and gives it to the
 *   head of the queue, if that demands the same. So an interrupted waiter just leaves the queue.
 * - A slot or a grant that no waiter needs is returned, which the store accepts only if nothing has changed since.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import type { Restore } from "../../internal/backend.ts"
import * as Bounds from "../../internal/bounds.ts"
import * as Budget from "../../internal/budget.ts"
import * as Caller from "../../internal/caller.ts"
import type { Demand } from "../../internal/demand.ts"
import * as Pauses from "../../internal/pauses.ts"
import * as Waiters from "../../internal/waiter.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Client from "./client.ts"
import * as Errors from "./errors.ts"
import type { Limiter, Waiter } from "./limiter.ts"
import * as Shared from "./limiter.ts"
import { admit, dropReservations, give, giveSlot, giveUnused, makeWait } from "./queue.ts"
import { type Answer, recheck, send } from "./request.ts"
import { sleepAtLeast } from "./rules.ts"
import * as Wakeups from "./wakeups.ts"

export const start = (limiter: Limiter): void => {
  const { pump } = limiter
  if (pump.state !== "idle" || limiter.phase === "closed") return
  pump.state = "active"
  const fiber = Shared.run(limiter)(pumping(limiter))
  pump.fiber = fiber
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit) || limiter.phase === "closed") return
    // A defect: no call is left waiting.
    pump.state = "idle"
    for (const waiter of Shared.waitersOf(limiter)) Waiters.resumeWith(waiter, Effect.failCause(exit.cause))
  })
}

/**
 * Subscribes before the first request for permits, for as long as the pump is alive: a message may come before the answer
 * that tells the process to wait.
 */
const pumping = (limiter: Limiter): Effect.Effect<void> => {
  const { client, key } = limiter.settings
  let stop: (() => void) | undefined
  const listen = () => {
    // An update may have added the parts whose permits are leased.
    if (stop !== undefined || limiter.rules.pools.length === 0) return
    stop = Wakeups.listen(client, key, () => {
      limiter.place = "free"
      if (limiter.pump.state === "resting") limiter.pump.wake()
    })
  }
  return Effect.ensuring(steps(limiter, listen), Effect.sync(() => stop?.()))
}

const steps = (limiter: Limiter, listen: () => void): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { pump } = limiter
    // Calls that arrive together are asked for together. A microtask, where `yieldNow` would be a turn of the event loop.
    yield* Effect.promise(() => Promise.resolve())
    while (true) {
      pump.state = "active"
      listen()
      const step = nextStep(limiter, listen)
      if (step === undefined) break
      yield* step
    }
    // In the same step as the look at the queue: a call that arrives later starts another pump.
    pump.state = "idle"
    pump.fiber = undefined
    limiter.since = undefined
    limiter.afterCall?.()
  })

/** What to do next; undefined for nothing. */
const nextStep = (limiter: Limiter, listen: () => void): Effect.Effect<void> | undefined => {
  giveUnused(limiter)
  giveSlot(limiter)
  const { answer, place, slot } = limiter
  const head = Shared.headOf(limiter)
  const paused = Shared.pausedFor(limiter)
  const mayAsk = slot === undefined && paused === 0
  if (Shared.hasReports(limiter)) {
    // Its request reports too.
    if (mayAsk && head?.several?.isAt(limiter) === true) return askTogether(limiter, head)
    return ask(limiter, mayAsk ? batchOf(limiter) : [])
  }
  if (head === undefined) return undefined
  if (slot !== undefined) return rest(limiter, Math.max(slot.due - Shared.now(limiter), paused))
  if (paused > 0) {
    queueOrReject(limiter, paused)
    return rest(limiter, paused)
  }
  // It waits at another level, and keeps its place here.
  if (head.several?.isAt(limiter) === false) return rest(limiter, Infinity)
  const storePaused = answer.pausedUntil - Shared.now(limiter)
  const askAgain = limiter.askAgainAt - Shared.now(limiter)
  const rested = head.queued === undefined
    ? undefined
    : place !== "none"
    ? untilFree(limiter)
    : storePaused > Budget.tolerance
    ? rest(limiter, Math.min(recheck, storePaused))
    : askAgain > Budget.tolerance
    ? rest(limiter, askAgain)
    : undefined
  const asked = Effect.suspend(() => {
    listen()
    if (limiter.slot !== undefined || Shared.pausedFor(limiter) > 0) return Effect.void
    const head = Shared.headOf(limiter)
    if (head?.several === undefined) return ask(limiter, batchOf(limiter))
    return head.several.isAt(limiter) ? askTogether(limiter, head) : Effect.void
  })
  return rested === undefined ? asked : Effect.andThen(rested, asked)
}

// ---------------------------------------------------------------------------------------------------------------------
// Rests
// ---------------------------------------------------------------------------------------------------------------------

/** Rests for so many nanoseconds, or until a signal. */
const rest = (limiter: Limiter, nanos: number): Effect.Effect<void> => {
  const { pump, time: { clock } } = limiter
  const signalled = Effect.callback<void>((resume) => {
    if (pump.state === "signalled") return resume(Effect.void)
    pump.state = "resting"
    pump.wake = () => {
      pump.state = "signalled"
      resume(Effect.void)
    }
  })
  const ended = Effect.sync(() => {
    if (pump.state === "resting") pump.state = "active"
  })
  return Effect.ensuring(
    nanos === Infinity ? signalled : Effect.raceFirst(signalled, clock.sleep(sleepAtLeast(nanos))),
    ended
  )
}

/**
 * Rests until permits may be free: until a message says so, but no longer than until the next lease ends, or for as long as
 * messages may be lost. Without messages it polls.
 */
const untilFree = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (limiter.place === "free") return Effect.void
    const { channel, client } = limiter.settings
    const [least, most] = Wakeups.isSubscribed(client, channel) ? [recheck * 0.8, recheck] : [5e6, 25e6]
    const expiry = limiter.answer.nextExpiry === undefined ? Infinity : limiter.answer.nextExpiry + 1e6
    return Effect.flatMap(
      Random.nextBetween(least, most),
      (interval) => rest(limiter, Math.max(1e6, Math.min(interval, expiry)))
    )
  })

// ---------------------------------------------------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------------------------------------------------

/** More calls than this are asked for in several requests, so that the store is not blocked. */
const largestBatch = 1_000

/** The calls at the head of the queue that may start at once, as far as this process can know, and one for the slot. */
const batchOf = (limiter: Limiter): ReadonlyArray<Waiter> => {
  const { meters, pools } = limiter.plan
  const room = meters.map(({ meter, perCall }) => (perCall ? 1 : meter.capacity) + meter.lateness / meter.interval)
  const free = pools.map(({ limit }) => limit.initial)
  const batch: Array<Waiter> = []
  // In another order than that of arrival another call may be the head by the time of the answer.
  const head = Shared.headOf(limiter)
  if (limiter.queue.ranking !== undefined) return head === undefined || head.several !== undefined ? [] : [head]
  for (let waiter = head; waiter !== undefined; waiter = waiter.next as Waiter | undefined) {
    const { demand } = waiter
    // It is asked for with its other levels.
    if (waiter.several !== undefined) break
    batch.push(waiter)
    for (let i = 0; i < room.length; i++) room[i]! -= demand.meters[i]!
    for (let j = 0; j < free.length; j++) free[j]! -= demand.pools[j]!
    if (batch.length >= largestBatch || room.some((left) => left < 0) || free.some((left) => left < 0)) break
  }
  return batch
}

/** Reports to the store, and asks it for these calls. To be called in a region that cannot be interrupted. */
export const report = (
  limiter: Limiter,
  batch: ReadonlyArray<Waiter>,
  restore: Restore
): Effect.Effect<void, Client.Failure> =>
  Effect.suspend(() => {
    const { phase, plan: { maxQueue }, resets, settings, waiters } = limiter
    const isAsking = batch.length > 0
    // A message from now on may be about what the answer does not know of.
    if (isAsking && limiter.place === "free") limiter.place = "queued"
    const demands = batch.map(({ demand }) => demand)
    const maxWait = Math.min(...batch.map(({ own }) => Bounds.maxWaitOf(limiter.plan, own)))
    const isQueued = batch[0]?.queued !== undefined
    const firstNew = batch.findIndex(({ queued }) => queued === undefined)
    const joins = isAsking ? isQueued || maxQueue > 0 : waiters.size === 0 || phase === "closed"
    const maySettle = limiter.rules.meters.length > 0 && batch.some(({ settlement }) => settlement !== undefined)
    const answer = send(limiter, demands, {
      joins,
      waited: firstNew < 0 ? batch.length : firstNew,
      since: limiter.since,
      maxWait: !isAsking ? -1 : isQueued ? Infinity : maxQueue === 0 ? -1 : maxWait,
      settleWithin: maySettle ? settings.settleWithin : 0
    }, restore)
    return Effect.map(answer, (answer) => {
      if (joins) limiter.place = !answer.isBusy || !isAsking ? "none" : limiter.place === "free" ? "free" : "queued"
      if (isAsking) apply(limiter, batch, demands, answer)
      // What it reserves may be from before a reset.
      if (limiter.resets > resets) dropReservations(limiter)
    })
  })

/** Maximum number of requests for calls of several levels at once. */
const mostAtOnce = 64

/**
 * Asks for calls of several levels, each with a request of its own: for the head, and for those behind it with the same demand,
 * as many as have started lately. So a queue is not emptied by one call for each round trip.
 */
const askTogether = (limiter: Limiter, head: Waiter): Effect.Effect<void> => {
  const asks = [head.several!.ask]
  if (limiter.queue.ranking === undefined) {
    for (
      let waiter = head.next as Waiter | undefined;
      waiter !== undefined;
      waiter = waiter.next as Waiter | undefined
    ) {
      const isAlike = waiter.several?.isAt(limiter) === true && Shared.isSame(waiter.demand, head.demand)
      if (!isAlike || asks.length >= limiter.atOnce) break
      asks.push(waiter.several!.ask)
    }
  }
  limiter.atOnce = Math.min(mostAtOnce, 2 * asks.length)
  return asks.length === 1 ? asks[0]! : Effect.all(asks, { concurrency: "unbounded", discard: true })
}

/** Notes what an answer says of the head. */
export const note = (
  limiter: Limiter,
  { isPaused, nextExpiry, part, receivedAt, wait }: Pick<
    Answer,
    "isPaused" | "nextExpiry" | "part" | "receivedAt" | "wait"
  >
): void => {
  const pausedUntil = isPaused ? receivedAt + wait! : -Infinity
  limiter.answer = { part, nextExpiry, pausedUntil }
  if (pausedUntil > receivedAt) Pauses.extend(limiter.pauses, receivedAt, pausedUntil)
  else if (Shared.pausedFor(limiter) === 0) Pauses.end(limiter.pauses, receivedAt)
}

const apply = (
  limiter: Limiter,
  batch: ReadonlyArray<Waiter>,
  demands: ReadonlyArray<Demand>,
  { grants, granted, isBusy, isPaused, nextExpiry, now: at, part, receivedAt, slot, wait }: Answer
): void => {
  note(limiter, { isPaused, nextExpiry, part, receivedAt, wait })
  // A call that permits or a pause have held back has no time to make up for.
  if (isBusy || isPaused) limiter.since = undefined
  else if (granted > 0) limiter.since = at
  grants.forEach((grant, i) => {
    const waiter = batch[i]!
    // Unless an update since the request has added or removed the limit of running calls.
    const suits = waiter.demand.holdsPermits === (grant.lease !== undefined)
    if (isWaiting(waiter) && suits) give(limiter, waiter, grant)
    else limiter.unused.push(grant)
  })
  if (slot !== undefined) limiter.slot = slot
  if (granted >= batch.length) return
  const isKnown = isBusy || isPaused || slot !== undefined
  queueOrReject(limiter, isBusy ? undefined : wait, isKnown ? undefined : demands[granted])
}

const isWaiting = ({ admission, state }: Waiter): boolean => state === "waiting" && admission === undefined

/**
 * Makes the calls that cannot start at once wait, or rejects them. `headWait`: the nanoseconds that the first of them has to
 * wait; undefined where that cannot be estimated. `only`: the demand that this is known of, if the store has reserved nothing.
 */
export const queueOrReject = (limiter: Limiter, headWait: number | undefined, only?: Demand): void => {
  if (Shared.queuedCalls(limiter) === limiter.waiters.size) return
  const ahead = limiter.meters.map(() => ({ waitingCalls: 0, waitingCost: 0 }))
  const ofCallers: Caller.Counts = new Map()
  const rejected: Array<readonly [Waiter, ThrottleError]> = []
  let first: Demand | undefined
  for (const waiter of Shared.waitersOf(limiter)) {
    const { demand } = waiter
    if (!isWaiting(waiter)) continue
    if (waiter.queued === undefined) {
      if (only !== undefined && !Shared.isSame(only, demand)) break
      const behind = first === undefined ? 0 : Errors.timeFor(limiter.plan, ahead, first, demand)
      const expected = headWait === undefined ? undefined : headWait + behind
      const error = Errors.rejectionOf(limiter, waiter, ofCallers.get(waiter.caller.key) ?? 0, expected)
      if (error !== undefined) {
        rejected.push([waiter, error])
        continue
      }
      makeWait(limiter, waiter, expected)
    }
    if (limiter.plan.asksCaller) Caller.count(ofCallers, waiter.caller, 1)
    first ??= demand
    for (let i = 0; i < ahead.length; i++) {
      if (demand.meters[i] === 0) continue
      ahead[i]!.waitingCost += demand.meters[i]!
      ahead[i]!.waitingCalls++
    }
  }
  for (const [waiter, error] of rejected) if (isWaiting(waiter)) Waiters.reject(limiter, waiter, () => error)
}

const ask = (limiter: Limiter, batch: ReadonlyArray<Waiter>): Effect.Effect<void> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.catch(report(limiter, batch, restore), (failure) => {
      limiter.since = undefined
      limiter.place = "none"
      for (const waiter of batch) if (isWaiting(waiter)) decideWithout(limiter, waiter, failure)
      // A lease that was not renewed for so long has ended by itself.
      const at = Shared.now(limiter)
      limiter.silentSince ??= at
      if (at - limiter.silentSince > limiter.settings.ttl) limiter.releases = []
      if (batch.length > 0 || !Shared.hasReports(limiter)) return Effect.void
      const due = limiter.slot === undefined ? Infinity : Math.max(limiter.slot.due - at, Shared.pausedFor(limiter))
      return restore(rest(limiter, Math.max(0, Math.min(recheck, due))))
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// Calls without a decision
// ---------------------------------------------------------------------------------------------------------------------

/** Counts a call that the store has given no decision for, by what becomes of it. */
export const countFallback = ({ context, plan, settings: { onStoreError } }: Limiter): void => {
  const kind = onStoreError === "fail" ? "failed" : onStoreError === "allow" ? "allowed" : "local"
  Client.fallbacks.pipe(Metric.withAttributes({ throttle: plan.name, kind })).updateUnsafe(1, context)
}

const decideWithout = (limiter: Limiter, waiter: Waiter, failure: Client.Failure): void => {
  const { onStoreError } = limiter.settings
  countFallback(limiter)
  if (onStoreError === "fail") {
    const error = Errors.storeError(limiter, waiter.demand, failure)
    Waiters.reject(limiter, waiter, () => error)
  } else {
    admit(
      limiter,
      waiter,
      onStoreError === "allow" ? { _tag: "Allowed" } : { _tag: "Local", throttle: onStoreError.throttle }
    )
  }
}
