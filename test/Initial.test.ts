/**
 * The initial fill of a bucket: how many permits are there when its throttle, or its map, is made.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import { TestClock } from "effect/testing"
import { startsOf } from "./utils/kit.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const withoutNames = (parts: ReadonlyArray<Throttle.Remaining>) =>
  parts.map(({ kind, limit, remaining, untilFull, untilMore }) => ({ kind, limit, remaining, untilFull, untilMore }))

describe("the initial fill of a bucket", () => {
  it.effect("so many start at once, the next as the bucket refills", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1, initial: 2 }))
      const starts = yield* startsOf(throttle, 4)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(starts, [0, 0, 1_000, 2_000])
    }))

  it.effect("0: the first waits; it fills up to the capacity", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 3, refill: 1, initial: 0 }))
      assert.isFalse(yield* throttle.allow())
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual((yield* throttle.remaining).map(({ remaining }) => remaining), [2])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* throttle.remaining).map(({ remaining }) => remaining), [3])
    }))

  it.effect.prop("acts as a full bucket from which the rest was spent at the beginning", {
    capacity: int(1, 8),
    missing: int(0, 8),
    calls: Schema.Array(Schema.Struct({ gap: int(0, 900), cost: int(1, 4) })).check(Schema.isMaxLength(20))
  }, ({ calls, capacity, missing }) =>
    Effect.gen(function*() {
      const spent = Math.min(capacity, missing)
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity, refill: 3, initial: capacity - spent }))
      const full = yield* Throttle.make(Throttle.tokenBucket({ capacity, refill: 3 }))
      yield* full.wait(spent)
      for (const { cost, gap } of calls) {
        yield* TestClock.adjust(gap)
        const [one, other] = [yield* throttle.remaining, yield* full.remaining]
        assert.deepStrictEqual(withoutNames(one), withoutNames(other))
        if (cost <= capacity) assert.strictEqual(yield* throttle.allow(cost), yield* full.allow(cost))
      }
    }).pipe(Effect.scoped), { arbitrary: { runs: 100 } })

  it.effect("an update does not return to it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 5, refill: 1 }))
      yield* throttle.update(Throttle.tokenBucket({ capacity: 5, refill: 1, initial: 0 }))
      assert.isTrue(yield* throttle.allow(5))
      yield* throttle.update(Throttle.all([
        Throttle.tokenBucket({ capacity: 5, refill: 1 }),
        Throttle.tokenBucket({ capacity: 7, refill: 1, initial: 0, name: "new" })
      ]))
      assert.deepStrictEqual((yield* throttle.remaining).map(({ remaining }) => remaining), [0, 7])
    }))

  it.effect("in shadow the simulated bucket has it", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 5, refill: 1, initial: 1 })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      for (let i = 0; i < 3; i++) yield* throttle.wait()
      assert.strictEqual((yield* throttle.statistics).waiting, 2)
    }))

  it.effect("inline use begins with the first call", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 5, refill: 1, initial: 0 })
      yield* TestClock.adjust("1 hour")
      const throttle = yield* Throttle.inline(policy)
      assert.isFalse(yield* throttle.allow())
    }))

  it("a simulation has it", () => {
    const policy = Throttle.tokenBucket({ capacity: 5, refill: 1, initial: 1 })
    const { calls } = Simulation.run(policy, Simulation.list([0, 0, 0]))
    assert.deepStrictEqual(calls.map(({ start }) => Math.round(start!)), [0, 1_000, 2_000])
  })
})

describe("as data", () => {
  it("is an option that is read, described and checked", () => {
    const policy = Throttle.tokenBucket({ capacity: 10, refill: 5, initial: 0 })
    assert.deepStrictEqual(policy.data, { _tag: "TokenBucket", capacity: 10, refill: 5, per: 1_000, initial: 0 })
    assert.strictEqual(Throttle.describe(policy), "5 per second, bucket of 10, initially 0")
    assert.deepStrictEqual(Throttle.fromData(JSON.parse(JSON.stringify(policy.data))).data, policy.data)
    assert.isFalse("initial" in Throttle.tokenBucket({ capacity: 10, refill: 5 }).data)
    for (const initial of [-1, 1.5, NaN, "1", null] as Array<any>) {
      assert.throws(
        () => Throttle.tokenBucket({ capacity: 10, refill: 5, initial }),
        /^Throttle.tokenBucket: "initial" must be an integer ≥ 0, received /
      )
    }
    assert.throws(
      () => Throttle.tokenBucket({ capacity: 10, refill: 5, initial: 11 }),
      "Throttle.tokenBucket: \"initial\" must be at most \"capacity\" (10), received 11"
    )
  })

  it.effect("a decoded policy fails where the constructor throws", () =>
    Effect.gen(function*() {
      const data = { _tag: "TokenBucket", capacity: 10, refill: 5, initial: 11 }
      const error = yield* Effect.flip(Throttle.decode(data))
      assert.include(String(error), "\"initial\" must be at most \"capacity\" (10), received 11")
      assert.strictEqual((yield* Throttle.decode({ ...data, initial: 3 })).data._tag, "TokenBucket")
    }))
})

describe("the keys of a map", () => {
  const policy = Throttle.tokenBucket({ capacity: 4, refill: 1, initial: 1 })
  const left = (map: ThrottleMap.ThrottleMap<string>, key: string) =>
    Effect.map(map.remaining(key), ([part]) => part!.remaining)

  it.effect("are all filled from the making of the map on", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      assert.deepStrictEqual([yield* map.allow("a"), yield* map.allow("a")], [true, false])
      assert.strictEqual(yield* left(map, "b"), 1)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([yield* left(map, "a"), yield* left(map, "b")], [2, 3])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([yield* left(map, "a"), yield* left(map, "new")], [4, 4])
    }))

  it.effect("are forgotten once they are full, which is not noticed", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      for (let i = 0; i < 40; i++) yield* map.allow(`key ${i}`)
      yield* TestClock.adjust("10 seconds")
      for (let i = 0; i < 64; i++) yield* map.allow("other", 0)
      assert.isAtMost((yield* map.statistics).keys, 1)
      assert.strictEqual(yield* left(map, "key 1"), 4)
    }))

  it.effect("a key that was reset, and is full sooner than others, is remembered until they are", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      yield* map.allow("a")
      yield* map.reset("a")
      for (let i = 0; i < 64; i++) yield* map.allow("other", 0)
      assert.strictEqual(yield* left(map, "a"), 4)
      yield* TestClock.adjust("10 seconds")
      for (let i = 0; i < 64; i++) yield* map.allow("other", 0)
      assert.isAtMost((yield* map.statistics).keys, 1)
    }))

  it.effect("a key of which nothing was ever charged is not remembered", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      yield* map.pause("a", "100 millis")
      yield* TestClock.adjust("100 millis")
      for (let i = 0; i < 64; i++) yield* map.remaining("b")
      yield* map.resume("a")
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  it.effect.prop("forgetting keys is not noticed: a small map decides as a large one", {
    calls: Schema.Array(Schema.Struct({ gap: int(0, 3_000), key: int(0, 30), cost: int(1, 3) })).check(
      Schema.isMaxLength(150)
    )
  }, ({ calls }) =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      // Never forgets, since these buckets were all made at once and are never swept.
      const apart = yield* Effect.forEach(Array.from({ length: 31 }), () => Throttle.make(policy))
      for (const { cost, gap, key } of calls) {
        yield* TestClock.adjust(gap)
        assert.strictEqual(yield* map.allow(String(key), cost), yield* apart[key]!.allow(cost))
        assert.deepStrictEqual(yield* left(map, String(key)), (yield* apart[key]!.remaining)[0]!.remaining)
      }
    }).pipe(Effect.scoped), { arbitrary: { runs: 60 } })
})
