/**
 * One limiter a key, for a million keys.
 *
 * A key that nobody waits for and that holds nothing is only the states of its meters: a call for it is judged by a
 * limiter that all idle keys of its policy have in common, with the key's states put in. A key that is waited for, holds
 * permits or is paused has a limiter of its own until that is over.
 *
 * Whatever cannot be told from a key that was never used is dropped: each call pays for looking at two idle keys (and two
 * that have a limiter, of which only the end of a pause is to be found), so there is no timer, and all keys have been
 * looked at after half as many calls.
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { KeysExhausted, ThrottleError } from "../ThrottleError.ts"
import { type Ask, type Cost, spelled } from "./ask.ts"
import { beginMasked, close, reject, resume, startDue, tryStart } from "./limiter.ts"
import * as Line from "./line.ts"
import * as Observe from "./observe.ts"
import type { Plan } from "./plan.ts"
import * as Refuse from "./refuse.ts"
import { dueFrom, isFree, type Limiter, makeUnsafe, noise, noPauses, stateOf, time } from "./state.ts"

/** What the keys of one policy have in common. */
interface Kind {
  readonly plan: Plan
  readonly scratch: Limiter
  /** Whether a call for an idle key can be judged without a limiter of its own. */
  readonly holdsNothing: boolean
  /** Limiters of keys that are idle again, for the next ones: to make one takes 1 µs and 4 kB. */
  readonly spare: Array<Busy>
}

/** More are left to the garbage collector. */
const mostSpare = 64

interface Idle extends Line.Place<Idle> {
  readonly key: unknown
  readonly kind: Kind
  /** The state of the only timing part, or an array of the states of all. */
  state: unknown
}

/** A limiter, lent to a key. */
interface Busy {
  key: unknown
  readonly kind: Kind
  readonly limiter: Limiter
  /** How many are about to use it, in more than one step. */
  users: number
  isLent: boolean
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
  readonly idle: Map<K, Idle>
  /** Where they may be evicted: the idle ones, used longest ago first. */
  readonly oldest: Line.Line<Idle>
  readonly busy: Map<K, Busy>
  readonly evicted: { count: number }
  readonly refused: { count: number }
  /** The same of all maps of this name, as a metric. */
  readonly refusedMetric: { count: number }
  /** What was counted of keys that are idle, now or again. */
  readonly past: Counted
  /** Where the search for keys to drop goes on. */
  rounds: { idle: Iterator<Idle>; busy: Iterator<Busy> }
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
    oldest: Line.make(),
    busy,
    evicted: { count: 0 },
    refused: { count: 0 },
    refusedMetric: Observe.keysRefused(context, name),
    past: { ...Observe.counters(), waited: 0, longestWait: 0 },
    rounds: { idle: idle.values(), busy: busy.values() },
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

const isFresh = ({ plan: { timings } }: Kind, state: unknown, now: number): boolean =>
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
    const never = exceeds(keyed, kind.scratch, ask)
    if (never !== undefined) return never
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
    if (keyed.closed) return Effect.interrupt
    const busy = find(keyed, key)
    if (busy === undefined) return refuse(keyed, askOf(kindOf(keyed, key).scratch).cost)
    const begun = beginMasked(busy.limiter, askOf(busy.limiter), self, restore)
    rest(keyed, busy)
    return begun
  })
}

/** The refusal of more than can ever be granted. A key that is only asked for that costs no other key its place. */
const exceeds = <K>(keyed: Keyed<K>, limiter: Limiter, ask: Ask): Effect.Effect<never, ThrottleError> | undefined => {
  const never = limiter.plan.shadow ? undefined : Refuse.exceeds(limiter, ask)
  if (never === undefined) return undefined
  keyed.past.rejected.PermitsExceedCapacity++
  return reject(limiter, Fiber.getCurrent()!, ask, never, 0)
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
  if (ask.never !== undefined) return false
  load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
  if (other === undefined) {
    if ((idle === undefined && !makeRoom(keyed)) || !tryStart(kind.scratch, ask)) return false
  } else {
    // Each is asked once, before either is charged and before another key has to go for this one.
    const start = ifDue(kind.scratch, ask)
    if (start === undefined || !isFree(other, other.one)) return false
    const startOther = ifDue(other, other.one)
    if (startOther === undefined || (idle === undefined && !makeRoom(keyed))) return false
    start()
    startOther()
  }
  keep(keyed, key, idle, kind)
  // Last, since it may drop this very key, and what is kept of a key that is gone is lost.
  tidy(keyed)
  return true
}

/** Starts a call, if that is due now; to be run in this step. */
const ifDue = (limiter: Limiter, ask: Ask): (() => void) | undefined => {
  const now = time(limiter)
  const due = dueFrom(limiter, ask, now)
  return due > now + noise ? undefined : () => startDue(limiter, ask, now, due)
}

/**
 * The refusal of a call that may neither start now nor wait, of a key and of another limiter with it where there is one,
 * counted and without an error; undefined where it may start or wait, where somebody hears of refusals (an event carries the
 * error), and where others decide: a limiter that is closed or in shadow, and a map that is full.
 */
export const rejectAtOnce = <K>(
  keyed: Keyed<K>,
  key: K,
  askOf: (limiter: Limiter) => Ask,
  other: Limiter | undefined
): { readonly isOther: boolean; readonly refusal: Refuse.Refusal } | undefined => {
  if (keyed.closed || other?.closed === true) return undefined
  const limiter = peek(keyed, key)
  const ask = askOf(limiter)
  const now = time(limiter)
  const reason = rejection(limiter, ask, now)
  if (reason !== undefined) {
    if (Observe.isHeard(Fiber.getCurrent()!)) return undefined
    const { rejected } = keyed.busy.has(key) ? limiter.counters : keyed.past
    rejected[reason]++
    limiter.series.rejected[reason]++
    const refusal = Refuse.refusal(limiter, ask, now, reason)
    // Last, since it may drop this very key.
    tidy(keyed)
    return { isOther: false, refusal }
  }
  if (other === undefined || !mayStart(limiter, ask, now)) return undefined
  const reasonOfOther = rejection(other, other.one, now)
  if (reasonOfOther === undefined || Observe.isHeard(Fiber.getCurrent()!)) return undefined
  other.counters.rejected[reasonOfOther]++
  other.series.rejected[reasonOfOther]++
  const refusal = Refuse.refusal(other, other.one, now, reasonOfOther)
  tidy(keyed)
  return { isOther: true, refusal }
}

const mayStart = (limiter: Limiter, ask: Ask, now: number): boolean =>
  isFree(limiter, ask) && dueFrom(limiter, ask, now) <= now + noise

const rejection = (limiter: Limiter, ask: Ask, now: number): Refuse.Reason | undefined =>
  limiter.closed || limiter.plan.shadow || mayStart(limiter, ask, now) ? undefined : Refuse.reasonOf(limiter, ask, now)

/** What the call that was just let in has left. */
const keep = <K>(keyed: Keyed<K>, key: K, idle: Idle | undefined, kind: Kind): void => {
  const state = stored(kind.scratch)
  keyed.past.admitted++
  if (idle === undefined) return remember(keyed, key, kind, state)
  idle.state = state
  // One that is used again and again is the newest already.
  if (keyed.options.onFull === "evict" && keyed.oldest.tail !== idle) {
    Line.leave(keyed.oldest, idle)
    Line.enter(keyed.oldest, idle)
  }
}

const remember = <K>({ idle, oldest, options }: Keyed<K>, key: K, kind: Kind, state: unknown): void => {
  const left: Idle = { key, kind, state, ahead: undefined, behind: undefined }
  idle.set(key, left)
  if (options.onFull === "evict") Line.enter(oldest, left)
}

const forget = <K>({ idle, oldest, options }: Keyed<K>, left: Idle): void => {
  idle.delete(left.key as K)
  if (options.onFull === "evict") Line.leave(oldest, left)
}

/** Does something with the limiter of a key, which is the key's for so long. Fails where there is no room for the key. */
export const use = <K, A, E, R>(
  keyed: Keyed<K>,
  key: K,
  askOf: (limiter: Limiter) => Ask,
  f: (limiter: Limiter, ask: Ask) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    if (keyed.closed) return Effect.interrupt
    tidy(keyed)
    const known = keyed.busy.get(key)
    const { scratch } = known?.kind ?? keyed.idle.get(key)?.kind ?? kindOf(keyed, key)
    const ask = askOf(scratch)
    const never = known === undefined ? exceeds(keyed, scratch, ask) : undefined
    if (never !== undefined) return restore(never)
    const busy = known ?? find(keyed, key)
    if (busy === undefined) return restore(refuse(keyed, ask.cost))
    busy.users++
    return Effect.onExitPrimitive(restore(Effect.suspend(() => f(busy.limiter, ask))), () => {
      busy.users--
      rest(keyed, busy)
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
  const busy = kind.spare.pop() ?? lendable(keyed, kind)
  load(busy.limiter, idle === undefined ? initial(kind.plan) : idle.state)
  busy.key = key
  busy.isLent = true
  if (idle !== undefined) forget(keyed, idle)
  keyed.busy.set(key, busy)
  return busy
}

const lendable = <K>(keyed: Keyed<K>, kind: Kind): Busy => {
  const limiter = makeUnsafe(kind.plan, keyed.context, keyed.clock)
  const busy: Busy = { key: undefined, kind, limiter, users: 0, isLent: false }
  limiter.whenOver = () => rest(keyed, busy)
  return busy
}

/** Takes a limiter back, if nobody needs it any more. */
const rest = <K>(keyed: Keyed<K>, busy: Busy): void => {
  if (!busy.isLent || !isOver(busy)) return
  const now = timeOf(keyed)
  if (isOutOfTime(busy.limiter, now)) takeBack(keyed, busy, now)
}

const isOver = ({ limiter: { holders, line, open }, users }: Busy): boolean =>
  users === 0 && line.size === 0 && holders.size === 0 && open === 0

/** Whether no instant that the limiter remembers is still to come. */
const isOutOfTime = ({ headSince, pausedUntil, plan }: Limiter, now: number): boolean =>
  pausedUntil <= now && (!plan.shadow || headSince <= now)

const takeBack = <K>(keyed: Keyed<K>, lent: Busy, now: number): void => {
  const { kind, limiter } = lent
  keyed.busy.delete(lent.key as K)
  add(keyed.past, limiter)
  const state = stored(limiter)
  if (!isFresh(kind, state, now)) remember(keyed, lent.key as K, kind, state)
  lent.isLent = false
  if (kind.spare.length < mostSpare) {
    reset(limiter)
    kind.spare.push(lent)
  }
}

const refuse = <K>(keyed: Keyed<K>, cost: Cost): Effect.Effect<never, ThrottleError> => {
  const { maxKeys } = keyed.options
  keyed.refused.count++
  keyed.refusedMetric.count++
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

/** Ends a pause of a key. */
export const resumeFor = <K>(keyed: Keyed<K>, key: K): void => {
  const busy = keyed.busy.get(key)
  if (busy === undefined) return
  resume(busy.limiter)
  rest(keyed, busy)
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
  const { maxKeys, onFull } = keyed.options
  if (size(keyed) < maxKeys) return true
  search(keyed, 2 * calls)
  return size(keyed) < maxKeys || (onFull === "evict" && evict(keyed))
}

/** Forgets the idle key that was used longest ago. */
const evict = <K>(keyed: Keyed<K>): boolean => {
  const oldest = keyed.oldest.head
  if (oldest === undefined) return false
  forget(keyed, oldest)
  keyed.evicted.count++
  return true
}

export const size = <K>({ busy, idle }: Keyed<K>): number => busy.size + idle.size

/** Looks at some keys, where the last search ended, and drops those that are as good as new. */
const search = <K>(keyed: Keyed<K>, count: number): void => {
  const { busy, idle, rounds } = keyed
  const now = timeOf(keyed)
  // An iterator that is left where it is keeps all that a Map has deleted since.
  if (busy.size === 0) rounds.busy = busy.values()
  if (idle.size === 0) rounds.idle = idle.values()
  for (let i = 0; i < count && busy.size > 0; i++) {
    let next = rounds.busy.next()
    if (next.done === true) {
      rounds.busy = busy.values()
      next = rounds.busy.next()
    }
    if (next.done === true) break
    if (isOver(next.value) && isOutOfTime(next.value.limiter, now)) takeBack(keyed, next.value, now)
  }
  for (let i = 0; i < count && idle.size > 0; i++) {
    let next = rounds.idle.next()
    if (next.done === true) {
      rounds.idle = idle.values()
      next = rounds.idle.next()
    }
    if (next.done === true) break
    if (isFresh(next.value.kind, next.value.state, now)) forget(keyed, next.value)
  }
}

/** As it was when it was made, but for the states of its meters. */
const reset = (limiter: Limiter): void => {
  limiter.headSince = -Infinity
  limiter.pausedUntil = -Infinity
  Object.assign(limiter.pauses, noPauses())
  const { counters, counters: { rejected } } = limiter
  counters.admitted = 0
  counters.interrupted = 0
  counters.waited = 0
  counters.longestWait = 0
  rejected.QueueFull = 0
  rejected.WaitTooLong = 0
  rejected.TimedOut = 0
  rejected.PermitsExceedCapacity = 0
}

const timeOf = <K>(keyed: Keyed<K>): number => Number(keyed.clock.monotonicTimeNanosUnsafe())

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
