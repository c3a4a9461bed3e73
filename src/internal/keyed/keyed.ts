/**
 * The keys of a map, and the state of each.
 *
 * A limiter takes about 4 kB, so an idle key stores only what its meters have charged. A key with waiting calls, held
 * permits or a pause has a limiter, which is lent to it meanwhile.
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type { Waiter } from "../backend.ts"
import * as Budget from "../budget.ts"
import * as Counts from "../counts.ts"
import * as Demand from "../demand.ts"
import { type Limiter, liveMeter, type View } from "../limiter.ts"
import * as List from "../list.ts"
import * as Metrics from "../metrics.ts"
import * as Pauses from "../pauses.ts"
import type { Plan } from "../plan.ts"
import * as Pool from "../pool.ts"
import { fifo } from "../queue/fifo.ts"
import type { Policy } from "../service.ts"
import * as Time from "../time.ts"

/** What all keys of one policy share. */
export interface Kind {
  /** The plan, with the map's name. */
  readonly plan: Plan
  /** The charges of a key that is not remembered: those of a limiter that was made with the map. */
  readonly starting: Budget.Charged
  /** The view of an idle key, without its charges. */
  readonly view: Omit<View, "charged">
  /** Whether a call that starts at once needs no limiter, because it holds no permits. */
  readonly holdsNothing: boolean
  /** Limiters that no key uses, kept for the next key: making one takes 1 µs. */
  readonly spare: Array<Lent>
}

/** A remembered key that has no limiter. */
export interface Idle extends List.Node<Idle> {
  readonly key: unknown
  kind: Kind
  charged: Budget.Charged
  isRemembered: boolean
}

/** A limiter that is lent to a key. */
export interface Lent {
  /** Undefined if no key uses it. */
  key: { readonly value: unknown } | undefined
  kind: Kind
  readonly limiter: Limiter
  /** The number of calls that will use it in a later step. */
  users: number
}

export interface Options {
  readonly maxKeys: number
  /**
   * The result for a new key when there are `maxKeys`: its call is rejected, or it replaces the idle key that was used
   * longest ago.
   */
  readonly onFull: "refuse" | "evict"
}

/** The state of a map. */
export interface Keyed<K> {
  readonly name: string
  readonly options: Options
  readonly time: Time.Time
  readonly madeAt: number
  /** Returns the plan of a key's policy, and that of a policy. One policy value has one plan. */
  readonly planOf: (key: K) => Plan
  readonly planFor: (policy: Policy<any>) => Plan
  readonly kinds: WeakMap<Plan, Kind>
  /**
   * Maps each key to the first remembered key that is equal to it. Plain values, which equal only themselves, are
   * absent.
   */
  readonly equal: MutableHashMap.MutableHashMap<K, K>
  readonly idle: Map<K, Idle>
  /** Idle keys by last use, longest ago first. Filled only if `onFull` is "evict". */
  readonly byUse: List.List<Idle>
  readonly lent: Map<K, Lent>
  /** The counts of all keys while they had no limiter. */
  readonly counts: Counts.Counts
  readonly keys: { evicted: number; refused: number; readonly refusedMetric: { count: number } }
  /** Where the next sweep continues. */
  readonly sweep: { idle: Iterator<Idle>; lent: Iterator<Lent>; calls: number }
  /** "draining": newcomers are rejected; "closed": they are interrupted. */
  phase: "open" | "draining" | "closed"
}

export const make = <K>(
  name: string,
  planOf: (key: K) => Plan,
  planFor: (policy: Policy<any>) => Plan,
  options: Options,
  context: Context.Context<never>,
  clock: Clock.Clock
): Keyed<K> => {
  const idle = new Map<K, Idle>()
  const lent = new Map<K, Lent>()
  const series = Metrics.acquire(context, name)
  const time = Time.make(clock)
  return {
    name,
    options,
    time,
    madeAt: Time.now(time),
    planOf,
    planFor,
    kinds: new WeakMap(),
    equal: MutableHashMap.empty(),
    idle,
    byUse: List.make(),
    lent,
    counts: Counts.make(series),
    keys: { evicted: 0, refused: 0, refusedMetric: Metrics.keysRefused(series) },
    sweep: { idle: idle.values(), lent: lent.values(), calls: 0 },
    phase: "open"
  }
}

export const size = <K>({ idle, lent }: Keyed<K>): number => lent.size + idle.size

export const now = <K>({ time }: Keyed<K>): number => Time.now(time)

// ---------------------------------------------------------------------------------------------------------------------
// Kinds
// ---------------------------------------------------------------------------------------------------------------------

const kindOf = <K>(keyed: Keyed<K>, key: K): Kind => kindFor(keyed, keyed.planOf(key))

export const kindFor = <K>({ kinds, madeAt, name, time }: Keyed<K>, plan: Plan): Kind => {
  let kind = kinds.get(plan)
  if (kind === undefined) {
    const named = { ...plan, name }
    const waiters = List.make<Waiter>()
    kind = {
      plan: named,
      starting: Budget.starting(named, madeAt),
      view: {
        plan: named,
        meters: plan.meters.map(liveMeter),
        pools: plan.pools.map(Pool.make),
        one: Demand.one(named),
        wall: time.wall,
        phase: plan.shadow ? "shadow" : "inForce",
        pauses: Pauses.none(),
        waiters,
        callers: new Map(),
        queue: fifo(waiters)
      },
      holdsNothing: plan.pools.length === 0 && !plan.shadow,
      spare: []
    }
    kinds.set(plan, kind)
  }
  return kind
}

/**
 * Whether decisions from `now` on are the same as about a key that is not remembered. A bucket with an `initial` fill is
 * filled from the making of the map on, whichever key it is for, so once it is full a key can be forgotten unnoticed.
 */
export const isInitial = ({ plan, starting }: Kind, charged: Budget.Charged, now: number): boolean =>
  charged === starting || (Budget.isInitial(plan, charged, now) && Budget.isInitial(plan, starting, now))

/** Returns the view of a key that has no limiter. */
export const viewOf = ({ view }: Kind, charged: Budget.Charged): View => ({ ...view, charged: Ref.makeUnsafe(charged) })

// ---------------------------------------------------------------------------------------------------------------------
// Keys
// ---------------------------------------------------------------------------------------------------------------------

const isPlain = (key: unknown): boolean => typeof key !== "object" && typeof key !== "function"

/** Returns the remembered key that is equal to this one, or else this one. The result is valid in this step. */
export const canonical = <K>({ equal }: Keyed<K>, key: K): K =>
  isPlain(key) ? key : Option.getOrElse(MutableHashMap.get(equal, key), () => key)

const learn = <K>({ equal }: Keyed<K>, key: K): void => {
  if (!isPlain(key)) MutableHashMap.set(equal, key, key)
}

const unlearn = <K>({ equal }: Keyed<K>, key: K): void => {
  if (!isPlain(key)) MutableHashMap.remove(equal, key)
}

/** A key without a limiter, which is not remembered yet. */
export const idle = (key: unknown, kind: Kind, charged: Budget.Charged): Idle => ({
  key,
  kind,
  charged,
  isRemembered: false,
  prev: undefined,
  next: undefined
})

/**
 * Returns the state of a key that has no limiter. If nothing spent is left, `lookup` is called and its policy adopted,
 * so that a key in constant use follows a change too.
 */
export const idleOf = <K>(keyed: Keyed<K>, key: K, now: number): Idle => {
  const found = keyed.idle.get(key)
  if (found === undefined) {
    const kind = kindOf(keyed, key)
    return idle(key, kind, kind.starting)
  }
  if (Budget.isUnspent(found.kind.plan, found.charged, now)) {
    const kind = kindOf(keyed, key)
    if (kind !== found.kind) {
      found.charged = Budget.adopt(kind.plan, found.kind.plan, found.charged, now)
      found.kind = kind
    }
  }
  return found
}

/** Remembers a key that has no limiter, as the one used last. */
export const remember = <K>(keyed: Keyed<K>, idle: Idle): void => {
  const { byUse, options: { onFull } } = keyed
  if (!idle.isRemembered) {
    idle.isRemembered = true
    const key = idle.key as K
    learn(keyed, key)
    keyed.idle.set(key, idle)
    if (onFull === "evict") List.add(byUse, idle)
  } else if (onFull === "evict" && byUse.last !== idle) {
    List.remove(byUse, idle)
    List.add(byUse, idle)
  }
}

/** Forgets a key that has no limiter. */
export const forget = <K>(keyed: Keyed<K>, idle: Idle): void => {
  const key = idle.key as K
  keyed.idle.delete(key)
  unlearn(keyed, key)
  if (keyed.options.onFull === "evict") List.remove(keyed.byUse, idle)
}

/** Lends a limiter to a key, which is not idle any more. */
export const setLent = <K>(keyed: Keyed<K>, key: K, lent: Lent): void => {
  const idle = keyed.idle.get(key)
  if (idle !== undefined) forget(keyed, idle)
  learn(keyed, key)
  lent.key = { value: key }
  keyed.lent.set(key, lent)
}

/** Takes the limiter of a key back, and forgets the key. */
export const removeLent = <K>(keyed: Keyed<K>, lent: Lent): K => {
  const key = lent.key!.value as K
  keyed.lent.delete(key)
  unlearn(keyed, key)
  lent.key = undefined
  return key
}
