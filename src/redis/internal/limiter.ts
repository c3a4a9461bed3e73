/**
 * A process's half of a throttle that several processes share: who waits, in which order, and who gives up. The store
 * judges and charges.
 *
 * Every call enters the line ({@link arrive}); the pump asks the store and lets them in.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type Ask, askAgain, askOne } from "../../internal/ask.ts"
import * as Line from "../../internal/line.ts"
import * as Observe from "../../internal/observe.ts"
import * as Pauses from "../../internal/pauses.ts"
import type { Plan } from "../../internal/plan.ts"
import type { AnyFiber } from "../../internal/state.ts"
import type { PolicyData } from "../../Policy.ts"
import type { Permit } from "../../Throttle.ts"
import { ThrottleError } from "../../ThrottleError.ts"
import * as Client from "./client.ts"
import { costOf, type Fallback } from "./fallback.ts"
import { end, lose, release, underLease } from "./leases.ts"
import { admit, drop, enter, giveUp, goOn, park, pass, startKeeper, tellToWait } from "./line.ts"
import { fallback, startPump, tell } from "./pump.ts"
import { exceeds, expectedBehind, needed, refusal, reject, storeError } from "./refuse.ts"
import { grantsOf, hear, requestOf, retell } from "./request.ts"
import { type Rules, rulesOf } from "./rules.ts"
import {
  type Call,
  count,
  current,
  type Grant,
  hasWork,
  type Limiter,
  pausedFor,
  type Settings,
  signal,
  sleepFor,
  time
} from "./state.ts"

export const makeUnsafe = (
  plan: Plan,
  settings: Settings,
  context: Context.Context<never>,
  series: Observe.Series,
  onIdle: () => void = () => {}
): Limiter => {
  const limiter: Limiter = {
    settings,
    context,
    clock: settings.client.clock,
    plan,
    rules: rulesOf(plan),
    one: askOne(plan),
    line: Line.make(),
    told: 0,
    ahead: plan.timings.map(() => ({ total: 0, calls: 0 })),
    slot: undefined,
    surplus: [],
    unwanted: [],
    settlements: [],
    releases: [],
    leases: new Set(),
    since: undefined,
    inTheWay: 0,
    isBusy: false,
    nextExpiry: undefined,
    mayBeFree: false,
    storePausedUntil: -Infinity,
    pausedUntil: -Infinity,
    pauses: Pauses.none(),
    unheardPauseUntil: -Infinity,
    counters: { ...Observe.counters(), waited: 0, longestWait: 0 },
    series,
    pump: undefined,
    startPump: () => startPump(limiter),
    wake: undefined,
    isSignalled: false,
    unheardSince: undefined,
    keeper: undefined,
    renewer: undefined,
    onIdle,
    closed: false
  }
  return limiter
}

/** A limiter that closes with the scope. */
export const make = (plan: Plan, settings: Settings): Effect.Effect<Limiter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.withFiber(({ context }) =>
      Effect.succeed(makeUnsafe(plan, settings, context, Observe.acquire(context, plan.name)))
    ),
    (limiter) => Effect.andThen(close(limiter), Effect.sync(() => Observe.release(limiter.series)))
  )

/**
 * Interrupts those who wait, and all who come later; work under a lease loses it. The store is told what is over, once that
 * work has ended, with all its finalizers.
 */
export const close = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    limiter.closed = true
    for (const call of Array.from(Line.members(limiter.line))) goOn(call, Effect.interrupt)
    // Who closes the scope itself cannot be waited for.
    const self = current()
    const working = [...limiter.leases].filter(({ fiber }) => fiber !== undefined && fiber !== self)
    // Nobody renews them any more, and what has ended others may have.
    const left = Math.max(0, ...working.map(({ until }) => until - time(limiter)))
    const ended = Effect.raceFirst(
      Fiber.awaitAll(working.map(({ fiber }) => fiber!)),
      limiter.clock.sleep(sleepFor(left))
    )
    for (const lease of limiter.leases) {
      limiter.releases.push(lease.name)
      lose(limiter, lease)
    }
    const { keeper, pump, renewer } = limiter
    const fibers = [keeper, pump, renewer].filter((fiber) => fiber !== undefined)
    return Effect.andThen(
      working.length === 0 ? Fiber.interruptAll(fibers) : Effect.andThen(Fiber.interruptAll(fibers), ended),
      // Those who were interrupted have not all left the line yet; their slot comes back with this.
      Effect.suspend(() =>
        hasWork(limiter) || limiter.slot !== undefined ? Effect.ignore(tell(limiter, [])) : Effect.void
      )
    )
  })

const upToDate = (limiter: Limiter, ask: Ask): Ask => ask.plan === limiter.plan ? ask : askAgain(limiter.plan, ask)

/** Runs the effect when its turn comes. `isInline`: whether its type knows no error of the store. */
export const begin = <A, E, R>(
  limiter: Limiter,
  ask: Ask,
  self: Effect.Effect<A, E, R>,
  isInline = false
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore) => {
    const call = arrive(limiter, ask, {
      run: ({ lease }) => lease === undefined ? self : underLease(limiter, lease, self, isInline),
      runLocally: (fallback) => fallback.withPermits(costOf(upToDate(limiter, ask)))(self),
      isOpen: false,
      isInline
    })
    if (Effect.isEffect(call)) return restore(call)
    return Effect.onExitPrimitive(restore(park(limiter, call)), () => {
      if (call.state === "waiting" || call.state === "granted") return giveUp(limiter, call)
      if (call.state === "started") end(limiter, call.grant!)
      return undefined
    }, true)
  })

/** What is held for a scope, and what may still be settled. */
export type Kept =
  | {
    readonly _tag: "Kept"
    readonly grant: Grant
    /** Until when it may be settled, in nanoseconds. */
    readonly until: number
    isOpen: boolean
    isSettled: boolean
  }
  /** Granted by this process alone, the store having failed. */
  | { readonly _tag: "Local"; readonly permit: Permit }

/** What a call holds that need not ask. */
const nothingOf = (ask: Ask): Kept => ({
  _tag: "Kept",
  grant: { ask, at: 0, version: undefined, isSlot: false, lease: undefined },
  until: -Infinity,
  isOpen: false,
  isSettled: true
})

/** Takes its permits until the scope closes. */
export const takeScoped = (limiter: Limiter, ask: Ask): Effect.Effect<Kept, ThrottleError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const kept: { local: Kept | undefined } = { local: undefined }
    const call = arrive(limiter, ask, {
      run: () => Effect.void,
      runLocally: (fallback) =>
        Effect.map(fallback.takeScoped(costOf(upToDate(limiter, ask))), (permit) => {
          kept.local = { _tag: "Local", permit }
        }),
      isOpen: true,
      isInline: false
    })
    if (Effect.isEffect(call)) return Effect.as(restore(call), nothingOf(ask))
    const admitted = Effect.onExitPrimitive(restore(park(limiter, call)), (exit) => {
      if (call.state === "waiting" || call.state === "granted") return giveUp(limiter, call)
      if (call.state === "started" && Exit.isFailure(exit)) end(limiter, call.grant!)
      return undefined
    }, true)
    return Effect.flatMap(admitted, () => {
      if (kept.local !== undefined) return Effect.succeed(kept.local)
      const until = time(limiter) + limiter.settings.settleWithin
      const taken: Kept = { _tag: "Kept", grant: call.grant!, until, isOpen: true, isSettled: false }
      return Effect.as(
        Effect.addFinalizer(() =>
          Effect.sync(() => {
            if (!taken.isOpen) return
            taken.isOpen = false
            end(limiter, taken.grant)
          })
        ),
        taken
      )
    })
  })

/** Charges or returns the difference to what it was charged. */
export const settle = (limiter: Limiter, kept: Kept, actual: Ask): Effect.Effect<void> => {
  if (kept._tag === "Local") return kept.permit.settle(costOf(actual))
  if (!kept.isOpen || kept.isSettled) return Effect.void
  kept.isSettled = true
  correct(limiter, kept, actual.timings, false)
  return Effect.void
}

/** As if it had never been let in. */
export const cancel = (limiter: Limiter, kept: Kept): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (kept._tag === "Local") return kept.permit.cancel
    if (!kept.isOpen || kept.isSettled) return Effect.void
    kept.isSettled = true
    kept.isOpen = false
    correct(limiter, kept, [], true)
    end(limiter, kept.grant)
    return Effect.void
  })

/** A part that an update has taken out counts no more. */
const correct = (
  limiter: Limiter,
  { grant: { ask, at, version }, until }: Extract<Kept, { _tag: "Kept" }>,
  actual: ReadonlyArray<number>,
  isUndone: boolean
): void => {
  if (time(limiter) > until) return
  // Nothing was charged where the store gave no decision, and to another policy's parts there is nothing to correct.
  if (version === undefined || ask.plan !== limiter.plan) return
  const more = ask.timings.map((amount, i) => (actual[i] ?? 0) - amount)
  if (more.every((amount) => amount === 0)) return
  limiter.settlements.push({ at, isUndone, more })
  signal(limiter)
}

/** Runs the effect if it may start at once; otherwise does not run it at all. */
export const runIfAvailable = <A, E, R>(
  limiter: Limiter,
  asked: Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
    if (limiter.closed) return Effect.interrupt
    const ask = upToDate(limiter, asked)
    if (ask.never !== undefined) return restore(reject(limiter, current(), ask, exceeds(limiter, ask), 0))
    // Nobody passes those who wait.
    if (limiter.told > 0 || pausedFor(limiter) > 0) return Effect.succeedNone
    const request = requestOf(limiter, [ask], { maxWait: -1, joins: false })
    const sent = time(limiter)
    const { client, onStoreError, timeout } = limiter.settings
    return Effect.matchEffect(restore(Client.decide(client, timeout, request, () => limiter.line.size > 0)), {
      onSuccess: (decision): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
        hear(limiter, request, decision)
        if (decision.granted === 0) return Effect.succeedNone
        const grant = grantsOf(limiter, [ask], request, decision, sent)[0]!
        let isStarted = false
        const body = Effect.suspend(() => {
          isStarted = true
          admit(limiter, ask)
          return grant.lease === undefined ? self : underLease(limiter, grant.lease, self, false)
        })
        return Effect.onExitPrimitive(restore(Effect.asSome(body)), () => {
          if (isStarted) end(limiter, grant)
          else pass(limiter, grant)
          return undefined
        }, true)
      },
      onFailure: (silence) => {
        // What was to be told is told another time.
        retell(limiter, request)
        if (onStoreError === "fail") {
          fallback(limiter, "failed")
          return restore(reject(limiter, current(), ask, storeError(limiter, ask, silence), 0))
        }
        if (onStoreError !== "allow") {
          fallback(limiter, "local")
          return restore(onStoreError.withPermitsIfAvailable(costOf(upToDate(limiter, ask)))(self))
        }
        fallback(limiter, "allowed")
        admit(limiter, ask)
        return restore(Effect.asSome(self))
      }
    })
  })

/** A call that enters the line, or is refused or interrupted. */
const arrive = (
  limiter: Limiter,
  asked: Ask,
  what: Pick<Call, "run" | "runLocally" | "isOpen" | "isInline">
): Call | Effect.Effect<any, ThrottleError, any> => {
  if (limiter.closed) return Effect.interrupt
  const ask = upToDate(limiter, asked)
  const fiber = current()
  const now = time(limiter)
  if (ask.never !== undefined) return reject(limiter, fiber, ask, exceeds(limiter, ask), 0)
  // Nothing here counts anything.
  if (limiter.plan.units === undefined) {
    admit(limiter, ask)
    return what.run({ ask, at: 0, version: undefined, isSlot: false, lease: undefined })
  }
  const nested = nestedIn(limiter, ask, fiber)
  if (nested !== undefined) {
    if (nested.nested === "die") return Effect.die(new Error(deadlock(limiter, nested.name)))
    limiter.counters.admitted++
    limiter.series.admitted++
    return what.run({ ask, at: 0, version: undefined, isSlot: false, lease: undefined })
  }
  const mustWait = limiter.told > 0
  if (mustWait) {
    const refused = refusal(limiter, ask, expectedBehind(limiter, ask, now))
    if (refused !== undefined) return reject(limiter, fiber, ask, refused, 0)
  }
  const call: Call = {
    run: what.run,
    runLocally: what.runLocally,
    isOpen: what.isOpen,
    isInline: what.isInline,
    ahead: undefined,
    behind: undefined,
    ask,
    fiber,
    arrival: now,
    pausedBefore: Pauses.upTo(limiter.pauses, now),
    traced: fiber.cache.tracerEnabled,
    heard: Observe.isHeard(fiber),
    state: "waiting",
    isTold: false,
    isWatched: false,
    queued: 0,
    expected: undefined,
    grant: undefined,
    instead: undefined,
    resume: undefined,
    next: undefined
  }
  const expected = mustWait ? expectedBehind(limiter, ask, now) : undefined
  enter(limiter, call)
  if (mustWait) tellToWait(limiter, call, expected)
  // The pump may rest before it tells a failing store again of what is over.
  else signal(limiter)
  return call
}

/** The part whose permits this fiber holds itself, so many that there can never be enough for what it asks. */
const nestedIn = (limiter: Limiter, ask: Ask, fiber: AnyFiber) => {
  if (!ask.holds || limiter.leases.size === 0 || limiter.plan.timeout < Infinity) return undefined
  const own = [...limiter.leases].filter((lease) => lease.fiber === fiber && lease.ask.plan === limiter.plan)
  if (own.length === 0) return undefined
  const short = limiter.plan.holdings.filter(({ limit }, j) => {
    const held = own.reduce((all, lease) => all + lease.ask.holdings[j]!, 0)
    return held > 0 && ask.holdings[j]! > 0 && held + ask.holdings[j]! > limit
  })
  return short.find(({ nested }) => nested === "die") ?? short[0]
}

const deadlock = (limiter: Limiter, part: string): string =>
  `throttle "${limiter.plan.name}": this fiber holds the permits of "${part}" that it asks for, and would wait for ` +
  `itself for ever. Ask once, outside; or construct the part with nested: "pass", and what is nested runs without asking.`

/** How long a newcomer would wait; none where nobody can know. */
export const nextAvailable = (limiter: Limiter, asked: Ask): Effect.Effect<Option.Option<Duration.Duration>> =>
  Effect.suspend(() => {
    const ask = upToDate(limiter, asked)
    if (limiter.closed || ask.never !== undefined) return Effect.succeedNone
    const { client, timeout } = limiter.settings
    const request = requestOf(limiter, [ask], { isDry: true, joins: false })
    return Effect.match(Client.decide(client, timeout, request, () => limiter.line.size > 0), {
      onFailure: () => {
        retell(limiter, request)
        return Option.none()
      },
      onSuccess: (decision) => {
        hear(limiter, request, decision)
        if (decision.isBusy || decision.wait === undefined) return Option.none()
        // The store knows of the slot; of those behind it, only this process does.
        const line = needed(limiter.rules, limiter.ahead, limiter.slot?.grant.ask, undefined)
        return Option.some(Duration.millis(Math.max(pausedFor(limiter), decision.wait * 1e3 + line) / 1e6))
      }
    })
  })

/** Starts no call for so many nanoseconds: here at once, in other processes from their next decision on. */
export const pause = (limiter: Limiter, nanos: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const before = limiter.unheardPauseUntil
    const until = time(limiter) + nanos
    const unheard = () => {
      limiter.unheardPauseUntil = Math.max(limiter.unheardPauseUntil, until)
    }
    const isLonger = until > Math.max(limiter.pausedUntil, limiter.storePausedUntil)
    limiter.pausedUntil = Math.max(limiter.pausedUntil, until)
    Pauses.extend(limiter.pauses, time(limiter), until)
    // Until the store has answered: an idle limiter of a map would be dropped before.
    unheard()
    signal(limiter)
    const { client, key, timeout } = limiter.settings
    const told = Effect.match(Client.pause(client, timeout, key, nanos / 1e3), {
      onSuccess: () => {
        if (limiter.unheardPauseUntil === until) limiter.unheardPauseUntil = before
      },
      onFailure: unheard
    })
    const heard = isLonger
      ? Observe.tellPaused(current(), () => ({
        throttle: limiter.plan.name,
        policy: limiter.plan.description,
        ...(nanos === Infinity ? undefined : { wait: nanos / 1e6 })
      }))
      : undefined
    const paused = Effect.andThen(locally(limiter, (fallback) => fallback.pause(nanos)), told)
    return heard === undefined ? paused : Effect.andThen(paused, heard)
  })

export const resume = (limiter: Limiter): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { client, key, timeout } = limiter.settings
    return Effect.andThen(
      Effect.ignore(Client.pause(client, timeout, key, 0)),
      Effect.suspend(() => {
        limiter.pausedUntil = -Infinity
        Pauses.end(limiter.pauses, time(limiter))
        limiter.unheardPauseUntil = -Infinity
        limiter.storePausedUntil = -Infinity
        signal(limiter)
        return locally(limiter, (fallback) => fallback.resume)
      })
    )
  })

const locally = (
  { settings: { onStoreError } }: Limiter,
  f: (fallback: Fallback) => Effect.Effect<void>
): Effect.Effect<void> => typeof onStoreError === "string" ? Effect.void : f(onStoreError)

/** New limits, in this process. What the store has counted it keeps. */
export const update = (limiter: Limiter, plan: Plan, data: PolicyData): Effect.Effect<void> =>
  Effect.suspend(() => {
    applyUpdate(limiter, plan)
    return locally(limiter, (fallback) => fallback.update(data))
  })

const applyUpdate = (limiter: Limiter, plan: Plan): void => {
  const former = limiter.rules
  limiter.plan = { ...plan, name: limiter.plan.name }
  limiter.rules = rulesOf(plan)
  limiter.one = askOne(limiter.plan)
  limiter.ahead = plan.timings.map(() => ({ total: 0, calls: 0 }))
  limiter.since = undefined
  const slot = limiter.slot === undefined ? [] : [limiter.slot.grant]
  const back = [...limiter.surplus, ...limiter.unwanted, ...slot]
  limiter.slot = undefined
  limiter.surplus = []
  limiter.unwanted = []
  if (isAlike(former, limiter.rules)) {
    limiter.unwanted = back.map((grant) => ({ ...grant, ask: askAgain(limiter.plan, grant.ask) }))
  } else {
    // The store would take them for those of other parts: what is spent stays spent.
    limiter.settlements = []
    for (const { lease } of back) if (lease !== undefined) release(limiter, lease)
  }
  for (const call of Array.from(Line.members(limiter.line))) {
    call.ask = askAgain(limiter.plan, call.ask)
    count(limiter, call.ask, 1)
  }
  for (const call of Array.from(Line.members(limiter.line))) {
    if (call.ask.never !== undefined) drop(limiter, call, exceeds(limiter, call.ask))
  }
  startKeeper(limiter)
  signal(limiter)
}

/** Whether the parts that decide by time are the same ones, in the same order. */
const isAlike = (one: Rules, other: Rules): boolean =>
  one.timings.length === other.timings.length && one.timings.every(({ field }, i) => field === other.timings[i]!.field)
