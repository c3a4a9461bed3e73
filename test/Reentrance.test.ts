/**
 * What a resumed call does at once, such as to use the throttle or to fail in an observer, does not disturb the change that
 * resumed it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, type Fiber, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, now, reasonOf, settled } from "./utils/kit.ts"

/** An observer of a fiber's end that throws, as that of `Effect.runCallback` may. */
const throwsAtEnd = (fiber: Fiber.Fiber<unknown, unknown>) =>
  fiber.addObserver(() => {
    throw new Error("observer")
  })

/** Errors that observers throw in tasks of a dispatcher reach the process. */
const catchingUncaught = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const caught = process.listeners("uncaughtException")
      process.removeAllListeners("uncaughtException")
      const ignore = () => {}
      process.on("uncaughtException", ignore)
      return { caught, ignore }
    }),
    () => self,
    ({ caught, ignore }) =>
      Effect.sync(() => {
        process.off("uncaughtException", ignore)
        for (const listener of caught) process.on("uncaughtException", listener)
      })
  )

describe("a call whose end throws, when it is rejected", () => {
  it.effect("does not keep a pause from holding", () =>
    catchingUncaught(Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxWait: "10 seconds" }))
      yield* throttle.wait()
      const first = yield* fork(throttle.withPermit(now))
      const second = yield* fork(throttle.withPermit(now))
      throwsAtEnd(second)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(throttle.pause("9500 millis"))))
      yield* TestClock.adjust("9499 millis")
      assert.strictEqual(reasonOf(second.pollUnsafe()), "WaitTooLong")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(first.pollUnsafe(), Exit.succeed(9_500))
    })))

  it.effect("does not keep an update from taking effect", () =>
    catchingUncaught(Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 5, refill: 1 }))
      yield* throttle.wait(5)
      const first = yield* fork(throttle.withPermits(now, 1))
      const second = yield* fork(throttle.withPermits(now, 5))
      throwsAtEnd(second)
      const update = throttle.update(Throttle.tokenBucket({ capacity: 1, refill: 1, per: "1 minute" }))
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(update)))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(reasonOf(second.pollUnsafe()), "PermitsExceedCapacity")
      assert.isUndefined(first.pollUnsafe())
    })))

  it.effect("does not keep the end of a scope from reaching the others", () =>
    catchingUncaught(Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(Throttle.rate({ limit: 1, per: "1 hour" })), scope)
      yield* throttle.wait()
      const first = yield* fork(throttle.withPermit(now))
      const second = yield* fork(throttle.withPermit(now))
      throwsAtEnd(first)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Scope.close(scope, Exit.void))))
      yield* settled
      assert.isTrue(Exit.hasInterrupts(second.pollUnsafe()!))
      assertIdle(throttle, "afterwards")
    })))
})

describe("a rejected call that uses the throttle at once", () => {
  it.effect("does not change why others are rejected with it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxWait: "10 seconds" }))
      yield* throttle.wait()
      const first = yield* fork(Effect.catchTag(throttle.withPermit(now), "ThrottleError", () => throttle.resume))
      const second = yield* fork(Effect.flip(throttle.withPermit(now)))
      yield* throttle.pause("1 hour")
      yield* settled
      assert.isDefined(first.pollUnsafe())
      const exit = second.pollUnsafe()!
      assert.isTrue(Exit.isSuccess(exit))
      if (!Exit.isSuccess(exit)) return
      assert.include((exit.value as Error).message, "pause")
    }))
})

describe("shadow", () => {
  it.effect("events of a call whose fiber has ended still reach the observer", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1, timeout: "500 millis" })))
      const run = throttle.withPermit(Effect.sleep("10 millis")).pipe(
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event._tag)))
      )
      yield* fork(run)
      yield* fork(run)
      yield* TestClock.adjust("800 millis")
      assert.strictEqual((yield* throttle.statistics).rejected.TimedOut, 1)
      yield* settled
      assert.deepStrictEqual(events, ["Waiting", "Rejected"])
    }))

  it.effect("each simulated wait ends with an event", () =>
    Effect.gen(function*() {
      const events: Array<readonly unknown[]> = []
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      const run = (runs: number) =>
        throttle.withPermit(Effect.sleep(runs)).pipe(
          Effect.provideService(
            Throttle.Observer,
            (event) =>
              Effect.sync(() =>
                void events.push([event._tag, event.shadow, "waited" in event ? event.waited : undefined])
              )
          )
        )
      yield* fork(run(10))
      yield* fork(run(10))
      const third = yield* fork(run(5_000))
      yield* TestClock.adjust("1500 millis")
      third.interruptUnsafe()
      yield* settled
      yield* throttle.statistics
      yield* settled
      assert.deepStrictEqual(events, [
        ["Waiting", true, undefined],
        ["Waiting", true, undefined],
        ["Admitted", true, 1_000],
        ["Interrupted", true, 1_500]
      ])
    }))
})

describe("a defect outside the throttle", () => {
  it.effect("takeScoped without a scope dies, and takes nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const exit = yield* Effect.promise(() => Effect.runPromiseExit(throttle.takeScoped() as Effect.Effect<unknown>))
      assert.isTrue(Exit.hasDies(exit))
      assertIdle(throttle, "afterwards")
    }))

  it.effect("a clock that throws while a call starts leaves the limiter usable", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let isBroken = false
      const broken: Clock.Clock = Object.assign(Object.create(Object.getPrototypeOf(clock)), clock, {
        currentTimeMillisUnsafe: () => {
          if (isBroken) throw new Error("clock")
          return clock.currentTimeMillisUnsafe()
        },
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
        sleep: (duration: any) => clock.sleep(duration)
      })
      yield* Effect.gen(function*() {
        const throttle = yield* Throttle.make(
          Throttle.all([Throttle.concurrency({ limit: 1 }), Throttle.window({ limit: 1, per: 1_000, kind: "fixed" })])
        )
        const running = yield* fork(throttle.withPermit(Effect.never))
        const waiting = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust("3 seconds")
        isBroken = true
        running.interruptUnsafe()
        yield* settled
        isBroken = false
        yield* TestClock.adjust("3 seconds")
        const next = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust("3 seconds")
        assert.isDefined(waiting.pollUnsafe())
        assert.isDefined(next.pollUnsafe())
        const { running: held, waiting: left } = yield* throttle.statistics
        assert.deepStrictEqual([held, left], [0, 0])
      }).pipe(Effect.provideService(Clock.Clock, broken))
    }))
})
