/** The one step in which most requests are let in, held to the ways that everybody else goes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import * as Limiter from "../../src/internal/limiter.ts"
import * as Plan from "../../src/internal/plan.ts"
import { remaining } from "../../src/internal/remaining.ts"
import { peek, startAtOnce } from "../../src/ThrottleMap.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Timing = Schema.Union([
  Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(5, 40), burst: int(0, 4) }),
  Schema.Struct({
    _tag: Schema.Literal("Window"),
    limit: int(1, 5),
    per: int(5, 40),
    kind: Schema.Literals(["sliding", "fixed"])
  }),
  Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), align: Schema.Boolean })
])

const Calls = Schema.Array(Schema.Struct({ gap: int(0, 12), key: Schema.Literals(["a", "b", "c"]) })).check(
  Schema.isMaxLength(30)
)

const arbitrary = { arbitrary: { runs: 150 } }

describe("startAtOnce", () => {
  it.effect.prop("lets in whom the map would let in, and forgets the same keys", {
    data: Timing,
    calls: Calls,
    maxKeys: int(1, 3)
  }, ({ calls, data, maxKeys }) =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.fromData(data)], { maxQueue: 0 })
      const make = ThrottleMap.make({ lookup: (_key: string) => policy, maxKeys, onFull: "evict" })
      const [one, other] = [yield* make, yield* make]
      for (const { gap, key } of calls) {
        yield* TestClock.adjust(gap)
        // Whoever is not let in by it goes the usual way: a key that refused somebody has a limiter of its own for a while.
        const isLetIn = startAtOnce(one, key, undefined, undefined) ||
          Option.isSome(yield* Effect.option(one.wait(key)))
        assert.strictEqual(isLetIn, Option.isSome(yield* Effect.option(other.wait(key))))
        assert.deepStrictEqual(remaining(peek(one, key)!), remaining(peek(other, key)!))
      }
      assert.strictEqual((yield* one.statistics).admitted, (yield* other.statistics).admitted)
      assert.isAtMost((yield* one.statistics).keys, maxKeys)
    }).pipe(Effect.scoped), arbitrary)

  it.effect.prop("together with another limiter, as a policy of both: both are charged, or none", {
    first: Timing,
    second: Timing,
    calls: Calls
  }, ({ calls, first, second }) =>
    Effect.gen(function*() {
      const [key, everybody] = [Throttle.fromData(first), Throttle.fromData(second)]
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => key })
      const limiter = yield* Limiter.make(Plan.make(everybody.data))
      const both = yield* Throttle.make(Throttle.all([key, everybody], { maxQueue: 0 }))
      for (const { gap } of calls) {
        yield* TestClock.adjust(gap)
        const before = [remaining(peek(map, "a")!), remaining(limiter)]
        const isLetIn = startAtOnce(map, "a", undefined, limiter)
        assert.strictEqual(isLetIn, Option.isSome(yield* both.withPermitsIfAvailable(Effect.void, 1)))
        if (!isLetIn) assert.deepStrictEqual([remaining(peek(map, "a")!), remaining(limiter)], before)
      }
    }).pipe(Effect.scoped), arbitrary)

  it.effect("is no way past those who wait, past a pause, or in where permits are held", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (key: string) =>
          key === "held" ? Throttle.concurrency({ limit: 1 }) : Throttle.rate({ limit: 1, burst: 1 })
      })
      assert.isFalse(startAtOnce(map, "held", undefined, undefined))
      yield* map.pause("paused", "1 second")
      assert.isFalse(startAtOnce(map, "paused", undefined, undefined))
      yield* map.wait("a", 2)
      yield* Effect.forkChild(map.wait("a", 2), { startImmediately: true })
      yield* TestClock.adjust("1500 millis")
      assert.isFalse(startAtOnce(map, "a", undefined, undefined))
      const limiter = yield* Limiter.make(Plan.make(Throttle.concurrency({ limit: 1 }).data))
      assert.isFalse(startAtOnce(map, "b", undefined, limiter))
      assert.isFalse(startAtOnce(map, "b", 3, undefined))
    }).pipe(Effect.scoped))
})
