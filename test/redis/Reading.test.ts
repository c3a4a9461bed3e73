/**
 * Rare orders of events of a throttle on a store: changes while a request is under way, infinite pauses, requests that fail.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Option, Scheduler, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import * as Testing from "effect-throttle/testing"
import { TestClock } from "effect/testing"
import { describeRedis, RedisLive, uniqueKey } from "../utils/redis.ts"

/** A throttle as another process has it. Answers that are held back are no timeouts. */
const make = (policy: Throttle.Policy<any>, options: Partial<RedisThrottle.Options> = {}) =>
  RedisThrottle.make(policy, { key: "test", timeout: "1 hour", ...options })

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const settled = TestClock.adjust(0)

/** What a call that must not wait returns, although its answer may be slow. */
const isAvailable = (throttle: Throttle.Throttle, cost: Throttle.Cost = 1) =>
  Effect.gen(function*() {
    const fiber = yield* fork(throttle.withPermitsIfAvailable(Effect.void, cost))
    yield* TestClock.adjust("1 second")
    return Option.isSome(yield* Fiber.join(fiber))
  })

/** Milliseconds from now until a call starts, in steps; undefined if it does not within so many. */
const startWithin = <A, E>(fiber: Fiber.Fiber<A, E>, millis: number) =>
  Effect.gen(function*() {
    yield* settled
    for (let at = 0; at <= millis; at++) {
      if (fiber.pollUnsafe() !== undefined) return at
      yield* TestClock.adjust(1)
    }
    return undefined
  })

const reasonOf = (exit: Exit.Exit<unknown, unknown>): ThrottleError["reason"] => {
  const error = Option.getOrThrow(Exit.findErrorOption(exit))
  assert.instanceOf(error, ThrottleError)
  return (error as ThrottleError).reason
}

/** A store whose decisions pass through a function. */
const through = (
  change: (store: ThrottleStore.ThrottleStore) => Partial<ThrottleStore.ThrottleStore>
) => Effect.updateService(ThrottleStore.ThrottleStore, (store) => ({ ...store, ...change(store) }))

const failure = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") }))

/** The first answer takes 100 ms. */
const slow = through((store) => {
  let answers = 0
  return {
    decide: (request) => Effect.tap(store.decide(request), () => answers++ === 0 ? Effect.sleep(100) : Effect.void)
  }
})

const test = (name: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer)))

describe("an update while a request is under way", () => {
  test("that takes concurrency away leaves no lease behind", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 1 })
      const throttle = yield* slow(make(policy))
      const call = yield* fork(throttle.withPermit(Effect.void))
      yield* TestClock.adjust(50)
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(call)
      yield* throttle.awaitIdle.pipe(fork, Effect.tap(settled), Effect.flatMap(Fiber.join))
      assert.isTrue(yield* isAvailable(yield* make(policy)))
    }))

  test("that adds concurrency lets no call start without a permit, and charges it once", () =>
    Effect.gen(function*() {
      const bucket = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day" })
      const policy = Throttle.all([bucket, Throttle.concurrency({ limit: 1 })])
      const throttle = yield* slow(make(bucket))
      yield* fork(throttle.withPermit(Effect.never))
      yield* TestClock.adjust(50)
      yield* throttle.update(policy)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* throttle.statistics).running, 1)
      assert.isFalse(yield* isAvailable(yield* make(policy)))
      assert.isTrue(yield* isAvailable(yield* make(bucket), 2))
    }))

  test("that adds concurrency makes waiting calls start as soon as permits are free", () =>
    Effect.gen(function*() {
      const rate = Throttle.rate({ limit: 1 })
      const both = Throttle.all([rate, Throttle.concurrency({ limit: 1 })])
      const other = yield* make(both)
      const holder = yield* fork(other.withPermit(Effect.never))
      yield* settled
      const throttle = yield* make(rate)
      const call = yield* fork(throttle.withPermit(Effect.void))
      yield* TestClock.adjust(500)
      yield* throttle.update(both)
      // It is subscribed to wake-ups by then, and asks without them every 200 to 250 ms.
      for (let i = 0; i < 50; i++) yield* TestClock.adjust(100)
      for (let i = 0; i < 5; i++) yield* TestClock.adjust(10)
      assert.isUndefined(call.pollUnsafe())
      yield* Fiber.interrupt(holder)
      assert.strictEqual(yield* startWithin(call, 250), 0)
    }))
})

describe("an update to the same parts", () => {
  const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1, per: "1 day" })

  test("keeps what a call that started before is settled or cancelled by", () =>
    Effect.gen(function*() {
      const throttle = yield* make(bucket(10))
      const settles = yield* throttle.takeScoped(5)
      const cancels = yield* throttle.takeScoped(4)
      yield* throttle.update(bucket(12))
      yield* settles.settle(2)
      yield* cancels.cancel
      yield* settled
      assert.isTrue(yield* isAvailable(throttle, 10))
      assert.isFalse(yield* isAvailable(throttle, 1))
    }))

  test("keeps what is returned by a call that was interrupted as it started", () =>
    Effect.gen(function*() {
      const throttle = yield* slow(make(bucket(10)))
      const call = yield* fork(throttle.withPermits(Effect.never, 10))
      yield* TestClock.adjust(50)
      yield* throttle.update(bucket(11))
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* isAvailable(throttle, 11))
    }))
})

describe("an infinite pause of another process", () => {
  const isFew = (requests: number) => assert.isBelow(requests, 50)

  test("keeps calls waiting, without a request after the other", () =>
    Effect.gen(function*() {
      let requests = 0
      const counting = through((store) => ({
        decide: (request) => Effect.suspend(() => ++requests < 200 ? store.decide(request) : Effect.never)
      }))
      const other = yield* make(Throttle.rate({ limit: 10 }))
      yield* other.pause(Duration.infinity)
      const throttle = yield* counting(make(Throttle.rate({ limit: 10 })))
      const call = yield* fork(throttle.withPermit(Effect.void))
      yield* TestClock.adjust(1_000)
      isFew(requests)
      assert.isUndefined(call.pollUnsafe())
      assert.isTrue(Option.isNone(yield* throttle.estimateWait()))
      yield* other.resume
      for (let i = 0; i < 5; i++) yield* TestClock.adjust(100)
      assert.isDefined(call.pollUnsafe())
    }))

  for (const where of ["here", "elsewhere"] as const) {
    test(`${where}: rejects as in memory, without a time to retry after`, () =>
      Effect.gen(function*() {
        for (
          const [bounds, expected] of [
            [{ maxWait: "1 hour" }, "WaitTooLong"],
            [{ maxQueue: 0 }, "QueueFull"],
            [{ timeout: "1 second" }, "TimedOut"]
          ] as const
        ) {
          const policy = Throttle.rate({ limit: 10, ...bounds })
          const reasons = []
          for (const on of ["store", "memory"] as const) {
            const throttle = on === "store" ? yield* make(policy, { key: expected }) : yield* Throttle.make(policy)
            const pausing = on === "store" && where === "elsewhere" ? yield* make(policy, { key: expected }) : throttle
            yield* pausing.pause(Duration.infinity)
            const call = yield* fork(Effect.exit(throttle.withPermit(Effect.void)))
            yield* TestClock.adjust("2 seconds")
            const reason = reasonOf(yield* Fiber.join(call))
            assert.strictEqual(reason._tag, expected)
            reasons.push([reason.parts, "retryAfter" in reason ? reason.retryAfter : undefined])
            assert.isTrue(Option.isNone(yield* throttle.estimateWait()))
          }
          assert.deepStrictEqual(reasons[0], reasons[1])
        }
      }))
  }
})

describeRedis("an infinite pause in Redis", () => {
  it.live("has no end in errors and estimates", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10, maxQueue: 0 })
      const key = uniqueKey("infinite")
      const [throttle, other] = [yield* make(policy, { key }), yield* make(policy, { key })]
      yield* other.pause(Duration.infinity)
      const reason = reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void)))
      assert.strictEqual(reason._tag, "QueueFull")
      assert.notProperty(reason, "retryAfter")
      assert.isTrue(Option.isNone(yield* throttle.estimateWait()))
    }).pipe(Effect.scoped, Effect.provide(RedisStore.layer), Effect.provide(RedisLive)))
})

describeRedis("a slot in Redis", () => {
  it.live("that was reserved for a call without a permit is not given to one that may be settled", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 10, per: "2 seconds" })
      const throttle = yield* make(policy, { key: uniqueKey("slot") })
      yield* throttle.withPermits(Effect.void, 10)
      const first = yield* fork(throttle.withPermits(Effect.void, 5))
      yield* Testing.waitUntilWaiting(throttle, 1)
      const second = yield* fork(throttle.takeScoped(5))
      yield* Testing.waitUntilWaiting(throttle, 2)
      yield* Fiber.interrupt(first)
      const permit = yield* Fiber.join(second)
      yield* permit.settle(0)
      // As many as are refunded: without that they take a second.
      assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 5)))
    }).pipe(Effect.scoped, Effect.provide(RedisStore.layer), Effect.provide(RedisLive)))
})

describe("leases whose release was sent with a request that failed", () => {
  for (const isInterrupted of [false, true]) {
    test(
      isInterrupted ? "after its caller was interrupted are released" : "are released",
      () =>
        Effect.gen(function*() {
          let hasReleased = false
          const failing = through((store) => ({
            decide: (request) => {
              if (!request.isDry) return store.decide(request)
              hasReleased ||= request.releases.length > 0
              return Effect.flatMap(Effect.sleep(50), () => failure)
            }
          }))
          const policy = Throttle.concurrency({ limit: 1 })
          const throttle = yield* failing(make(policy))
          const call = yield* fork(Effect.andThen(throttle.withPermit(Effect.void), throttle.estimateWait()))
          yield* settled
          assert.isTrue(hasReleased)
          if (isInterrupted) yield* Fiber.interrupt(call)
          yield* TestClock.adjust(100)
          assert.isTrue(yield* isAvailable(yield* make(policy)))
        })
    )
  }
})

describe("a nested call", () => {
  test("bypass: runs without permits if the call at the head waits for those of its fiber", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.concurrency({ limit: 2, onReentry: "bypass" }))
      const go = yield* Deferred.make<void>()
      const outer = yield* fork(throttle.withPermit(
        Effect.andThen(Deferred.await(go), throttle.withPermit(Effect.succeed("nested")))
      ))
      yield* settled
      const head = yield* fork(throttle.withPermits(Effect.succeed("head"), 2))
      yield* settled
      yield* Deferred.succeed(go, undefined)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(outer.pollUnsafe(), Exit.succeed("nested"))
      assert.deepStrictEqual(head.pollUnsafe(), Exit.succeed("head"))
    }))

  for (const onReentry of ["die", "bypass"] as const) {
    test(`${onReentry}: beside a permit that a function has, behaves as in memory`, () =>
      Effect.gen(function*() {
        const policy = Throttle.concurrency({ limit: 1, onReentry })
        for (const throttle of [yield* make(policy), yield* Throttle.make(policy)]) {
          const call = yield* fork(throttle.usePermits(1)(() => throttle.withPermit(Effect.succeed("nested"))))
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(call.pollUnsafe(), onReentry === "die" ? undefined : Exit.succeed("nested"))
          yield* Fiber.interrupt(call)
        }
      }))

    test(`${onReentry}: is found also after an update`, () =>
      Effect.gen(function*() {
        const policy = (limit: number) => Throttle.concurrency({ limit, onReentry })
        for (const throttle of [yield* make(policy(2)), yield* Throttle.make(policy(2))]) {
          const nested = Effect.andThen(throttle.update(policy(1)), throttle.withPermit(Effect.succeed("nested")))
          const call = yield* fork(throttle.withPermit(nested))
          yield* TestClock.adjust("1 second")
          const exit = call.pollUnsafe()
          assert.isDefined(exit)
          assert.strictEqual(Exit.hasDies(exit!), onReentry === "die")
          yield* Fiber.interrupt(call)
        }
      }))
  }
})

describe("a pause", () => {
  test("that begins while a resume is under way lasts, also for a call that has a slot", () =>
    Effect.gen(function*() {
      const slowToResume = through((store) => ({
        pause: (key, duration) =>
          duration === 0 ? Effect.tap(store.pause(key, duration), () => Effect.sleep(100)) : store.pause(key, duration)
      }))
      const throttle = yield* slowToResume(make(Throttle.rate({ limit: 1 })))
      yield* throttle.withPermit(Effect.void)
      const call = yield* fork(throttle.withPermit(Effect.void))
      yield* settled
      yield* throttle.pause("1 hour")
      const resumed = yield* fork(throttle.resume)
      yield* TestClock.adjust(50)
      yield* throttle.pause("10 seconds")
      yield* TestClock.adjust(100)
      yield* Fiber.join(resumed)
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(call.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.isDefined(call.pollUnsafe())
    }))
})

describe("a map", () => {
  test("keeps the limiter that a call has found, in whatever step it is dropped otherwise", () =>
    Effect.gen(function*() {
      const map = yield* RedisThrottle.makeMap({
        name: "map",
        timeout: "1 hour",
        lookup: (_key: string) => Throttle.concurrency({ limit: 1 })
      })
      for (let steps = 0; steps < 40; steps++) {
        const call = yield* Effect.forkChild(
          Effect.provideService(map.withPermit("a")(Effect.never), Scheduler.MaxOpsBeforeYield, 3)
        )
        for (let i = 0; i < steps; i++) yield* Effect.yieldNow
        yield* map.statistics
        // Such a fiber takes a turn for every few steps.
        for (let i = 0; i < 100; i++) yield* TestClock.adjust(1)
        assert.strictEqual((yield* map.get("a").statistics).running, 1, `after ${steps} steps`)
        yield* Fiber.interrupt(call)
      }
    }))

  test("remembers the update of a key while calls of the key wait or run", () =>
    Effect.gen(function*() {
      const map = yield* RedisThrottle.makeMap({
        name: "map",
        timeout: "1 hour",
        lookup: (_key: string) => Throttle.concurrency({ limit: 1 })
      })
      const tries = Effect.forEach([1, 2], () => isAvailable(map.get("a")))
      const call = yield* fork(map.withPermit("a")(Effect.never))
      yield* settled
      yield* map.update("a", Throttle.concurrency({ limit: 2 }))
      assert.deepStrictEqual(yield* tries, [true, true])
      yield* Fiber.interrupt(call)
      yield* settled
      yield* fork(map.withPermit("a")(Effect.never))
      yield* settled
      assert.deepStrictEqual(yield* tries, [false, false])
    }))
})
