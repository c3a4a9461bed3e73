/**
 * The fiber that asks the store. It is alive while somebody waits, or something is to be told.
 *
 * - Calls that come together are asked for together, in order. While an answer is awaited, more come together.
 * - Where the first of them has to wait for time, the store reserves one slot. The pump sleeps until then and gives it to
 *   whoever is the head then, if that asks for the same; so who is interrupted just leaves the line.
 * - A slot, or a grant, that nobody wants any more is returned, which the store does only if nothing has changed since.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import type { Ask } from "../../internal/ask.ts"
import * as Line from "../../internal/line.ts"
import * as Pauses from "../../internal/pauses.ts"
import { noise } from "../../internal/state.ts"
import { ThrottleError } from "../../ThrottleError.ts"
import type { Decision, Request } from "../ThrottleStore.ts"
import * as Client from "./client.ts"
import { drop, give, goOn, leave, tellToWait } from "./line.ts"
import { needed, refusal, storeError } from "./refuse.ts"
import { grantsOf, hear, recheck, requestOf, retell } from "./request.ts"
import { grace } from "./rules.ts"
import { type Call, hasWork, isSame, type Limiter, pausedFor, rest, run, sleepFor, time } from "./state.ts"
import * as Wakeups from "./wakeups.ts"

export const startPump = (limiter: Limiter): void => {
  if (limiter.pump !== undefined || limiter.closed) return
  const pump = run(limiter)(pumping(limiter))
  limiter.pump = pump
  pump.addObserver((exit) => {
    if (limiter.pump === pump) limiter.pump = undefined
    if (Exit.isSuccess(exit) || limiter.closed) return
    // A mistake in here: nobody is left hanging.
    for (const call of Array.from(Line.members(limiter.line))) goOn(call, Effect.failCause(exit.cause))
  })
}

/** Listens all the time that it is alive: who is told before the answer that says "wait" would miss it otherwise. */
const pumping = (limiter: Limiter): Effect.Effect<void> => {
  if (limiter.rules.gates.length === 0) return pumpingOn(limiter)
  const stop = Wakeups.listen(limiter.settings.client, limiter.settings.key, () => {
    limiter.mayBeFree = true
    limiter.wake?.()
  })
  return Effect.ensuring(pumpingOn(limiter), Effect.sync(stop))
}

const pumpingOn = (limiter: Limiter): Effect.Effect<void> =>
  Effect.gen(function*() {
    // Those who come together are asked for together. A microtask, where `yieldNow` would be a turn of the event loop.
    yield* Effect.promise(() => Promise.resolve())
    while (true) {
      limiter.isSignalled = false
      handOn(limiter)
      const { line, slot } = limiter
      const { head } = line
      if (slot !== undefined && (head === undefined || !isSame(slot.grant.ask, head.ask))) {
        limiter.slot = undefined
        limiter.unwanted.push(slot.grant)
        continue
      }
      const paused = pausedFor(limiter)
      const wait = slot === undefined ? paused : Math.max(slot.due - time(limiter), paused)
      if (slot !== undefined && head !== undefined && wait <= noise) {
        limiter.slot = undefined
        limiter.since = slot.grant.at
        give(limiter, head, slot.grant)
      } else if (hasWork(limiter)) {
        yield* inquire(limiter, slot === undefined && paused === 0 ? batchOf(limiter) : [])
      } else if (head === undefined) {
        break
      } else if (slot !== undefined) {
        yield* sleep(limiter, wait)
      } else if (paused > 0) {
        settleLine(limiter, paused)
        yield* sleep(limiter, paused)
      } else {
        const paused = limiter.storePausedUntil - time(limiter)
        if (head.isTold && limiter.isBusy) yield* untilFree(limiter)
        else if (head.isTold && paused > noise) yield* sleep(limiter, Math.min(recheck * 1e6, paused))
        if (limiter.slot === undefined && pausedFor(limiter) === 0) yield* inquire(limiter, batchOf(limiter))
      }
    }
    // In the same step as the look at the line: who comes now starts another.
    limiter.pump = undefined
    limiter.since = undefined
    rest(limiter)
  })

/** What was granted to those who are gone goes to the first who asks for the same. */
const handOn = (limiter: Limiter): void => {
  while (limiter.surplus.length > 0) {
    const { head } = limiter.line
    if (head === undefined || pausedFor(limiter) > 0) return
    const i = limiter.surplus.findIndex(({ ask, lease }) => isSame(ask, head.ask) && lease?.isLost !== true)
    if (i < 0) return
    give(limiter, head, limiter.surplus.splice(i, 1)[0]!)
  }
}

/** Rests for so many nanoseconds, or until something happens. */
const sleep = (limiter: Limiter, nanos: number): Effect.Effect<void> => {
  const rested = Effect.callback<void>((resume) => {
    if (limiter.isSignalled) return resume(Effect.void)
    limiter.wake = () => resume(Effect.void)
  })
  const ended = Effect.sync(() => {
    limiter.wake = undefined
  })
  const timed = nanos === Infinity ? rested : Effect.raceFirst(rested, limiter.clock.sleep(sleepFor(nanos)))
  return Effect.ensuring(timed, ended)
}

/**
 * Rests until permits may be free: until it is told so, and to be sure for no longer than a look takes to be due, or the
 * next lease to end. Where nobody tells, it looks more often.
 */
const untilFree = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (limiter.mayBeFree) return Effect.void
    const { channel, client } = limiter.settings
    const [least, most] = Wakeups.isSubscribed(client, channel) ? [recheck * 0.8, recheck] : [5, 25]
    const expiry = limiter.nextExpiry === undefined ? Infinity : limiter.nextExpiry / 1e3 + 1
    return Effect.flatMap(
      Random.nextBetween(least, most),
      (pause) => sleep(limiter, Math.max(1, Math.min(pause, expiry)) * 1e6)
    )
  })

/** More calls than this are asked for in several requests, so that the store is not held up. */
const mostTogether = 1_000

/** The calls at the head of the line that may be let in at once, as far as can be known here, and one for the slot. */
const batchOf = (limiter: Limiter): ReadonlyArray<Call> => {
  const { gates, timings } = limiter.rules
  const room = timings.map((rule) =>
    rule.kind === "rate" ? rule.capacity + grace / rule.interval : rule.kind === "spacing" ? 1 : rule.limit
  )
  const free = gates.map(({ limit }) => limit)
  const batch: Array<Call> = []
  for (const call of Line.members(limiter.line)) {
    batch.push(call)
    let isFull = batch.length >= mostTogether
    for (let i = 0; i < room.length; i++) {
      room[i]! -= timings[i]!.kind === "spacing" ? Math.min(1, call.ask.timings[i]!) : call.ask.timings[i]!
      isFull ||= room[i]! < 0
    }
    for (let j = 0; j < free.length; j++) {
      free[j]! -= call.ask.holdings[j]!
      isFull ||= free[j]! < 0
    }
    if (isFull) break
  }
  return batch
}

/** Tells the store what is over, and asks it for these. */
export const tell = (limiter: Limiter, batch: ReadonlyArray<Call>): Effect.Effect<Decision, Client.Silence> =>
  Effect.suspend(() => {
    if (limiter.closed && limiter.slot !== undefined) {
      limiter.unwanted.push(limiter.slot.grant)
      limiter.slot = undefined
    }
    if (batch.length > 0) limiter.mayBeFree = false
    const { client, settleWithin, timeout } = limiter.settings
    const { maxQueue, maxWait } = limiter.plan
    const asks = batch.map(({ ask }) => ask)
    const told = batch.findIndex(({ isTold }) => !isTold)
    const isTold = batch[0]?.isTold === true
    const request = requestOf(limiter, asks, {
      waited: told < 0 ? batch.length : told,
      since: limiter.since,
      maxWait: batch.length === 0 ? -1 : isTold ? Infinity : maxQueue === 0 ? -1 : maxWait / 1e3,
      joins: batch.length > 0 ? isTold || maxQueue > 0 : limiter.line.size === 0 || limiter.closed,
      settleWithin: limiter.rules.timings.length > 0 && batch.some(({ isOpen }) => isOpen) ? settleWithin / 1e3 : 0
    })
    const sent = time(limiter)
    return Client.decide(client, timeout, request, () => limiter.line.size > 0).pipe(
      Effect.tapError(() => Effect.sync(() => retell(limiter, request))),
      Effect.tap((decision) => Effect.sync(() => apply(limiter, batch, asks, request, decision, sent)))
    )
  })

const inquire = (limiter: Limiter, batch: ReadonlyArray<Call>): Effect.Effect<void> =>
  Effect.matchEffect(tell(limiter, batch), {
    onSuccess: () => Effect.void,
    onFailure: (silence) =>
      Effect.suspend(() => {
        limiter.since = undefined
        for (const call of batch) if (call.state === "waiting") fallBack(limiter, call, silence)
        limiter.isBusy = false
        // A lease that was not renewed for so long has ended by itself.
        const now = time(limiter)
        limiter.unheardSince ??= now
        if (now - limiter.unheardSince > limiter.settings.ttl) limiter.releases = []
        if (batch.length > 0 || !hasWork(limiter)) return Effect.void
        const due = limiter.slot === undefined ? Infinity : Math.max(limiter.slot.due - now, pausedFor(limiter))
        return sleep(limiter, Math.max(0, Math.min(recheck * 1e6, due)))
      })
  })

const apply = (
  limiter: Limiter,
  batch: ReadonlyArray<Call>,
  asks: ReadonlyArray<Ask>,
  request: Request,
  decision: Decision,
  sent: number
): void => {
  const received = time(limiter)
  hear(limiter, request, decision)
  if (request.joins) limiter.isBusy = decision.isBusy && batch.length > 0
  if (batch.length === 0) return
  limiter.inTheWay = decision.part
  limiter.nextExpiry = decision.nextExpiry
  limiter.storePausedUntil = decision.isPaused && decision.wait !== undefined
    ? received + decision.wait * 1e3
    : -Infinity
  if (limiter.storePausedUntil > received) Pauses.extend(limiter.pauses, received, limiter.storePausedUntil)
  else if (pausedFor(limiter) === 0) Pauses.end(limiter.pauses, received)
  // What was not let in for want of permits, or in a pause, has nothing to make up for.
  limiter.since = decision.isBusy || decision.isPaused ? undefined : decision.granted > 0 ? decision.now : limiter.since
  const grants = grantsOf(limiter, asks, request, decision, sent)
  grants.forEach((grant, i) => {
    if (grant.isSlot) limiter.slot = { grant, due: received + decision.slot!.wait * 1e3 }
    else if (batch[i]!.state === "waiting") give(limiter, batch[i]!, grant)
    else limiter.surplus.push(grant)
  })
  if (decision.granted >= batch.length) return
  const wait = decision.isBusy || decision.wait === undefined ? undefined : decision.wait * 1e3
  const isReserved = decision.isBusy || decision.isPaused || decision.slot !== undefined
  settleLine(limiter, wait, isReserved ? undefined : asks[decision.granted])
}

/**
 * Those who cannot start at once wait from now on, or are refused. `headWait`: how long the first of them has to wait;
 * undefined where nobody knows. `only`: what this is known of, if the store has kept no place for it.
 */
const settleLine = (limiter: Limiter, headWait: number | undefined, only?: Ask): void => {
  if (limiter.told === limiter.line.size) return
  const ahead = limiter.rules.timings.map(() => ({ total: 0, calls: 0 }))
  const refused: Array<[Call, ThrottleError]> = []
  let head: Ask | undefined
  // A copy, for who is told may do anything, such as to leave.
  for (const call of Array.from(Line.members(limiter.line))) {
    if (call.state !== "waiting") continue
    if (!call.isTold) {
      if (only !== undefined && !isSame(only, call.ask)) break
      const wait = head === undefined ? 0 : needed(limiter.rules, ahead, head, call.ask)
      const expected = headWait === undefined ? undefined : headWait + wait
      const error = refusal(limiter, call.ask, expected)
      if (error !== undefined) {
        refused.push([call, error])
        continue
      }
      tellToWait(limiter, call, expected)
    }
    head ??= call.ask
    for (let i = 0; i < ahead.length; i++) {
      if (call.ask.timings[i] === 0) continue
      ahead[i]!.total += call.ask.timings[i]!
      ahead[i]!.calls++
    }
  }
  for (const [call, error] of refused) if (call.state === "waiting") drop(limiter, call, error)
}

export const fallback = (limiter: Limiter, kind: "failed" | "allowed" | "local"): void =>
  Client.fallbacks.pipe(Metric.withAttributes({ throttle: limiter.plan.name, kind })).updateUnsafe(1, limiter.context)

/** The store gave no decision for it. */
const fallBack = (limiter: Limiter, call: Call, silence: Client.Silence): void => {
  const { onStoreError } = limiter.settings
  if (onStoreError === "fail") {
    fallback(limiter, "failed")
    return drop(limiter, call, storeError(limiter, call.ask, silence))
  }
  if (onStoreError === "allow") {
    fallback(limiter, "allowed")
    return give(limiter, call, { ask: call.ask, at: 0, version: undefined, isSlot: false, lease: undefined })
  }
  fallback(limiter, "local")
  leave(limiter, call)
  call.state = "gone"
  const local = call.runLocally(onStoreError)
  // The span of its wait here ends before that.
  if (call.isWatched) call.instead = local
  goOn(call, call.isWatched ? Effect.void : local)
}
