/**
 * What is left, `allow`, and `reset` of a throttle on a store: as in memory, on the store in memory and a TestClock; and
 * what the stores answer and forget.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Schema, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { fork, rangeErrorOf, reasonOf } from "../utils/kit.ts"
import { describeRedis, isThere, RedisLive, uniqueKey } from "../utils/redis.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const make = (policy: Throttle.Policy<any>, options: Partial<RedisThrottle.Options> = {}) =>
  RedisThrottle.make(policy, { key: "test", ...options })

const millisOf = (duration: Duration.Duration | undefined) => duration && Duration.toMillis(duration)

const short = (parts: ReadonlyArray<Throttle.Remaining>) =>
  parts.map(({ remaining, untilFull, untilMore }) => [remaining, millisOf(untilMore), millisOf(untilFull)])

const leftOf = (throttle: Throttle.Throttle) => Effect.map(throttle.remaining, short)

const settled = TestClock.adjust(0)

const test = (name: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer)))

/** The instants of the starts of so many calls, in milliseconds. */
const startsOf = (throttle: Throttle.Throttle, calls: number, cost: Throttle.Cost = 1) =>
  Effect.gen(function*() {
    const starts: Array<number> = []
    const at = TestClock.testClockWith((clock) => Effect.sync(() => clock.currentTimeMillisUnsafe()))
    for (let i = 0; i < calls; i++) {
      yield* fork(throttle.withPermits(Effect.map(at, (at) => void starts.push(at)), cost))
    }
    yield* settled
    return starts
  })

describe("what is left", () => {
  test("is that of a throttle in memory", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 100, refill: 10, unit: "tokens" }),
        Throttle.window({ limit: 5, per: "1 minute", name: "plan" }),
        Throttle.window({ limit: 8, per: "1 minute", kind: "fixed" }),
        Throttle.spacing({ interval: "1 second" }),
        Throttle.concurrency({ limit: 3 })
      ])
      const [one, other] = [yield* make(policy), yield* Throttle.make(policy)]
      const equal = Effect.gen(function*() {
        assert.deepStrictEqual(yield* one.remaining, yield* other.remaining)
      })
      yield* equal
      const cost = { permits: 1, tokens: 30 }
      yield* Effect.andThen(equal, settled).pipe(one.withPermits(cost), other.withPermits(cost))
      yield* TestClock.adjust("100 millis")
      const [tokens, ...rest] = yield* leftOf(one)
      assert.deepStrictEqual([tokens, ...rest].map((part) => part![0]), [71, 4, 7, 0, 3])
      yield* equal
    }))

  test("is nothing in a pause of this process or another, nor while calls wait", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 1 })
      const [one, other] = [yield* make(policy), yield* make(policy)]
      yield* one.wait(4)
      yield* one.pause("2 seconds")
      assert.deepStrictEqual([yield* leftOf(one), yield* leftOf(other)], [[[0, 2_000, 4_000]], [[0, 2_000, 4_000]]])
      yield* one.pause("Infinity")
      assert.deepStrictEqual(yield* leftOf(other), [[0, undefined, undefined]])
      yield* one.resume
      assert.deepStrictEqual(yield* leftOf(one), [[6, 1_000, 4_000]])
      const waiting = yield* fork(one.wait(8))
      yield* settled
      assert.deepStrictEqual(yield* leftOf(one), [[0, undefined, undefined]])
      // The slot that is reserved for it comes first.
      assert.deepStrictEqual(yield* leftOf(other), [[0, 3_000, 12_000]])
      yield* Fiber.interrupt(waiting)
    }))

  test("of permits that another process holds it is unknown when they are free", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 3 })
      const [one, other] = [yield* make(policy), yield* make(policy)]
      const holding = yield* fork(one.withPermits(2)(Effect.never))
      yield* settled
      assert.deepStrictEqual(yield* leftOf(other), [[1, undefined, undefined]])
      const waiting = yield* fork(one.withPermits(2)(Effect.void))
      yield* settled
      // No call of this process overtakes it.
      assert.deepStrictEqual(yield* leftOf(other), [[0, undefined, undefined]])
      yield* Fiber.interruptAll([holding, waiting])
      yield* settled
      assert.deepStrictEqual(yield* leftOf(other), [[3, undefined, 0]])
    }))

  test("of a key changes nothing, and is not kept", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 1 })
      const map = yield* RedisThrottle.makeMap({ name: "keys", lookup: (_key: string) => policy })
      yield* map.allow("a", 4)
      assert.deepStrictEqual(short(yield* map.remaining("a")), [[6, 1_000, 4_000]])
      assert.deepStrictEqual(short(yield* map.get("b").remaining), [[10, undefined, 0]])
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  test("is nothing while it drains, and no time is known", () =>
    Effect.gen(function*() {
      const bucket = Throttle.tokenBucket({ capacity: 10, refill: 1 })
      const nothing = [0, undefined, undefined]
      const throttle = yield* make(Throttle.all([bucket, Throttle.concurrency({ limit: 2 })]))
      const running = yield* fork(throttle.withPermit(Effect.never))
      yield* settled
      yield* fork(throttle.drain())
      assert.deepStrictEqual(yield* leftOf(throttle), [nothing, nothing])
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(yield* leftOf(throttle), [nothing, nothing])

      const map = yield* RedisThrottle.makeMap({ name: "keys", lookup: (_key: string) => bucket })
      yield* map.allow("a", 4)
      yield* map.drain()
      for (const key of ["a", "b"]) assert.deepStrictEqual(short(yield* map.remaining(key)), [nothing], key)
    }))

  test("without an answer of the store is unknown, or that of the share of this process", () =>
    Effect.gen(function*() {
      const failure = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))
      const broken = Layer.succeed(ThrottleStore.ThrottleStore, {
        decide: () => failure,
        renew: () => failure,
        pause: () => failure,
        reset: () => failure,
        wakeups: () => Effect.never
      })
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 10 })
      const look = (onStoreError: RedisThrottle.OnStoreError) =>
        Effect.gen(function*() {
          const throttle = yield* make(policy, { onStoreError })
          const before = yield* leftOf(throttle)
          yield* Effect.ignore(throttle.allow(3))
          yield* throttle.reset
          return [before, yield* leftOf(throttle)]
        }).pipe(Effect.provide(broken))
      assert.deepStrictEqual(yield* look("fail"), [[], []])
      assert.deepStrictEqual(yield* look("allow"), [[], []])
      assert.deepStrictEqual(yield* look({ local: 0.5 }), [[[5, undefined, 0]], [[5, undefined, 0]]])
    }))
})

describe("allow", () => {
  it.effect.prop("decides as in memory", {
    which: int(0, 4),
    calls: Schema.Array(Schema.Struct({ gap: int(0, 400), cost: int(1, 2) })).check(Schema.isMaxLength(20))
  }, ({ calls, which }) =>
    Effect.gen(function*() {
      const policy = [
        Throttle.rate({ limit: 5, burst: 2 }),
        Throttle.window({ limit: 4, per: "1 second" }),
        Throttle.window({ limit: 4, per: "1 second", kind: "fixed" }),
        Throttle.spacing({ interval: "200 millis" }),
        Throttle.all([Throttle.rate({ limit: 5, burst: 2 }), Throttle.window({ limit: 4, per: "1 second" })])
      ][which]!
      const [one, other] = [yield* make(policy), yield* Throttle.make(policy)]
      for (const { cost, gap } of calls) {
        yield* TestClock.adjust(gap)
        assert.strictEqual(yield* one.allow(cost), yield* other.allow(cost))
        assert.deepStrictEqual(yield* one.remaining, yield* other.remaining)
      }
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)), { arbitrary: { runs: 60 } })

  test("dies where permits are held, and fails for what can never be granted", () =>
    Effect.gen(function*() {
      const held = yield* make(Throttle.concurrency({ limit: 3 }))
      assert.include(rangeErrorOf(yield* Effect.exit(held.allow())), "allow holds no permits")
      const throttle = yield* make(Throttle.rate({ limit: 3 }))
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.allow(2))), "PermitsExceedCapacity")
    }))
})

describe("reset", () => {
  test("forgets what all processes have spent; waiting calls of this one start as far as they may", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ limit: 2, per: "1 minute" })
      const [one, other] = [yield* make(policy), yield* make(policy)]
      yield* other.wait(2)
      const starts = yield* startsOf(one, 3)
      assert.deepStrictEqual(starts, [])
      yield* TestClock.adjust("10 seconds")
      yield* one.reset
      yield* settled
      assert.deepStrictEqual(starts, [10_000, 10_000])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts, [10_000, 10_000, 70_000])
    }))

  test("held permits stay held, and a pause stays", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.window({ limit: 1, per: "1 hour" }), Throttle.concurrency({ limit: 2 })])
      const throttle = yield* make(policy)
      const holding = yield* fork(throttle.withPermit(Effect.never))
      yield* settled
      yield* throttle.reset
      assert.deepStrictEqual((yield* leftOf(throttle)).map(([left]) => left), [1, 1])
      yield* throttle.pause("1 second")
      yield* throttle.reset
      assert.deepStrictEqual((yield* leftOf(throttle)).map(([left]) => left), [0, 0])
      yield* Fiber.interrupt(holding)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* leftOf(throttle)).map(([left]) => left), [1, 2])
    }))

  for (const how of ["settled to less", "settled to more", "cancelled"] as const) {
    test(`a call that started before, ${how} afterwards, changes no charge`, () =>
      Effect.gen(function*() {
        const policy = Throttle.all([
          Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 minute" }),
          Throttle.window({ limit: 10, per: "1 minute" }),
          Throttle.window({ limit: 10, per: "1 minute", kind: "fixed" }),
          Throttle.spacing({ interval: "1 second" })
        ])
        const [one, other] = [yield* make(policy), yield* make(policy)]
        const scope = yield* Scope.make()
        const permit = yield* Scope.provide(one.takeScoped(6), scope)
        yield* other.reset
        yield* Scope.provide(other.takeScoped(8), scope)
        if (how === "settled to less") yield* permit.settle(1)
        if (how === "settled to more") yield* permit.settle(9)
        if (how === "cancelled") yield* permit.cancel
        yield* settled
        assert.deepStrictEqual((yield* leftOf(other)).map(([left]) => left), [2, 2, 2, 0])
        yield* Scope.close(scope, Exit.void)
      }))
  }

  test("what was reserved before it, and is returned afterwards, changes no charge", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 1 })
      const [one, other] = [yield* make(policy), yield* make(policy)]
      yield* one.wait(10)
      const waiting = yield* fork(one.wait(5))
      yield* settled
      yield* other.reset
      yield* other.wait(4)
      yield* Fiber.interrupt(waiting)
      yield* settled
      assert.deepStrictEqual((yield* leftOf(other)).map(([left]) => left), [6])
    }))

  test("of a key, by the map and by its handle", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ limit: 1, per: "1 hour" })
      const map = yield* RedisThrottle.makeMap({ name: "keys", lookup: (_key: string) => policy })
      assert.deepStrictEqual([yield* map.allow("a"), yield* map.allow("a"), yield* map.allow("b")], [true, false, true])
      yield* map.reset("a")
      assert.deepStrictEqual([yield* map.allow("a"), yield* map.allow("b")], [true, false])
      yield* map.get("b").reset
      assert.isTrue(yield* map.allow("b"))
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  test("interrupted while it is under way, it leaves nothing behind", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.window({ limit: 1, per: "1 minute" }))
      const starts = yield* startsOf(throttle, 2)
      for (let steps = 0; steps < 20; steps++) {
        const fiber = yield* Effect.forkChild(throttle.reset)
        for (let i = 0; i < steps; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
      yield* throttle.reset
      yield* TestClock.adjust("3 minutes")
      assert.strictEqual(starts.length, 2)
      assert.deepStrictEqual(yield* leftOf(throttle), [[1, undefined, 0]])
      const { running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual([running, waiting], [0, 0])
    }))
})

it.effect("a bucket with an initial fill cannot be shared", () =>
  Effect.gen(function*() {
    const policy = Throttle.tokenBucket({ capacity: 5, refill: 1, initial: 0 })
    const error = yield* Effect.flip(make(policy))
    assert.include(error.message, "\"initial\" is for the beginning of a process")
  }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)))

describeRedis("in Redis", () => {
  const layer = isThere
    ? Layer.orDie(RedisLive)
    : Layer.succeed(Redis.Redis, undefined as never)

  it.layer(RedisStore.layer.pipe(Layer.provideMerge(layer)), { excludeTestServices: true })((it) => {
    it.effect("a reset forgets what is spent, and keeps leases; what is left is answered", () =>
      Effect.gen(function*() {
        const policy = Throttle.all([
          Throttle.tokenBucket({ capacity: 5, refill: 1, per: "1 hour", unit: "tokens", name: "a name" }),
          Throttle.window({ limit: 5, per: "1 hour" }),
          Throttle.window({ limit: 5, per: "1 hour", kind: "fixed" }),
          Throttle.spacing({ interval: "1 hour" }),
          Throttle.concurrency({ limit: 2, unit: "slots" })
        ])
        const throttle = yield* RedisThrottle.make(policy, { key: uniqueKey("left") })
        const look = Effect.map(throttle.remaining, (parts) => parts.map(({ remaining }) => remaining))
        const scope = yield* Scope.make()
        const cost = { tokens: 2, permits: 3, slots: 1 }
        const permit = yield* Scope.provide(throttle.takeScoped(cost), scope)
        assert.deepStrictEqual(yield* look, [3, 2, 2, 0, 1])
        yield* throttle.reset
        assert.deepStrictEqual(yield* look, [5, 5, 5, 1, 1])
        yield* Scope.provide(throttle.takeScoped(cost), scope)
        yield* permit.cancel
        assert.deepStrictEqual(yield* look, [3, 2, 2, 0, 1])
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* look)[4], 2)
        const [tokens] = yield* throttle.remaining
        assert.closeTo(Duration.toMinutes(tokens!.untilFull!), 120, 1)
      }).pipe(Effect.scoped))
  })
})
