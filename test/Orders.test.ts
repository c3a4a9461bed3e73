/**
 * Callers, and the orders of the queue: "priority" and "fair".
 */
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Exit, Fiber, Metric, Option } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, errorOf, estimateOf, fork, limiterOf, now, reasonOf, throttleIn } from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"

const as = (key: string, others: Partial<Throttle.Caller> = {}) => Throttle.withCaller({ key, ...others })

/** Forks calls of these callers, and returns who starts in which order, with the instants in milliseconds. */
const startsOf = (
  throttle: Throttle.Throttle,
  callers: string,
  others: (i: number) => Partial<Throttle.Caller> = () => ({})
) =>
  Effect.gen(function*() {
    const starts: Array<string> = []
    for (const [i, key] of [...callers].entries()) {
      yield* fork(throttle.withPermit(Effect.sync(() => void starts.push(key))).pipe(as(key, others(i))))
    }
    return starts
  })

describe("withCaller", () => {
  it.effect("without it a call is that of the caller \"\", of weight 1 and priority 0", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Throttle.Caller, { key: "", weight: 1, priority: 0 })
      assert.deepStrictEqual(yield* as("a")(Throttle.Caller), { key: "a", weight: 1, priority: 0 })
    }))

  it.effect("child fibers inherit the caller, and inner fields replace outer ones one by one", () =>
    Effect.gen(function*() {
      const inner = Effect.flatMap(Effect.forkChild(Throttle.withCaller({ priority: 2 })(Throttle.Caller)), Fiber.join)
      const seen = yield* Throttle.withCaller({ key: "a", weight: 3 })(Effect.all([inner, Throttle.Caller]))
      assert.deepStrictEqual(seen, [{ key: "a", weight: 3, priority: 2 }, { key: "a", weight: 3, priority: 0 }])
    }))

  it("invalid fields are errors at once", () => {
    const message = (caller: unknown): string => {
      try {
        Throttle.withCaller(caller as Throttle.Caller)
      } catch (error) {
        assert.instanceOf(error, RangeError)
        return (error as Error).message
      }
      return "accepted"
    }
    for (const weight of [0, -1, NaN, Infinity, 1_000.1, 0.0009, "1", null]) {
      assert.include(
        message({ weight }),
        "Throttle.withCaller: \"weight\" must be a number from 0.001 to 1000, received"
      )
    }
    for (const priority of [NaN, Infinity, -Infinity, "1", null]) {
      assert.include(message({ priority }), "Throttle.withCaller: \"priority\" must be a finite number, received")
    }
    for (const key of [7, null, Symbol("key")]) {
      assert.include(message({ key }), "Throttle.withCaller: \"key\" must be a string, received")
    }
    assert.include(message({ name: "a" }), "unknown option \"name\"")
    for (const caller of [{}, { weight: 0.001 }, { weight: 1_000 }, { priority: -Number.MAX_VALUE }]) {
      assert.strictEqual(message(caller), "accepted")
    }
  })
})

describe("policies", () => {
  const data = {
    _tag: "Rate",
    limit: 10,
    per: 1_000,
    burst: 0,
    order: "fair",
    ageing: 2_000,
    maxQueuePerCaller: 3
  } as const

  it("an order is data", () => {
    const policy = Throttle.rate({ limit: 10, order: "fair", ageing: "2 seconds", maxQueuePerCaller: 3 })
    assert.deepStrictEqual(policy.data, data)
    assert.deepStrictEqual(Throttle.fromData(data).data, data)
    assert.strictEqual(
      Throttle.describe(policy),
      "10 per second (fair among callers, at most 3 waiting per caller)"
    )
    assert.strictEqual(
      Throttle.describe(Throttle.concurrency({ limit: 2, order: "priority", ageing: "1 minute" })),
      "at most 2 at once (urgent calls first, 1 minute for a step of priority)"
    )
  })

  it.effect("an order comes from the configuration", () =>
    Effect.gen(function*() {
      const provider = ConfigProvider.fromUnknown({ api: JSON.stringify(data) })
      const policy = yield* Effect.provideService(Throttle.config("api"), ConfigProvider.ConfigProvider, provider)
      assert.deepStrictEqual(policy.data, data)
    }))

  it("orders that make no sense are errors at once", () => {
    const cases: ReadonlyArray<readonly [() => unknown, string]> = [
      [
        () => Throttle.all([Throttle.rate({ limit: 1, order: "fair" }), Throttle.concurrency({ limit: 1 })]),
        "are for a whole policy"
      ],
      [
        () => Throttle.all([Throttle.rate({ limit: 1, order: "priority", ageing: 1 })], { order: "fair" }),
        "are for a whole policy"
      ],
      [() => Throttle.rate({ limit: 1, order: "priority" } as never), "order \"priority\" needs \"ageing\""],
      [() => Throttle.rate({ limit: 1, ageing: 1 } as never), "\"ageing\" needs order \"priority\" or \"fair\""],
      [
        () => Throttle.rate({ limit: 1, order: "arrival", ageing: 1 } as never),
        "\"ageing\" needs order \"priority\" or \"fair\""
      ],
      [() => Throttle.rate({ limit: 1, order: "priority", ageing: Infinity } as never), "ageing"],
      [() => Throttle.rate({ limit: 1, order: "priority", ageing: -1 } as never), "ageing"],
      [() => Throttle.rate({ limit: 1, order: "newest" } as never), "order"],
      [() => Throttle.rate({ limit: 1, maxQueuePerCaller: -1 }), "maxQueuePerCaller"],
      [() => Throttle.rate({ limit: 1, maxQueuePerCaller: 1.5 }), "maxQueuePerCaller"],
      [() => Throttle.rate({ limit: 1, order: "fair", maxWait: 1 } as never), "\"maxWait\" needs order \"arrival\""],
      [
        () => Throttle.all([Throttle.rate({ limit: 1, maxWait: 1 })], { order: "fair" } as never),
        "\"maxWait\" needs order \"arrival\""
      ],
      [() => Throttle.fromData({ ...data, maxWait: 1 } as never), "\"maxWait\" needs order \"arrival\""]
    ]
    for (const [make, message] of cases) assert.throws(make, RangeError, message)
  })

  it.effect("shadow ignores the order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1, order: "fair" })))
      assert.deepStrictEqual(yield* startsOf(throttle, "aaab"), ["a", "a", "a", "b"])
      assert.strictEqual((yield* throttle.statistics).waiting, 3)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* throttle.statistics).waiting, 0)
      assertIdle(throttle)
    }))
})

describe("update", () => {
  const policies = {
    arrival: Throttle.rate({ limit: 1 }),
    fair: Throttle.rate({ limit: 1, order: "fair" }),
    priority: Throttle.rate({ limit: 1, order: "priority", ageing: "1 minute" })
  }
  /** The calls a1, a2, a3, b4, b5 wait, the last one urgent. */
  const waiting = (policy: Throttle.Policy<any>) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(policy)
      yield* throttle.wait()
      const starts: Array<string> = []
      for (const [key, priority] of [["a1", 0], ["a2", 0], ["a3", 0], ["b4", 0], ["b5", 1]] as const) {
        yield* fork(throttle.withPermit(Effect.sync(() => void starts.push(key))).pipe(as(key[0]!, { priority })))
      }
      return { starts, throttle }
    })
  const orders = {
    arrival: ["a1", "a2", "a3", "b4", "b5"],
    // Within a caller by priority; without ageing that is arrival.
    fair: ["a1", "b4", "a2", "b5", "a3"],
    priority: ["b5", "a1", "a2", "a3", "b4"]
  }
  for (const from of ["arrival", "fair", "priority"] as const) {
    for (const to of ["arrival", "fair", "priority"] as const) {
      it.effect(`from ${from} to ${to}: the waiting calls start in the new order`, () =>
        Effect.gen(function*() {
          const { starts, throttle } = yield* waiting(policies[from])
          yield* throttle.update(policies[to])
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(starts, orders[to])
          assertIdle(throttle)
        }))
    }
  }

  it.effect("accounts stay when only numbers change", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, order: "fair" }))
      yield* throttle.wait()
      const starts = yield* startsOf(throttle, "aaab")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, ["a"])
      yield* throttle.update(Throttle.rate({ limit: 2, order: "fair" }))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(starts, ["a", "b", "a", "a"])
    }))

  it.effect("another order forgets the past, and its calls that still run", () =>
    Effect.gen(function*() {
      const fair = Throttle.concurrency({ limit: 1, order: "fair" })
      const throttle = yield* Throttle.make(fair)
      yield* fork(throttle.withPermit(Effect.sleep("1 second")))
      yield* fork(throttle.withPermit(Effect.sleep("10 seconds")).pipe(as("a")))
      const starts = yield* startsOf(throttle, "ab")
      yield* TestClock.adjust("5 seconds")
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      yield* throttle.update(fair)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(starts, ["a", "b"])
      assertIdle(throttle)
    }))
})

describe("bounds of a caller", () => {
  for (const order of [{}, { order: "fair" }, { order: "priority", ageing: "1 second" }] as const) {
    it.effect(`maxQueuePerCaller, ${JSON.stringify(order)}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(
          Throttle.rate({ limit: 1, maxQueue: 3, maxQueuePerCaller: 2, ...order } as any) as Throttle.Policy<any>
        )
        yield* throttle.wait()
        yield* startsOf(throttle, "aa")
        const error = errorOf(yield* Effect.exit(throttle.withPermit(Effect.void).pipe(as("a")))) as any
        assert.deepStrictEqual([error.reason._tag, error.reason.limit, error.reason.caller], ["QueueFull", 2, "a"])
        assert.include(error.message, "2 waiting, maxQueuePerCaller is 2 for caller \"a\"")
        yield* startsOf(throttle, "b")
        // maxQueue is asked first.
        const full = errorOf(yield* Effect.exit(throttle.withPermit(Effect.void).pipe(as("a")))) as any
        assert.deepStrictEqual([full.reason.limit, full.reason.caller], [3, undefined])
        assert.deepStrictEqual((yield* throttle.statistics).callers?.get("a")?.waiting, 2)
        yield* TestClock.adjust("3 seconds")
        assertIdle(throttle)
      }))
  }

  it.effect("0: a call never waits, but starts if it may", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueuePerCaller: 0 }))
      yield* throttle.withPermit(Effect.void)
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermit(Effect.void))), "QueueFull")
      yield* TestClock.adjust("1 second")
      yield* throttle.withPermit(Effect.void)
    }))

  it.effect("a newcomer that is first and may start does so even if the queue is full", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 4, refill: 1, per: "1 second", order: "fair", maxQueue: 1 } as any)
      )
      yield* throttle.withPermits(Effect.void, 3)
      const heavy = yield* fork(throttle.withPermits(now, 4).pipe(as("heavy")))
      yield* throttle.withPermits(Effect.void, 1).pipe(as("light"))
      assert.isUndefined(heavy.pollUnsafe())
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.withPermits(Effect.void, 1))), "QueueFull")
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(heavy.pollUnsafe(), Exit.succeed(4_000))
    }))
})

describe("calls that are first", () => {
  it.effect("start at once if they need not wait: if available, and as plain calls", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 4, refill: 1, per: "1 second", order: "priority", ageing: "1 minute" })
      )
      yield* throttle.withPermits(Effect.void, 2)
      yield* fork(throttle.withPermits(Effect.void, 4))
      const one = throttle.withPermitsIfAvailable(Effect.void, 1)
      assert.deepStrictEqual(yield* one, Option.none())
      assert.deepStrictEqual(yield* Throttle.withCaller({ priority: 1 })(one), Option.some(undefined))
      yield* Throttle.withCaller({ priority: 1 })(throttle.withPermit(Effect.void))
      assert.deepStrictEqual(yield* Throttle.withCaller({ priority: 1 })(one), Option.none())
    }))

  it.effect("with a call waiting, what starts at once counts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 8, refill: 1, per: "1 second", order: "fair" })
      )
      yield* throttle.withPermits(Effect.void, 4)
      yield* fork(throttle.withPermits(Effect.void, 8).pipe(as("heavy")))
      const one = throttle.withPermitsIfAvailable(Effect.void, 1).pipe(as("light"))
      // Heavy ranks at a quarter of 8 s; each call of light adds 1 s.
      assert.deepStrictEqual((yield* Effect.all([one, one, one, one])).map(Option.isSome), [true, true, false, false])
    }))

  for (const [name, keepsOne, startsAt] of [["", false, 9_000], [", though it goes up too", true, 17_000]] as const) {
    it.effect(`a call starts as soon as its caller ranks before a head that cannot start, whose rank goes up${name}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 4, order: "fair" }))
        const run = (permits: number, runs: Duration.Input, caller: Partial<Throttle.Caller>) =>
          fork(throttle.withPermits(Effect.sleep(runs), permits).pipe(Throttle.withCaller(caller)))
        yield* run(4, "1 second", {})
        yield* run(1, "4 seconds", { key: "b", weight: 0.25 })
        if (keepsOne) yield* run(1, "1 hour", { key: "b" })
        yield* run(2, "1 hour", { key: "a" })
        yield* TestClock.adjust("1 second")
        yield* run(4, 0, { key: "a" })
        const b = yield* fork(throttle.withPermits(now, 1).pipe(as("b")))
        yield* TestClock.adjust("10 minutes")
        // At 5 s b has had 4 s (its weight is 1/4), or 5 s, and a 2 s. From then on a has half a second more each second, and
        // b none, or a quarter.
        assert.closeTo(yield* Fiber.join(b), startsAt, 1)
      }))
  }

  it("while ranks go up together, nothing is examined again and again", () => {
    const simulator = Simulator.make({ operations: 2_048 })
    const throttle = throttleIn(simulator, Throttle.concurrency({ limit: 7, order: "fair" }))
    const call = (key: string, permits: number, runs: Duration.Input) => {
      simulator.fork(throttle.withPermits(Effect.sleep(runs), permits).pipe(as(key)))
    }
    simulator.at(0, () => call("", 7, "1 second"))
    for (const key of ["a", "b", "c"]) {
      simulator.at(1, () => {
        call(key, 1, "1 second")
        call(key, 1, "1 hour")
      })
    }
    for (const key of ["a", "b", "c"]) simulator.at(1_001, () => call(key, 6, 0))
    simulator.at(3_000_000, () => assert.isBelow(simulator.steps(), 100))
    simulator.run()
    assertIdle(throttle)
  })

  it.effect("huge priorities are numbers like others", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, order: "priority", ageing: "1 minute" }))
      yield* throttle.wait()
      const priorities = [0, 1e300, -1e300, Number.MAX_VALUE, -Number.MAX_VALUE, 1]
      const starts = yield* startsOf(throttle, "abcdef", (i) => ({ priority: priorities[i]! }))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        starts,
        ["b", "d", "f", "a", "c", "e"].toSorted((x, y) => {
          const rank = (key: string) => -(priorities["abcdef".indexOf(key)]! * 60e9)
          return rank(x) < rank(y) ? -1 : rank(x) > rank(y) ? 1 : x < y ? -1 : 1
        })
      )
      assertIdle(throttle)
    }))
})

const observing = (events: Array<Throttle.Event>) =>
  Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event)))

describe("what is told", () => {
  it.effect("estimates, retryAfter and the expected wait play the queue in its order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, order: "fair", maxQueue: 5 }))
      yield* throttle.wait()
      const events: Array<Throttle.Event> = []
      yield* startsOf(throttle, "aaaa")
      assert.strictEqual(yield* estimateOf(throttle).pipe(as("a")), 5_000)
      assert.strictEqual(yield* estimateOf(throttle).pipe(as("b")), 2_000)
      assert.strictEqual(yield* estimateOf(throttle).pipe(as("b", { weight: 4 })), 1_000)
      const call = throttle.withPermit(now).pipe(as("b"))
      const b = yield* fork(observing(events)(call))
      assert.deepInclude(events[0], { _tag: "Waiting", expected: 2_000, caller: "b", queued: 5 })
      const error = errorOf(yield* Effect.exit(call)) as any
      // After its other call and two of a.
      assert.deepStrictEqual([error.reason._tag, Duration.toMillis(error.reason.retryAfter)], ["QueueFull", 4_000])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(b.pollUnsafe(), Exit.succeed(2_000))
    }))

  it.effect("statistics tell the callers that wait, and those that have had more than their share", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, order: "fair" }))
      yield* throttle.wait()
      yield* startsOf(throttle, "aab")
      const callers = Effect.map(
        throttle.statistics,
        ({ callers }) => Array.from(callers!, ([key, { ahead, waiting }]) => [key, waiting, Duration.toMillis(ahead)])
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* callers, [["a", 1, 1_000], ["b", 1, 0]])
      yield* TestClock.adjust("2 seconds")
      // Each has had two starts, or as good as: b, which came last, owes nothing.
      assert.deepStrictEqual((yield* callers).map(([, waiting]) => waiting), [0])
      yield* TestClock.adjust("1 minute")
      assert.isTrue((yield* callers).every(([, , ahead]) => ahead === 0))
      const plain = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      assert.isUndefined((yield* plain.statistics).callers)
    }))

  it.effect("events carry the caller and its priority; metrics do not", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.rate({ limit: 1, order: "fair", name: "told", timeout: "1500 millis" })
      )
      const events: Array<any> = []
      const observed = observing(events)
      yield* throttle.wait()
      for (const [key, priority] of [["tenant", 3], ["tenant", 3], ["", 0]] as const) {
        yield* fork(Effect.ignore(observed(throttle.withPermit(Effect.void).pipe(as(key, { priority })))))
      }
      const unnamed = yield* fork(Effect.ignore(observed(throttle.withPermit(Effect.void))))
      unnamed.interruptUnsafe()
      yield* TestClock.adjust("2 seconds")
      assert.sameMembers(events.map(({ _tag, caller, priority }) => [_tag, caller, priority].join()), [
        "Waiting,tenant,3",
        "Waiting,tenant,3",
        "Waiting,,",
        "Waiting,,",
        "Interrupted,,",
        "Admitted,tenant,3",
        "Rejected,tenant,3",
        "Rejected,,"
      ])
      const metrics = yield* Metric.snapshot
      assert.isTrue(metrics.some(({ id }) => id === "throttle_admitted_total"))
      assert.isFalse(JSON.stringify(metrics.map(({ attributes, id }) => [id, attributes])).includes("tenant"))
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
})

describe("reentry", () => {
  it.effect("a nested call that would wait for its own fiber dies in every order", () =>
    Effect.gen(function*() {
      for (const order of [{ order: "fair" }, { order: "priority", ageing: "1 minute" }] as const) {
        const throttle = yield* Throttle.make(
          Throttle.concurrency({ limit: 1, ...order } as Throttle.ConcurrencyOptions)
        )
        const exit = yield* Effect.exit(
          throttle.withPermit(throttle.withPermit(Effect.void).pipe(as("a", { priority: 9 })))
        )
        assert.include(String(exit), "deadlock")
        assertIdle(throttle)
      }
    }))

  it.effect("with bypass a nested call runs without permits, though calls wait", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, order: "fair", onReentry: "bypass" }))
      const outer = yield* fork(
        throttle.withPermit(Effect.andThen(Effect.sleep("1 second"), throttle.withPermit(now))).pipe(as("a"))
      )
      yield* startsOf(throttle, "ab")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(outer.pollUnsafe(), Exit.succeed(1_000))
      assertIdle(throttle)
    }))
})

describe("keys of a map", () => {
  it.effect("what a caller owes is remembered while calls of the key no longer wait", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.rate({ limit: 1, order: "fair" }) })
      const throttle = map.get("key")
      yield* throttle.wait()
      // Both come anew, and a has two starts more than b; the queue is empty for an instant.
      yield* startsOf(throttle, "aaa")
      yield* TestClock.adjust("3 seconds")
      const starts = yield* startsOf(throttle, "aab")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, ["b"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts, ["b", "a", "a"])
    })))

  it.effect("idle keys keep no limiters for ever", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: number) => Throttle.rate({ limit: 1, order: "fair" }),
        maxKeys: 50
      })
      // Room for a key comes from keys that are forgotten.
      for (let round = 0; round < 3; round++) {
        for (let key = 50 * round; key < 50 * (round + 1); key++) {
          yield* map.get(key).withPermit(Effect.void)
          yield* fork(map.get(key).withPermit(Effect.void).pipe(as("a")))
          yield* fork(map.get(key).withPermit(Effect.void).pipe(as("b")))
        }
        yield* TestClock.adjust("1 hour")
      }
      assert.strictEqual((yield* map.statistics).admitted, 450)
    })))

  it.effect("a key knows nothing of the runs of another", () =>
    Effect.scoped(Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.concurrency({ limit: 1 }),
        Throttle.rate({ limit: 1, per: "10 millis", unit: "tokens" })
      ], { order: "fair" })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      const play = (key: string) =>
        Effect.gen(function*() {
          const order: Array<string> = []
          const call = (caller: string, tokens: number) =>
            map.get(key).withPermits(
              Effect.andThen(Effect.sync(() => void order.push(caller)), Effect.sleep("1 second")),
              { permits: 1, tokens }
            ).pipe(as(caller))
          yield* fork(call("z", 0))
          // As long as runs are unknown, b is lighter.
          yield* fork(call("a", 1))
          yield* fork(call("b", 0))
          yield* TestClock.adjust("10 minutes")
          return order
        })
      assert.deepStrictEqual(yield* play("first"), ["z", "b", "a"])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* play("second"), ["z", "b", "a"])
    })))
})

// ---------------------------------------------------------------------------------------------------------------------
// Figures, in virtual time
// ---------------------------------------------------------------------------------------------------------------------

interface Load {
  readonly key: string
  readonly weight?: number
  /** Milliseconds between arrivals. */
  readonly every: number
}

const percentile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))]!

describe("shares", () => {
  const run = (policy: Throttle.Policy<any>, loads: ReadonlyArray<Load>, seconds: number) => {
    const simulator = Simulator.make({ operations: 2_048, limit: 10_000_000 })
    const throttle = throttleIn(simulator, policy)
    const waits = new Map(loads.map(({ key }) => [key, [] as Array<number>]))
    for (const { every, key, weight = 1 } of loads) {
      for (let at = every / 2; at < seconds * 1_000; at += every) {
        simulator.at(at, () => {
          simulator.fork(
            throttle.withPermit(Effect.sync(() => {
              if (simulator.now() <= seconds * 1_000) waits.get(key)!.push(simulator.now() - at)
            })).pipe(Throttle.withCaller({ key, weight }))
          )
        })
      }
    }
    simulator.run()
    return waits
  }

  it("a light tenant beside one that asks a hundred times as much waits as if it were nearly alone", () => {
    // 10 per second; light asks once in 1.23 s, the other 81 times a second.
    const loads = [{ key: "light", every: 1_230 }, { key: "flood", every: 12.3 }]
    const of = (order: object) => run(Throttle.rate({ limit: 10, ...order } as any), loads, 20).get("light")!
    const fair = of({ order: "fair" })
    assert.strictEqual(fair.length, 16)
    // One interval of the rate for the start that is due, and one for a tie.
    assert.isAtMost(percentile(fair, 0.99), 200)
    assert.isAbove(percentile(of({}), 0.5), 5_000)
  })

  it("callers of equal weight get equal shares, whatever they ask for", () => {
    const loads = [1, 1, 2, 4, 100].map((demand, i) => ({ key: `caller ${i}`, every: 400 / demand }))
    const jain = (order: object) => {
      const starts = Array.from(
        run(Throttle.rate({ limit: 5, ...order } as any), loads, 30).values(),
        (waits) => waits.length
      )
      const sum = starts.reduce((a, b) => a + b, 0)
      return sum ** 2 / (starts.length * starts.reduce((a, b) => a + b ** 2, 0))
    }
    assert.isAtLeast(jain({ order: "fair" }), 0.99)
    assert.isBelow(jain({}), 0.3)
  })

  it("weights are respected within 2 %", () => {
    const weights = [0.5, 1, 2, 4]
    const loads = weights.map((weight) => ({ key: `weight ${weight}`, weight, every: 10 }))
    const waits = run(Throttle.rate({ limit: 100, order: "fair" }), loads, 30)
    const total = weights.reduce((a, b) => a + b)
    for (const { key, weight } of loads) {
      assert.closeTo(waits.get(key)!.length / 3_000 / (weight / total), 1, 0.02, key)
    }
  })
})

describe("what callers may try in the fair order", () => {
  /** The permits that each caller has had after a minute of 10 permits per second, if all ask for more. */
  const permitsOf = (
    calls: ReadonlyArray<{ readonly key: string; readonly cost: number; readonly priority?: number }>
  ) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 10, refill: 10, order: "fair", ageing: "1 second" })
      )
      yield* throttle.wait(10)
      const had: Record<string, number> = {}
      for (const { cost, key, priority = 0 } of calls) {
        const note = Effect.sync(() => {
          had[key] = (had[key] ?? 0) + cost
        })
        for (let asked = 0; asked < 600; asked += cost) {
          yield* fork(throttle.withPermits(note, cost).pipe(as(key, { priority })))
        }
      }
      yield* TestClock.adjust("1 minute")
      return had
    })

  it.effect("many small calls get no more than few large ones", () =>
    Effect.gen(function*() {
      const { large, small } = yield* permitsOf([{ key: "small", cost: 1 }, { key: "large", cost: 10 }])
      assert.closeTo(small!, 300, 10)
      assert.closeTo(large!, 300, 10)
    }))

  it.effect("a huge priority gains nothing beside other callers", () =>
    Effect.gen(function*() {
      const { plain, urgent } = yield* permitsOf([
        { key: "urgent", cost: 1, priority: Number.MAX_VALUE },
        { key: "plain", cost: 1 }
      ])
      assert.closeTo(urgent!, 300, 1)
      assert.closeTo(plain!, 300, 1)
    }))

  it.effect("calls of cost 0 take nothing from others, and give no credit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, order: "fair" }))
      yield* throttle.wait()
      const starts = yield* startsOf(throttle, "aab")
      for (let i = 0; i < 100; i++) yield* fork(throttle.withPermits(Effect.void, 0).pipe(as("c")))
      yield* fork(throttle.withPermit(Effect.sync(() => void starts.push("c"))).pipe(as("c")))
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(starts, ["a", "b", "c", "a"])
    }))

  it.effect("each key has a share, so one that uses two keys has two: keys are to be chosen by the app", () =>
    Effect.gen(function*() {
      const had = yield* permitsOf(["one 1", "one 2", "other"].map((key) => ({ key, cost: 1 })))
      for (const permits of Object.values(had)) assert.closeTo(permits, 200, 1)
    }))
})

describe("memory", () => {
  it("callers that came once leave no accounts", () => {
    const simulator = Simulator.make({ operations: 2_048, limit: 100_000_000 })
    const throttle = throttleIn(simulator, Throttle.rate({ limit: 1_000, order: "fair", maxQueue: 100 }))
    const accounts = () => Array.from(limiterOf(throttle).queue.ranking!.ahead()).length
    let most = 0
    for (let i = 0; i < 5_000; i++) {
      simulator.at(i * 0.95, () => {
        simulator.fork(Effect.ignore(throttle.withPermit(Effect.void).pipe(as(`caller ${i}`))))
        if (i % 100 === 0) most = Math.max(most, accounts())
      })
    }
    simulator.run()
    // Those that wait, and those that still owe.
    assert.isAtMost(most, 1_200)
    assert.isAtMost(accounts(), 1_000)
  })

  it("at most 1,000 callers that only owe are remembered, those that owe most", () => {
    const simulator = Simulator.make({ operations: 2_048, limit: 10_000_000 })
    const throttle = throttleIn(
      simulator,
      Throttle.tokenBucket({ capacity: 4, refill: 1_000, per: "1 second", order: "fair" })
    )
    for (let i = 0; i < 3_000; i++) {
      simulator.at(0, () => {
        // Weights make later callers owe more.
        const call = throttle.withPermits(Effect.void, 1 + i % 4)
        simulator.fork(call.pipe(as(`caller ${i}`, { weight: 1 / (1 + i % 7) })))
      })
    }
    simulator.run()
    const ahead = Array.from(limiterOf(throttle).queue.ranking!.ahead())
    assert.isAtMost(ahead.length, 1_000)
  })

  for (
    const [others, isRemembered, expected] of [
      [999, true, ["new", "least", "new", "least", "other 0", "other 0"]],
      [1_000, false, ["least", "new", "least", "new", "other 0", "other 0"]]
    ] as const
  ) {
    const what = isRemembered ? "is remembered" : "is forgotten, and comes again as anew: no further ahead"
    it.effect(`beside ${others} callers that owe, the one that owes least ${what}`, () =>
      Effect.gen(function*() {
        // A permit is a millisecond of the throttle.
        const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 2, refill: 1_000, order: "fair" }))
        const order: Array<string> = []
        const call = (key: string, permits: number) =>
          fork(throttle.withPermits(Effect.sync(() => void order.push(key)), permits).pipe(as(key)))
        yield* throttle.wait(2)
        yield* call("least", 1)
        for (let i = 0; i < others; i++) yield* call(`other ${i}`, 2)
        yield* TestClock.adjust(1 + 2 * others)
        assert.strictEqual(order.length, 1 + others)
        const callers = (yield* throttle.statistics).callers!
        assert.strictEqual(callers.has("least"), isRemembered)
        assert.strictEqual(callers.size, 1_000)

        // They wait together from now on, so none gets more than one call more than another.
        order.length = 0
        for (const key of ["other 0", "least", "new"]) {
          yield* call(key, 1)
          yield* call(key, 1)
        }
        yield* TestClock.adjust(6)
        assert.deepStrictEqual(order, [...expected])
        assertIdle(throttle)
      }))
  }
})
