/**
 * One limiter a key, for a million keys.
 *
 * A key that nobody waits for and that holds nothing is only the states of its meters: a call for it is judged by a
 * limiter that all idle keys of its policy have in common, with the key's states put in. A key that is waited for, or
 * holds permits, has a limiter of its own until that is over.
 *
 * Whatever cannot be told from a key that was never used is dropped: each call pays for looking at two keys, so there is
 * no timer, and all keys have been looked at after half as many calls.
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { KeysExhausted, ThrottleError } from "../ThrottleError.ts"
import { type Ask, type Cost, spelled } from "./ask.ts"
import { beginMasked, close, reject, tryStart } from "./limiter.ts"
import * as Observe from "./observe.ts"
import type { Plan } from "./plan.ts"
import * as Refuse from "./refuse.ts"
import { dueFrom, type Limiter, makeUnsafe, noise, stateOf, time } from "./state.ts"

/** What the keys of one policy have in common. */
interface Kind {
  readonly plan: Plan
  readonly scratch: Limiter
  /** Whether a call for an idle key can be judged without a limiter of its own. */
  readonly holdsNothing: boolean
  /** Limiters of keys that are idle again, for the next ones: to make one takes 1 µs and 4 kB. */
  readonly spare: Array<Limiter>
}

/** More are left to the garbage collector. */
const mostSpare = 64

interface Idle {
  readonly kind: Kind
  /** The state of the only timing part, or an array of the states of all. */
  state: unknown
}

interface Busy {
  readonly kind: Kind
  readonly limiter: Limiter
  /** How many are about to use it, in more than one step. */
  users: number
}

export interface Options {
  readonly maxKeys: number
  /** What a new key beyond `maxKeys` does: it is refused, or the idle key that was used longest ago is forgotten. */
  readonly onFull: "refuse" | "evict"
}

export interface Keyed<K> {
  readonly name: string
  readonly options: Options
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  /** The plan of a key's policy. Policies that are the same value have the same plan. */
  readonly planOf: (key: K) => Plan
  readonly kinds: WeakMap<Plan, Kind>
  /** By when they were used last where they may be evicted, otherwise by when they came. */
  readonly idle: Map<K, Idle>
  readonly busy: Map<K, Busy>
  /** The last of `idle`, where it is known. */
  newest: Idle | undefined
  readonly totals: { refused: number; evicted: number }
  /** What was counted of keys that are idle, now or again. */
  readonly past: Counted
  /** Where the search for keys to drop goes on. */
  rounds: { idle: Iterator<[K, Idle]>; busy: Iterator<[K, Busy]> }
  calls: number
  closed: boolean
}

export type Counted = Limiter["counters"]

export const make = <K>(
  name: string,
  planOf: (key: K) => Plan,
  options: Options,
  context: Context.Context<never>,
  clock: Clock.Clock
): Keyed<K> => {
  const idle = new Map<K, Idle>()
  const busy = new Map<K, Busy>()
  return {
    name,
    options,
    context,
    clock,
    planOf,
    kinds: new WeakMap(),
    idle,
    busy,
    newest: undefined,
    totals: { refused: 0, evicted: 0 },
    past: { ...Observe.counters(), waited: 0, longestWait: 0 },
    rounds: { idle: idle.entries(), busy: busy.entries() },
    calls: 0,
    closed: false
  }
}

export const closeAll = <K>(keyed: Keyed<K>): void => {
  keyed.closed = true
  for (const { limiter } of keyed.busy.values()) close(limiter)
}

const kindOf = <K>(keyed: Keyed<K>, key: K): Kind => {
  const plan = keyed.planOf(key)
  let kind = keyed.kinds.get(plan)
  if (kind === undefined) {
    const scratch = makeUnsafe({ ...plan, name: keyed.name }, keyed.context, keyed.clock)
    kind = { plan: scratch.plan, scratch, holdsNothing: plan.holdings.length === 0 && !plan.shadow, spare: [] }
    keyed.kinds.set(plan, kind)
  }
  return kind
}

// ---------------------------------------------------------------------------------------------------------------------
// States in and out of a limiter
// ---------------------------------------------------------------------------------------------------------------------

const load = ({ parts: { timings } }: Limiter, state: unknown): void => {
  if (timings.length === 1) timings[0]!.state.ref.current = state
  else timings.forEach((part, i) => part.state.ref.current = (state as ReadonlyArray<unknown>)[i])
}

const stored = ({ parts: { timings } }: Limiter): unknown =>
  timings.length === 1 ? stateOf(timings[0]!) : timings.map(stateOf)

const initial = (plan: Plan): unknown =>
  plan.timings.length === 1 ? plan.timings[0]!.meter.initial : plan.timings.map(({ meter }) => meter.initial)

const isFresh = ({ kind: { plan: { timings } }, state }: Idle, now: number): boolean =>
  timings.length === 1
    ? timings[0]!.meter.isFresh(state, now)
    : timings.every(({ meter }, i) => meter.isFresh((state as ReadonlyArray<unknown>)[i], now))

// ---------------------------------------------------------------------------------------------------------------------
// Calls
// ---------------------------------------------------------------------------------------------------------------------

/** Runs the effect when the key's turn comes. To be called in a step of the fiber that will run it. */
export const beginFor = <K, A, E, R>(
  keyed: Keyed<K>,
  key: K,
  askOf: (limiter: Limiter) => Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  if (keyed.closed) return Effect.interrupt
  tidy(keyed)
  if (keyed.busy.size === 0 || !keyed.busy.has(key)) {
    const idle = keyed.idle.get(key)
    const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
    const ask = askOf(kind.scratch)
    const never = Refuse.exceeds(kind.scratch, ask)
    if (never !== undefined && !kind.plan.shadow) {
      keyed.past.rejected.PermitsExceedCapacity++
      return reject(kind.scratch, Fiber.getCurrent()!, ask, never, 0)
    }
    if (kind.holdsNothing) {
      if (idle === undefined && !makeRoom(keyed)) return refuse(keyed, ask.cost)
      load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
      if (tryStart(kind.scratch, ask)) {
        keep(keyed, key, idle, kind)
        return self
      }
    }
  }
  // It is found in the step in which it is used: one step later the key may be idle again, and its limiter another key's.
  return Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    const busy = find(keyed, key)
    return busy === undefined
      ? refuse(keyed, askOf(kindOf(keyed, key).scratch).cost)
      : beginMasked(busy.limiter, askOf(busy.limiter), self, restore)
  })
}

/**
 * Charges an idle key, and another limiter with it where there is one, for a call that may start at once and that will hold
 * nothing. Where one of them does not let it, neither is charged.
 */
export const startAtOnce = <K>(
  keyed: Keyed<K>,
  key: K,
  askOf: (limiter: Limiter) => Ask,
  other: Limiter | undefined
): boolean => {
  if (keyed.closed || keyed.busy.has(key) || (other !== undefined && other.parts.gates.length > 0)) return false
  const idle = keyed.idle.get(key)
  const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
  if (!kind.holdsNothing) return false
  const ask = askOf(kind.scratch)
  if (ask.never !== undefined || (idle === undefined && !makeRoom(keyed))) return false
  load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
  if (other !== undefined) {
    // The key is asked first and charged last: what the other one is charged cannot be given back.
    const now = time(kind.scratch)
    if (dueFrom(kind.scratch, ask, now) > now + noise || !tryStart(other, other.one)) return false
  }
  if (!tryStart(kind.scratch, ask)) return false
  tidy(keyed)
  keep(keyed, key, idle, kind)
  return true
}

/** What the call that was just let in has left. */
const keep = <K>(keyed: Keyed<K>, key: K, idle: Idle | undefined, kind: Kind): void => {
  const state = stored(kind.scratch)
  keyed.past.admitted++
  if (idle === undefined) keyed.idle.set(key, keyed.newest = { kind, state })
  else {
    idle.state = state
    if (keyed.options.onFull === "evict") used(keyed, key, idle)
  }
}

/** Does something with the limiter of a key, which is the key's for so long. Fails where there is no room for the key. */
export const use = <K, A, E, R>(
  keyed: Keyed<K>,
  key: K,
  cost: Cost,
  f: (limiter: Limiter) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    if (keyed.closed) return Effect.interrupt
    tidy(keyed)
    const busy = find(keyed, key)
    if (busy === undefined) return refuse(keyed, cost)
    busy.users++
    return Effect.onExitPrimitive(restore(Effect.suspend(() => f(busy.limiter))), () => {
      busy.users--
      return undefined
    }, true)
  })

/** The limiter of a key of its own; undefined where there is no room for another key. */
const find = <K>(keyed: Keyed<K>, key: K): Busy | undefined => {
  const found = keyed.busy.get(key)
  if (found !== undefined) return found
  const idle = keyed.idle.get(key)
  const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
  if (idle === undefined && !makeRoom(keyed)) return undefined
  const limiter = kind.spare.pop() ?? makeUnsafe(kind.plan, keyed.context, keyed.clock)
  load(limiter, idle === undefined ? initial(kind.plan) : idle.state)
  if (keyed.closed) close(limiter)
  const busy: Busy = { kind, limiter, users: 0 }
  keyed.idle.delete(key)
  keyed.busy.set(key, busy)
  return busy
}

/** To the end of the line of those that may be evicted. One that is used again and again stays there at no cost. */
const used = <K>(keyed: Keyed<K>, key: K, idle: Idle): void => {
  if (keyed.newest === idle) return
  keyed.newest = idle
  keyed.idle.delete(key)
  keyed.idle.set(key, idle)
}

const refuse = <K>(keyed: Keyed<K>, cost: Cost): Effect.Effect<never, ThrottleError> => {
  const { maxKeys } = keyed.options
  keyed.totals.refused++
  const error = new ThrottleError({
    reason: new KeysExhausted({ throttle: keyed.name, cost: spelled(cost), queued: 0, parts: [], limit: maxKeys })
  })
  const told = Observe.tell(Fiber.getCurrent()!, "Rejected", () => ({
    _tag: "Rejected",
    throttle: keyed.name,
    policy: `at most ${maxKeys} keys`,
    cost,
    waited: 0,
    error
  }))
  return told === undefined ? Effect.fail(error) : Effect.andThen(told, Effect.fail(error))
}

/** The limiter of a key to be asked in this step and no later. Nothing becomes of a key that is only asked about. */
export const peek = <K>(keyed: Keyed<K>, key: K): Limiter => {
  const busy = keyed.busy.get(key)
  if (busy !== undefined) return busy.limiter
  const idle = keyed.idle.get(key)
  const { plan, scratch } = idle === undefined ? kindOf(keyed, key) : idle.kind
  load(scratch, idle === undefined ? initial(plan) : idle.state)
  return scratch
}

/** The limiter of a key that is waited for, held or paused. */
export const busyLimiter = <K>(keyed: Keyed<K>, key: K): Limiter | undefined => keyed.busy.get(key)?.limiter

// ---------------------------------------------------------------------------------------------------------------------
// Keys that go
// ---------------------------------------------------------------------------------------------------------------------

/** So many calls make one search, which looks at twice as many keys. */
const calls = 16

const tidy = <K>(keyed: Keyed<K>): void => {
  if (++keyed.calls % calls === 0) search(keyed, 2 * calls)
}

/** Whether one more key may come. */
const makeRoom = <K>(keyed: Keyed<K>): boolean => {
  const { idle, options, totals } = keyed
  if (size(keyed) < options.maxKeys) return true
  search(keyed, 2 * calls)
  if (size(keyed) < options.maxKeys) return true
  if (options.onFull === "refuse" || idle.size === 0) return false
  idle.delete(idle.keys().next().value as K)
  totals.evicted++
  return true
}

export const size = <K>({ busy, idle }: Keyed<K>): number => busy.size + idle.size

/** Looks at some keys, where the last search ended, and drops those that are as good as new. */
const search = <K>(keyed: Keyed<K>, count: number): void => {
  const { busy, idle, rounds } = keyed
  const now = timeOf(keyed)
  for (let i = 0; i < count && busy.size > 0; i++) {
    let next = rounds.busy.next()
    if (next.done === true) {
      rounds.busy = busy.entries()
      next = rounds.busy.next()
    }
    if (next.done === true) break
    const [key, { kind, limiter, users }] = next.value
    if (users > 0 || !isIdle(limiter, now)) continue
    busy.delete(key)
    add(keyed.past, limiter)
    const left: Idle = { kind, state: stored(limiter) }
    if (!isFresh(left, now)) idle.set(key, keyed.newest = left)
    if (kind.spare.length < mostSpare) kind.spare.push(reset(limiter))
  }
  for (let i = 0; i < count && idle.size > 0; i++) {
    let next = rounds.idle.next()
    if (next.done === true) {
      rounds.idle = idle.entries()
      next = rounds.idle.next()
    }
    if (next.done === true) break
    if (isFresh(next.value[1], now)) idle.delete(next.value[0])
  }
}

/** As it was when it was made, but for the states of its meters. */
const reset = (limiter: Limiter): Limiter => {
  limiter.headSince = -Infinity
  limiter.pausedUntil = -Infinity
  const { counters } = limiter
  counters.admitted = 0
  counters.interrupted = 0
  counters.waited = 0
  counters.longestWait = 0
  Object.assign(counters.rejected, Observe.counters().rejected)
  return limiter
}

const timeOf = <K>(keyed: Keyed<K>): number => Number(keyed.clock.monotonicTimeNanosUnsafe())

/** Whether all there is to know of it are its meters' states. */
const isIdle = ({ headSince, holders, line, open, pausedUntil, plan }: Limiter, now: number): boolean =>
  line.size === 0 && holders.size === 0 && open === 0 && pausedUntil <= now && (!plan.shadow || headSince <= now)

// ---------------------------------------------------------------------------------------------------------------------
// Counting
// ---------------------------------------------------------------------------------------------------------------------

// Field by field: a loop over the reasons' names took a sixth of a call.
const add = (sum: Counted, { counters }: Limiter): void => {
  sum.admitted += counters.admitted
  sum.interrupted += counters.interrupted
  sum.waiting += counters.waiting
  sum.running += counters.running
  sum.waited += counters.waited
  sum.longestWait = Math.max(sum.longestWait, counters.longestWait)
  sum.rejected.QueueFull += counters.rejected.QueueFull
  sum.rejected.WaitTooLong += counters.rejected.WaitTooLong
  sum.rejected.TimedOut += counters.rejected.TimedOut
  sum.rejected.PermitsExceedCapacity += counters.rejected.PermitsExceedCapacity
}

/** What all keys together have counted, and who waits and runs now. */
export const total = <K>(keyed: Keyed<K>): Counted => {
  const sum = { ...keyed.past, rejected: { ...keyed.past.rejected } }
  for (const { limiter } of keyed.busy.values()) add(sum, limiter)
  return sum
}
