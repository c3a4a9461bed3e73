/**
 * `allow`: charges a call now, or not at all.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { assertIdle, fork, rangeErrorOf, reasonOf } from "./utils/kit.ts"

const times = <A, E, R>(n: number, self: Effect.Effect<A, E, R>) => Effect.all(Array.from({ length: n }, () => self))

describe("allow", () => {
  it.effect("is true as often as the policy lets calls start, and charges only then", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 1 }))
      assert.deepStrictEqual(yield* times(4, throttle.allow()), [true, true, false, false])
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* times(2, throttle.allow()), [true, false])
      assert.deepInclude(yield* throttle.statistics, { admitted: 3, waiting: 0 })
      assertIdle(throttle, "afterwards")
    }))

  it.effect("takes a cost in every unit, or nothing of any", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.window({ limit: 10, per: "1 minute" }),
        Throttle.window({ limit: 100, per: "1 minute", unit: "tokens" })
      ]))
      assert.isTrue(yield* throttle.allow({ tokens: 60 }))
      assert.isFalse(yield* throttle.allow({ tokens: 60 }))
      assert.isTrue(yield* throttle.allow({ tokens: 40 }))
      assert.isTrue(yield* throttle.allow(8))
      assert.isFalse(yield* throttle.allow())
    }))

  it.effect("does not overtake waiting calls", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      yield* throttle.wait(5)
      yield* fork(throttle.wait(10))
      assert.isFalse(yield* throttle.allow(1))
    }))

  it.effect("is first where the order says so", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 10, refill: 10, order: "priority", ageing: "1 minute" })
      )
      yield* throttle.wait(5)
      yield* fork(throttle.wait(10))
      assert.isFalse(yield* throttle.allow(1))
      assert.isTrue(yield* throttle.allow(1).pipe(Throttle.withCaller({ priority: 1 })))
    }))

  it.effect("fails for more than can ever be granted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.allow(2))), "PermitsExceedCapacity")
    }))

  it.effect("dies for a policy that holds permits, and for an invalid cost", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      assert.include(rangeErrorOf(yield* Effect.exit(throttle.allow())), "hold no permits")
      const rate = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      assert.include(rangeErrorOf(yield* Effect.exit(rate.allow(-1))), "an integer ≥ 0")
    }))

  it.effect("is true in shadow, and counted as in force", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      assert.deepStrictEqual(yield* times(3, throttle.allow()), [true, true, true])
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
    }))

  it.effect("is interrupted once the throttle is closed", () =>
    Effect.gen(function*() {
      const throttle = yield* Effect.scoped(Throttle.make(Throttle.rate({ limit: 1 })))
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(throttle.allow())))
    }))

  it.effect("by key, each with a budget of its own", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => Throttle.rate({ limit: 1 }), maxKeys: 2 })
      assert.deepStrictEqual(yield* times(2, map.allow("a")), [true, false])
      assert.deepStrictEqual(yield* times(2, map.get("b").allow()), [true, false])
      assert.strictEqual(reasonOf(yield* Effect.exit(map.allow("c"))), "KeysExhausted")
      assert.strictEqual(reasonOf(yield* Effect.exit(map.allow("a", 2))), "PermitsExceedCapacity")
    })))

  it.effect("on a store", () =>
    Effect.scoped(Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 10, burst: 1 }), { key: "test" })
      assert.deepStrictEqual(yield* times(3, throttle.allow()), [true, true, false])
    })).pipe(Effect.provide(MemoryStore.layer)))
})
