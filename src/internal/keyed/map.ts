/**
 * Makes maps of throttles, and gives the HTTP server access to their state.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../../ThrottleError.ts"
import * as Admission from "../admission.ts"
import type { Engine } from "../engine.ts"
import * as Finish from "../finish.ts"
import type { View } from "../limiter.ts"
import * as Operations from "../operations.ts"
import * as Rules from "../options.ts"
import * as Plan from "../plan.ts"
import { type Cost, isPolicy, type Permit, type Policy } from "../service.ts"
import * as Watch from "../watch.ts"
import * as Calls from "./calls.ts"
import * as Keys from "./engine.ts"
import * as Keyed from "./keyed.ts"
import type { KeyedOperations, Options, ThrottleMap } from "./service.ts"

const rules = {
  lookup: Rules.func<(key: any) => unknown>("a function from a key to a policy"),
  maxKeys: Rules.orInfinity(Rules.integer(1)),
  onFull: Rules.oneOf("refuse", "evict"),
  name: Rules.text
}

/** Throws a RangeError for invalid options. */
export const check = (options: Options<any>): void => {
  const { lookup } = Rules.readAll("ThrottleMap", rules, options)
  Rules.read("ThrottleMap", "lookup", rules.lookup, lookup)
}

/** Makes a map without a scope, which is never closed. */
export const makeUnsafe = <K>(
  options: Options<K>
): (context: Context.Context<never>, clock: Clock.Clock) => ThrottleMap<K> => {
  const keyed = makeKeyed(options)
  return (context, clock) => fromKeyed(keyed(context, clock))
}

/** Makes a map that closes with the scope. */
export const make = <K>(options: Options<K>): Effect.Effect<ThrottleMap<K>, never, Scope.Scope> => {
  const keyed = makeKeyed(options)
  return Effect.map(
    Effect.acquireRelease(
      Effect.withFiber((fiber) => Effect.succeed(keyed(fiber.context, fiber.getRef(Clock.Clock)))),
      (keyed) => Effect.sync(() => Keys.closeAll(keyed))
    ),
    fromKeyed
  )
}

const makeKeyed = <K>(options: Options<K>) => {
  check(options)
  const { lookup, maxKeys = Infinity, name = "throttleMap", onFull = "refuse" } = options
  const plans = new WeakMap<Policy<any>, Plan.Plan>()
  const planFor = (policy: unknown, what: string): Plan.Plan => {
    if (!isPolicy(policy)) {
      throw new RangeError(
        `throttleMap ${Formatter.format(name)}: ${what} must be a policy, received ${Formatter.format(policy)}`
      )
    }
    let plan = plans.get(policy)
    if (plan === undefined) plans.set(policy, plan = Plan.make(policy.data))
    return plan
  }
  return (context: Context.Context<never>, clock: Clock.Clock) =>
    Keyed.make<K>(
      name,
      (key) => planFor(lookup(key), "what lookup returns"),
      (policy) => planFor(policy, `"policy"`),
      { maxKeys, onFull },
      context,
      clock
    )
}

/** The property under which a map keeps its state. It is not enumerable, so a copy with other members has none. */
const keyedKey = Symbol("effect-throttle/MadeMap")

/** The operations of a map for each key, with the names of a throttle's operations. */
type PerKey<K> =
  & Omit<KeyedOperations<K, never>, "statistics" | "statisticsOf" | "drain" | "drainOf" | "awaitIdle" | "awaitIdleOf">
  & {
    readonly statistics: KeyedOperations<K, never>["statisticsOf"]
    readonly drain: KeyedOperations<K, never>["drainOf"]
    readonly awaitIdle: KeyedOperations<K, never>["awaitIdleOf"]
  }

/** The operations of a map for each key. Those that a map also has for all keys together have a name of their own. */
export const operationsByKey = <K>(engineFor: (key: K) => Engine) => {
  const { awaitIdle: awaitIdleOf, drain: drainOf, statistics: statisticsOf, ...operations } = Operations.byKey<
    K,
    PerKey<K>
  >(engineFor)
  return { ...operations, awaitIdleOf, drainOf, statisticsOf }
}

const fromKeyed = <K>(keyed: Keyed.Keyed<K>): ThrottleMap<K> => {
  const finishing = Keys.finishing(keyed)
  const map: ThrottleMap<K> = {
    ...operationsByKey((key: K) => new Keys.KeyEngine(keyed, key)),
    get: (key) => Operations.make(new Keys.Handle(keyed, key)),
    statistics: Effect.sync(() => ({
      ...Keys.total(keyed),
      keys: Keyed.size(keyed),
      keysRefused: keyed.keys.refused,
      keysEvicted: keyed.keys.evicted
    })),
    drain: (deadline) => Effect.suspend(() => Finish.drain(finishing, Operations.deadlineOf(keyed, deadline))),
    awaitIdle: Watch.until(finishing.watchers, finishing.isIdle)
  }
  return Object.defineProperty(map, keyedKey, { value: keyed })
}

/** The state of a map of this package; undefined for any other. */
export const keyedOf = <K>(map: ThrottleMap<K>): Keyed.Keyed<K> | undefined =>
  (map as { readonly [keyedKey]?: Keyed.Keyed<K> })[keyedKey]

/**
 * Returns the view of a key and the present instant, both to be used in this step; undefined for a map that is not of
 * this package.
 */
export const peek = <K>(map: ThrottleMap<K>, key: K): { readonly view: View; readonly now: number } | undefined => {
  const keyed = keyedOf(map)
  return keyed === undefined ? undefined : { view: Calls.peek(keyed, key), now: Keyed.now(keyed) }
}

/**
 * Takes permits of a key until the scope closes. Requires that only this fiber closes the scope: if it requests more
 * permits of the key before, that is reported as a deadlock (`endedBy: "call"`). `onGranted` as in `Admission.take`;
 * for a map that is not of this package it runs right after.
 */
export const take = <K>(
  map: ThrottleMap<K>,
  key: K,
  cost: Cost | undefined,
  onGranted: (permit: Permit) => void
): Effect.Effect<unknown, ThrottleError, Scope.Scope> => {
  const keyed = keyedOf(map)
  return keyed === undefined
    ? Effect.map(map.takeScoped(key, cost), onGranted)
    : Calls.use(
      keyed,
      key,
      Keys.demanding(cost),
      (limiter, demand) => Admission.take(limiter, demand, "call", onGranted)
    )
}
