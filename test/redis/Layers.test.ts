/**
 * The same policy value, provided from Redis: the service, Service classes, inline use, maps; and what is refused when a
 * Layer is made.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { Throttle, ThrottleError, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { clientTo, describeRedis, ownServer, RedisLive, send, uniqueKey } from "../utils/redis.ts"

/** Machines are shared, and these tests are not about slow answers. */
const patient = { timeout: "5 seconds" } as const

const live = <R>(layer: Layer.Layer<R, unknown, Redis.Redis>) => layer.pipe(Layer.provideMerge(RedisLive))

const perDay = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day" })

describeRedis("a policy provided from Redis", () => {
  it.live("the program does not change, and two graphs share the budget", () =>
    Effect.gen(function*() {
      const key = uniqueKey("shared")
      const take = Throttle.withPermitsIfAvailable(Effect.succeed("ran"), 1)
      const program = Effect.map(Effect.all([take, take]), (ran) => ran.filter(Option.isSome).length)
      const here = Effect.provide(program, live(RedisThrottle.layer(perDay, { key, ...patient })), { local: true })
      assert.strictEqual(yield* here, 2)
      assert.strictEqual(yield* here, 1)
      assert.strictEqual(yield* Effect.provide(program, perDay, { local: true }), 2)
    }))

  it.live("throttles of one graph that are on two servers count on their own", () =>
    Effect.gen(function*() {
      const servers = [yield* ownServer(), yield* ownServer()].map(({ address }) => clientTo(address.port))
      const policy: Throttle.Policy = perDay
      class One extends Throttle.Service<One>()("test/One", policy) {}
      class Two extends Throttle.Service<Two>()("test/Two", policy) {}
      const options = { key: "k", ...patient }
      const layer = Layer.merge(
        RedisThrottle.layerFor(One, options).pipe(Layer.provide(servers[0]!)),
        RedisThrottle.layerFor(Two, options).pipe(Layer.provide(servers[1]!))
      )
      yield* Effect.provide(Effect.all([One.wait(), Two.wait()]), layer)
      const keys = yield* Effect.forEach(
        servers,
        (server) => Effect.provide(send("KEYS", "*"), server, { local: true })
      )
      assert.deepStrictEqual(keys, [["throttle:test/One:{k}"], ["throttle:test/Two:{k}"]])
    }).pipe(Effect.scoped))

  it.live("inline use below its Layer is the throttle on Redis", () =>
    Effect.gen(function*() {
      const key = uniqueKey("inline")
      const program = Effect.gen(function*() {
        yield* perDay(Effect.void)
        const throttle = yield* Throttle.inline(perDay)
        assert.strictEqual(throttle, yield* Throttle.Throttle)
        return (yield* throttle.statistics).admitted
      })
      const layer = live(RedisThrottle.layer(perDay, { key, ...patient }))
      assert.strictEqual(yield* Effect.provide(program, layer, { local: true }), 1)
      const left = Throttle.withPermitsIfAvailable(Effect.void, 3)
      assert.isTrue(Option.isNone(yield* Effect.provide(left, layer, { local: true })))
    }))

  it.live("a Service class: its own key, its own policy, inline too", () =>
    Effect.gen(function*() {
      const policy: Throttle.Policy = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day" })
      class GitHub extends Throttle.Service<GitHub>()("test/GitHub", policy) {}
      const key = uniqueKey("class")
      const program = Effect.gen(function*() {
        yield* GitHub.withPermit(Effect.void)
        yield* policy(Effect.void)
        const exit = yield* Effect.exit(GitHub.withPermits(Effect.void, 4))
        const error = Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError
        assert.strictEqual(error.reason.throttle, "test/GitHub")
        return (yield* GitHub.statistics).admitted
      })
      const layer = live(RedisThrottle.layerFor(GitHub, { key, ...patient }))
      assert.strictEqual(yield* Effect.provide(program, layer), 2)
      class Quiet extends Throttle.Service<Quiet>()("test/Quiet", perDay) {}
      const allowing = live(RedisThrottle.layerFor(Quiet, { key, onStoreError: "allow", ...patient }))
      assert.strictEqual(yield* Effect.provide(Quiet.withPermit(Effect.succeed(1)), allowing), 1)
    }))

  it.live("starts are as far apart as the policy says, and interrupted waiters cost nothing", () =>
    Effect.gen(function*() {
      const spaced = Throttle.spacing({ interval: "40 millis" })
      const program = Effect.gen(function*() {
        const began = performance.now()
        yield* Throttle.wait()
        const crowd = yield* Effect.forEach(Array.from({ length: 60 }), () => Effect.forkChild(Throttle.wait()))
        yield* Effect.sleep("20 millis")
        yield* Fiber.interruptAll(crowd)
        const asked = performance.now()
        yield* Throttle.wait()
        return { all: performance.now() - began, waited: performance.now() - asked }
      })
      const { all, waited } = yield* Effect.provide(
        program,
        live(RedisThrottle.layer(spaced, { key: uniqueKey("spaced"), ...patient }))
      )
      assert.isAtLeast(all, 39)
      // Two intervals, and what a busy machine adds
      assert.isBelow(waited, 80 + 200)
    }))

  it.live("a map: a budget a key, remembered in Redis and not here", () =>
    Effect.gen(function*() {
      class Tenants extends ThrottleMap.Service<Tenants>()("test/Tenants", {
        lookup: (tenant: string) => tenant === "paid" ? Throttle.tokenBucket({ capacity: 9, refill: 1 }) : perDay
      }) {}
      const prefix = uniqueKey("map:")
      const take = (tenant: string, cost: number) =>
        Effect.map(Tenants.withPermitsIfAvailable(tenant, cost)(Effect.void), Option.isSome)
      const program = Effect.gen(function*() {
        const ran = [yield* take("a", 3), yield* take("a", 1), yield* take("b", 1), yield* take("paid", 9)]
        yield* Tenants.wait("b")
        // It goes on in the step in which it was let in
        yield* Effect.sleep("1 millis")
        const { admitted, keys } = yield* Tenants.statistics
        return { ran, admitted, keys }
      })
      const layer = live(RedisThrottle.layerMap(Tenants, { prefix, ...patient }))
      assert.deepStrictEqual(yield* Effect.provide(program, layer, { local: true }), {
        ran: [true, false, true, true],
        admitted: 4,
        keys: 0
      })
      assert.isFalse(yield* Effect.provide(take("a", 1), layer, { local: true }))
      const keys = yield* Effect.provide(send("KEYS", `${prefix}*`), RedisLive)
      assert.sameMembers(keys as Array<string>, ["a", "b", "paid"].map((key) => `${prefix}test/Tenants:{${key}}`))
    }))

  it.live("every key expires when it is as good as new", () =>
    Effect.gen(function*() {
      const prefix = uniqueKey("expiry:")
      const policies = {
        rate: Throttle.rate({ limit: 10 }),
        sliding: Throttle.window({ limit: 10, per: "100 millis" }),
        fixed: Throttle.window({ limit: 10, per: "100 millis", kind: "fixed" }),
        spacing: Throttle.spacing({ interval: "100 millis" }),
        concurrency: Throttle.concurrency({ limit: 1 })
      }
      const program = Effect.gen(function*() {
        const users = yield* RedisThrottle.makeMap({
          name: "tenants",
          lookup: (key: keyof typeof policies) => policies[key],
          prefix,
          leaseTtl: "200 millis",
          ...patient
        })
        for (const key of Object.keys(policies) as Array<keyof typeof policies>) {
          yield* users.withPermit(key)(Effect.void)
        }
      })
      yield* Effect.scoped(program).pipe(
        Effect.provide(Layer.provideMerge(RedisStore.layer, RedisLive))
      )
      const keys = (yield* Effect.provide(send("KEYS", `${prefix}*`), RedisLive)) as Array<string>
      assert.isAtLeast(keys.length, 5)
      for (const key of keys) {
        const left = Number(yield* Effect.provide(send("PTTL", key), RedisLive))
        assert.isAbove(left, 0, key)
        assert.isAtMost(left, 2_300, key)
      }
    }))
})

describe("what is refused", () => {
  const message = (f: () => unknown): string => {
    try {
      f()
    } catch (error) {
      assert.instanceOf(error, RangeError)
      return (error as RangeError).message
    }
    return assert.fail("nothing was thrown")
  }

  it("bad options, at once, and by name", () => {
    const layer = (options: object) => message(() => RedisThrottle.layer(perDay, options as never))
    assert.deepStrictEqual([
      layer({}),
      layer({ key: "" }),
      layer({ key: "a", prefix: "{" }),
      layer({ key: "a", timeout: 0 }),
      layer({ key: "a", leaseTtl: "10 millis" }),
      layer({ key: "a", onStoreError: "retry" }),
      layer({ key: "a", onStoreError: { local: 2 } }),
      layer({ key: "a", ttl: 3 })
    ], [
      "RedisThrottle.layer: \"key\" must be a non-empty string, received undefined",
      "RedisThrottle.layer: \"key\" must be a non-empty string, received \"\"",
      "RedisThrottle.layer: \"prefix\" must be a string without \"{\", received \"{\"",
      "RedisThrottle.layer: \"timeout\" must be a finite duration ≥ 1 millisecond, received 0",
      "RedisThrottle.layer: \"leaseTtl\" must be a finite duration ≥ 100 milliseconds, received \"10 millis\"",
      "RedisThrottle.layer: \"onStoreError\" must be \"fail\", \"allow\" or { local: a number > 0 and ≤ 1 }, received \"retry\"",
      "RedisThrottle.layer: \"onStoreError\" must be \"fail\", \"allow\" or { local: a number > 0 and ≤ 1 }, received {\"local\":2}",
      "RedisThrottle.layer: unknown option \"ttl\"; the options are key, prefix, onStoreError, timeout, leaseTtl, settleWithin"
    ])
    assert.match(
      message(() => RedisThrottle.layer(Throttle.concurrency({ limit: 1 }), { key: "a", onStoreError: "allow" })),
      /"onStoreError" must be "fail" where a part limits running calls/
    )
    assert.match(message(() => RedisThrottle.layer({} as never, { key: "a" })), /"policy" must be a policy, received/)
    assert.match(message(() => RedisThrottle.makeMap({ lookup: 1 } as never)), /"lookup" must be a function/)
  })

  for (
    const [name, policy] of Object.entries({
      shadow: Throttle.shadow(perDay),
      "spacing from the end": Throttle.spacing({ interval: 1, from: "end" }),
      "two parts on the clock": Throttle.all([
        Throttle.spacing({ interval: 10, align: true }),
        Throttle.spacing({ interval: 20, align: true })
      ])
    })
  ) {
    it.effect(`${name}: a typed error that says so`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(RedisThrottle.make(policy, { key: "a" })))
        assert.instanceOf(error, RedisThrottle.NotDistributable)
        assert.match(error.message, /^throttle ".*": several processes cannot share ".*": /)
      }).pipe(Effect.provide(MemoryStore.layer)))
  }
})

/** A store that gives no decision. */
const broken = Layer.succeed(ThrottleStore.ThrottleStore, {
  decide: () => Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") })),
  renew: () => Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") })),
  pause: () => Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") })),
  reset: () => Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") })),
  wakeups: () => Effect.never
})

describe("when the store fails", () => {
  const setting = (policy: Throttle.Policy<any>, onStoreError: RedisThrottle.OnStoreError) =>
    RedisThrottle.make(policy, { key: "a", onStoreError })

  it.effect("fail: StoreError, with what was said, and the breaker opens after three", () =>
    Effect.gen(function*() {
      const throttle = yield* setting(Throttle.rate({ limit: 1 }), "fail")
      const outcomes: Array<unknown> = []
      for (let i = 0; i < 5; i++) {
        const error = yield* Effect.flip(throttle.wait())
        assert.strictEqual(error.reason._tag, "StoreError")
        if (error.reason._tag === "StoreError") {
          outcomes.push([
            error.reason.outcome,
            error.reason.detail,
            error.retryAfter && Duration.toMillis(error.retryAfter)
          ])
        }
      }
      const failed = ["unavailable", "no network", undefined]
      const open = ["open", "the circuit breaker is open", 1_000]
      assert.deepStrictEqual(outcomes, [failed, failed, failed, open, open])
      const maybe = yield* Effect.flip(throttle.withPermitsIfAvailable(Effect.void, 1))
      assert.strictEqual(maybe.reason._tag, "StoreError")
      assert.isTrue(Option.isNone(yield* throttle.estimateWait()))
      yield* throttle.pause("1 second")
      yield* throttle.resume
    }).pipe(Effect.scoped, Effect.provide(broken)))

  it.effect("allow: everybody starts", () =>
    Effect.gen(function*() {
      const throttle = yield* setting(Throttle.rate({ limit: 1 }), "allow")
      yield* Effect.all(Array.from({ length: 20 }, () => throttle.wait()), { concurrency: "unbounded" })
      assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
      yield* throttle.usePermits(1)((permit) => permit.settle(3))
      assert.strictEqual((yield* throttle.statistics).admitted, 22)
    }).pipe(Effect.scoped, Effect.provide(broken)))

  it.effect("local: a share of the limits", () =>
    Effect.gen(function*() {
      const throttle = yield* setting(Throttle.rate({ limit: 100, burst: 3 }), { local: 0.5 })
      const fiber = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 12 }, () => throttle.wait()), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("199 millis")
      assert.isUndefined(fiber.pollUnsafe())
      // A burst of 1, then one every 20 ms
      yield* TestClock.adjust("1 millis")
      assert.isDefined(fiber.pollUnsafe())
      yield* throttle.usePermits(1)((permit) => permit.settle(0)).pipe(Effect.forkChild)
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
    }).pipe(Effect.scoped, Effect.provide(broken)))

  it.effect("throttles of one graph on one server share its breaker", () =>
    Effect.gen(function*() {
      const policy: Throttle.Policy = Throttle.rate({ limit: 1 })
      class One extends Throttle.Service<One>()("test/BreakerOne", policy) {}
      class Two extends Throttle.Service<Two>()("test/BreakerTwo", policy) {}
      const redis = Layer.succeed(Redis.Redis, {
        send: () => Effect.fail(new Redis.RedisError({ cause: new Error("no network") })),
        eval: () => () => Effect.never,
        subscribe: () => Effect.never,
        reserve: Effect.never
      } as never)
      const layer = Layer.merge(RedisThrottle.layerFor(One, { key: "a" }), RedisThrottle.layerFor(Two, { key: "a" }))
        .pipe(
          Layer.provide(redis)
        )
      const program = Effect.gen(function*() {
        for (let i = 0; i < 3; i++) yield* Effect.exit(One.wait())
        return (yield* Effect.flip(Two.wait())).reason
      })
      const reason = yield* Effect.provide(program, layer)
      assert.strictEqual(reason._tag === "StoreError" && reason.outcome, "open")
    }))

  it.effect("inline, without an error in its type: a defect", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1 })
      const unavailable = { send: () => Effect.fail(new Redis.RedisError({ cause: new Error("no network") })) }
      const redis = Layer.succeed(Redis.Redis, {
        ...unavailable,
        eval: () => () => Effect.fail(new Redis.RedisError({ cause: new Error("no network") })),
        subscribe: () => Effect.never,
        reserve: Effect.never
      } as never)
      const layer = RedisThrottle.layer(policy, { key: "a" }).pipe(Layer.provide(redis))
      const exit = yield* Effect.exit(Effect.provide(policy(Effect.void), layer))
      assert.isTrue(Exit.isFailure(exit))
      const die = Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isDieReason)?.defect : undefined
      assert.instanceOf(die, ThrottleError)
      for (const typed of [Throttle.rate({ limit: 1, maxQueue: 1 }), Throttle.fromData({ _tag: "Rate", limit: 1 })]) {
        const error = yield* Effect.flip(
          Effect.provide(typed(Effect.void), RedisThrottle.layer(typed, { key: "a" }).pipe(Layer.provide(redis)))
        )
        assert.strictEqual(error._tag, "ThrottleError")
      }
    }))
})
