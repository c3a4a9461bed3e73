/**
 * `reset`: forgets what is spent and owed. What is held, who waits and a pause stay.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Schema, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, freeOf, startsOf, statisticsOf, throttleIn } from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"
import { assertOrder, assertUsable, everyStep, interrupt, type Swept } from "./utils/sweep.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const leftOf = (throttle: Throttle.Throttle) =>
  Effect.map(throttle.remaining, (parts) => parts.map(({ remaining }) => remaining))

/** Each lets one call start at once. */
const policies: Record<string, Throttle.Policy<never>> = {
  rate: Throttle.rate({ limit: 1, per: "1 minute" }),
  tokenBucket: Throttle.tokenBucket({ capacity: 1, refill: 1, per: "1 minute" }),
  "window, sliding": Throttle.window({ limit: 1, per: "1 minute" }),
  "window, fixed": Throttle.window({ limit: 1, per: "1 minute", kind: "fixed" }),
  spacing: Throttle.spacing({ interval: "1 minute" }),
  "spacing, from the end": Throttle.spacing({ interval: "1 minute", from: "end" }),
  all: Throttle.all([
    Throttle.rate({ limit: 1, per: "1 minute" }),
    Throttle.window({ limit: 1, per: "1 minute" }),
    Throttle.spacing({ interval: "1 minute", from: "end" })
  ])
}

describe("what is spent", () => {
  for (const [name, policy] of Object.entries(policies)) {
    it.effect(`${name}: is forgotten, and a call starts at once`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const before = yield* throttle.remaining
        yield* throttle.withPermit(Effect.void)
        assert.include(yield* leftOf(throttle), 0)
        yield* throttle.reset
        assert.deepStrictEqual(yield* throttle.remaining, before)
        const starts = yield* startsOf(throttle, 2)
        assert.deepStrictEqual(starts, [0])
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [0, 60_000])
      }))
  }

  it.effect("what is owed beyond the capacity is forgotten too", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1 }))
      yield* throttle.usePermits((permit) => permit.settle(1_000), 5)
      yield* throttle.reset
      assert.deepStrictEqual(yield* leftOf(throttle), [10])
    }))

  it.effect("a bucket with an initial fill is full afterwards", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1, initial: 2 }))
      yield* throttle.reset
      assert.deepStrictEqual(yield* leftOf(throttle), [10])
    }))

  it.effect("aligned starts stay on the clock", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", align: true }))
      yield* throttle.wait()
      yield* throttle.reset
      const starts = yield* startsOf(throttle, 3)
      yield* TestClock.adjust("2 seconds")
      // The slot of this instant once more, since it is forgotten that it was used.
      assert.deepStrictEqual(starts, [0, 1_000, 2_000])
    }))
})

describe("what stays", () => {
  it.effect("waiting calls keep their order, and start as far as they now may", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 2, per: "1 minute" }))
      const starts = yield* startsOf(throttle, 7)
      assert.deepStrictEqual(starts, [0, 0])
      yield* TestClock.adjust("10 seconds")
      yield* throttle.reset
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [0, 0, 10_000, 10_000])
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(starts, [0, 0, 10_000, 10_000, 70_000, 70_000, 130_000])
      assertIdle(throttle)
    }))

  it.effect("held permits stay held; the end of a running call is charged when it comes", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.rate({ limit: 1, per: "1 hour", burst: 9 }),
        Throttle.concurrency({ limit: 2 }),
        Throttle.spacing({ interval: "5 seconds", from: "end", unit: "ends" })
      ])
      const throttle = yield* Throttle.make(policy)
      const running = yield* fork(throttle.withPermits({ permits: 1, ends: 1 })(Effect.sleep("2 seconds")))
      yield* throttle.reset
      assert.deepStrictEqual(freeOf(throttle).map(([, free]) => free), [1, 0])
      assert.deepStrictEqual(yield* leftOf(throttle), [10, 0, 1])
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(running)
      const [bucket, ends] = yield* throttle.remaining
      assert.strictEqual(bucket!.remaining, 10)
      assert.deepStrictEqual(ends!.untilFull, Duration.seconds(5))
      assertIdle(throttle)
    }))

  it.effect("a pause stays", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 1, per: "1 minute" }))
      yield* throttle.wait()
      yield* throttle.pause("10 seconds")
      const starts = yield* startsOf(throttle, 1)
      yield* throttle.reset
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(starts, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [10_000])
    }))

  it.effect("statistics stay, and deadlines", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.concurrency({ limit: 1 })], { timeout: "5 seconds" })
      )
      yield* fork(throttle.withPermit(Effect.never))
      yield* fork(Effect.ignore(throttle.withPermit(Effect.void)))
      yield* TestClock.adjust("3 seconds")
      yield* throttle.reset
      yield* TestClock.adjust("2 seconds")
      const { admitted, rejected, waiting } = yield* throttle.statistics
      assert.deepStrictEqual([admitted, rejected.TimedOut, waiting], [1, 1, 0])
    }))
})

describe("a call that started before", () => {
  for (const how of ["settled to less", "settled to more", "cancelled", "closed"] as const) {
    it.effect(`${how} afterwards, changes no charge`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.all([
          Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 minute" }),
          Throttle.window({ limit: 10, per: "1 minute" }),
          Throttle.window({ limit: 10, per: "1 minute", kind: "fixed" }),
          Throttle.spacing({ interval: "1 second" })
        ]))
        const scope = yield* Scope.make()
        const permit = yield* Scope.provide(throttle.takeScoped(6), scope)
        yield* throttle.reset
        // At the same instant, so that a window could take the one for the other.
        yield* Effect.scoped(throttle.takeScoped(8))
        assert.deepStrictEqual(yield* leftOf(throttle), [2, 2, 2, 0])
        if (how === "settled to less") yield* permit.settle(1)
        if (how === "settled to more") yield* permit.settle(9)
        if (how === "cancelled") yield* permit.cancel
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* leftOf(throttle), [2, 2, 2, 0])
        assertIdle(throttle)
      }))
  }

  it.effect("while it waited is charged when it starts, and can be settled", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 minute" }))
      yield* throttle.wait(10)
      const waiting = yield* fork(throttle.usePermits((permit) => permit.settle(3), 8))
      yield* throttle.reset
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* leftOf(throttle), [7])
    }))
})

/** Random calls: each takes permits if it may at once, and is settled or cancelled later. */
const Calls = Schema.Array(Schema.Struct({
  gap: int(0, 600),
  cost: int(1, 4),
  end: Schema.Literals(["settle", "cancel", "close", "keep"]),
  actual: int(0, 8)
})).check(Schema.isMaxLength(12))

describe("afterwards", () => {
  for (
    const policy of [
      Throttle.rate({ limit: 5, burst: 3 }),
      Throttle.tokenBucket({ capacity: 4, refill: 3 }),
      Throttle.window({ limit: 5, per: "1 second" }),
      Throttle.window({ limit: 5, per: "1 second", kind: "fixed" }),
      Throttle.spacing({ interval: "250 millis" }),
      Throttle.all([
        Throttle.tokenBucket({ capacity: 4, refill: 3 }),
        Throttle.window({ limit: 5, per: "1 second" }),
        Throttle.concurrency({ limit: 100 })
      ])
    ]
  ) {
    it.effect.prop(
      `${Throttle.describe(policy)}: it acts as a new throttle, whatever becomes of the calls before`,
      { before: Calls, after: Calls },
      ({ after, before }) =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          const scope = yield* Effect.scope
          const take = (throttle: Throttle.Throttle, cost: number) =>
            Effect.gen(function*() {
              const wait = yield* throttle.estimateWait(cost)
              const isReady = wait._tag === "Some" && Duration.toMillis(wait.value) === 0
              return isReady ? yield* Scope.provide(throttle.takeScoped(cost), scope) : undefined
            })
          const finish = (permit: Throttle.Permit, { actual, end }: typeof Calls.Type[number]) =>
            end === "settle" ? permit.settle(actual) : end === "cancel" ? permit.cancel : Effect.void
          const open: Array<Effect.Effect<void>> = []
          for (const call of before) {
            yield* TestClock.adjust(call.gap)
            const permit = yield* take(throttle, call.cost)
            if (permit !== undefined) open.push(finish(permit, call))
          }
          // Some end before, some after it.
          yield* Effect.forEach(open.splice(0, Math.floor(open.length / 2)), (ended) => ended)
          const held = (yield* throttle.statistics).running
          yield* throttle.reset
          const fresh = yield* Throttle.make(policy)
          const meters = (parts: ReadonlyArray<Throttle.Remaining>) =>
            parts.filter(({ kind }) => kind !== "concurrency")
          assert.deepStrictEqual(meters(yield* throttle.remaining), meters(yield* fresh.remaining))
          for (const call of after) {
            yield* TestClock.adjust(call.gap)
            const [one, other] = [yield* take(throttle, call.cost), yield* take(fresh, call.cost)]
            assert.strictEqual(one === undefined, other === undefined)
            if (one !== undefined && other !== undefined) yield* Effect.andThen(finish(one, call), finish(other, call))
            const late = open.shift()
            if (late !== undefined) yield* late
            assert.deepStrictEqual(meters(yield* throttle.remaining), meters(yield* fresh.remaining))
          }
          assert.isAtLeast((yield* throttle.statistics).running, held - before.length)
        }).pipe(Effect.scoped),
      { arbitrary: { runs: 60 } }
    )
  }
})

describe("lateness", () => {
  /** One start a millisecond; timers wake 8 ms late. */
  const setting = () => {
    const simulator = Simulator.make({ late: () => 8 })
    const throttle = throttleIn(simulator, Throttle.rate({ limit: 1_000 }))
    const starts: Array<number> = []
    const first = simulator.now()
    const call = throttle.withPermit(Effect.sync(() => void starts.push(simulator.now() - first)))
    return {
      calls: (n: number) => {
        for (let i = 0; i < n; i++) simulator.fork(call)
      },
      /** Acts so many milliseconds after the beginning. */
      at: (millis: number, act: () => void) => simulator.at(first + millis, act),
      reset: () => void simulator.fork(throttle.reset),
      startsUntil: (millis: number) => {
        simulator.run()
        return starts.map((at) => Math.round(at * 1e3) / 1e3).filter((at) => at <= millis)
      }
    }
  }

  it("is made up for without a reset", () => {
    const { at, calls, startsUntil } = setting()
    calls(20)
    at(9, () => {})
    assert.deepStrictEqual(startsUntil(9), [0, 9, 9, 9, 9, 9, 9, 9, 9, 9])
  })

  it("a head whose timer is late is charged from the reset on", () => {
    const { at, calls, reset, startsUntil } = setting()
    calls(20)
    at(6, reset)
    assert.deepStrictEqual(startsUntil(6), [0, 6])
  })

  it("that of the latest start does not count for calls that arrive later", () => {
    const { at, calls, reset, startsUntil } = setting()
    calls(2)
    at(9.5, reset)
    at(13, () => calls(2))
    assert.deepStrictEqual(startsUntil(13.5), [0, 9, 13])
  })
})

describe("in shadow", () => {
  it.effect("the simulation is reset", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.window({ limit: 1, per: "1 minute" })))
      for (let i = 0; i < 3; i++) yield* throttle.wait()
      assert.strictEqual((yield* throttle.statistics).waiting, 2)
      yield* TestClock.adjust("1 second")
      yield* throttle.reset
      // The first of those that wait in the simulation starts there.
      const { admitted, waiting, waited } = yield* throttle.statistics
      assert.deepStrictEqual([admitted, waiting, Duration.toMillis(waited)], [2, 1, 1_000])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* throttle.statistics).waiting, 0)
    }))

  it.effect("a simulated call that is settled afterwards changes no charge", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.tokenBucket({ capacity: 10, refill: 1 })))
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(throttle.takeScoped(6), scope)
      yield* throttle.reset
      yield* throttle.wait(4)
      yield* permit.cancel
      assert.deepStrictEqual(yield* leftOf(throttle), [6])
      yield* Scope.close(scope, Exit.void)
    }))
})

describe("at every step", () => {
  const reset = ({ simulator, throttle }: Swept): void => void simulator.fork(throttle.reset)

  const cases: Record<string, Throttle.Policy<any>> = {
    bucket: Throttle.tokenBucket({ capacity: 2, refill: 100 }),
    window: Throttle.window({ limit: 2, per: "30 millis" }),
    "all with concurrency": Throttle.all([
      Throttle.rate({ limit: 100, burst: 1 }),
      Throttle.concurrency({ limit: 1 })
    ]),
    "spacing from the end": Throttle.spacing({ interval: "20 millis", from: "end" })
  }

  for (const [name, policy] of Object.entries(cases)) {
    it(`${name}: every call runs in its order, and nothing is left behind`, () => {
      everyStep(
        { policy, calls: 5, use: (throttle, self) => throttle.withPermit(self), act: reset },
        name,
        (swept, where) => {
          assertOrder(swept, where)
          assert.strictEqual(swept.order.length, 5, where)
          assertIdle(swept.throttle, where)
          assert.strictEqual(statisticsOf(swept.throttle).admitted, 5, where)
        }
      )
    })

    it(`${name}: with calls that are settled and interrupted, nothing is left behind and no credit arises`, () => {
      everyStep(
        {
          policy,
          calls: 5,
          use: (throttle, self) =>
            throttle.usePermits((permit) => Effect.andThen(self, Effect.andThen(permit.settle(0), self)), 1),
          act: (swept) => {
            reset(swept)
            interrupt(1)(swept)
          }
        },
        name,
        (swept, where) => {
          assertIdle(swept.throttle, where)
          for (const { limit, remaining } of Effect.runSync(swept.throttle.remaining)) {
            assert.isAtMost(remaining, limit, where)
          }
          assertUsable(swept, where)
        }
      )
    })
  }

  it("interrupted itself, it is done or it is not; an update at its step harms nothing", () => {
    everyStep(
      {
        policy: Throttle.window({ limit: 1, per: "30 millis" }),
        calls: 3,
        use: (throttle, self) => throttle.withPermit(self),
        act: ({ simulator, throttle }) => {
          simulator.fork(throttle.reset).interruptUnsafe()
          simulator.fork(throttle.update(Throttle.window({ limit: 1, per: "20 millis" })))
          simulator.fork(throttle.reset)
        }
      },
      "interrupted",
      (swept, where) => {
        assertOrder(swept, where)
        assert.strictEqual(swept.order.length, 3, where)
        assertIdle(swept.throttle, where)
      }
    )
  })
})

describe("of a key", () => {
  const policy = Throttle.window({ limit: 1, per: "1 hour" })

  it.effect("is forgotten, and the key with it; other keys are not affected", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      yield* map.allow("a")
      yield* map.allow("b")
      yield* map.reset("a")
      assert.strictEqual((yield* map.statistics).keys, 1)
      assert.deepStrictEqual([yield* map.allow("a"), yield* map.allow("b")], [true, false])
      yield* map.get("b").reset
      assert.isTrue(yield* map.allow("b"))
    }))

  it.effect("its waiting calls start as far as they may, and its pause stays", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      const starts = yield* startsOf(map.get("a"), 3)
      yield* map.reset("a")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [0, 0])
      yield* map.pause("b", "1 second")
      yield* map.reset("b")
      assert.isFalse(yield* map.allow("b"))
    }))

  it.effect("a call of before that is settled afterwards changes no charge, and the key is dropped at last", () =>
    Effect.gen(function*() {
      const bucket = Throttle.tokenBucket({ capacity: 10, refill: 1 })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => bucket })
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(map.takeScoped("a", 6), scope)
      yield* map.reset("a")
      yield* map.wait("a", 4)
      yield* permit.cancel
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual((yield* map.remaining("a")).map(({ remaining }) => remaining), [6])
      yield* TestClock.adjust("10 seconds")
      yield* Effect.forEach(Array.from({ length: 40 }), (_, i) => map.wait(`key ${i}`))
      yield* TestClock.adjust("10 seconds")
      yield* Effect.forEach(Array.from({ length: 40 }), () => map.wait("other", 0))
      assert.isAtMost((yield* map.statistics).keys, 1)
    }))

  it.effect("does nothing for a key that is not remembered, nor once the map has closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const map = yield* Scope.provide(ThrottleMap.make({ lookup: (_key: string) => policy }), scope)
      yield* map.reset("a")
      assert.strictEqual((yield* map.statistics).keys, 0)
      yield* Scope.close(scope, Exit.void)
      yield* map.reset("a")
    }))
})

it.effect("is a value of the module and a static of a class", () =>
  Effect.gen(function*() {
    class Api extends Throttle.Service<Api>()("app/Api", Throttle.window({ limit: 1, per: "1 hour" })) {}
    const program = Effect.all([Api.allow(), Api.allow(), Effect.as(Api.reset, "reset"), Api.allow()])
    assert.deepStrictEqual(yield* program.pipe(Effect.provide(Api.layer)), [true, false, "reset", true])
    const generic = Effect.all([Throttle.allow(), Effect.as(Throttle.reset, "reset"), Throttle.allow()])
    assert.deepStrictEqual(yield* generic.pipe(Effect.provide(Throttle.rate({ limit: 1 }))), [true, "reset", true])
  }))
