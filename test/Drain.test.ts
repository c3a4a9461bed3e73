/**
 * The operations `drain`, `awaitIdle` and `awaitQueue`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Metric, Option, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import * as Testing from "effect-throttle/testing"
import { TestClock } from "effect/testing"
import {
  assertIdle,
  fork,
  noRejections,
  now,
  rangeErrorOf,
  reasonOf,
  settled,
  startsOf,
  statisticsOf
} from "./utils/kit.ts"

const wasInterrupted = (exit: Exit.Exit<unknown, unknown> | undefined): boolean =>
  exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

const one = Throttle.concurrency({ limit: 1, maxQueue: 100 })

/** Runs for 10 ms. */
const work = Effect.sleep("10 millis")

describe("drain", () => {
  it.effect("completes when the calls that wait and run have finished, and returns 0", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      const calls = [yield* fork(throttle.withPermit(work)), yield* fork(throttle.withPermit(work))]
      const drain = yield* fork(throttle.drain())
      yield* TestClock.adjust(19)
      assert.isUndefined(drain.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
      assertIdle(throttle)
    }))

  it.effect("refuses every kind of newcomer with the reason Draining, from its first step on", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, burst: 5 }))
      yield* throttle.drain()
      const newcomers: Array<Effect.Effect<unknown, unknown, Scope.Scope>> = [
        throttle.withPermit(Effect.void),
        throttle.withPermits(Effect.void, 2),
        throttle.withPermitsIfAvailable(Effect.void, 1),
        throttle.wait(),
        throttle.takeScoped(),
        throttle.usePermits(() => Effect.void, 1),
        throttle.withPermits(Effect.void, 0)
      ]
      for (const call of newcomers) assert.strictEqual(reasonOf(yield* Effect.exit(call)), "Draining")
      const { admitted, rejected } = yield* throttle.statistics
      assert.deepStrictEqual({ admitted, rejected }, { admitted: 0, rejected: { ...noRejections, Draining: 7 } })
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.none())
    }))

  it.effect("counts and reports refused newcomers as rejections", () =>
    Effect.gen(function*() {
      const events: Array<Throttle.Event> = []
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "drained" }))
      yield* throttle.drain()
      yield* Effect.exit(throttle.wait()).pipe(
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event)))
      )
      assert.deepStrictEqual(events.map((event) => "error" in event && event.error.reason._tag), ["Draining"])
      const [metric] = (yield* Metric.snapshot).filter(({ attributes, id }) =>
        id === "throttle_rejected_total" && attributes?.["throttle"] === "drained" &&
        attributes["reason"] === "Draining"
      )
      assert.deepInclude(metric?.state, { count: 1 })
    }))

  it.effect("a policy that decides by time alone is drained when no call waits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const running = yield* fork(throttle.withPermit(Effect.never))
      const starts = yield* startsOf(throttle, 2)
      const drain = yield* fork(throttle.drain())
      yield* TestClock.adjust(199)
      assert.isUndefined(drain.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [100, 200])
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      assert.isUndefined(running.pollUnsafe())
    }))

  it.effect("spacing from the end: the calls in the queue keep their distance", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: 50, from: "end" }))
      const calls = yield* Effect.forEach([0, 1, 2], () => fork(throttle.withPermit(work)))
      const drain = yield* fork(Effect.andThen(throttle.drain(), now))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(130))
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
    }))

  it.effect("without calls it completes at once, twice as well", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      assert.strictEqual(yield* throttle.drain(), 0)
      assert.strictEqual(yield* throttle.drain("1 second"), 0)
    }))

  it.effect("an invalid deadline is a RangeError, and newcomers are still admitted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "api" }))
      assert.strictEqual(
        rangeErrorOf(yield* Effect.exit(throttle.drain(-1))),
        `throttle "api": "deadline" must be a duration ≥ 0, received -1`
      )
      yield* throttle.wait()
    }))

  describe("at the deadline", () => {
    it.effect("interrupts the calls that wait and run, and completes when they have ended", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(one)
        const running = yield* fork(throttle.withPermit(Effect.onInterrupt(Effect.never, () => Effect.sleep(7))))
        const waiting = [yield* fork(throttle.withPermit(work)), yield* fork(throttle.wait().pipe(Effect.exit))]
        const drain = yield* fork(Effect.zip(throttle.drain("1 second"), now))
        yield* TestClock.adjust(999)
        assert.isUndefined(drain.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.isTrue(wasInterrupted(waiting[0]!.pollUnsafe()))
        assert.isUndefined(drain.pollUnsafe())
        yield* TestClock.adjust(7)
        // (`wait` of the third call died: the policy limits running calls.)
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed([2, 1_007] as const))
        assert.isTrue(wasInterrupted(running.pollUnsafe()))
        assert.strictEqual(statisticsOf(throttle).interrupted, 1)
        assertIdle(throttle)
      }))

    it.effect("0 interrupts at once", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(one)
        const calls = [yield* fork(throttle.withPermit(Effect.never)), yield* fork(throttle.withPermit(work))]
        assert.strictEqual(yield* throttle.drain(0), 2)
        for (const call of calls) assert.isTrue(wasInterrupted(yield* Fiber.await(call)))
      }))

    it.effect("a waiting call is interrupted in an uninterruptible region too; a running one ends by itself", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(one)
        const calls = yield* Effect.forEach([0, 1], () => fork(Effect.uninterruptible(throttle.withPermit(work))))
        const drain = yield* fork(throttle.drain(5))
        yield* TestClock.adjust(5)
        assert.isTrue(wasInterrupted(calls[1]!.pollUnsafe()))
        assert.isUndefined(drain.pollUnsafe())
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(2))
      }))

    it.effect("permits for a scope are not waited for, and end with their scope", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(one)
        const scope = yield* Scope.make()
        yield* Scope.provide(throttle.takeScoped(), scope)
        const drain = yield* fork(throttle.drain(5))
        const other = yield* fork(throttle.drain())
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        assert.isUndefined(other.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        yield* settled
        assert.deepStrictEqual(other.pollUnsafe(), Exit.succeed(0))
        assertIdle(throttle)
      }))

    it.effect("interrupts calls of usePermits", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.all([Throttle.rate({ limit: 10 }), one]))
        const call = yield* fork(throttle.usePermits(() => Effect.never, 1))
        assert.strictEqual(yield* throttle.drain(0), 1)
        assert.isTrue(wasInterrupted(call.pollUnsafe()))
        assertIdle(throttle)
      }))

    it.effect("works in a finalizer, where nothing can be interrupted", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(one)
        const call = yield* fork(throttle.withPermit(Effect.never))
        const finalizing = yield* fork(Effect.ensuring(Effect.never, throttle.drain("1 second")))
        yield* fork(Fiber.interrupt(finalizing))
        yield* TestClock.adjust(999)
        assert.isUndefined(finalizing.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.isDefined(finalizing.pollUnsafe())
        assert.isTrue(wasInterrupted(call.pollUnsafe()))
      }))
  })

  describe("calls whose type has no error", () => {
    it.effect("newcomers of a policy without bounds are interrupted; waiting calls start", () =>
      Effect.gen(function*() {
        const policy = Throttle.rate({ limit: 10 })
        const throttle = yield* Throttle.inline(policy)
        yield* policy(Effect.void)
        const waiting = yield* fork(policy(Effect.succeed("done")))
        const drain = yield* fork(throttle.drain())
        const newcomer = yield* fork(policy(Effect.void))
        assert.isTrue(wasInterrupted(newcomer.pollUnsafe()))
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(waiting.pollUnsafe(), Exit.succeed("done"))
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        assert.isTrue(wasInterrupted(
          yield* Effect.exit(
            Effect.forkChild(policy(Effect.void)).pipe(
              Effect.flatMap(Fiber.join)
            )
          )
        ))
        assert.deepStrictEqual(statisticsOf(throttle).rejected, noRejections)
      }))

    it.effect("and so are those of a Service class without bounds; with bounds they are rejected", () => {
      class Free extends Throttle.Service<Free>()("test/Free", Throttle.rate({ limit: 10 })) {}
      class Bounded extends Throttle.Service<Bounded>()("test/Bounded", Throttle.rate({ limit: 10, maxQueue: 5 })) {}
      return Effect.gen(function*() {
        yield* Free.drain()
        yield* Bounded.drain("1 second")
        assert.isTrue(wasInterrupted(yield* Fiber.await(yield* fork(Free.withPermit(Effect.void)))))
        assert.strictEqual(reasonOf(yield* Effect.exit(Bounded.withPermit(Effect.void))), "Draining")
        yield* Free.awaitIdle
      }).pipe(Effect.provide(Free.layer), Effect.provide(Bounded.layer))
    })
  })

  describe("a call within a running call", () => {
    const nested = (throttle: Throttle.Throttle) =>
      throttle.withPermit(Effect.andThen(work, throttle.withPermit(Effect.succeed("inner"))))

    it.effect("of the same fiber is let through, so that the running call can finish", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2, maxQueue: 100 }))
        const call = yield* fork(nested(throttle))
        const drain = yield* fork(throttle.drain())
        assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void))), "Draining")
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed("inner"))
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        assertIdle(throttle)
      }))

    it.effect("that must not wait does not run, since only the queue admits calls", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
        const inner = throttle.withPermitsIfAvailable(Effect.void, 1)
        const call = yield* fork(throttle.withPermit(Effect.andThen(work, inner)))
        yield* fork(throttle.drain())
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* Fiber.join(call), Option.none())
      }))

    it.effect("is a newcomer where the fiber holds permits for a scope only", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
        yield* throttle.takeScoped()
        yield* fork(throttle.drain())
        assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void))), "Draining")
      }))

    it.effect("of a child fiber is a newcomer", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2, maxQueue: 100 }))
        const child = Effect.flatMap(Effect.forkChild(throttle.withPermit(Effect.void)), Fiber.await)
        const call = yield* fork(throttle.withPermit(Effect.andThen(work, child)))
        yield* fork(throttle.drain())
        yield* TestClock.adjust(10)
        assert.strictEqual(reasonOf(yield* Fiber.join(call)), "Draining")
      }))

    it.effect("obeys onReentry", () =>
      Effect.gen(function*() {
        for (const onReentry of ["bypass", "die"] as const) {
          const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, maxQueue: 9, onReentry }))
          const call = yield* fork(nested(throttle))
          const drain = yield* fork(throttle.drain())
          yield* TestClock.adjust(10)
          const exit = call.pollUnsafe()!
          assert.strictEqual(onReentry === "bypass", Exit.isSuccess(exit))
          assert.isTrue(Exit.isSuccess(exit) || Cause.hasDies(exit.cause))
          assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        }
      }))
  })

  it.effect("a pause without an end keeps waiting calls until the deadline, or until resume", () =>
    Effect.gen(function*() {
      for (const isResumed of [true, false]) {
        const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
        yield* throttle.pause(Infinity)
        const waiting = yield* fork(throttle.wait())
        const drain = yield* fork(throttle.drain("1 minute"))
        yield* TestClock.adjust("59 seconds")
        assert.isUndefined(drain.pollUnsafe())
        if (isResumed) yield* throttle.resume
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(isResumed ? 0 : 1))
        assert.strictEqual(wasInterrupted(waiting.pollUnsafe()), !isResumed)
      }
    }))

  it.effect("resume and update do not end it; an update applies to the waiting calls", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      yield* throttle.wait()
      const waiting = yield* fork(throttle.wait())
      const drain = yield* fork(throttle.drain())
      yield* throttle.resume
      yield* throttle.update(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* settled
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "Draining")
      assert.isUndefined(waiting.pollUnsafe())
      yield* throttle.update(Throttle.rate({ limit: 1_000 }))
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(waiting.pollUnsafe(), Exit.void)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "Draining")
    }))

  it.effect("an update to a policy in shadow that can never grant a waiting call rejects it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, burst: 5 }))
      yield* throttle.wait(6)
      const waiting = yield* fork(throttle.wait(6))
      const drain = yield* fork(throttle.drain())
      yield* throttle.update(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* settled
      assert.strictEqual(reasonOf(waiting.pollUnsafe()), "PermitsExceedCapacity")
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
    }))

  it.effect("of two drains the earlier deadline counts, and both complete", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* fork(throttle.withPermit(Effect.never))
      const first = yield* fork(throttle.drain("10 seconds"))
      const second = yield* fork(throttle.drain("1 second"))
      const third = yield* fork(throttle.drain())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(first.pollUnsafe(), Exit.succeed(0))
      assert.deepStrictEqual(second.pollUnsafe(), Exit.succeed(1))
      assert.deepStrictEqual(third.pollUnsafe(), Exit.succeed(0))
    }))

  it.effect("interrupted, it waits no longer and its deadline is void, but newcomers stay refused", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      const running = yield* fork(throttle.withPermit(Effect.sleep("1 minute")))
      const drain = yield* fork(throttle.drain("1 second"))
      yield* Fiber.interrupt(drain)
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void))), "Draining")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(running.pollUnsafe(), Exit.void)
      assertIdle(throttle)
    }))

  it.effect("when the throttle's scope closes, waiting calls are interrupted and running ones are waited for", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(one), scope)
      const running = yield* fork(throttle.withPermit(work))
      const waiting = yield* fork(throttle.withPermit(work))
      const drain = yield* fork(throttle.drain())
      yield* Scope.close(scope, Exit.void)
      yield* settled
      assert.isTrue(wasInterrupted(waiting.pollUnsafe()))
      assert.isUndefined(drain.pollUnsafe())
      assert.isTrue(wasInterrupted(yield* Fiber.await(yield* fork(throttle.withPermit(Effect.void)))))
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(running.pollUnsafe(), Exit.void)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      // A drain of a closed throttle waits for its running calls alike.
      assert.strictEqual(yield* throttle.drain(), 0)
    }))

  it.effect("a policy in shadow is put in force: newcomers are refused, and running calls are waited for", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 1 })))
      const calls = yield* Effect.forEach([0, 1, 2], () => fork(throttle.withPermit(work)))
      assert.strictEqual(statisticsOf(throttle).waiting, 2)
      const drain = yield* fork(throttle.drain())
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void))), "Draining")
      yield* TestClock.adjust(9)
      assert.isUndefined(drain.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
      assertIdle(throttle)
    }))

  it.effect("the provided throttle has the operations as well", () =>
    Effect.gen(function*() {
      const call = yield* fork(Throttle.withPermit(Effect.never))
      const queued = yield* fork(Throttle.awaitQueue(1))
      yield* fork(Throttle.withPermit(work))
      yield* settled
      assert.deepStrictEqual(queued.pollUnsafe(), Exit.void)
      assert.strictEqual(yield* Throttle.drain(0), 2)
      assert.isTrue(wasInterrupted(call.pollUnsafe()))
      yield* Throttle.awaitIdle
    }).pipe(Effect.provide(one)))
})

describe("awaitIdle", () => {
  it.effect("waits until no call waits or holds permits, and refuses none", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* throttle.awaitIdle
      yield* fork(throttle.withPermit(work))
      const idle = yield* fork(throttle.awaitIdle)
      yield* TestClock.adjust(5)
      yield* fork(throttle.withPermit(work))
      yield* TestClock.adjust(14)
      assert.isUndefined(idle.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
    }))

  it.effect("is not misled by a call that leaves the queue to start", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* fork(throttle.withPermit(work))
      const second = yield* fork(throttle.withPermit(Effect.never))
      const idle = yield* fork(throttle.awaitIdle)
      yield* TestClock.adjust(100)
      assert.isUndefined(idle.pollUnsafe())
      yield* Fiber.interrupt(second)
      yield* settled
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
    }))

  it.effect("the woken fiber may use the throttle", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* fork(throttle.withPermit(work))
      const next = yield* fork(Effect.andThen(throttle.awaitIdle, throttle.withPermit(Effect.succeed("next"))))
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(next.pollUnsafe(), Exit.succeed("next"))
    }))

  it.effect("a throttle in shadow is always idle, and becomes so by an update", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* fork(throttle.withPermit(Effect.never))
      const idle = yield* fork(throttle.awaitIdle)
      yield* settled
      assert.isUndefined(idle.pollUnsafe())
      yield* throttle.update(Throttle.shadow(one))
      yield* settled
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
    }))

  it.effect("leaves nothing behind when it is interrupted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(one)
      yield* fork(throttle.withPermit(work))
      const idle = yield* fork(throttle.awaitIdle)
      yield* Fiber.interrupt(idle)
      yield* TestClock.adjust(10)
      assertIdle(throttle)
    }))
})

describe("awaitQueue", () => {
  it.effect("waits until so many calls wait; at once if they do already", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      yield* throttle.wait()
      const two = yield* fork(throttle.awaitQueue(2))
      yield* fork(throttle.wait())
      yield* settled
      assert.isUndefined(two.pollUnsafe())
      yield* fork(throttle.wait())
      yield* settled
      assert.deepStrictEqual(two.pollUnsafe(), Exit.void)
      yield* throttle.awaitQueue(2)
    }))

  it.effect("dies with a RangeError for anything but an integer ≥ 1", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "api" }))
      for (const n of [0, 1.5, -1, NaN, Infinity]) {
        assert.strictEqual(
          rangeErrorOf(yield* Effect.exit(throttle.awaitQueue(n))),
          `throttle "api": "n" must be an integer ≥ 1, received ${n}`
        )
      }
    }))
})

describe("a map", () => {
  const make = (policy: Throttle.Policy<any>) => ThrottleMap.make({ lookup: (_key: string) => policy })

  it.effect("drains all keys: newcomers of any key are refused, waiting and running calls finish", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.concurrency({ limit: 1 }))
      for (const key of ["a", "a", "b"]) yield* fork(map.withPermit(key)(work))
      const drain = yield* fork(map.drain())
      for (const key of ["a", "b", "new"]) {
        for (const call of [map.withPermit(key)(Effect.void), map.get(key).withPermitsIfAvailable(Effect.void, 1)]) {
          assert.strictEqual(reasonOf(yield* Effect.exit(call)), "Draining")
        }
        assert.strictEqual(reasonOf(yield* Effect.exit(Effect.scoped(map.takeScoped(key)))), "Draining")
      }
      yield* TestClock.adjust(19)
      assert.isUndefined(drain.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      const { admitted, keys, rejected, running, waiting } = yield* map.statistics
      assert.deepStrictEqual(
        { admitted, keys, rejected: rejected.Draining, running, waiting },
        { admitted: 3, keys: 0, rejected: 9, running: 0, waiting: 0 }
      )
      assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("a")(Effect.void))), "Draining")
    }))

  it.effect("an idle key that decides by time alone refuses newcomers too", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.rate({ limit: 10, burst: 5 }))
      yield* map.wait("a")
      yield* map.drain()
      for (const key of ["a", "b"]) {
        assert.strictEqual(reasonOf(yield* Effect.exit(map.wait(key))), "Draining")
        assert.deepStrictEqual(yield* map.estimateWait(key), Option.none())
        yield* map.pause(key, "1 second")
        yield* map.resume(key)
        yield* map.update(key, Throttle.rate({ limit: 100 }))
      }
      assert.strictEqual(reasonOf(yield* Effect.exit(map.wait("a"))), "Draining")
    }))

  it.effect("at the deadline the calls of all keys are interrupted", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.concurrency({ limit: 1 }))
      for (const key of ["a", "a", "b"]) yield* fork(map.withPermit(key)(Effect.never))
      const drain = yield* fork(map.drain("1 second"))
      const idle = yield* fork(map.awaitIdle)
      yield* TestClock.adjust(999)
      assert.isUndefined(idle.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(3))
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
      const { interrupted, keys, running, waiting } = yield* map.statistics
      assert.deepStrictEqual({ interrupted, keys, running, waiting }, {
        interrupted: 1,
        keys: 0,
        running: 0,
        waiting: 0
      })
    }))

  it.effect("a call within a running call of the same key is let through", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.concurrency({ limit: 2 }))
      const inner = map.withPermit("a")(Effect.succeed("inner"))
      const call = yield* fork(map.withPermit("a")(Effect.andThen(work, inner)))
      yield* fork(map.drain())
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed("inner"))
    }))

  it.effect("drains one key until its calls have ended; others are not affected", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.concurrency({ limit: 1 }))
      const a = map.get("a")
      yield* fork(a.withPermit(work))
      const drains = [yield* fork(a.drain()), yield* fork(map.drainOf("a", "1 second"))]
      const idle = [yield* fork(a.awaitIdle), yield* fork(map.awaitIdleOf("a"))]
      assert.strictEqual(reasonOf(yield* Effect.exit(a.withPermit(Effect.void))), "Draining")
      yield* map.withPermit("b")(Effect.void)
      yield* map.awaitIdleOf("b")
      yield* TestClock.adjust(9)
      for (const fiber of [...drains, ...idle]) assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      for (const drain of drains) assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      for (const fiber of idle) assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
      // Its limiter is not lent again while it refuses newcomers.
      yield* a.withPermit(Effect.void)
      yield* map.withPermit("c")(Effect.void)
      assert.strictEqual(yield* a.drain(), 0)
      yield* a.withPermit(Effect.void)
    }))

  it.effect("a key without waiting and running calls is left as it is, in a pause too", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.rate({ limit: 10 }))
      yield* map.pause("a", "1 hour")
      assert.strictEqual(yield* map.drainOf("a"), 0)
      const call = yield* fork(map.withPermit("a")(now))
      yield* TestClock.adjust("59 minutes")
      assert.isUndefined(call.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed(3_600_000))
    }))

  it.effect("a key without calls that is in shadow stays in shadow", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.shadow(Throttle.rate({ limit: 1, per: "1 hour" })))
      yield* map.pause("a", "1 hour")
      assert.strictEqual(yield* map.drainOf("a"), 0)
      for (let i = 0; i < 3; i++) yield* map.withPermit("a")(Effect.void)
    }))

  for (const [name, policy] of [["in force", one], ["in shadow", Throttle.shadow(one)]] as const) {
    it.effect(`a key admits newcomers once its calls have ended, in a pause too: ${name}`, () =>
      Effect.gen(function*() {
        const map = yield* make(policy)
        yield* fork(map.withPermit("a")(work))
        yield* map.pause("a", "1 second")
        const drain = yield* fork(map.drainOf("a"))
        assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("a")(Effect.void))), "Draining")
        yield* TestClock.adjust("10 millis")
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        const calls = [yield* fork(map.withPermit("a")(now)), yield* fork(map.withPermit("a")(now))]
        yield* TestClock.adjust("990 millis")
        const at = name === "in force" ? 1_000 : 10
        for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed(at))
      }))
  }

  it.effect("after an interrupted drain a key admits newcomers once its calls have ended, in a pause too", () =>
    Effect.gen(function*() {
      const map = yield* make(one)
      yield* fork(map.withPermit("a")(work))
      yield* map.pause("a", "1 second")
      yield* Fiber.interrupt(yield* fork(map.drainOf("a")))
      assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("a")(Effect.void))), "Draining")
      yield* TestClock.adjust("10 millis")
      const call = yield* fork(map.withPermit("a")(now))
      yield* TestClock.adjust("990 millis")
      assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed(1_000))
    }))

  it.effect("a key is not held in its drain by a scope that holds no permits", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.rate({ limit: 10, burst: 9 }))
      yield* map.takeScoped("a")
      assert.strictEqual(yield* map.drainOf("a"), 0)
      yield* map.withPermit("a")(Effect.void)
    }))

  it.effect("awaits the queue of a key", () =>
    Effect.gen(function*() {
      const map = yield* make(Throttle.concurrency({ limit: 1 }))
      const queued = yield* fork(map.awaitQueue("a", 1))
      yield* fork(map.withPermit("a")(Effect.never))
      for (let i = 0; i < 2; i++) yield* fork(map.withPermit("b")(Effect.never))
      yield* settled
      assert.isUndefined(queued.pollUnsafe())
      yield* fork(map.withPermit("a")(Effect.never))
      yield* settled
      assert.deepStrictEqual(queued.pollUnsafe(), Exit.void)
    }))

  it.effect("a closed map stays closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const map = yield* Scope.provide(make(Throttle.rate({ limit: 1 })), scope)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* map.drain(), 0)
      assert.isTrue(wasInterrupted(yield* Fiber.await(yield* fork(map.wait("a")))))
    }))

  it.effect("a Service class has the operations as statics", () => {
    class Hosts extends ThrottleMap.Service<Hosts>()("test/Hosts", {
      lookup: (_host: string) => Throttle.concurrency({ limit: 1 })
    }) {}
    return Effect.gen(function*() {
      yield* fork(Hosts.withPermit("a")(Effect.never))
      yield* fork(Hosts.withPermit("a")(Effect.never))
      yield* Hosts.awaitQueue("a", 1)
      assert.strictEqual(yield* Hosts.drainOf("a", 0), 2)
      yield* Hosts.awaitIdleOf("a")
      yield* Hosts.awaitIdle
      assert.strictEqual(yield* Hosts.drain(), 0)
      assert.strictEqual(reasonOf(yield* Effect.exit(Hosts.withPermit("b")(Effect.void))), "Draining")
    }).pipe(Effect.provide(Hosts.layer))
  })
})

describe("the recorder", () => {
  it.effect("records drain, awaits, and rejects with Draining by its script", () =>
    Effect.gen(function*() {
      const { asked, throttle } = yield* Testing.make({ script: [{ wait: "1 second" }, { reject: "Draining" }] })
      const call = yield* fork(throttle.withPermit(Effect.void))
      yield* throttle.awaitQueue(1)
      const idle = yield* fork(throttle.awaitIdle)
      yield* TestClock.adjust(999)
      assert.isUndefined(idle.pollUnsafe())
      yield* TestClock.adjust(1)
      yield* Fiber.join(idle)
      yield* Fiber.join(call)
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "Draining")
      assert.strictEqual(yield* throttle.drain("3 seconds"), 0)
      yield* throttle.drain()
      assert.deepStrictEqual((yield* asked).slice(1), [
        { method: "wait", cost: 1, outcome: "rejected", reason: "Draining" },
        { method: "drain", deadline: Duration.seconds(3) },
        { method: "drain" }
      ])
    }))
})
