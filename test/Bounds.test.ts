/**
 * Bounds of single calls: `Throttle.withBounds`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit } from "effect"
import { Throttle, type ThrottleError, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, now } from "./utils/kit.ts"

const slow = Throttle.rate({ limit: 1, maxQueue: 1_000 })

/** The reason for which a fiber's call was rejected, and its limit in milliseconds. */
const rejection = (exit: Exit.Exit<unknown, unknown> | undefined): unknown => {
  if (exit === undefined || !Exit.isFailure(exit)) return exit
  const [reason] = exit.cause.reasons
  const { error } = reason as unknown as { readonly error: { readonly reason: any } }
  return [error.reason._tag, Duration.toMillis(error.reason.limit)]
}

describe("timeout", () => {
  it.effect("a call with a timeout of its own gives up before calls that arrived earlier", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      yield* throttle.wait()
      const patient = yield* fork(throttle.withPermit(now))
      const hurried = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ timeout: "1500 millis" })))
      yield* TestClock.adjust("1499 millis")
      assert.deepStrictEqual(patient.pollUnsafe(), Exit.succeed(1_000))
      assert.isUndefined(hurried.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(rejection(hurried.pollUnsafe()), ["TimedOut", 1_500])
      assertIdle(throttle, "afterwards")
    }))

  it.effect("a call that is ready exactly when its time is up starts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      yield* throttle.wait()
      const hurried = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ timeout: "1 second" })))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(hurried.pollUnsafe(), Exit.succeed(1_000))
    }))

  it.effect("the shorter timeout, of the call or of the policy, applies", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 minute", timeout: "1 second" }))
      yield* throttle.wait()
      const longer = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ timeout: "2 seconds" })))
      const shorter = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ timeout: "500 millis" })))
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(longer.pollUnsafe())
      assert.deepStrictEqual(rejection(shorter.pollUnsafe()), ["TimedOut", 500])
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(rejection(longer.pollUnsafe()), ["TimedOut", 1_000])
    }))

  it.effect("deadlines of many calls pass in their own order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, maxQueue: 1_000 }))
      yield* fork(throttle.withPermit(Effect.never))
      const gaveUp: Array<number> = []
      for (let i = 0; i < 100; i++) {
        const timeout = 1 + (i * 37) % 100
        yield* fork(
          throttle.withPermit(Effect.void).pipe(
            Throttle.withBounds({ timeout }),
            Effect.catch(() => Effect.map(now, (at) => void gaveUp.push(timeout - at)))
          )
        )
      }
      for (let i = 0; i < 100; i++) yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(gaveUp, Array.from({ length: 100 }, () => 0))
      assert.strictEqual((yield* throttle.statistics).waiting, 0)
    }))

  it.effect("an interrupted call leaves no deadline behind", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, maxQueue: 1_000 }))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* throttle.takeScoped()
        const fiber = yield* fork(throttle.withPermit(Effect.void).pipe(Throttle.withBounds({ timeout: "1 second" })))
        fiber.interruptUnsafe()
      }))
      assertIdle(throttle, "afterwards")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual((yield* throttle.statistics).rejected.TimedOut, 0)
    }))
})

describe("maxWait", () => {
  it.effect("a call with a maxWait of its own is rejected at once where it would wait longer", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      yield* throttle.wait()
      yield* fork(throttle.withPermit(now))
      const short = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ maxWait: "1999 millis" })))
      const long = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ maxWait: "2 seconds" })))
      assert.deepStrictEqual(rejection(short.pollUnsafe()), ["WaitTooLong", 1_999])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(long.pollUnsafe(), Exit.succeed(2_000))
    }))

  it.effect("a pause rejects a waiting call whose own maxWait it exceeds, and no other", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      yield* throttle.wait()
      const other = yield* fork(throttle.withPermit(now))
      const bounded = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ maxWait: "3 seconds" })))
      yield* throttle.pause("5 seconds")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(rejection(bounded.pollUnsafe()), ["WaitTooLong", 3_000])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(other.pollUnsafe(), Exit.succeed(5_000))
    }))

  it.effect("in another order than that of arrival it counts the calls that would start first", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.rate({ limit: 1, order: "priority", ageing: "1 minute", maxQueue: 1_000 })
      )
      yield* throttle.wait()
      for (let i = 0; i < 5; i++) yield* fork(throttle.withPermit(now))
      const call = throttle.withPermit(now).pipe(Throttle.withBounds({ maxWait: "2 seconds" }))
      assert.deepStrictEqual(rejection((yield* fork(call)).pollUnsafe()), ["WaitTooLong", 2_000])
      const urgent = yield* fork(Throttle.withCaller({ priority: 1 })(call))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(urgent.pollUnsafe(), Exit.succeed(1_000))
    }))
})

describe("where bounds apply", () => {
  it.effect("inner bounds replace outer ones, field by field", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(slow)
      yield* throttle.wait()
      const fiber = yield* fork(
        throttle.withPermit(now).pipe(
          Throttle.withBounds({ timeout: "300 millis" }),
          Throttle.withBounds({ timeout: "1 millis", maxWait: "10 seconds" })
        )
      )
      yield* TestClock.adjust("300 millis")
      assert.deepStrictEqual(rejection(fiber.pollUnsafe()), ["TimedOut", 300])
    }))

  it.effect("calls whose type has no error are not affected", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 1 })
      yield* limited(Effect.void)
      const fiber = yield* fork(limited(now).pipe(Throttle.withBounds({ timeout: "1 millis", maxWait: "1 millis" })))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(1_000))
    }))

  it.effect("no form of a call of a policy without bounds is affected, also those whose type has the error", () => {
    const hurried = Throttle.withBounds({ timeout: "1 millis", maxWait: "1 millis" })
    const policy = Throttle.rate({ limit: 1 })
    class Api extends Throttle.Service<Api>()("test/Api", policy) {}
    const calls: ReadonlyArray<Effect.Effect<number, ThrottleError, Api | Throttle.Throttle>> = [
      Effect.flatMap(Throttle.inline(policy), (throttle) => throttle.withPermit(now)),
      Throttle.withPermit(now),
      Throttle.withPermits(now, 1),
      Api.withPermit(now),
      Api.withPermits(now, 1)
    ]
    return Effect.gen(function*() {
      yield* policy(Effect.void)
      const fibers = yield* Effect.forEach(calls, (call) => fork(hurried(call)))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(
        fibers.map((fiber) => fiber.pollUnsafe()),
        [1, 2, 3, 4, 5].map((seconds) => Exit.succeed(1_000 * seconds))
      )
    }).pipe(Effect.provide(Api.layer), Effect.provide(policy))
  })

  it.effect("a policy from data, with bounds or without", () =>
    Effect.gen(function*() {
      const limited = Throttle.fromData({ _tag: "Rate", limit: 1 })
      yield* limited(Effect.void)
      const fiber = yield* fork(limited(now).pipe(Throttle.withBounds({ timeout: "100 millis" })))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(rejection(fiber.pollUnsafe()), ["TimedOut", 100])
    }))

  it.effect("the keys of a map", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => Throttle.rate({ limit: 1 }) })
      yield* map.withPermit("a")(Effect.void)
      const fiber = yield* fork(map.withPermit("a")(now).pipe(Throttle.withBounds({ timeout: "100 millis" })))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(rejection(fiber.pollUnsafe()), ["TimedOut", 100])
    })))

  it("invalid bounds are errors at once", () => {
    assert.throws(
      () => Throttle.withBounds({ timeout: 0 }),
      RangeError,
      "Throttle.withBounds: \"timeout\" must be a finite duration > 0, received 0"
    )
    assert.throws(() => Throttle.withBounds({ maxWait: "1 second", other: 1 } as object), RangeError, "unknown option")
  })
})
