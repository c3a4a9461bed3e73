/**
 * Maps of throttles on a store. The budgets of the keys are in the store; a process has a limiter for a key only while its
 * calls wait or run, or something is to be reported.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Counts from "../../internal/counts.ts"
import type { Engine, Opened } from "../../internal/engine.ts"
import { all, type Finishing, sum } from "../../internal/finish.ts"
import * as Maps from "../../internal/keyed/map.ts"
import type { ThrottleMap } from "../../internal/keyed/service.ts"
import * as Metrics from "../../internal/metrics.ts"
import * as Operations from "../../internal/operations.ts"
import type { Plan } from "../../internal/plan.ts"
import type { Policy } from "../../internal/service.ts"
import * as Watch from "../../internal/watch.ts"
import * as Backend from "./backend.ts"
import type { Client } from "./client.ts"
import { shareOf } from "./fallback.ts"
import * as Finish from "./finish.ts"
import { shared } from "./levelsEngine.ts"
import type { Limiter, Phase } from "./limiter.ts"
import * as Options from "./options.ts"
import { undistributable } from "./rules.ts"
import * as Shared from "./throttle.ts"

/** What is prepared of a policy. */
interface Prepared {
  readonly plan: Plan
  /** By which this process decides while the store gives no decision. */
  readonly share: Policy<any> | undefined
}

interface Keys<K> {
  readonly limiters: Map<K, Limiter>
  /** The numbers of limiters that were dropped. */
  readonly past: Counts.Own
  phase: Phase
  readonly series: Metrics.Series
  /** Those of all limiters. */
  readonly watchers: Counts.Watchers
}

/** Throws a RangeError for invalid options. `notDistributable`: the error of a policy that processes cannot share. */
export const make = <K>(
  where: string,
  options: unknown,
  notDistributable: (throttle: string, why: { readonly part: string; readonly why: string }) => Error
): (client: Client) => Effect.Effect<ThrottleMap<K>, never, Scope.Scope> => {
  const checked = Options.ofMap(where, options)
  const { lookup, name, onStoreError } = checked
  const prepared = new WeakMap<Policy<any>, Prepared>()
  const prepare = (key: K): Prepared => {
    const policy = Options.policyOf(where, lookup(key))
    let known = prepared.get(policy)
    if (known === undefined) {
      const plan = { ...Options.planOf(where, policy, checked), name }
      const why = undistributable(plan)
      if (why !== undefined) throw notDistributable(name, why)
      const share = typeof onStoreError === "string" ? undefined : shareOf(policy.data, onStoreError.local)
      prepared.set(policy, known = { plan, share })
    }
    return known
  }
  return (client) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<never>()
      const series = yield* Effect.acquireRelease(
        Effect.sync(() => Metrics.acquire(context, name)),
        (series) => Effect.sync(() => Metrics.release(series))
      )
      // It outlives the limiters of idle keys, so what a key has used of its share is not forgotten with them.
      const shares = typeof onStoreError === "string"
        ? undefined
        : yield* Maps.make({ name, lookup: (key: K) => prepare(key).share! })
      const keys: Keys<K> = { limiters: new Map(), past: Counts.none(), phase: "open", series, watchers: [] }
      const { limiters, past } = keys
      const makeLimiter = (key: K): Limiter => {
        const fallback = shares === undefined || typeof onStoreError === "string"
          ? onStoreError as "fail" | "allow"
          : { throttle: shares.get(key), share: onStoreError.local }
        const settings = Options.settings(checked, client, name, String(key), fallback)
        const limiter: Limiter = Backend.makeUnsafe(prepare(key).plan, settings, context, series, true, () => {
          if (limiters.get(key) !== limiter) return
          Counts.add(past, limiter.counts.own)
          limiters.delete(key)
        }, keys.watchers)
        limiter.phase = keys.phase
        limiters.set(key, limiter)
        return limiter
      }
      yield* Effect.addFinalizer(() => {
        keys.phase = "closed"
        return Effect.forEach([...limiters.values()], Backend.close, { discard: true, concurrency: "unbounded" })
      })
      const limiterFor = (key: K) => limiters.get(key) ?? makeLimiter(key)
      const storeKeyOf = (key: K) => Options.keyIn(checked.prefix, name, String(key))
      return mapOf(name, keys, client, shares, limiterFor, storeKeyOf)
    })
}

const mapOf = <K>(
  name: string,
  keys: Keys<K>,
  { clock, store }: Client,
  shares: ThrottleMap<K> | undefined,
  limiterFor: (key: K) => Limiter,
  storeKeyOf: (key: K) => string
): ThrottleMap<K> => {
  const { limiters, past, watchers } = keys
  let round = limiters.values()
  /** Drops limiters that only a pause has kept, once it is over. Each call looks at two. */
  const sweep = () => {
    for (let looks = 0; looks < 2; looks++) {
      const { done, value } = round.next()
      if (done === true) {
        round = limiters.values()
        return
      }
      value.afterCall?.()
    }
  }
  const engineFor = (key: K): Engine => {
    /** The limiter of the key, which keeps it until the operation is over. */
    const open = (): Opened<Limiter> => {
      sweep()
      const limiter = limiterFor(key)
      limiter.users++
      return {
        limiter,
        close: () => {
          limiter.users--
          // A drain of the key is over with its calls, also if something else keeps the limiter, such as a pause.
          if (limiter.users === 0 && Finish.isIdle(limiter)) limiter.phase = keys.phase
          limiter.afterCall?.()
        }
      }
    }
    const on = <A, E, R>(f: (engine: Engine) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.uninterruptibleMask((restore) => {
        const { close, limiter } = open()
        return Effect.onExitPrimitive(restore(Effect.suspend(() => f(Shared.engine(limiter)))), () => {
          close()
          return undefined
        }, true)
      })
    const engine: Engine = {
      name,
      plan: () => limiterFor(key).plan,
      run: (self, cost) => on((engine) => engine.run(self, cost)),
      runIfAvailable: (self, cost) => on((engine) => engine.runIfAvailable(self, cost)),
      wait: (cost) => on((engine) => engine.wait(cost)),
      allow: (cost) => on((engine) => engine.allow(cost)),
      take: (cost) => on((engine) => engine.take(cost)),
      use: (use, cost) => on((engine) => engine.use(use, cost)),
      estimateWait: (cost) => on((engine) => engine.estimateWait(cost)),
      remaining: () => on((engine) => engine.remaining()),
      pause: (nanos) => on((engine) => engine.pause(nanos)),
      resume: () => on((engine) => engine.resume()),
      update: (policy) => on((engine) => engine.update(policy)),
      reset: () => on((engine) => engine.reset()),
      statistics: () => Effect.sync(() => Counts.statistics(limiters.get(key)?.counts.own ?? Counts.none())),
      drain: (nanos) => on((engine) => engine.drain(nanos)),
      awaitIdle: () =>
        Watch.until(watchers, () => {
          const limiter = limiters.get(key)
          return limiter === undefined || Finish.isIdle(limiter)
        }),
      awaitQueue: (calls) =>
        Watch.until(watchers, () => {
          const limiter = limiters.get(key)
          return limiter !== undefined && Finish.hasQueue(limiter, calls)
        })
    }
    return shared(engine, { store, key: storeKeyOf(key), open })
  }
  const finishing: Finishing = {
    clock,
    watchers,
    refuseNewcomers: () => {
      if (keys.phase === "closed") return
      keys.phase = "draining"
      Metrics.countDraining(keys.series)
      for (const limiter of limiters.values()) Finish.refuseNewcomers(limiter, true)
    },
    isIdle: all(() => limiters.values(), Finish.isIdle),
    interruptRest: () => sum(limiters.values(), Finish.interruptRest),
    isRestOver: all(() => limiters.values(), Finish.isRestOver)
  }
  return {
    ...Maps.operationsByKey(engineFor),
    get: (key) => Operations.make(engineFor(key)),
    drain: (deadline) =>
      Effect.suspend(() => Finish.drain(finishing, shares, Operations.deadlineOf({ name }, deadline))),
    awaitIdle: Watch.until(watchers, finishing.isIdle),
    statistics: Effect.sync(() => {
      for (const limiter of limiters.values()) limiter.afterCall?.()
      const sum = Counts.none()
      Counts.add(sum, past)
      for (const { counts } of limiters.values()) Counts.add(sum, counts.own)
      return { ...Counts.statistics(sum), keys: limiters.size, keysRefused: 0, keysEvicted: 0 }
    })
  }
}
