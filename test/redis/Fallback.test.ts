/**
 * While the store gives no decision: a share of the limits holds in this process, key by key, and a pause holds although
 * the store does not hear of it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Logger, Option, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { clientTo, describeRedis, ownServer } from "../utils/redis.ts"

const down = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))

/** The store in memory, which can be taken down. */
const interruptible = Effect.map(ThrottleStore.ThrottleStore, (store) => {
  const state = { isDown: true }
  const unlessDown = <A>(self: Effect.Effect<A, ThrottleStore.StoreFailure>) =>
    Effect.suspend(() => state.isDown ? down : self)
  return {
    state,
    store: {
      ...store,
      decide: (request) => unlessDown(store.decide(request)),
      renew: (...args) => unlessDown(store.renew(...args)),
      pause: (...args) => unlessDown(store.pause(...args))
    } satisfies ThrottleStore.ThrottleStore
  }
})

const perSecond = Throttle.rate({ limit: 1 })

const makeMap = (options: Partial<RedisThrottle.MapOptions<string>> = {}) =>
  Effect.gen(function*() {
    const { state, store } = yield* interruptible
    const map = yield* RedisThrottle.makeMap({ name: "map", lookup: () => perSecond, ...options }).pipe(
      Effect.provideService(ThrottleStore.ThrottleStore, store)
    )
    return { state, map }
  })

const makeThrottle = (policy: Throttle.Policy<any>, options: Partial<RedisThrottle.Options> = {}) =>
  Effect.gen(function*() {
    const { state, store } = yield* interruptible
    const throttle = yield* RedisThrottle.make(policy, { key: "one", ...options }).pipe(
      Effect.provideService(ThrottleStore.ThrottleStore, store)
    )
    return { state, throttle }
  })

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const test = (name: string, body: () => Effect.Effect<void, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer), Effect.provide(Logger.layer([]))))

/** Lets time go on in small steps, so that everything that happens meanwhile happens in its order. */
const pass = (millis: number) =>
  Effect.forEach(Array.from({ length: millis / 10 }), () => TestClock.adjust("10 millis"), { discard: true })

const settled = TestClock.adjust(0)

/** Counts starts of an effect that is called again and again. */
const startsOf = (call: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    const starts = { count: 0 }
    yield* fork(Effect.forever(Effect.andThen(call, Effect.sync(() => starts.count++))))
    return starts
  })

describe("a map with a local share, while the store is down", () => {
  const options = { onStoreError: { local: 1 } } as const

  for (
    const [name, call] of Object.entries<(map: ThrottleMap.ThrottleMap<string>) => Effect.Effect<unknown, unknown>>({
      withPermit: (map) => map.withPermit("a")(Effect.void),
      withPermits: (map) => map.withPermits("a", 1)(Effect.void),
      wait: (map) => map.wait("a"),
      takeScoped: (map) => Effect.scoped(map.takeScoped("a")),
      usePermits: (map) => map.usePermits("a", 1)(() => Effect.void),
      withPermitsIfAvailable: (map) =>
        Effect.flatMap(
          Effect.andThen(Effect.sleep("1 millis"), map.withPermitsIfAvailable("a", 1)(Effect.void)),
          (ran) => Option.isSome(ran) ? Effect.void : Effect.fail("not now")
        ).pipe(Effect.retry({ times: 10_000 }))
    })
  ) {
    test(`${name} starts as often as the share allows`, () =>
      Effect.gen(function*() {
        const { map } = yield* makeMap(options)
        const starts = yield* startsOf(call(map))
        yield* pass(2_990)
        assert.strictEqual(starts.count, 3)
        yield* pass(1_000)
        assert.strictEqual(starts.count, 4)
      }))
  }

  test("each key has its own share, of its own policy", () =>
    Effect.gen(function*() {
      const { map } = yield* makeMap({
        lookup: (key) => key === "paid" ? Throttle.rate({ limit: 10 }) : perSecond,
        onStoreError: { local: 0.5 }
      })
      const [paid, free] = [yield* startsOf(map.wait("paid")), yield* startsOf(map.wait("free"))]
      yield* pass(2_000)
      assert.deepStrictEqual([paid.count, free.count], [11, 2])
    }))

  test("costs count in their units", () =>
    Effect.gen(function*() {
      const tokens = Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" })
      const { map } = yield* makeMap({ ...options, lookup: () => tokens })
      const starts = yield* startsOf(map.withPermits("a", { tokens: 10 })(Effect.void))
      yield* startsOf(Effect.andThen(map.withPermit("a")(Effect.void), Effect.sleep("10 millis")))
      yield* pass(1_990)
      assert.strictEqual(starts.count, 2)
    }))

  test("what a call cost less comes back", () =>
    Effect.gen(function*() {
      const bucket = Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 hour" })
      const { map } = yield* makeMap({ ...options, lookup: () => bucket })
      yield* map.usePermits("a", 10)((permit) => permit.settle(4))
      yield* map.usePermits("a", 6)((permit) => permit.cancel)
      assert.isTrue(Option.isSome(yield* map.withPermitsIfAvailable("a", 6)(Effect.void)))
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("a", 1)(Effect.void)))
    }))

  test("calls that wait are interrupted when the map's scope closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { map } = yield* Scope.provide(makeMap(options), scope)
      yield* map.wait("a")
      const waiting = yield* Effect.forEach(["a", "a"], (key) => fork(map.wait(key)))
      yield* TestClock.adjust("100 millis")
      yield* Scope.close(scope, Exit.void)
      for (const fiber of waiting) {
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }
    }))

  test("keeps nothing of a key once its share is unused again", () =>
    Effect.gen(function*() {
      const { map } = yield* makeMap(options)
      yield* Effect.forEach(Array.from({ length: 20 }), (_, i) => map.wait(`key ${i}`))
      yield* TestClock.adjust("2 seconds")
      yield* map.wait("another")
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))
})

describe("a pause of which the store does not hear", () => {
  for (const onStoreError of ["fail", "allow", { local: 1 }] as const) {
    test(`holds on a map, with onStoreError ${JSON.stringify(onStoreError)}`, () =>
      Effect.gen(function*() {
        const { map } = yield* makeMap({ onStoreError })
        yield* map.pause("a", "3700 millis")
        yield* settled
        assert.strictEqual((yield* map.statistics).keys, 1)
        assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("a", 1)(Effect.void)))
        const call = yield* fork(Effect.exit(map.wait("a")))
        yield* TestClock.adjust("3699 millis")
        assert.isUndefined(call.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isDefined(call.pollUnsafe())
        assert.strictEqual((yield* map.statistics).keys, 0)
      }))
  }

  test("is forgotten when it is over, also where the key is not used again", () =>
    Effect.gen(function*() {
      const { map, state } = yield* makeMap()
      for (let i = 0; i < 10; i++) yield* map.pause(`key ${i}`, "1 second")
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 10)
      state.isDown = false
      yield* TestClock.adjust("1 second")
      yield* map.wait("other")
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  test("ends with resume", () =>
    Effect.gen(function*() {
      const { map } = yield* makeMap({ onStoreError: "allow" })
      yield* map.pause("a", "1 hour")
      yield* map.resume("a")
      yield* map.wait("a")
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 0)
    }))

  test("holds back calls that wait for the local share", () =>
    Effect.gen(function*() {
      const { throttle } = yield* makeThrottle(perSecond, { onStoreError: { local: 1 } })
      const { map } = yield* makeMap({ onStoreError: { local: 1 } })
      yield* throttle.wait()
      yield* map.wait("a")
      const calls = [yield* fork(throttle.wait()), yield* fork(map.wait("a"))]
      yield* TestClock.adjust("100 millis")
      yield* throttle.pause("5 seconds")
      yield* map.pause("a", "5 seconds")
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(calls.map((call) => call.pollUnsafe()), [undefined, undefined])
      yield* TestClock.adjust("1 millis")
      for (const call of calls) assert.isDefined(call.pollUnsafe())
    }))

  test("and its end reach calls that wait for the local share", () =>
    Effect.gen(function*() {
      const { throttle } = yield* makeThrottle(perSecond, { onStoreError: { local: 1 } })
      yield* throttle.wait()
      const call = yield* fork(throttle.wait())
      yield* TestClock.adjust("100 millis")
      yield* throttle.pause("1 hour")
      yield* TestClock.adjust("10 seconds")
      yield* throttle.resume
      yield* TestClock.adjust(0)
      assert.isDefined(call.pollUnsafe())
    }))
})

describe("the local share of a throttle", () => {
  test("is that of its current policy", () =>
    Effect.gen(function*() {
      const { throttle } = yield* makeThrottle(Throttle.rate({ limit: 1 }), { onStoreError: { local: 0.5 } })
      yield* throttle.update(Throttle.rate({ limit: 20 }))
      const starts = yield* startsOf(throttle.withPermit(Effect.void))
      yield* pass(2_000)
      assert.strictEqual(starts.count, 21)
    }))

  test("of a policy in other units costs what that counts", () =>
    Effect.gen(function*() {
      const { state, throttle } = yield* makeThrottle(
        Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" }),
        { onStoreError: { local: 1 } }
      )
      state.isDown = false
      yield* throttle.withPermits(Effect.void, { tokens: 10 })
      const waiting = yield* fork(throttle.withPermits(Effect.void, { tokens: 10 }))
      yield* TestClock.adjust("100 millis")
      yield* throttle.update(Throttle.rate({ limit: 1 }))
      state.isDown = true
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(waiting)
    }))
})

describeRedis("while Redis is stopped", () => {
  it.live("a map with a local share starts as often as that allows", () =>
    Effect.gen(function*() {
      const server = yield* ownServer()
      const map = yield* RedisThrottle.makeMap({
        name: "map",
        lookup: (_key: string) => perSecond,
        onStoreError: { local: 1 }
      }).pipe(Effect.provide(RedisStore.layer.pipe(Layer.provide(clientTo(server.address.port)))))
      yield* map.wait("other")
      yield* Effect.promise(server.stop)
      let starts = 0
      const calls = Effect.forever(Effect.andThen(map.wait("a"), Effect.sync(() => starts++)))
      yield* Effect.timeoutOption(calls, Duration.millis(1_900))
      assert.isAtLeast(starts, 1)
      assert.isAtMost(starts, 2)
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))))
})
