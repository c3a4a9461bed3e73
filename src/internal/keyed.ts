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
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import { KeysExhausted, ThrottleError } from "../ThrottleError.ts"
import { type Ask, type Cost, spelled } from "./ask.ts"
import {
  beginMasked,
  close,
  reject,
  type Restore,
  resume,
  runIfAvailableMasked,
  startDue,
  tryStartAt
} from "./limiter.ts"
import * as Line from "./line.ts"
import * as Observe from "./observe.ts"
import * as Pauses from "./pauses.ts"
import type { Plan } from "./plan.ts"
import * as Refuse from "./refuse.ts"
import { advance } from "./shadow.ts"
import { canStart, dueFrom, isFree, type Limiter, makeUnsafe, noise, stateOf, time } from "./state.ts"
import * as Time from "./time.ts"
import { update } from "./update.ts"

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
  kind: Kind
  /** The state of the only timing part, or an array of the states of all. */
  state: unknown
}

/** A limiter, lent to a key. */
interface Busy {
  key: unknown
  kind: Kind
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
  readonly series: Observe.Series
  readonly time: Time.Time
  /** The plan of a key's policy. Policies that are the same value have the same plan. */
  readonly planOf: (key: K) => Plan
  readonly planFor: (policy: unknown) => Plan
  readonly kinds: WeakMap<Plan, Kind>
  /** Keys that are no plain values, by what they are equal to: one of equal keys is used for all. */
  readonly same: MutableHashMap.MutableHashMap<K, K>
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
  planFor: (policy: unknown) => Plan,
  options: Options,
  context: Context.Context<never>,
  clock: Clock.Clock
): Keyed<K> => {
  const idle = new Map<K, Idle>()
  const busy = new Map<K, Busy>()
  const series = Observe.acquire(context, name)
  return {
    name,
    options,
    series,
    time: Time.make(clock),
    planOf,
    planFor,
    kinds: new WeakMap(),
    same: MutableHashMap.empty(),
    idle,
    oldest: Line.make(),
    busy,
    evicted: { count: 0 },
    refused: { count: 0 },
    refusedMetric: Observe.keysRefused(series),
    past: { ...Observe.counters(), waited: 0, longestWait: 0 },
    rounds: { idle: idle.values(), busy: busy.values() },
    calls: 0,
    closed: false
  }
}

export const closeAll = <K>(keyed: Keyed<K>): void => {
  if (!keyed.closed) Observe.release(keyed.series)
  keyed.closed = true
  for (const { limiter } of keyed.busy.values()) close(limiter)
}

const kindOf = <K>(keyed: Keyed<K>, key: K): Kind => kindFor(keyed, keyed.planOf(key))

const kindFor = <K>(keyed: Keyed<K>, plan: Plan): Kind => {
  let kind = keyed.kinds.get(plan)
  if (kind === undefined) {
    const scratch = makeUnsafe({ ...plan, name: keyed.name }, keyed.series, keyed.time)
    kind = { plan: scratch.plan, scratch, holdsNothing: plan.holdings.length === 0 && !plan.shadow, spare: [] }
    keyed.kinds.set(plan, kind)
  }
  return kind
}

// ---------------------------------------------------------------------------------------------------------------------
// Keys
// ---------------------------------------------------------------------------------------------------------------------

/** A string, a number and the like are equal to themselves alone. */
const isPlain = (key: unknown): boolean => typeof key !== "object" && typeof key !== "function"

/** The key by which a map knows an equal one: for this step alone, since it may be dropped in the next. */
const known = <K>({ same }: Keyed<K>, key: K): K =>
  isPlain(key) ? key : Option.getOrElse(MutableHashMap.get(same, key), () => key)

const learn = <K>({ same }: Keyed<K>, key: K): void => {
  if (!isPlain(key)) MutableHashMap.set(same, key, key)
}

const unlearn = <K>({ same }: Keyed<K>, key: K): void => {
  if (!isPlain(key)) MutableHashMap.remove(same, key)
}

/**
 * What is remembered of an idle key. One that has nothing spent any more has the policy that `lookup` gives now: asked
 * for the key's own call too, so that a key that is used all the time follows a change.
 */
const idleOf = <K>(keyed: Keyed<K>, key: K, now: number): Idle | undefined => {
  const idle = keyed.idle.get(key)
  if (idle === undefined || !isFresh(idle.kind, idle.state, now)) return idle
  const kind = kindOf(keyed, key)
  if (kind !== idle.kind) {
    idle.kind = kind
    idle.state = initial(kind.plan)
  }
  return idle
}

/** The limiter of a key that is waited for, held or paused; it is taken back if that is over. */
const busyOf = <K>(keyed: Keyed<K>, key: K): Busy | undefined => {
  const busy = keyed.busy.size === 0 ? undefined : keyed.busy.get(key)
  if (busy !== undefined) rest(keyed, busy)
  return busy?.isLent === true ? busy : undefined
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
    ? timings[0]!.meter.isInitial(state, now)
    : timings.every(({ meter }, i) => meter.isInitial((state as ReadonlyArray<unknown>)[i], now))

// ---------------------------------------------------------------------------------------------------------------------
// Calls
// ---------------------------------------------------------------------------------------------------------------------

/** Runs the effect when the key's turn comes. To be called in a step of the fiber that will run it. */
export const beginFor = <K, A, E, R>(
  keyed: Keyed<K>,
  given: K,
  askOf: (limiter: Limiter) => Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  if (keyed.closed) return Effect.interrupt
  tidy(keyed)
  const key = known(keyed, given)
  if (busyOf(keyed, key) === undefined) {
    const now = timeOf(keyed)
    const idle = idleOf(keyed, key, now)
    const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
    const ask = askOf(kind.scratch)
    const never = exceeds(keyed, kind.scratch, ask)
    if (never !== undefined) return never
    if (kind.holdsNothing) {
      if (idle === undefined && !makeRoom(keyed)) return refuse(keyed, ask.cost)
      load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
      if (tryStartAt(kind.scratch, ask, now)) {
        keep(keyed, key, idle, kind)
        return self
      }
    }
  }
  return begin(keyed, given, askOf, (limiter, ask, restore) => beginMasked(limiter, ask, self, restore))
}

/** Runs the effect if the key may start it at once; otherwise does not run it at all. Holds nothing it need not hold. */
export const runIfAvailableFor = <K, A, E, R>(
  keyed: Keyed<K>,
  given: K,
  askOf: (limiter: Limiter) => Ask,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
  if (keyed.closed) return Effect.interrupt
  tidy(keyed)
  const key = known(keyed, given)
  if (busyOf(keyed, key) === undefined) {
    const now = timeOf(keyed)
    const idle = idleOf(keyed, key, now)
    const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
    const ask = askOf(kind.scratch)
    const never = exceeds(keyed, kind.scratch, ask)
    if (never !== undefined) return never
    if (kind.holdsNothing) {
      if (idle === undefined && !makeRoom(keyed)) return refuse(keyed, ask.cost)
      load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
      if (!tryStartAt(kind.scratch, ask, now)) return Effect.succeedNone
      keep(keyed, key, idle, kind)
      return Effect.asSome(self)
    }
  }
  return begin(keyed, given, askOf, (limiter, ask, restore) => runIfAvailableMasked(limiter, ask, self, restore))
}

/** Begins a call with the limiter of a key of its own. */
const begin = <K, A, E, R>(
  keyed: Keyed<K>,
  given: K,
  askOf: (limiter: Limiter) => Ask,
  f: (limiter: Limiter, ask: Ask, restore: Restore) => Effect.Effect<A, E | ThrottleError, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  // It is found in the step in which it is used: one step later the key may be idle again, and its limiter another key's.
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    if (keyed.closed) return Effect.interrupt
    const key = known(keyed, given)
    const busy = find(keyed, key)
    if (busy === undefined) return refuse(keyed, askOf(kindOf(keyed, key).scratch).cost)
    const begun = f(busy.limiter, askOf(busy.limiter), restore)
    rest(keyed, busy)
    return begun
  })

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
  given: K,
  askOf: (limiter: Limiter) => Ask,
  other: Limiter | undefined
): boolean => {
  if (keyed.closed || (other !== undefined && other.parts.gates.length > 0)) return false
  const key = known(keyed, given)
  if (busyOf(keyed, key) !== undefined) return false
  const now = timeOf(keyed)
  const idle = idleOf(keyed, key, now)
  const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
  if (!kind.holdsNothing) return false
  const ask = askOf(kind.scratch)
  if (ask.never !== undefined) return false
  load(kind.scratch, idle === undefined ? initial(kind.plan) : idle.state)
  if (other === undefined) {
    if ((idle === undefined && !makeRoom(keyed)) || !tryStartAt(kind.scratch, ask, now)) return false
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
    const { rejected } = keyed.busy.has(known(keyed, key)) ? limiter.counters : keyed.past
    rejected[reason]++
    limiter.series.rejected[reason]++
    const refusal = Refuse.refusal(limiter, ask, now, reason)
    // Last, since it may drop this very key.
    tidy(keyed)
    return { isOther: false, refusal }
  }
  if (other === undefined || limiter.plan.shadow || !canStart(limiter, ask, now)) return undefined
  const reasonOfOther = rejection(other, other.one, now)
  if (reasonOfOther === undefined || Observe.isHeard(Fiber.getCurrent()!)) return undefined
  other.counters.rejected[reasonOfOther]++
  other.series.rejected[reasonOfOther]++
  const refusal = Refuse.refusal(other, other.one, now, reasonOfOther)
  tidy(keyed)
  return { isOther: true, refusal }
}

const rejection = (limiter: Limiter, ask: Ask, now: number): Refuse.Reason | undefined =>
  limiter.closed || limiter.plan.shadow || canStart(limiter, ask, now) ? undefined : Refuse.reasonOf(limiter, ask, now)

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

const remember = <K>(keyed: Keyed<K>, key: K, kind: Kind, state: unknown): void => {
  const { idle, oldest, options } = keyed
  const left: Idle = { key, kind, state, ahead: undefined, behind: undefined }
  learn(keyed, key)
  idle.set(key, left)
  if (options.onFull === "evict") Line.enter(oldest, left)
}

const forget = <K>(keyed: Keyed<K>, left: Idle): void => {
  const { idle, oldest, options } = keyed
  idle.delete(left.key as K)
  unlearn(keyed, left.key as K)
  if (options.onFull === "evict") Line.leave(oldest, left)
}

/** Does something with the limiter of a key, which is the key's for so long. Fails where there is no room for the key. */
export const use = <K, A, E, R>(
  keyed: Keyed<K>,
  given: K,
  askOf: (limiter: Limiter) => Ask,
  f: (limiter: Limiter, ask: Ask) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore): Effect.Effect<A, E | ThrottleError, R> => {
    if (keyed.closed) return Effect.interrupt
    tidy(keyed)
    const key = known(keyed, given)
    const found = busyOf(keyed, key)
    const { scratch } = found?.kind ?? idleOf(keyed, key, timeOf(keyed))?.kind ?? kindOf(keyed, key)
    const ask = askOf(scratch)
    const never = found === undefined ? exceeds(keyed, scratch, ask) : undefined
    if (never !== undefined) return restore(never)
    const busy = found ?? find(keyed, key)
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
  const found = busyOf(keyed, key)
  if (found !== undefined) return found
  const idle = idleOf(keyed, key, timeOf(keyed))
  const kind = idle === undefined ? kindOf(keyed, key) : idle.kind
  if (idle === undefined && !makeRoom(keyed)) return undefined
  const busy = kind.spare.pop() ?? lendable(keyed, kind)
  load(busy.limiter, idle === undefined ? initial(kind.plan) : idle.state)
  busy.key = key
  busy.isLent = true
  if (idle !== undefined) forget(keyed, idle)
  learn(keyed, key)
  keyed.busy.set(key, busy)
  return busy
}

const lendable = <K>(keyed: Keyed<K>, kind: Kind): Busy => {
  const limiter = makeUnsafe(kind.plan, keyed.series, keyed.time)
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

const isOver = ({ limiter, limiter: { holders, line, open, plan }, users }: Busy): boolean => {
  if (plan.shadow) advance(limiter, time(limiter))
  return users === 0 && line.size === 0 && holders.size === 0 && open === 0
}

/** Whether no instant that the limiter remembers is still to come. */
const isOutOfTime = ({ agenda, lateUntil, pausedUntil }: Limiter, now: number, ignoresLateness = false): boolean =>
  pausedUntil <= now && (ignoresLateness || lateUntil <= now) && agenda.heap.length === 0

const takeBack = <K>(keyed: Keyed<K>, lent: Busy, now: number): void => {
  const { kind, limiter } = lent
  keyed.busy.delete(lent.key as K)
  unlearn(keyed, lent.key as K)
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
export const peek = <K>(keyed: Keyed<K>, given: K): Limiter => {
  const key = known(keyed, given)
  const busy = busyOf(keyed, key)
  if (busy !== undefined) return busy.limiter
  const idle = idleOf(keyed, key, timeOf(keyed))
  const { plan, scratch } = idle === undefined ? kindOf(keyed, key) : idle.kind
  load(scratch, idle === undefined ? initial(plan) : idle.state)
  return scratch
}

/** Ends a pause of a key. */
export const resumeFor = <K>(keyed: Keyed<K>, key: K): void => {
  const busy = keyed.busy.get(known(keyed, key))
  if (busy === undefined) return
  resume(busy.limiter)
  rest(keyed, busy)
}

/** Gives a key other limits for as long as it has something spent or held; then `lookup` is asked again. */
export const updateFor = <K>(keyed: Keyed<K>, given: K, plan: Plan): void => {
  const key = known(keyed, given)
  if (keyed.closed || (busyOf(keyed, key) === undefined && idleOf(keyed, key, timeOf(keyed)) === undefined)) return
  const busy = find(keyed, key)!
  busy.kind = kindFor(keyed, plan)
  update(busy.limiter, busy.kind.plan)
  rest(keyed, busy)
}

/** The limiter of a key that is waited for, held or paused. */
export const busyLimiter = <K>(keyed: Keyed<K>, key: K): Limiter | undefined =>
  keyed.busy.get(known(keyed, key))?.limiter

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
  search(keyed, 2 * calls, true)
  return size(keyed) < maxKeys || (onFull === "evict" && evict(keyed))
}

/** Forgets the idle key that was used longest ago. */
const evict = <K>(keyed: Keyed<K>): boolean => {
  const oldest = keyed.oldest.head
  if (oldest === undefined) return false
  // One that is as good as new loses nothing.
  if (!isFresh(oldest.kind, oldest.state, timeOf(keyed))) keyed.evicted.count++
  forget(keyed, oldest)
  return true
}

export const size = <K>({ busy, idle }: Keyed<K>): number => busy.size + idle.size

/**
 * Looks at some keys, where the last search ended, and drops those that are as good as new. `isFull`: where there is no room
 * for another key, also takes the limiters of those that are over but for a late start that may still be made up for.
 */
const search = <K>(keyed: Keyed<K>, count: number, isFull = false): void => {
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
    if (isOver(next.value) && isOutOfTime(next.value.limiter, now, isFull)) takeBack(keyed, next.value, now)
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
  limiter.lateUntil = -Infinity
  limiter.pausedUntil = -Infinity
  Object.assign(limiter.pauses, Pauses.none())
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

const timeOf = <K>(keyed: Keyed<K>): number => Time.now(keyed.time)

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
  for (const { limiter } of keyed.busy.values()) {
    if (limiter.plan.shadow) advance(limiter, time(limiter))
    add(sum, limiter)
  }
  return sum
}
