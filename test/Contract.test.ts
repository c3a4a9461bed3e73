/**
 * What every policy does alike: one suite, run against each of them, and against the same policy read back from data.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import { reasonOf } from "./utils/kit.ts"

/** Each admits one call at once and makes the second wait until 100 ms have passed or the first has ended. */
const policies: Record<string, (bounds: Throttle.Bounded<Throttle.Options>) => Throttle.Policy<any>> = {
  rate: (bounds) => Throttle.rate({ limit: 10, ...bounds }),
  tokenBucket: (bounds) => Throttle.tokenBucket({ capacity: 1, refill: 10, ...bounds }),
  "window, sliding": (bounds) => Throttle.window({ limit: 1, per: "100 millis", ...bounds }),
  "window, fixed": (bounds) => Throttle.window({ limit: 1, per: "100 millis", kind: "fixed", ...bounds }),
  concurrency: (bounds) => Throttle.concurrency({ limit: 1, ...bounds }),
  spacing: (bounds) => Throttle.spacing({ interval: "100 millis", ...bounds }),
  "spacing, aligned": (bounds) => Throttle.spacing({ interval: "100 millis", align: true, ...bounds }),
  "spacing, from the end": (bounds) => Throttle.spacing({ interval: "100 millis", from: "end", ...bounds }),
  "all of time": (bounds) =>
    Throttle.all([Throttle.rate({ limit: 10 }), Throttle.window({ limit: 1, per: "100 millis" })], bounds),
  "all with concurrency": (bounds) =>
    Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 1 })], bounds),
  "data, read back": (bounds) =>
    Throttle.fromData(JSON.parse(JSON.stringify(Throttle.rate({ limit: 10, ...bounds }).data)))
}

const holds = (name: string) => name === "concurrency" || name.includes("with concurrency") || name.includes("end")

const started = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

for (const [name, make] of Object.entries(policies)) {
  describe(`contract: ${name}`, () => {
    it.effect("gives the effect's success, failure and defect, and its permits back after each", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const run = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.exit(throttle.withPermit(effect)).pipe(Effect.tap(TestClock.adjust("100 millis")))
        assert.deepStrictEqual(yield* run(Effect.succeed(1)), Exit.succeed(1))
        assert.deepStrictEqual(yield* run(Effect.fail("no")), Exit.fail("no"))
        const died = yield* run(Effect.die("bug"))
        assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
        assert.deepStrictEqual(yield* run(Effect.succeed(2)), Exit.succeed(2))
        const { admitted, running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 4, running: 0, waiting: 0 })
      }))

    it.effect("starts calls in the order in which they came, one at a time, none early", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const starts: Array<readonly [number, number]> = []
        for (let i = 0; i < 5; i++) {
          yield* started(throttle.withPermit(Effect.clockWith((clock) =>
            Effect.sync(() => void starts.push([i, clock.currentTimeMillisUnsafe()]))
          )))
        }
        yield* TestClock.adjust("1 second")
        const expected = name === "concurrency" ? [0, 0, 0, 0, 0] : [0, 100, 200, 300, 400]
        assert.deepStrictEqual(
          starts.map(([i]) =>
            i
          ),
          [0, 1, 2, 3, 4]
        )
        for (const [i, at] of starts) assert.closeTo(at, expected[i]!, 2e-3)
      }))

    it.effect("runs the effect in the caller's own fiber", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        yield* throttle.withPermit(Effect.void)
        const waiting = yield* started(throttle.withPermit(Effect.withFiber((fiber) => Effect.succeed(fiber.id))))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(yield* Fiber.join(waiting), waiting.id)
      }))

    it.effect("an interrupted waiting call is not charged, and the calls behind it move up", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const first = yield* started(throttle.withPermit(Effect.sleep("10 millis")))
        const second = yield* started(throttle.withPermit(Effect.die("must not run")))
        const third = yield* started(throttle.withPermit(Effect.succeed("third")))
        yield* Fiber.interrupt(second)
        yield* TestClock.adjust("110 millis")
        assert.strictEqual(yield* Fiber.join(third), "third")
        yield* Fiber.join(first)
        const { admitted, interrupted, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, interrupted, waiting }, { admitted: 2, interrupted: 1, waiting: 0 })
      }))

    it.effect("a holder that is interrupted gives its permits back", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const first = yield* started(throttle.withPermit(Effect.never))
        assert.strictEqual((yield* throttle.statistics).running, holds(name) ? 1 : 0)
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust("100 millis")
        assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
      }))

    it.effect("an effect can be interrupted while it waits only if it is interruptible", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        yield* throttle.withPermit(Effect.void)
        let ran = false
        const waiting = yield* started(Effect.uninterruptible(throttle.withPermit(Effect.sync(() => {
          ran = true
        }))))
        yield* started(Fiber.interrupt(waiting))
        yield* TestClock.adjust("100 millis")
        assert.isTrue(ran)
      }))

    it.effect("takeScoped holds until the scope closes", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const scope = yield* Scope.make()
        yield* Scope.provide(throttle.takeScoped(), scope)
        yield* TestClock.adjust("1 second")
        const before = yield* throttle.withPermitsIfAvailable(Effect.void, 1)
        assert.strictEqual(Option.isNone(before), holds(name))
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust("100 millis")
        assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
        assert.strictEqual((yield* throttle.statistics).running, 0)
      }))

    it.effect("withPermitsIfAvailable never waits, never overtakes a waiting call, and runs nothing unless it starts at once", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        yield* started(throttle.withPermit(Effect.sleep("50 millis")))
        assert.isTrue(Option.isNone(yield* throttle.withPermitsIfAvailable(Effect.die("must not run"), 1)))
        const waiting = yield* started(throttle.withPermit(Effect.void))
        // Not even for a cost of 0: there is someone before it.
        assert.isTrue(Option.isNone(yield* throttle.withPermitsIfAvailable(Effect.void, 0)))
        yield* TestClock.adjust("150 millis")
        yield* Fiber.join(waiting)
      }))

    it.effect("maxQueue: so many may wait", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ maxQueue: 2 }))
        const fibers = []
        for (let i = 0; i < 5; i++) fibers.push(yield* started(throttle.withPermit(Effect.sleep("10 millis"))))
        assert.strictEqual((yield* throttle.statistics).waiting, 2)
        yield* TestClock.adjust("1 second")
        const exits = yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual(exits.map(reasonOf), [undefined, undefined, undefined, "QueueFull", "QueueFull"])
      }))

    it.effect("maxQueue 0: never waits", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ maxQueue: 0 }))
        yield* started(throttle.withPermit(Effect.sleep("10 millis")))
        const exit = yield* Effect.exit(throttle.withPermit(Effect.void))
        assert.strictEqual(reasonOf(exit), "QueueFull")
        yield* TestClock.adjust("200 millis")
        assert.isTrue(Exit.isSuccess(yield* Effect.exit(throttle.withPermit(Effect.void))))
      }))

    if (name !== "concurrency") {
      it.effect("maxWait: a call that would wait longer is rejected at once", () =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(make({ maxWait: "250 millis" }))
          const fibers = []
          for (let i = 0; i < 5; i++) fibers.push(yield* started(throttle.withPermit(Effect.void)))
          const reasons = fibers.map((fiber) => fiber.pollUnsafe()).map((exit) => exit && reasonOf(exit))
          assert.deepStrictEqual(reasons.slice(3), ["WaitTooLong", "WaitTooLong"])
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* throttle.statistics).admitted, 3)
        }))
    }

    it.effect("timeout: the wait alone, to the millisecond", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({ timeout: "50 millis" }))
        yield* started(throttle.withPermit(Effect.sleep("90 millis")))
        yield* TestClock.adjust("1 millis")
        const second = yield* started(throttle.withPermit(Effect.void))
        yield* TestClock.adjust("49 millis")
        assert.isUndefined(second.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(reasonOf(yield* Fiber.await(second)), "TimedOut")
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
        // The run of 90 ms was not cut short, and what timed out was not charged.
        yield* TestClock.adjust("149 millis")
        assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
      }))

    it.effect("a waiting call inside Effect.timeout leaves the queue when it times out", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        yield* started(throttle.withPermit(Effect.never))
        const waiting = yield* started(Effect.timeoutOption(throttle.withPermit(Effect.never), "30 millis"))
        yield* TestClock.adjust("30 millis")
        assert.isTrue(Option.isNone(yield* Fiber.join(waiting)))
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
      }))

    it.effect("closing the scope interrupts waiting calls and later calls", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const throttle = yield* Scope.provide(Throttle.make(make({})), scope)
        const running = yield* started(throttle.withPermit(Effect.as(Effect.sleep("10 millis"), "done")))
        const waiting = []
        for (let i = 0; i < 3; i++) waiting.push(yield* started(throttle.withPermit(Effect.die("must not run"))))
        yield* Scope.close(scope, Exit.void)
        for (const fiber of waiting) {
          const exit = yield* Fiber.await(fiber)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        }
        for (
          const late of [
            throttle.withPermit(Effect.void),
            throttle.withPermitsIfAvailable(Effect.void, 1),
            Effect.scoped(throttle.takeScoped())
          ]
        ) {
          const exit = yield* Effect.exit(late)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        }
        yield* TestClock.adjust("10 millis")
        assert.strictEqual(yield* Fiber.join(running), "done")
        const { running: left, waiting: queued } = yield* throttle.statistics
        assert.deepStrictEqual([left, queued], [0, 0])
      }))

    it.effect("a thousand waiters of short effects need no deep stack", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make({}))
        const fibers = []
        for (let i = 0; i < 1_000; i++) fibers.push(yield* started(throttle.withPermit(Effect.succeed(i))))
        yield* TestClock.adjust("100 seconds")
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), Array.from({ length: 1_000 }, (_, i) => i))
      }))
  })
}
