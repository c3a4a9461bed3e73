/**
 * Pausing: no call starts until the pause ends, waiting calls included.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option, Schema, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import {
  assertIdle,
  estimateOf,
  firstMeterOf,
  fork,
  now,
  rangeErrorOf,
  settled,
  startsOf,
  statisticsOf,
  throttleErrorOf,
  throttleIn
} from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"

const policies: Record<string, Throttle.Policy<never>> = {
  rate: Throttle.rate({ limit: 10 }),
  "rate with burst": Throttle.rate({ limit: 10, burst: 2 }),
  tokenBucket: Throttle.tokenBucket({ capacity: 3, refill: 10 }),
  "sliding window": Throttle.window({ limit: 1, per: "100 millis" }),
  "fixed window": Throttle.window({ limit: 1, per: "100 millis", kind: "fixed" }),
  concurrency: Throttle.concurrency({ limit: 1 }),
  spacing: Throttle.spacing({ interval: "100 millis" }),
  "spacing, aligned": Throttle.spacing({ interval: "100 millis", align: true }),
  "spacing from the end": Throttle.spacing({ interval: "100 millis", from: "end" }),
  all: Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 1 })]),
  none: Throttle.none
}

/** The fields of a rejection, with `retryAfter` in milliseconds. */
const rejectionOf = (exit: Exit.Exit<unknown, unknown>) => {
  const { _tag, parts, retryAfter } = throttleErrorOf(exit).reason as {
    readonly _tag: string
    readonly parts: ReadonlyArray<string>
    readonly retryAfter?: Duration.Duration
  }
  return { _tag, parts, retryAfter: retryAfter && Duration.toMillis(retryAfter) }
}

const rejected = <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.map(Effect.exit(call), rejectionOf)

describe("a pause", () => {
  for (const [name, policy] of Object.entries(policies)) {
    it.effect(`${name}: no call starts until it ends, then calls start as soon as the policy lets them`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        // Before its first use.
        yield* throttle.pause("1 second")
        const starts = yield* startsOf(throttle, 4)
        yield* TestClock.adjust(999)
        assert.deepStrictEqual(starts, [])
        yield* TestClock.adjust(10_000)
        const paced = [1_000, 1_100, 1_200, 1_300]
        const expected: Record<string, ReadonlyArray<number>> = {
          "rate with burst": [1_000, 1_000, 1_000, 1_100],
          tokenBucket: [1_000, 1_000, 1_000, 1_100],
          concurrency: [1_000, 1_000, 1_000, 1_000],
          none: [1_000, 1_000, 1_000, 1_000]
        }
        assert.deepStrictEqual(starts, expected[name] ?? paced)
        assertIdle(throttle)
      }))

    it.effect(`${name}: holds back waiting calls and keeps their order`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const scope = yield* Scope.make()
        yield* Scope.provide(throttle.takeScoped(), scope)
        const order: Array<number> = []
        const starts: Array<number> = []
        for (let i = 0; i < 6; i++) {
          yield* fork(throttle.withPermit(Effect.map(now, (at) => {
            order.push(i)
            starts.push(at)
          })))
        }
        const before = order.length
        yield* TestClock.adjust(50)
        yield* throttle.pause("1 second")
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust(999)
        assert.strictEqual(order.length, before)
        yield* TestClock.adjust(10_000)
        assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5])
        for (const start of starts.slice(before)) assert.isAtLeast(start, 1_050)
        assertIdle(throttle)
      }))

    it.effect(`${name}: resume lets waiting calls start at once`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.pause("1 hour")
        const starts = yield* startsOf(throttle, 2)
        yield* TestClock.adjust(3_300)
        yield* throttle.resume
        yield* settled
        if (name !== "spacing, aligned") assert.strictEqual(starts[0], 3_300)
        yield* TestClock.adjust(1_000)
        assert.strictEqual(starts.length, 2)
        assertIdle(throttle)
      }))

    it.effect(`${name}: does not affect running calls`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const running = yield* fork(throttle.withPermit(Effect.as(Effect.sleep(30), "done")))
        yield* throttle.pause("1 second")
        yield* TestClock.adjust(30)
        assert.strictEqual(yield* Fiber.join(running), "done")
        assertIdle(throttle)
      }))

    it.effect(`${name}: leaves no timer when no call waits`, () =>
      Effect.sync(() => {
        const simulator = Simulator.make()
        const throttle = throttleIn(simulator, policy)
        simulator.fork(throttle.pause("1 second"))
        simulator.run()
        assert.deepStrictEqual([simulator.sleepers(), simulator.now()], [0, 0])
        const waiting = [0, 1, 2].map(() => simulator.fork(throttle.withPermit(Effect.void)))
        simulator.at(10, () => {
          assert.strictEqual(simulator.sleepers(), 1)
          for (const fiber of waiting) fiber.interruptUnsafe()
        })
        simulator.at(11, () => assert.strictEqual(simulator.sleepers(), 0))
        simulator.run()
        assert.strictEqual(simulator.now(), 11)
        assertIdle(throttle)
      }))
  }

  it.effect("ends to the very microsecond", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      yield* throttle.pause("1500 micros")
      assert.strictEqual(yield* estimateOf(throttle), 1.5)
      const waiting = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust(1.4)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(0.1)
      assert.strictEqual(yield* Fiber.join(waiting), 1.5)
    }))

  it.effect("ends for calls that arrive later, with an empty queue", () =>
    Effect.gen(function*() {
      for (const [name, policy] of Object.entries(policies)) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.pause(100)
        assert.isTrue(Option.isNone(yield* throttle.withPermitsIfAvailable(Effect.void, 1)), name)
        yield* TestClock.adjust(100)
        assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)), name)
      }
    }))

  it.effect("holds back every way to start, and a cost of 0", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1_000, burst: 9 }))
      yield* throttle.pause(100)
      const waiting = [
        yield* fork(throttle.withPermit(now)),
        yield* fork(throttle.withPermits(now, 0)),
        yield* fork(Effect.andThen(throttle.wait(), now)),
        yield* fork(Effect.scoped(Effect.andThen(throttle.takeScoped(), now))),
        yield* fork(throttle.usePermits(() => now, 1))
      ]
      yield* TestClock.adjust(99)
      for (const fiber of waiting) assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.joinAll(waiting), [100, 100, 100, 100, 100])
    }))

  it.effect("again only lengthens", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.pause(100)
      const starts = yield* startsOf(throttle, 2)
      yield* throttle.pause(50)
      assert.strictEqual(yield* estimateOf(throttle), 300)
      yield* TestClock.adjust(50)
      yield* throttle.pause(20)
      yield* throttle.pause(0)
      yield* throttle.pause(250)
      yield* TestClock.adjust(249)
      assert.deepStrictEqual(starts, [])
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [300, 400])
    }))

  it.effect("of 0 changes nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.pause(0)
      const starts = yield* startsOf(throttle, 3)
      assert.deepStrictEqual(starts, [0])
      yield* TestClock.adjust(50)
      yield* throttle.pause(0)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [0, 100, 200])
    }))

  it.effect("shorter than the wait changes nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 1, per: 100 }))
      const starts = yield* startsOf(throttle, 4)
      yield* TestClock.adjust(10)
      yield* throttle.pause(60)
      assert.strictEqual(yield* estimateOf(throttle), 390)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [0, 100, 200, 300])
    }))

  it.effect("an infinite pause lasts until resume, without a timer", () =>
    Effect.gen(function*() {
      for (const [name, policy] of Object.entries(policies)) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.pause(Infinity)
        yield* throttle.pause("1 millis")
        assert.isUndefined(yield* estimateOf(throttle), name)
        const starts = yield* startsOf(throttle, 2)
        assert.isUndefined(yield* estimateOf(throttle), name)
        yield* TestClock.adjust("365 days")
        assert.deepStrictEqual(starts, [], name)
        yield* throttle.resume
        yield* TestClock.adjust("1 second")
        assert.strictEqual(starts.length, 2, name)
        assertIdle(throttle, name)
      }
    }))

  it.effect("after a resume is a pause like the first", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* throttle.pause(Infinity)
      yield* throttle.resume
      yield* throttle.pause(10)
      const starts = yield* startsOf(throttle, 1)
      yield* throttle.resume
      yield* throttle.pause(20)
      yield* TestClock.adjust(19)
      assert.deepStrictEqual(starts, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [20])
    }))

  it.effect("that is not there, resume does nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.resume
      const starts = yield* startsOf(throttle, 3)
      yield* TestClock.adjust(50)
      yield* throttle.resume
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [0, 100, 200])
    }))

  it.effect("lasts as long as the longest pause requested", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.none)
      const pause = throttle.pause(100)
      yield* pause
      yield* TestClock.adjust(60)
      yield* pause
      assert.strictEqual(yield* estimateOf(throttle), 100)
    }))

  it.effect.each<any>([
    -1,
    -Infinity,
    "-1 second",
    Duration.millis(-1),
    [-1, 0],
    -1n,
    NaN,
    "soon",
    "5 minutess",
    "",
    null,
    undefined,
    true
  ])("of %s dies with a RangeError, and is none", (duration) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, name: "api" }))
      const pause = yield* Effect.sync(() => throttle.pause(duration))
      assert.match(
        rangeErrorOf(yield* Effect.exit(pause)),
        /^throttle "api": "duration" must be a duration ≥ 0, received /
      )
      assert.strictEqual(yield* estimateOf(throttle), 0)
    }))
})

describe("bounds during a pause", () => {
  it.effect("maxWait counts the pause", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, maxWait: 250, name: "api" }))
      yield* throttle.pause(200)
      const waiting = yield* fork(throttle.withPermit(now))
      assert.deepStrictEqual(yield* rejected(throttle.withPermit(Effect.void)), {
        _tag: "WaitTooLong",
        parts: ["api", "pause"],
        retryAfter: 300
      })
      yield* TestClock.adjust(50)
      const next = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust(250)
      assert.deepStrictEqual(yield* Fiber.joinAll([waiting, next]), [200, 300])
    }))

  it.effect.each(Object.entries({
    rate: Throttle.rate({ limit: 10, maxWait: 99 }),
    "sliding window": Throttle.window({ limit: 10, per: "1 second", maxWait: 99 }),
    "fixed window": Throttle.window({ limit: 10, per: "1 second", kind: "fixed", maxWait: 99 }),
    spacing: Throttle.spacing({ interval: 10, maxWait: 99 }),
    "all with concurrency": Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 1 })], {
      maxWait: 99
    })
  }))("maxWait: a pause alone is too long, %s", ([, policy]) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(policy)
      yield* throttle.pause(100)
      assert.deepStrictEqual(yield* rejected(throttle.withPermit(Effect.void)), {
        _tag: "WaitTooLong",
        parts: ["pause"],
        retryAfter: 100
      })
      yield* TestClock.adjust(1)
      const waiting = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust(99)
      assert.strictEqual(yield* Fiber.join(waiting), 100)
    }))

  it.effect("maxWait: an infinite pause rejects without a retryAfter", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 10 }), Throttle.window({ limit: 10, per: "1 second" })], {
          maxWait: "365 days"
        })
      )
      yield* throttle.pause(Infinity)
      assert.deepStrictEqual(yield* rejected(throttle.withPermit(Effect.void)), {
        _tag: "WaitTooLong",
        parts: ["pause"],
        retryAfter: undefined
      })
    }))

  it.effect("maxWait: calls in the queue that would now wait longer are rejected at once, and charged nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxWait: "5 seconds", name: "api" }))
      yield* throttle.wait()
      const waiting = yield* Effect.forEach([1, 2], () => fork(Effect.exit(throttle.wait())))
      yield* TestClock.adjust(500)
      yield* throttle.pause("1 hour")
      for (const fiber of waiting) {
        assert.deepStrictEqual(rejectionOf(yield* Fiber.join(fiber)), {
          _tag: "WaitTooLong",
          parts: ["api", "pause"],
          retryAfter: 3_600_000
        })
      }
      assert.deepInclude(yield* throttle.statistics, { admitted: 1, waiting: 0 })
      yield* throttle.resume
      assert.strictEqual(yield* estimateOf(throttle), 500)
    }))

  it.effect("maxWait: only as many are rejected as must be, so that the others start in time", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, maxWait: 500 }))
      yield* throttle.wait()
      const calls = yield* Effect.forEach([1, 2, 3, 4, 5], () => fork(Effect.exit(throttle.withPermit(now))))
      // They were to start at 100, 200, 300, 400 and 500.
      yield* TestClock.adjust(50)
      yield* throttle.pause(300)
      yield* TestClock.adjust(450)
      const exits = yield* Effect.forEach(calls, Fiber.join)
      assert.deepStrictEqual(exits.slice(0, 2), [Exit.succeed(350), Exit.succeed(450)])
      for (const exit of exits.slice(2)) assert.strictEqual(rejectionOf(exit)._tag, "WaitTooLong")
    }))

  it.effect("maxWait: a pause without end rejects all that wait", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxWait: "1 hour" }))
      yield* throttle.wait()
      const waiting = yield* fork(Effect.exit(throttle.wait()))
      yield* throttle.pause(Infinity)
      assert.deepStrictEqual(rejectionOf(yield* Fiber.join(waiting)), {
        _tag: "WaitTooLong",
        parts: ["1 per second", "pause"],
        retryAfter: undefined
      })
    }))

  for (
    const [name, make] of Object.entries({
      rate: (timeout: number) => Throttle.rate({ limit: 10, timeout, name: "api" }),
      concurrency: (timeout: number) => Throttle.concurrency({ limit: 2, timeout, name: "api" }),
      "fixed window": (timeout: number) => Throttle.window({ limit: 2, per: 50, kind: "fixed", timeout, name: "api" })
    })
  ) {
    it.effect(`timeout runs on, ${name}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make(100))
        yield* throttle.pause("1 second")
        const waiting = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust(50)
        const next = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust(49)
        assert.isUndefined(waiting.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.deepInclude(rejectionOf(waiting.pollUnsafe()!), { _tag: "TimedOut" })
        assert.include(rejectionOf(waiting.pollUnsafe()!).parts, "pause")
        assert.isUndefined(next.pollUnsafe())
        yield* TestClock.adjust(50)
        assert.deepInclude(rejectionOf(next.pollUnsafe()!), { _tag: "TimedOut", parts: ["pause"] })
        assertIdle(throttle)
      }))

    it.effect(`timeout: due exactly then starts, ${name}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make(100))
        yield* throttle.pause(100)
        const waiting = yield* fork(throttle.withPermit(now))
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* Fiber.join(waiting), 100)
      }))

    it.effect(`timeout runs on in an infinite pause, ${name}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(make(100))
        yield* throttle.pause(Infinity)
        const waiting = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(rejectionOf(waiting.pollUnsafe()!), {
          _tag: "TimedOut",
          parts: ["pause"],
          retryAfter: undefined
        })
        assertIdle(throttle)
      }))
  }

  it.effect("maxQueue: the queue fills up", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5, maxQueue: 2, name: "db" }))
      yield* throttle.pause("1 second")
      const starts = yield* startsOf(throttle, 2)
      assert.deepStrictEqual(yield* rejected(throttle.withPermit(Effect.void)), {
        _tag: "QueueFull",
        parts: ["pause"],
        retryAfter: undefined
      })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [1_000, 1_000])
    }))

  it.effect("maxQueue 0: no call waits for the end of a pause", () =>
    Effect.gen(function*() {
      for (
        const [name, policy] of Object.entries({
          rate: Throttle.rate({ limit: 10, maxQueue: 0 }),
          concurrency: Throttle.concurrency({ limit: 5, maxQueue: 0 })
        })
      ) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.pause(700)
        assert.deepStrictEqual(
          yield* rejected(throttle.withPermit(Effect.void)),
          { _tag: "QueueFull", parts: ["pause"], retryAfter: 700 },
          name
        )
        // It is true: then it may start.
        yield* TestClock.adjust(700)
        yield* throttle.withPermit(Effect.void)
      }
    }))

  it.effect("a rejection after the pause does not name it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, maxQueue: 0, name: "api" }))
      yield* throttle.pause(50)
      yield* TestClock.adjust(50)
      yield* throttle.wait()
      assert.deepStrictEqual(yield* rejected(throttle.wait()), {
        _tag: "QueueFull",
        parts: ["api"],
        retryAfter: 100
      })
      yield* throttle.pause("1 hour")
      yield* throttle.resume
      assert.deepStrictEqual(yield* rejected(throttle.wait()), {
        _tag: "QueueFull",
        parts: ["api"],
        retryAfter: 100
      })
    }))

  it.effect("a call that exceeds the capacity is rejected at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.pause(Infinity)
      assert.deepInclude(yield* rejected(throttle.wait(2)), { _tag: "PermitsExceedCapacity" })
    }))
})

describe("estimateWait during a pause", () => {
  it.effect("an estimate counts from its end, behind the waiting calls", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 10 }), Throttle.window({ limit: 2, per: "1 second" })])
      )
      yield* throttle.wait()
      yield* throttle.pause(500)
      assert.strictEqual(yield* estimateOf(throttle), 500)
      const starts = yield* startsOf(throttle, 2)
      assert.strictEqual(yield* estimateOf(throttle), 1_500)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(starts, [500, 1_000])
    }))

  it.effect("is some of zero again after it, and after a resume", () =>
    Effect.gen(function*() {
      for (const [name, policy] of Object.entries(policies)) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.pause(100)
        assert.strictEqual(yield* estimateOf(throttle), 100, name)
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* estimateOf(throttle), 0, name)
        yield* throttle.pause(100)
        assert.strictEqual(yield* estimateOf(throttle), 100, name)
        yield* throttle.resume
        assert.strictEqual(yield* estimateOf(throttle), 0, name)
        yield* TestClock.adjust(100)
      }
    }))

  it.effect("is none while others hold the permits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* throttle.takeScoped()
      yield* throttle.pause(100)
      assert.isUndefined(yield* estimateOf(throttle))
    }))
})

describe("what policies do with a pause", () => {
  it.effect("concurrency: permits released meanwhile start no call", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* fork(throttle.withPermit(Effect.sleep(20)))
      const starts = yield* startsOf(throttle, 3)
      yield* throttle.pause(100)
      yield* TestClock.adjust(99)
      assert.deepStrictEqual(starts, [])
      assert.strictEqual((yield* throttle.statistics).running, 0)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [100, 100, 100])
    }))

  it.effect("concurrency: permits that come back after it wake at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* fork(throttle.withPermit(Effect.sleep(120)))
      const starts = yield* startsOf(throttle, 2)
      yield* throttle.pause(100)
      yield* TestClock.adjust(120)
      assert.deepStrictEqual(starts, [120, 120])
    }))

  it.effect("spacing, aligned: on a slot after its end", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: 100, align: true }))
      yield* throttle.pause(150)
      assert.strictEqual(yield* estimateOf(throttle), 200)
      const starts = yield* startsOf(throttle, 3)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [200, 300, 400])
    }))

  it.effect("spacing, aligned: a pause that ends on a slot starts on it, and resume waits for the next", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: 100, align: true }))
      yield* throttle.pause(300)
      const starts = yield* startsOf(throttle, 2)
      yield* TestClock.adjust(350)
      assert.deepStrictEqual(starts, [300])
      yield* throttle.pause("1 hour")
      yield* TestClock.adjust(100)
      yield* throttle.resume
      yield* TestClock.adjust(49)
      assert.deepStrictEqual(starts, [300])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [300, 500])
    }))

  it.effect("fixed window: counts in the window in which they start", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 2, per: 100, kind: "fixed" }))
      yield* throttle.pause(250)
      const starts = yield* startsOf(throttle, 5)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(starts, [250, 250, 300, 300, 400])
    }))

  it.effect("spacing from the end: the pause and the interval run side by side", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: 100, from: "end" }))
      yield* fork(throttle.withPermit(Effect.sleep(40)))
      yield* throttle.pause(60)
      const starts = yield* startsOf(throttle, 1)
      yield* TestClock.adjust(139)
      assert.deepStrictEqual(starts, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [140])
    }))

  it.effect("rate: unused time of the pause is refilled, up to the capacity", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 3 }))
      const starts = yield* startsOf(throttle, 20)
      assert.strictEqual(starts.length, 4)
      yield* throttle.pause("10 seconds")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(starts.length, 8)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(starts.length, 18)
    }))

  /** Starts of simultaneous calls at 1,000 a second, paused at 50 ms, with timers late by so much. */
  const paused = (late: number, resumeAt?: number): ReadonlyArray<number> => {
    const simulator = Simulator.make({ operations: 2_048, late: () => late })
    const starts: Array<number> = []
    const throttle = throttleIn(simulator, Throttle.rate({ limit: 1_000 }))
    for (let i = 0; i < 300; i++) {
      simulator.fork(throttle.withPermit(Effect.sync(() => void starts.push(simulator.now()))))
    }
    simulator.at(50.5, () => void simulator.fork(throttle.pause(1_000)))
    if (resumeAt !== undefined) simulator.at(resumeAt, () => void simulator.fork(throttle.resume))
    simulator.run()
    assert.strictEqual(starts.length, 300)
    return starts
  }

  it.each([[0, undefined], [3, undefined], [8, undefined], [0, 400.25], [3, 400.25], [8, 400.25]])(
    "rate: nothing is made up for after it, timers late by %d ms, resumed at %s",
    (late, resumeAt) => {
      const end = resumeAt ?? 1_050.5
      const starts = paused(late, resumeAt)
      assert.isFalse(starts.some((at) => at > 50.5 && at < end - 1e-3))
      for (const [i, at] of starts.entries()) {
        // What always holds: capacity + (t + catch-up) / T.
        const span = starts.slice(i).findIndex((other) => other - at > 20)
        if (span > 0) assert.isAtMost(span, 1 + 30)
      }
      // At its end the calls start that are ready: one, and those that became ready while the timer was late.
      assert.isAtMost(starts.filter((at) => at >= end - 1e-3 && at <= end + late + 1e-3).length, 1 + late + 1e-6)
      // And the schedule has not drifted since.
      const after = starts.filter((at) => at >= end - 1e-3).length
      assert.isAtMost(starts.at(-1)!, end + after - 1 + 2 * late + 1)
    }
  )
})

// ---------------------------------------------------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------------------------------------------------

describe("pause and resume", () => {
  it.effect("of the provided throttle", () =>
    Effect.gen(function*() {
      yield* Throttle.pause("1 second")
      const first = yield* fork(Throttle.withPermit(now))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(first), 1_000)
      yield* Throttle.pause("1 hour")
      yield* Throttle.resume
      assert.deepStrictEqual(yield* Throttle.estimateWait(), Option.some(Duration.millis(100)))
    }).pipe(Effect.provide(policies["rate"]!)))

  class First extends Throttle.Service<First>()("test/Pause/First", Throttle.rate({ limit: 10 })) {}
  class Second extends Throttle.Service<Second>()("test/Pause/Second", Throttle.rate({ limit: 10 })) {}

  it.effect("of a service class, and of no other", () =>
    Effect.gen(function*() {
      yield* First.pause("1 second")
      assert.deepStrictEqual(yield* First.estimateWait(), Option.some(Duration.seconds(1)))
      assert.deepStrictEqual(yield* Second.estimateWait(), Option.some(Duration.zero))
      const first = yield* fork(First.withPermit(now))
      yield* TestClock.adjust(10)
      yield* First.resume
      yield* settled
      assert.strictEqual(yield* Fiber.join(first), 10)
    }).pipe(Effect.provide(First.layer), Effect.provide(Second.layer)))

  it.effect("of the limiter that inline use has", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 3 })
      const throttle = yield* Throttle.inline(policy)
      yield* throttle.pause(100)
      const inline = yield* fork(policy(now))
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* Fiber.join(inline), 100)
    }))

  it.effect("are seen in the statistics as waiting", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      yield* throttle.pause(100)
      yield* startsOf(throttle, 2)
      assert.deepInclude(yield* throttle.statistics, { admitted: 0, waiting: 2, running: 0 })
      yield* TestClock.adjust(100)
      const { admitted, longestWait, waited, waiting } = yield* throttle.statistics
      assert.deepStrictEqual(
        [admitted, waiting, Duration.toMillis(waited), Duration.toMillis(longestWait)],
        [2, 0, 200, 100]
      )
    }))

  it.effect("by a call whose server says to retry later: all calls hold back", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      const starts: Array<number> = []
      const call = throttle.withPermit(Effect.gen(function*() {
        starts.push(Math.round(yield* now))
        if (starts.length === 7) yield* throttle.pause("1 second")
      }))
      for (let i = 0; i < 10; i++) yield* fork(call)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(starts, [0, 0, 0, 0, 0, 100, 200, 1_200, 1_200, 1_200])
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// Step by step
// ---------------------------------------------------------------------------------------------------------------------

const swept = Object.entries(policies).filter(([name]) => name !== "none")

describe("at every scheduler step", () => {
  const use: Sweep.Use = (throttle, self) => throttle.withPermit(self)

  const check =
    (name: string, options: Partial<Sweep.Options> & Pick<Sweep.Options, "policy" | "act">) =>
    (test: (swept: Sweep.Swept, where: string) => void): number =>
      Sweep.everyStep({ calls: 3, use, ...options }, name, (swept, where) => {
        Sweep.assertOrder(swept, where)
        assertIdle(swept.throttle, where)
        test(swept, where)
      })

  const allStart = ({ fibers, order }: Sweep.Swept, where: string) => {
    for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), where)
    assert.deepStrictEqual(order, [0, 1, 2])
  }

  it.each(swept)("%s: a pause admits no call, not even a head that was already resumed", (name, policy) => {
    let pausedAt = Infinity
    let admitted = 0
    const steps = check(name, {
      policy,
      prepare: () => {
        pausedAt = Infinity
      },
      act: ({ simulator, throttle }) => {
        Effect.runSync(throttle.pause(1_000))
        pausedAt = simulator.now()
        admitted = statisticsOf(throttle).admitted
      },
      watch: ({ simulator, throttle }) => {
        if (simulator.now() < pausedAt || simulator.now() >= pausedAt + 1_000 - 1e-3) return
        assert.strictEqual(statisticsOf(throttle).admitted, admitted, `${name}: admitted during the pause`)
      }
    })(allStart)
    assert.isAbove(steps, 5)
  })

  it.each(swept)("%s: a resume loses no call", (name, policy) => {
    check(name, {
      policy,
      prepare: (throttle) => Effect.runSync(throttle.pause(40)),
      act: ({ throttle }) => Effect.runSync(throttle.resume)
    })(allStart)
  })

  it.each(swept)("%s: an interruption during a pause, and around its end, leaves nothing behind", (name, policy) => {
    for (const victim of [0, 1, 2]) {
      check(`${name}, victim ${victim}`, {
        policy,
        prepare: (throttle) => Effect.runSync(throttle.pause(40)),
        act: Sweep.interrupt(victim)
      })(({ fibers, hit, throttle }, where) => {
        for (const [i, fiber] of fibers.entries()) {
          if (i !== victim || !hit) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), where)
        }
        const { admitted, interrupted } = statisticsOf(throttle)
        assert.isAtMost(admitted + interrupted, 3, where)
        assert.isAtLeast(admitted + interrupted, hit ? 2 : 3, where)
      })
    }
  })

  it.each(swept)("%s: closing the scope during a pause leaves no call hanging", (name, policy) => {
    const resumed = new WeakSet<Throttle.Throttle>()
    for (const duration of [40, Infinity]) {
      const steps = check(`${name}, ${duration}`, {
        policy,
        prepare: (throttle) => Effect.runSync(throttle.pause(duration)),
        act: ({ scope, simulator }) => void simulator.fork(Scope.close(scope, Exit.void)),
        // Nothing ends an infinite pause by itself: once all are parked it is resumed.
        watch: ({ simulator, throttle }) => {
          if (duration === Infinity && statisticsOf(throttle).waiting === 3 && !resumed.has(throttle)) {
            resumed.add(throttle)
            simulator.at(simulator.now() + 5, () => Effect.runSync(throttle.resume))
          }
        }
      })(({ fibers, hit, order }, where) => {
        if (!hit) return
        for (const [i, fiber] of fibers.entries()) {
          const exit = fiber.pollUnsafe()!
          const isInterrupted = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
          assert.strictEqual(isInterrupted, !order.includes(i), where)
        }
      })
      assert.isAbove(steps, 10)
    }
  })
})

describe("closing the scope during a pause", () => {
  it.effect("interrupts waiting calls and later calls", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(Throttle.rate({ limit: 10 })), scope)
      yield* throttle.pause(Infinity)
      const waiting = yield* fork(throttle.withPermit(Effect.die("must not run")))
      yield* Scope.close(scope, Exit.void)
      yield* settled
      const later = yield* Effect.exit(throttle.withPermit(Effect.die("must not run")))
      for (const exit of [waiting.pollUnsafe()!, later]) {
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }
      yield* throttle.resume
      assert.isUndefined(yield* estimateOf(throttle))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(throttle.withPermit(Effect.void))))
      assertIdle(throttle)
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// A law
// ---------------------------------------------------------------------------------------------------------------------

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Timing = Schema.Union([
  Schema.Struct({ _tag: Schema.Literal("TokenBucket"), capacity: int(3, 6), refill: int(1, 7), per: int(5, 40) }),
  Schema.Struct({
    _tag: Schema.Literal("Window"),
    limit: int(3, 5),
    per: int(5, 40),
    kind: Schema.Literals(["sliding", "fixed"])
  }),
  Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), align: Schema.Boolean })
])

const Pauses = Schema.Array(Schema.Struct({
  at: int(0, 60),
  lasts: int(0, 40),
  resumes: Schema.Boolean
})).check(Schema.isMaxLength(5))

describe("a law", () => {
  it.prop(
    "a call starts at the first instant that the policy, those before it and the pauses allow",
    [Timing, Schema.Array(Schema.Struct({ at: int(0, 60), cost: int(1, 3) })).check(Schema.isMaxLength(10)), Pauses],
    ([data, calls, pauses]) => {
      const simulator = Simulator.make({ operations: 2_048 })
      const throttle = throttleIn(simulator, Throttle.fromData(data as any))
      const meter = firstMeterOf(throttle)
      const starts: Array<{ readonly arrival: number; readonly at: number; readonly cost: number }> = []
      // An eighth of a millisecond off, each by one more, so that no two things happen at one instant.
      let until = -Infinity
      const spans: Array<readonly [number, number]> = []
      pauses.toSorted((a, b) => a.at - b.at).forEach(({ at, lasts, resumes }, i) => {
        simulator.at(at + (i + 1) / 8, () => {
          if (resumes) {
            until = -Infinity
            const open = spans.at(-1)
            if (open !== undefined && open[1] > simulator.now()) spans[spans.length - 1] = [open[0], simulator.now()]
          } else if (simulator.now() + lasts > until) {
            const open = spans.at(-1)
            const from = open !== undefined && open[1] >= simulator.now() ? spans.pop()![0] : simulator.now()
            until = simulator.now() + lasts
            spans.push([from, until])
          }
          simulator.fork(resumes ? throttle.resume : throttle.pause(lasts))
        })
      })
      calls.toSorted((a, b) => a.at - b.at).forEach(({ at, cost }) => {
        const entry = Effect.sync(() => void starts.push({ arrival: at, at: simulator.now(), cost }))
        simulator.at(at, () => void simulator.fork(throttle.withPermits(entry, cost)))
      })
      simulator.run()
      assert.strictEqual(starts.length, calls.length)
      let state = meter.initial
      let previous = 0
      for (const [i, { arrival, at, cost }] of starts.entries()) {
        let expected = Math.max(arrival, previous)
        for (let last = -1; last !== expected;) {
          last = expected
          for (const [from, to] of spans) if (expected >= from - 1e-6 && expected < to) expected = to
          expected = meter.readyAt(state, expected * 1e6, cost, (at) => at / 1e6) / 1e6
        }
        assert.closeTo(at, expected, 3e-3, `start ${i}`)
        state = meter.charge(state, at * 1e6, cost, (at) => at / 1e6)
        previous = at
      }
      assertIdle(throttle)
    },
    { arbitrary: { runs: 400 } }
  )
})
