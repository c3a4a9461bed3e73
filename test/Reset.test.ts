/**
 * `reset`, and the `initial` permits of a bucket.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { assertIdle, fork, now, rangeErrorOf, statisticsOf } from "./utils/kit.ts"
import * as Sweep from "./utils/sweep.ts"

const remainingOf = (throttle: Throttle.Throttle) =>
  Effect.map(throttle.remaining, (parts) => parts.map(({ remaining }) => remaining))

describe("reset", () => {
  const day = Throttle.all([
    Throttle.rate({ limit: 1, burst: 4 }),
    Throttle.tokenBucket({ capacity: 10, refill: 1 }),
    Throttle.window({ limit: 5, per: "1 day" }),
    Throttle.window({ limit: 5, per: "1 day", kind: "fixed" })
  ])

  it.effect("forgets what was charged, in every part", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(day)
      yield* throttle.wait(5)
      assert.deepStrictEqual(yield* remainingOf(throttle), [0, 5, 0, 0])
      yield* throttle.reset
      assert.deepStrictEqual(yield* remainingOf(throttle), [5, 10, 5, 5])
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
    }))

  it.effect("lets waiting calls start, in order, as many as a new throttle would", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 minute" }))
      yield* throttle.wait(3)
      const started: Array<readonly [number, number]> = []
      for (let i = 0; i < 5; i++) {
        yield* fork(throttle.withPermit(Effect.map(now, (at) => void started.push([i, at]))))
      }
      yield* TestClock.adjust("30 seconds")
      yield* throttle.reset
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(started, [[0, 30_000], [1, 30_000], [2, 30_000]])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(started.slice(3), [[3, 90_000]])
    }))

  it.effect("time that calls have waited is not made up for", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.pause("1 hour")
      const starts: Array<number> = []
      for (let i = 0; i < 4; i++) yield* fork(throttle.withPermit(Effect.map(now, (at) => void starts.push(at))))
      yield* TestClock.adjust("10 seconds")
      yield* throttle.reset
      yield* throttle.resume
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [10_000, 10_100, 10_200, 10_300])
    }))

  it.effect("a pause goes on, and held permits stay held", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.concurrency({ limit: 2 }), Throttle.window({ limit: 2, per: "1 day" })])
      )
      const running = yield* fork(throttle.withPermit(Effect.never))
      yield* throttle.pause("1 second")
      yield* throttle.reset
      const next = yield* fork(throttle.withPermits(now, 2))
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(next.pollUnsafe())
      running.interruptUnsafe()
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed(2_000))
      assertIdle(throttle, "afterwards")
    }))

  it.effect("a call of before can no longer be settled or cancelled: no credit arises", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(day)
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(throttle.takeScoped(4), scope)
      const other = yield* Scope.provide(throttle.takeScoped(1), scope)
      yield* throttle.reset
      yield* throttle.wait(5)
      yield* permit.settle(0)
      yield* other.cancel
      assert.deepStrictEqual(yield* remainingOf(throttle), [0, 5, 0, 0])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* remainingOf(throttle), [0, 5, 0, 0])
      assertIdle(throttle, "afterwards")
    }))

  it.effect("the end of a call that runs begins the rest of spacing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", from: "end" }))
      yield* fork(throttle.withPermit(Effect.sleep("1 second")))
      yield* throttle.reset
      const next = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed(2_000))
    }))

  it.effect("nobody has had anything in the fair order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, order: "fair" }))
      const order: Array<string> = []
      const call = (key: string) =>
        fork(throttle.withPermit(Effect.sync(() => void order.push(key))).pipe(Throttle.withCaller({ key })))
      for (let i = 0; i < 6; i++) yield* call("a")
      yield* call("b")
      yield* TestClock.adjust("100 millis")
      yield* throttle.reset
      yield* TestClock.adjust("1 second")
      assert.strictEqual(order.length, 7)
      assert.isTrue([...(yield* throttle.statistics).callers!.values()].every(({ waiting }) => waiting === 0))
      assertIdle(throttle, "afterwards")
    }))

  it.effect("of a key, and of no other", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => Throttle.window({ limit: 2, per: "1 day" }) })
      yield* map.wait("a", 2)
      yield* map.wait("b", 2)
      yield* map.reset("a")
      assert.deepStrictEqual(yield* remainingOf(map.get("a")), [2])
      assert.deepStrictEqual(yield* remainingOf(map.get("b")), [0])
      const waiting = yield* fork(map.withPermit("b")(now))
      yield* map.get("b").reset
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed(0))
      assert.deepStrictEqual(yield* remainingOf(map.get("b")), [1])
    })))

  it.effect("dies on a store", () =>
    Effect.scoped(Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 1 }), { key: "test" })
      assert.include(rangeErrorOf(yield* Effect.exit(throttle.reset)), "does not forget")
      assert.include(rangeErrorOf(yield* Effect.exit(throttle.remaining)), "does not tell what is left")
    })).pipe(Effect.provide(MemoryStore.layer)))
})

describe("a reset at every scheduler step", () => {
  const policies: Record<string, Throttle.Policy<any>> = {
    rate: Throttle.rate({ limit: 500 }),
    "all with permits": Throttle.all([Throttle.rate({ limit: 500 }), Throttle.concurrency({ limit: 2 })]),
    "spacing from the end": Throttle.spacing({ interval: 2, from: "end" }),
    fair: Throttle.rate({ limit: 500, order: "fair" }),
    shadow: Throttle.shadow(Throttle.rate({ limit: 500 }))
  }
  const uses: Record<string, Sweep.Use> = {
    withPermit: (throttle, self) => throttle.withPermit(self),
    settle: (throttle, self) => throttle.usePermits(1)((permit) => Effect.andThen(self, permit.settle(0))),
    cancel: (throttle, self) => throttle.usePermits(1)((permit) => Effect.andThen(self, permit.cancel))
  }
  for (const [name, policy] of Object.entries(policies)) {
    for (const [way, use] of Object.entries(uses)) {
      it(`${name}: ${way}`, () => {
        for (const victim of [undefined, 1]) {
          Sweep.everyStep(
            {
              policy,
              calls: 4,
              use,
              act: ({ fibers, simulator, throttle }) => {
                simulator.fork(throttle.reset)
                if (victim !== undefined) fibers[victim]!.interruptUnsafe()
              }
            },
            `${name}, ${way}, victim ${victim}`,
            (swept, where) => {
              Sweep.assertOrder(swept, where)
              // What is only simulated ends later.
              swept.simulator.at(swept.simulator.now() + 10_000, () => {})
              swept.simulator.run()
              statisticsOf(swept.throttle)
              assertIdle(swept.throttle, where)
              assert.strictEqual(statisticsOf(swept.throttle).waiting, 0, where)
              Sweep.assertUsable(swept, where)
            }
          )
        }
      })
    }
  }
})

describe("initial", () => {
  const slow = Throttle.tokenBucket({ capacity: 10, refill: 1, initial: 3 })

  it.effect("a bucket begins with so many permits, and fills up", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      assert.deepStrictEqual(yield* remainingOf(throttle), [3])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* remainingOf(throttle), [8])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* remainingOf(throttle), [10])
      yield* throttle.reset
      assert.deepStrictEqual(yield* remainingOf(throttle), [3])
    }))

  it.effect("0: the first call waits for its permit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1, initial: 0 }))
      const first = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(first.pollUnsafe(), Exit.succeed(1_000))
    }))

  it.effect("does not matter to an update: what is there stays there", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1 }))
      yield* throttle.wait(2)
      yield* throttle.update(slow)
      assert.deepStrictEqual(yield* remainingOf(throttle), [8])
    }))

  it.effect("a key begins with it, and a key whose bucket has filled up is not dropped", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => slow })
      yield* map.wait("a", 3)
      assert.isFalse(yield* map.allow("a"))
      yield* TestClock.adjust("1 hour")
      for (let i = 0; i < 20; i++) yield* map.allow(`other ${i}`)
      assert.isTrue(yield* map.allow("a", 10))
    })))

  it("is data, and words", () => {
    assert.deepInclude(slow.data, { initial: 3 })
    assert.strictEqual(Throttle.describe(slow), "1 per second, bucket of 10, 3 at the beginning")
    assert.throws(
      () => Throttle.tokenBucket({ capacity: 10, refill: 1, initial: 11 }),
      RangeError,
      "Throttle.tokenBucket: \"initial\" must be at most the capacity, 10, received 11"
    )
    assert.throws(() => Throttle.tokenBucket({ capacity: 10, refill: 1, initial: -1 }), RangeError, "an integer ≥ 0")
  })

  it.effect("is a RangeError on a store", () =>
    Effect.scoped(Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.suspend(() => RedisThrottle.make(slow, { key: "test" })))
      assert.isTrue(Exit.isFailure(exit))
      assert.include(String(exit), "the beginning of one process")
    })).pipe(Effect.provide(MemoryStore.layer)))
})
