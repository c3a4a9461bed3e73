/**
 * `allow`: charges a call now if it may start at once, and never waits.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Schema, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, rangeErrorOf, reasonOf } from "./utils/kit.ts"
import { everyStep, interrupt } from "./utils/sweep.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const times = (n: number, throttle: Throttle.Throttle, cost?: Throttle.Cost) =>
  Effect.forEach(Array.from({ length: n }), () => throttle.allow(cost))

describe("allow", () => {
  it.effect("is true and charges, until the next call would wait; then false, and charges nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 2, refill: 1 }))
      assert.deepStrictEqual(yield* times(4, throttle), [true, true, false, false])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* times(2, throttle), [true, false])
      const { admitted, interrupted, waiting } = yield* throttle.statistics
      assert.deepStrictEqual({ admitted, interrupted, waiting }, { admitted: 3, interrupted: 0, waiting: 0 })
    }))

  it.effect("charges a cost by unit, all parts or none", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.window({ limit: 2, per: "1 second" }),
        Throttle.tokenBucket({ capacity: 100, refill: 10, unit: "tokens" })
      ]))
      assert.isTrue(yield* throttle.allow({ tokens: 90 }))
      assert.isFalse(yield* throttle.allow({ tokens: 11 }))
      assert.isTrue(yield* throttle.allow({ tokens: 10 }))
      assert.isFalse(yield* throttle.allow({ tokens: 0 }))
      assert.isTrue(yield* throttle.allow({ tokens: 0, permits: 0 }))
    }))

  it.effect("overtakes no waiting call, not even at no cost", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      yield* throttle.wait()
      const waiting = yield* fork(throttle.wait())
      assert.isFalse(yield* throttle.allow(0))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waiting)
      assert.isTrue(yield* throttle.allow(0))
    }))

  it.effect("is false in a pause, true in shadow", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      yield* throttle.pause("1 second")
      assert.isFalse(yield* throttle.allow())
      yield* throttle.resume
      assert.isTrue(yield* throttle.allow())
      yield* throttle.update(Throttle.shadow(Throttle.rate({ limit: 1 })))
      assert.deepStrictEqual(yield* times(3, throttle), [true, true, true])
      assert.strictEqual((yield* throttle.statistics).waiting, 0)
    }))

  it.effect("fails for what can never be granted, as withPermitsIfAvailable does", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 2, refill: 1 }))
      const [allowed, available] = [
        yield* Effect.exit(throttle.allow(3)),
        yield* Effect.exit(throttle.withPermitsIfAvailable(Effect.void, 3))
      ]
      assert.strictEqual(reasonOf(allowed), "PermitsExceedCapacity")
      assert.strictEqual(reasonOf(available), "PermitsExceedCapacity")
      assert.strictEqual((yield* throttle.statistics).rejected.PermitsExceedCapacity, 2)
      assert.isTrue(yield* throttle.allow(2))
    }))

  it.effect("dies with a RangeError where permits are held, and for an invalid cost; nothing is charged", () =>
    Effect.gen(function*() {
      const held = yield* Throttle.make(Throttle.concurrency({ limit: 3, name: "slots" }))
      assert.strictEqual(
        rangeErrorOf(yield* Effect.exit(held.allow())),
        "throttle \"slots\": allow holds no permits, but \"slots\" limits running calls; use takeScoped or withPermit"
      )
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      for (const cost of [-1, 1.5, NaN, { tokens: 1 }]) {
        rangeErrorOf(yield* Effect.exit(throttle.allow(cost)))
      }
      assert.isTrue(yield* throttle.allow())
    }))

  it.effect("is interrupted once the scope has closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(Throttle.rate({ limit: 1 })), scope)
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(throttle.allow())))
    }))

  it.effect.prop("decides and charges as withPermitsIfAvailable does", {
    which: int(0, 4),
    calls: Schema.Array(Schema.Struct({ gap: int(0, 400), cost: int(0, 3) })).check(Schema.isMaxLength(30))
  }, ({ calls, which }) =>
    Effect.gen(function*() {
      const policy = [
        Throttle.rate({ limit: 5, burst: 2 }),
        Throttle.window({ limit: 4, per: "1 second" }),
        Throttle.window({ limit: 4, per: "1 second", kind: "fixed" }),
        Throttle.spacing({ interval: "200 millis" }),
        Throttle.all([Throttle.rate({ limit: 5, burst: 2 }), Throttle.window({ limit: 4, per: "1 second" })])
      ][which]!
      const [one, other] = [yield* Throttle.make(policy), yield* Throttle.make(policy)]
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      for (const { cost, gap } of calls) {
        yield* TestClock.adjust(gap)
        const ran = yield* Effect.exit(other.withPermitsIfAvailable(Effect.void, cost))
        const allowed = yield* Effect.exit(one.allow(cost))
        const ofKey = yield* Effect.exit(map.allow("a", cost))
        assert.deepStrictEqual(
          [allowed, ofKey].map((exit) => Exit.isSuccess(exit) ? exit.value : reasonOf(exit)),
          [0, 1].map(() => Exit.isSuccess(ran) ? Option.isSome(ran.value) : reasonOf(ran))
        )
        assert.deepStrictEqual(yield* one.remaining, yield* other.remaining)
        assert.deepStrictEqual(yield* one.remaining, yield* map.remaining("a"))
      }
      assertIdle(one)
    }).pipe(Effect.scoped), { arbitrary: { runs: 200 } })

  it("interrupted at any step: it was charged, or it was not; nothing is left behind", () => {
    const steps = everyStep(
      {
        policy: Throttle.tokenBucket({ capacity: 3, refill: 1 }),
        calls: 5,
        use: (throttle, self) => Effect.flatMap(throttle.allow(), (isAllowed) => isAllowed ? self : Effect.void),
        act: interrupt(1, 3)
      },
      "allow",
      ({ order, throttle }, where) => {
        assertIdle(throttle, where)
        const { admitted } = Effect.runSync(throttle.statistics)
        assert.isAtMost(order.length, admitted, where)
        assert.isAtMost(admitted, 3, where)
      }
    )
    assert.isAbove(steps, 5)
  })
})

describe("of a key", () => {
  it.effect("has a budget of its own, and remembers the key", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.rate({ limit: 1 }), maxKeys: 2 })
      assert.isTrue(yield* map.allow("a"))
      assert.isFalse(yield* map.allow("a"))
      assert.isTrue(yield* map.get("b").allow())
      assert.strictEqual(reasonOf(yield* Effect.exit(map.allow("c"))), "KeysExhausted")
      assert.strictEqual((yield* map.statistics).keys, 2)
    }))

  it.effect("overtakes no waiting call of the key, is false in its pause, and dies where permits are held", () =>
    Effect.gen(function*() {
      const held = Throttle.concurrency({ limit: 3 })
      const map = yield* ThrottleMap.make({
        lookup: (key: string) => key === "held" ? held : Throttle.rate({ limit: 1 })
      })
      yield* map.wait("a")
      yield* fork(map.wait("a"))
      assert.isFalse(yield* map.allow("a", 0))
      yield* map.pause("b", "1 second")
      assert.isFalse(yield* map.allow("b"))
      assert.include(rangeErrorOf(yield* Effect.exit(map.allow("held"))), "allow holds no permits")
    }))
})

it.effect("is a function of the module and a static of a class", () =>
  Effect.gen(function*() {
    class Api extends Throttle.Service<Api>()("app/Api", Throttle.rate({ limit: 1 })) {}
    const program = Effect.all([Api.allow(), Api.allow(), Throttle.allow(), Throttle.allow()])
    assert.deepStrictEqual(
      yield* program.pipe(Effect.provide(Api.layer), Effect.provide(Throttle.rate({ limit: 1 }))),
      [true, false, true, false]
    )
  }))
