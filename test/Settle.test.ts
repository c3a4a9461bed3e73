/**
 * Settling: what a call has cost is charged or returned, once, while it still holds its permit.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Option, Schema, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { TestClock } from "effect/testing"
import {
  assertIdle,
  firstMeterOf,
  fork,
  now,
  onlyFreeOf,
  rangeErrorOf,
  remainingOf,
  settled,
  statisticsOf,
  throttleIn
} from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"

/** Each has a capacity of 10 permits; a bucket wins one back every 100 ms. */
const kinds = {
  rate: Throttle.rate({ limit: 10, burst: 9 }),
  tokenBucket: Throttle.tokenBucket({ capacity: 10, refill: 10 }),
  "sliding window": Throttle.window({ limit: 10, per: "1 second" }),
  "fixed window": Throttle.window({ limit: 10, per: "1 second", kind: "fixed" })
}
type Kind = keyof typeof kinds

const everyKind = Object.entries(kinds) as ReadonlyArray<[Kind, Throttle.Policy<never>]>

const requests = Throttle.tokenBucket({ capacity: 4, refill: 1, name: "requests" })
const tokens = Throttle.tokenBucket({ capacity: 1_000, refill: 100, unit: "tokens", name: "tokens" })

/** A permit, and what closes its scope. */
const take = (throttle: Throttle.Throttle, cost?: Throttle.Cost) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const permit = yield* Scope.provide(throttle.takeScoped(cost), scope)
    return { permit, close: Scope.close(scope, Exit.void) }
  })

/** A call that asks now, and when it started. */
const startOf = (throttle: Throttle.Throttle, cost: Throttle.Cost = 1) => fork(throttle.withPermits(now, cost))

/** Milliseconds until each of these costs could start. */
const waits = (throttle: Throttle.Throttle, costs: ReadonlyArray<Throttle.Cost>) =>
  Effect.forEach(
    costs,
    (cost) =>
      Effect.map(throttle.estimateWait(cost), (wait) => Option.getOrUndefined(Option.map(wait, Duration.toMillis)))
  )

describe("settling for more", () => {
  /** At 200 ms, settled from 10 to 15: how long 1 and 10 have to wait. */
  const expected: Record<Kind, Array<number>> = {
    rate: [400, 1_300],
    tokenBucket: [400, 1_300],
    "sliding window": [800, 1_000],
    "fixed window": [800, 800]
  }

  for (const [name, policy] of everyKind) {
    it.effect(`${name}: delays the next, not the present one`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const ended = yield* throttle.usePermits(10)((permit) =>
          Effect.gen(function*() {
            yield* TestClock.adjust(200)
            yield* permit.settle(15)
            assert.deepStrictEqual(yield* waits(throttle, [1, 10]), expected[name])
            return yield* now
          })
        )
        assert.strictEqual(ended, 200)
        const next = yield* startOf(throttle)
        yield* TestClock.adjust(expected[name][0]! - 1)
        assert.isUndefined(next.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.closeTo(yield* Fiber.join(next), 200 + expected[name][0]!, 2e-3)
      }))
  }

  it.effect("delays waiting calls beyond the estimate that they were given", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const { permit } = yield* take(throttle, 10)
      const next = yield* startOf(throttle)
      yield* TestClock.adjust(50)
      yield* permit.settle(12)
      yield* TestClock.adjust(249)
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(next), 300)
    }))

  it.effect("debts of several calls add up", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const one = yield* take(throttle, 5)
      const other = yield* take(throttle, 5)
      yield* one.permit.settle(10)
      yield* other.permit.settle(15)
      assert.deepStrictEqual(yield* waits(throttle, [1, 10]), [1_600, 2_500])
      yield* one.close
      yield* other.close
      assert.deepStrictEqual(yield* waits(throttle, [1, 10]), [1_600, 2_500])
    }))

  it.effect("more than the policy can ever grant is charged all the same", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const { permit } = yield* take(throttle, 1)
      yield* permit.settle(1_000)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [99_100])
    }))

  it.effect("a cost that was estimated as 0 is charged", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds["sliding window"])
      const { permit } = yield* take(throttle, 0)
      yield* TestClock.adjust(100)
      yield* permit.settle(10)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
    }))

  it.effect("a call that is due at this very instant waits on if it is settled first", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const { permit } = yield* take(throttle, 10)
      // Its own timer was set first, so it settles before the waiter's timer ends.
      const settling = yield* fork(Effect.andThen(Effect.sleep(100), permit.settle(11)))
      const next = yield* startOf(throttle)
      yield* TestClock.adjust(199)
      yield* Fiber.join(settling)
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(next), 200)
    }))
})

describe("settling for less", () => {
  for (const [name, policy] of everyKind) {
    it.effect(`${name}: waiting calls that may start now start at once`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const { permit } = yield* take(throttle, 10)
        const first = yield* startOf(throttle, 6)
        const second = yield* startOf(throttle, 3)
        const third = yield* startOf(throttle, 2)
        yield* TestClock.adjust(7)
        yield* permit.settle(1)
        yield* settled
        assert.strictEqual(first.pollUnsafe() && (yield* Fiber.join(first)), 7)
        assert.strictEqual(second.pollUnsafe() && (yield* Fiber.join(second)), 7)
        assert.isUndefined(third.pollUnsafe())
        // 1 at 0 ms, 6 and 3 at 7 ms are spent.
        yield* TestClock.adjust(2_000)
        const expected = { rate: 200, tokenBucket: 200, "sliding window": 1_007, "fixed window": 1_000 }
        assert.closeTo(yield* Fiber.join(third), expected[name], 2e-3)
      }))

    it.effect(`${name}: settled for nothing it is as if it had not come`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const { permit } = yield* take(throttle, 10)
        yield* TestClock.adjust(30)
        yield* permit.settle(0)
        assert.deepStrictEqual(yield* waits(throttle, [1, 10]), [0, 0])
      }))

    it.effect(`${name}: settling does not return what has expired`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const { permit } = yield* take(throttle, 10)
        yield* TestClock.adjust(1_000)
        yield* throttle.wait(10)
        const before = yield* waits(throttle, [1, 10])
        yield* permit.settle(0)
        assert.deepStrictEqual(yield* waits(throttle, [1, 10]), before)
        assert.isAbove(before[0]!, 0)
      }))
  }

  it.effect("in any order of several", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const one = yield* take(throttle, 4)
      yield* TestClock.adjust(100)
      const other = yield* take(throttle, 6)
      yield* TestClock.adjust(100)
      // Without what they did not spend: 1 at 0 ms, which is gone, and 2 at 100 ms, of which 1 is left.
      yield* other.permit.settle(2)
      yield* one.permit.settle(1)
      assert.deepStrictEqual(yield* waits(throttle, [9, 10]), [0, 100])
    }))

  it.effect("a light call does not pass the heavy one that may not start yet", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds["fixed window"])
      const { permit } = yield* take(throttle, 10)
      const heavy = yield* startOf(throttle, 8)
      const light = yield* startOf(throttle, 1)
      yield* TestClock.adjust(5)
      yield* permit.settle(5)
      yield* settled
      assert.deepStrictEqual([heavy.pollUnsafe(), light.pollUnsafe()], [undefined, undefined])
      yield* TestClock.adjust(995)
      assert.strictEqual(yield* Fiber.join(heavy), 1_000)
      assert.strictEqual(yield* Fiber.join(light), 1_000)
    }))

  it.effect("spacing: a start is a start, whatever it has cost", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second" }))
      const { permit } = yield* take(throttle, 3)
      yield* TestClock.adjust(200)
      yield* permit.settle(0)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [800])
    }))

  it.effect("permits that are held all come back at the end, and none sooner", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      const { close, permit } = yield* take(throttle, 3)
      yield* permit.settle(1)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [undefined])
      yield* close
      assertIdle(throttle)
    }))
})

describe("a settlement", () => {
  it.effect("for the same changes nothing", () =>
    Effect.gen(function*() {
      for (const [name, policy] of everyKind) {
        const throttle = yield* Throttle.make(policy)
        const { permit } = yield* take(throttle, 7)
        yield* TestClock.adjust(50)
        const before = yield* waits(throttle, [1, 4, 10])
        yield* permit.settle(7)
        assert.deepStrictEqual(yield* waits(throttle, [1, 4, 10]), before, name)
        // It was the settlement.
        yield* permit.settle(0)
        assert.deepStrictEqual(yield* waits(throttle, [1, 4, 10]), before, name)
      }
    }))

  it.effect("counts once: later ones, and cancel, change nothing", () =>
    Effect.gen(function*() {
      for (const [name, policy] of everyKind) {
        const throttle = yield* Throttle.make(policy)
        const { close, permit } = yield* take(throttle, 10)
        yield* permit.settle(6)
        const after = yield* waits(throttle, [4, 5, 10])
        assert.strictEqual(after[0], 0)
        yield* permit.settle(0)
        yield* permit.settle(30)
        yield* permit.cancel
        assert.deepStrictEqual(yield* waits(throttle, [4, 5, 10]), after, name)
        yield* close
        assert.deepStrictEqual(yield* waits(throttle, [4, 5, 10]), after, name)
        assertIdle(throttle, name)
      }
    }))

  it.effect("after the first does not give held permits back", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const { close, permit } = yield* take(throttle)
      yield* permit.settle(1)
      yield* permit.cancel
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* close
      assertIdle(throttle)
    }))

  it.effect("after the scope has closed changes nothing", () =>
    Effect.gen(function*() {
      for (const [name, policy] of everyKind) {
        const throttle = yield* Throttle.make(Throttle.all([policy, Throttle.concurrency({ limit: 20 })]))
        const { close, permit } = yield* take(throttle, 10)
        yield* close
        const after = yield* waits(throttle, [1, 10])
        yield* permit.settle(0)
        yield* permit.settle(20)
        yield* permit.cancel
        assert.deepStrictEqual(yield* waits(throttle, [1, 10]), after, name)
        assertIdle(throttle, name)
      }
    }))

  it.effect("outside the function of usePermits changes nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const permit = yield* throttle.usePermits(Effect.succeed, 10)
      yield* permit.settle(0)
      yield* permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [1]), [100])
      assertIdle(throttle)
    }))

  it.effect("of a cost that makes no sense dies, and is still to be made", () =>
    Effect.gen(function*() {
      const bad: ReadonlyArray<readonly [any, string]> = [
        [-1, "a cost must be an integer ≥ 0, received -1 for \"permits\""],
        [1.5, "a cost must be an integer ≥ 0, received 1.5 for \"permits\""],
        [NaN, "a cost must be an integer ≥ 0, received NaN for \"permits\""],
        [Infinity, "a cost must be an integer ≥ 0, received Infinity for \"permits\""],
        ["3", "a cost must be a number of permits or an amount for each unit, received \"3\""],
        [null, "a cost must be a number of permits or an amount for each unit, received null"],
        [undefined, "a cost must be a number of permits or an amount for each unit, received undefined"],
        [{ tokens: -2 }, "a cost must be an integer ≥ 0, received -2 for \"tokens\""],
        [{ words: 3 }, "unknown unit \"words\"; this policy counts: \"permits\", \"tokens\""]
      ]
      for (const [cost, message] of bad) {
        const throttle = yield* Throttle.make(Throttle.all([requests, tokens], { name: "api" }))
        const { permit } = yield* take(throttle, { tokens: 1_000 })
        const before = yield* waits(throttle, [{ tokens: 1 }])
        const settle = yield* Effect.sync(() => permit.settle(cost))
        assert.strictEqual(rangeErrorOf(yield* Effect.exit(settle)), `throttle "api": ${message}`)
        assert.deepStrictEqual(yield* waits(throttle, [{ tokens: 1 }]), before)
        yield* permit.settle({ tokens: 100 })
        assert.deepStrictEqual(yield* waits(throttle, [{ tokens: 900 }, { tokens: 901 }]), [0, 10])
      }
    }))

  it.effect("contains the estimated cost", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([requests, tokens]))
      assert.deepStrictEqual((yield* take(throttle)).permit.cost, 1)
      assert.deepStrictEqual((yield* take(throttle, 2)).permit.cost, 2)
      assert.deepStrictEqual((yield* take(throttle, { tokens: 30 })).permit.cost, { tokens: 30 })
    }))
})

describe("after an update of the same numbers", () => {
  it.effect("spacing is cancelled as before", () =>
    Effect.gen(function*() {
      const policy = Throttle.spacing({ interval: "10 seconds" })
      const throttle = yield* Throttle.make(policy)
      yield* throttle.usePermits(1)((permit) => Effect.andThen(throttle.update(policy), permit.cancel))
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.zero))
    }))
})

describe("several parts", () => {
  const all = Throttle.all([requests, tokens, Throttle.concurrency({ limit: 2, name: "slots" })])

  /** What is left in each bucket, and of the permits. */
  const left = (throttle: Throttle.Throttle) =>
    Effect.sync(() => {
      const [requests, tokens] = remainingOf(throttle)
      return { requests, tokens, slots: onlyFreeOf(throttle) }
    })

  it.effect("each is settled once, in its own unit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { close, permit } = yield* take(throttle, { tokens: 800 })
      assert.deepStrictEqual(yield* left(throttle), { requests: 3, tokens: 200, slots: 1 })
      yield* permit.settle({ tokens: 250 })
      assert.deepStrictEqual(yield* left(throttle), { requests: 3, tokens: 750, slots: 1 })
      yield* close
      assert.deepStrictEqual(yield* left(throttle), { requests: 3, tokens: 750, slots: 2 })
    }))

  it.effect("one for more and one for less", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { permit } = yield* take(throttle, { permits: 2, tokens: 100 })
      yield* permit.settle({ permits: 1, tokens: 1_300 })
      assert.deepStrictEqual(yield* left(throttle), { requests: 3, tokens: 0, slots: 0 })
      // 301 at 100 a second: 300 are owed.
      const wait = yield* throttle.estimateWait({ permits: 0, tokens: 1 })
      assert.deepStrictEqual(wait, Option.some(Duration.millis(3_010)))
    }))

  it.effect("a number is permits; other units stay as estimated", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { permit } = yield* take(throttle, { permits: 2, tokens: 100 })
      yield* permit.settle(2)
      assert.deepStrictEqual(yield* left(throttle), { requests: 2, tokens: 900, slots: 0 })
    }))

  it.effect("a unit without an estimate is charged when it is settled", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { permit } = yield* take(throttle)
      yield* permit.settle({ permits: 1, tokens: 70 })
      assert.deepStrictEqual(yield* left(throttle), { requests: 3, tokens: 930, slots: 1 })
    }))

  it.effect("cancel returns all of it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { close, permit } = yield* take(throttle, { permits: 2, tokens: 100 })
      yield* permit.cancel
      assert.deepStrictEqual(yield* left(throttle), { requests: 4, tokens: 1_000, slots: 2 })
      yield* close
      assert.deepStrictEqual(yield* left(throttle), { requests: 4, tokens: 1_000, slots: 2 })
      assertIdle(throttle)
    }))

  it.effect("a waiter starts when the last of them lets it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(all)
      const { close, permit } = yield* take(throttle, { permits: 2, tokens: 1_000 })
      const next = yield* startOf(throttle, { tokens: 500 })
      yield* TestClock.adjust(100)
      yield* permit.settle({ permits: 2, tokens: 300 })
      yield* settled
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust(23)
      yield* close
      yield* settled
      assert.strictEqual(yield* Fiber.join(next), 123)
    }))
})

describe("without a settlement the estimate stands", () => {
  it.effect.each<readonly [string, Effect.Effect<never, string>]>([
    ["a call that fails", Effect.fail("no")],
    ["one that dies", Effect.die("bug")],
    ["one that is interrupted", Effect.interrupt]
  ])("%s", ([, effect]) =>
    Effect.gen(function*() {
      for (const [name, policy] of everyKind) {
        const throttle = yield* Throttle.make(policy)
        const exit = yield* Effect.exit(throttle.usePermits(() => effect, 10))
        assert.deepStrictEqual(exit, yield* Effect.exit(effect))
        assert.notDeepEqual(yield* waits(throttle, [1]), [0], name)
        assertIdle(throttle, name)
      }
    }))

  it.effect("what was settled before the failure is settled", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      yield* Effect.exit(throttle.usePermits((permit) => Effect.andThen(permit.settle(2), Effect.fail("no")), 10))
      assert.deepStrictEqual(yield* waits(throttle, [8, 9]), [0, 100])
    }))

  it.effect("a fiber that is interrupted in the middle", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([kinds.tokenBucket, Throttle.concurrency({ limit: 10 })]))
      const fiber = yield* fork(throttle.usePermits((permit) => Effect.andThen(Effect.never, permit.settle(0)), 10))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [100])
      assertIdle(throttle)
    }))

  it.effect("a function that throws", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([kinds.tokenBucket, Throttle.concurrency({ limit: 10 })]))
      const exit = yield* Effect.exit(throttle.usePermits((): Effect.Effect<void> => {
        throw new RangeError("thrown")
      }, 10))
      assert.strictEqual(rangeErrorOf(exit), "thrown")
      assertIdle(throttle)
    }))
})

describe("cancel", () => {
  it.effect("gives held permits back at once, and the close of the scope then nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      const { close, permit } = yield* take(throttle, 2)
      const next = yield* fork(throttle.withPermits(Effect.never, 2))
      yield* permit.cancel
      yield* settled
      assert.strictEqual((yield* throttle.statistics).running, 1)
      assert.strictEqual((yield* throttle.statistics).waiting, 0)
      yield* close
      yield* permit.cancel
      const last = yield* startOf(throttle)
      yield* settled
      assert.isUndefined(last.pollUnsafe())
      assert.strictEqual(onlyFreeOf(throttle), 0)
      yield* Fiber.interrupt(next)
      yield* Fiber.join(last)
      yield* settled
      assertIdle(throttle)
    }))

  it.effect("lets waiting calls start at once that may start now", () =>
    Effect.gen(function*() {
      for (const [name, policy] of everyKind) {
        const throttle = yield* Throttle.make(policy)
        const { close, permit } = yield* take(throttle, 10)
        const begun = yield* now
        const next = yield* startOf(throttle, 10)
        yield* TestClock.adjust(3)
        yield* permit.cancel
        yield* settled
        assert.strictEqual(next.pollUnsafe() && (yield* Fiber.join(next)), begun + 3, name)
        yield* close
        assertIdle(throttle, name)
      }
    }))

  it.effect("inside usePermits: the effect continues without permits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const order: Array<string> = []
      yield* throttle.usePermits(1)((permit) =>
        Effect.gen(function*() {
          const next = yield* fork(throttle.withPermit(Effect.sync(() => void order.push("next"))))
          yield* permit.cancel
          yield* Fiber.join(next)
          order.push("first")
        })
      )
      assert.deepStrictEqual(order, ["next", "first"])
      yield* settled
      assertIdle(throttle)
    }))

  it.effect("by another fiber while the first one runs", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([kinds.tokenBucket, Throttle.concurrency({ limit: 10 })]))
      const given = yield* Deferred.make<Throttle.Permit>()
      const holder = yield* fork(
        throttle.usePermits((permit) => Effect.andThen(Deferred.succeed(given, permit), Effect.sleep(50)), 10)
      )
      const permit = yield* Deferred.await(given)
      yield* Effect.all([permit.cancel, permit.cancel, permit.settle(4)], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* waits(throttle, [10]), [0])
      yield* TestClock.adjust(50)
      yield* Fiber.join(holder)
      assertIdle(throttle)
    }))

  it.effect.each(["rate", "tokenBucket"] as const)("%s: after others have started", (name) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds[name])
      const { permit } = yield* take(throttle, 10)
      yield* TestClock.adjust(600)
      yield* throttle.wait(6)
      yield* TestClock.adjust(100)
      yield* permit.cancel
      // Without it: 6 at 600 ms, 5 of them left at 700.
      assert.deepStrictEqual(yield* waits(throttle, [5, 6, 10]), [0, 100, 500])
    }))

  it.effect("sliding window: after others have started", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds["sliding window"])
      const { permit } = yield* take(throttle, 6)
      yield* throttle.wait(1)
      yield* TestClock.adjust(600)
      yield* throttle.wait(3)
      yield* permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [6, 7, 8]), [0, 400, 1_000])
    }))

  it.effect("fixed window: after others have started, and after its window", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds["fixed window"])
      const first = yield* take(throttle, 6)
      const second = yield* take(throttle, 1)
      yield* TestClock.adjust(600)
      yield* throttle.wait(3)
      yield* first.permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [6, 7]), [0, 400])
      yield* TestClock.adjust(400)
      yield* throttle.wait(10)
      yield* second.permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
    }))

  it.effect("spacing: the start is undone where none came after it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second" }))
      yield* throttle.wait()
      yield* TestClock.adjust(1_000)
      const { permit } = yield* take(throttle)
      const next = yield* startOf(throttle)
      yield* TestClock.adjust(100)
      yield* permit.cancel
      yield* settled
      assert.strictEqual(yield* Fiber.join(next), 1_100)
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
    }))

  it.effect("spacing: where one came after it, that one counts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second" }))
      const { permit } = yield* take(throttle)
      yield* TestClock.adjust(1_000)
      yield* throttle.wait()
      yield* permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
    }))

  it.effect("spacing, aligned: the slot is free again as long as it lasts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", align: true }))
      const { permit } = yield* take(throttle)
      yield* permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [1]), [0])
      const again = yield* take(throttle)
      yield* TestClock.adjust(1)
      yield* again.permit.cancel
      assert.deepStrictEqual(yield* waits(throttle, [1]), [999])
    }))

  it.effect("spacing from the end: the cancelled one has no end to wait for", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", from: "end" }))
      const { close, permit } = yield* take(throttle)
      const next = yield* startOf(throttle)
      yield* TestClock.adjust(100)
      yield* permit.cancel
      yield* settled
      assert.strictEqual(next.pollUnsafe() && (yield* Fiber.join(next)), 100)
      yield* close
      // Only the end of the next one counts.
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
      assertIdle(throttle)
    }))

  it.effect("spacing from the end: settled, its end counts as ever", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", from: "end" }))
      const { close, permit } = yield* take(throttle)
      yield* TestClock.adjust(100)
      yield* permit.settle(0)
      yield* close
      assert.deepStrictEqual(yield* waits(throttle, [1]), [1_000])
    }))

  it.effect("does nothing where nothing was charged or held", () =>
    Effect.gen(function*() {
      const policies: ReadonlyArray<Throttle.Policy<any>> = [
        ...Object.values(kinds),
        Throttle.none,
        Throttle.concurrency({ limit: 1 })
      ]
      for (const policy of policies) {
        const throttle = yield* Throttle.make(policy)
        const { close, permit } = yield* take(throttle, 0)
        yield* permit.cancel
        yield* close
        assert.deepStrictEqual(yield* waits(throttle, [1]), [0])
        assertIdle(throttle)
      }
    }))
})

describe("usePermits", () => {
  type Loose = (...args: ReadonlyArray<unknown>) => Effect.Effect<number> & ((use: unknown) => Effect.Effect<number>)

  it.effect("data-last and data-first are the same", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const use = (permit: Throttle.Permit) => Effect.as(permit.settle(1), permit.cost)
      assert.strictEqual(yield* throttle.usePermits(use, 5), 5)
      assert.strictEqual(yield* throttle.usePermits(5)(use), 5)
      // Some callers pass more arguments than they are asked for.
      assert.strictEqual(yield* (throttle.usePermits as Loose)(use, 5, "index"), 5)
      assert.strictEqual(yield* (throttle.usePermits as Loose)(5, "index")(use), 5)
      assert.deepStrictEqual(yield* waits(throttle, [6, 7]), [0, 100])
    }))

  it.effect("waits like withPermits, and runs nothing before", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      yield* throttle.wait(10)
      const next = yield* fork(throttle.usePermits(() => now, 3))
      yield* TestClock.adjust(299)
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(next), 300)
    }))

  it.effect("fails and dies like withPermits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 10, refill: 10, maxQueue: 0, name: "api" })
      )
      const reason = (cost: Throttle.Cost) =>
        Effect.map(Effect.flip(throttle.usePermits(() => Effect.die("must not run"), cost)), (error) => {
          assert.instanceOf(error, ThrottleError)
          return error.reason._tag
        })
      assert.strictEqual(yield* reason(11), "PermitsExceedCapacity")
      yield* throttle.wait(10)
      assert.strictEqual(yield* reason(1), "QueueFull")
      assert.include(rangeErrorOf(yield* Effect.exit(throttle.usePermits(() => Effect.void, -1))), "received -1")
      assert.include(
        rangeErrorOf(yield* Effect.exit(throttle.usePermits(() => Effect.void, { words: 1 }))),
        "\"words\""
      )
      assertIdle(throttle)
    }))

  it.effect("keeps the effect's fiber, errors and scope", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const fiber = yield* fork(throttle.usePermits(() => Effect.withFiber(({ id }) => Effect.succeed(id)), 1))
      assert.strictEqual(yield* Fiber.join(fiber), fiber.id)
      assert.strictEqual(yield* Effect.flip(throttle.usePermits(() => Effect.fail("no"), 1)), "no")
      const order: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* throttle.usePermits(() => Effect.addFinalizer(() => Effect.sync(() => void order.push("outer"))), 1)
        order.push("after")
      }))
      assert.deepStrictEqual(order, ["after", "outer"])
      assertIdle(throttle)
    }))

  it.effect("uses the provided throttle", () =>
    Effect.gen(function*() {
      yield* Throttle.usePermits(10)((permit) => permit.settle(3))
      yield* Throttle.usePermits((permit) => permit.settle(1), 7)
      assert.deepStrictEqual(yield* Throttle.estimateWait(6), Option.some(Duration.zero))
      yield* Effect.scoped(Effect.gen(function*() {
        const permit = yield* Throttle.takeScoped(6)
        yield* permit.cancel
      }))
      assert.deepStrictEqual(yield* Throttle.estimateWait(6), Option.some(Duration.zero))
      assert.deepStrictEqual(yield* Throttle.estimateWait(7), Option.some(Duration.millis(100)))
    }).pipe(Effect.provide(kinds.tokenBucket)))

  class First
    extends Throttle.Service<First>()("test/Settle/First", Throttle.tokenBucket({ capacity: 10, refill: 10 }))
  {}
  class Second
    extends Throttle.Service<Second>()("test/Settle/Second", Throttle.window({ limit: 10, per: "1 second" }))
  {}

  // Of which units its type says nothing.
  class Unknown extends Throttle.Service<Unknown>()("test/Settle/Unknown", Throttle.none) {}

  it.effect("uses the throttle of a Service class, and no other", () =>
    Effect.gen(function*() {
      yield* First.usePermits(10)((permit) => permit.settle(3))
      yield* Second.usePermits((permit) => permit.settle(8), 10)
      yield* Effect.scoped(Effect.flatMap(First.takeScoped(7), (permit) => permit.settle(1)))
      assert.deepStrictEqual(yield* First.estimateWait(6), Option.some(Duration.zero))
      assert.deepStrictEqual(yield* First.estimateWait(7), Option.some(Duration.millis(100)))
      assert.deepStrictEqual(yield* Second.estimateWait(2), Option.some(Duration.zero))
      assert.deepStrictEqual(yield* Second.estimateWait(3), Option.some(Duration.seconds(1)))
      assert.strictEqual((yield* First.statistics).admitted, 2)
    }).pipe(Effect.provide(First.layer), Effect.provide(Second.layer)))

  it.effect("a class that is given none accepts every unit", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* Unknown.usePermits({ words: 3 })((permit) => Effect.as(permit.settle({ pages: 9 }), 1)),
        1
      )
    }).pipe(Effect.provide(Unknown.layerWith(Throttle.none))))

  it.effect("of the limiter that inline use has", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 2, refill: 1 })
      const throttle = yield* Throttle.inline(policy)
      const inline = yield* throttle.usePermits(2)((permit) =>
        Effect.gen(function*() {
          const inline = yield* fork(policy(now))
          yield* TestClock.adjust(10)
          yield* permit.settle(1)
          return inline
        })
      )
      assert.strictEqual(yield* Fiber.join(inline), 10)
    }))
})

describe("statistics", () => {
  it.effect("count a call that is settled or cancelled once, and as running until its release", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([kinds.tokenBucket, Throttle.concurrency({ limit: 20 })]))
      const counts = Effect.map(throttle.statistics, ({ admitted, interrupted, running, waiting }) => [
        admitted,
        interrupted,
        running,
        waiting
      ])
      const one = yield* take(throttle, 5)
      const other = yield* take(throttle, 5)
      assert.deepStrictEqual(yield* counts, [2, 0, 2, 0])
      yield* one.permit.settle(1)
      assert.deepStrictEqual(yield* counts, [2, 0, 2, 0])
      yield* other.permit.cancel
      assert.deepStrictEqual(yield* counts, [2, 0, 1, 0])
      yield* other.close
      assert.deepStrictEqual(yield* counts, [2, 0, 1, 0])
      yield* one.close
      assert.deepStrictEqual(yield* counts, [2, 0, 0, 0])
    }))

  it.effect("count the waits of calls that a settlement let start", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(kinds.tokenBucket)
      const { permit } = yield* take(throttle, 10)
      yield* startOf(throttle)
      yield* TestClock.adjust(7)
      yield* permit.settle(0)
      yield* settled
      const { admitted, longestWait, waited, waiting } = yield* throttle.statistics
      assert.deepStrictEqual(
        [admitted, waiting, Duration.toMillis(waited), Duration.toMillis(longestWait)],
        [2, 0, 7, 7]
      )
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// Step by step
// ---------------------------------------------------------------------------------------------------------------------

const swept: Record<string, Throttle.Policy<never>> = {
  rate: Throttle.rate({ limit: 100, burst: 2 }),
  "sliding window": Throttle.window({ limit: 3, per: "10 millis" }),
  "fixed window": Throttle.window({ limit: 3, per: "10 millis", kind: "fixed" }),
  concurrency: Throttle.concurrency({ limit: 3 }),
  "spacing from the end": Throttle.spacing({ interval: "5 millis", from: "end" }),
  all: Throttle.all([
    Throttle.tokenBucket({ capacity: 3, refill: 200 }),
    Throttle.concurrency({ limit: 3 }),
    Throttle.spacing({ interval: "1 millis" })
  ])
}

const scoped =
  (f: (permit: Throttle.Permit, self: Effect.Effect<void>) => Effect.Effect<unknown>): Sweep.Use => (throttle, self) =>
    Effect.scoped(Effect.flatMap(throttle.takeScoped(2), (permit) => f(permit, self)))

/** What is asked for may be 2 at first. */
const uses: Record<string, Sweep.Use> = {
  "takeScoped, settled for less": scoped((permit, self) => Effect.andThen(self, permit.settle(1))),
  "takeScoped, settled for more": scoped((permit, self) => Effect.andThen(self, permit.settle(3))),
  "takeScoped, cancelled": scoped((permit, self) => Effect.andThen(self, permit.cancel)),
  "takeScoped, cancelled at once": scoped((permit, self) => Effect.andThen(permit.cancel, self)),
  "usePermits, settled": (throttle, self) => throttle.usePermits((permit) => Effect.andThen(self, permit.settle(1)), 2),
  "usePermits, cancelled": (throttle, self) => throttle.usePermits((permit) => Effect.andThen(permit.cancel, self), 2)
}

describe("interruption at every scheduler step leaves nothing behind", () => {
  for (const [name, use] of Object.entries(uses)) {
    it.each(Object.entries(swept))(`${name}: %s`, (kind, policy) => {
      for (const victim of [0, 1, 2]) {
        const steps = Sweep.everyStep(
          { policy, calls: 4, use, act: Sweep.interrupt(victim) },
          `${name}, ${kind}, victim ${victim}`,
          (swept, where) => {
            const { fibers, hit, simulator, throttle } = swept
            for (const [i, fiber] of fibers.entries()) {
              if (i !== victim || !hit) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), `${where}: call ${i}`)
            }
            Sweep.assertOrder(swept, where)
            assertIdle(throttle, where)
            const { admitted, interrupted } = statisticsOf(throttle)
            assert.isAtMost(admitted + interrupted, 4, `${where}: counted twice`)
            assert.isAtLeast(admitted + interrupted, hit ? 3 : 4, `${where}: not counted`)
            const again = simulator.fork(Effect.delay(throttle.usePermits((permit) => permit.settle(0), 2), 1_000))
            simulator.run()
            assert.isTrue(Exit.isSuccess(again.pollUnsafe()!), `${where}: afterwards`)
            assertIdle(throttle, `${where}: afterwards`)
          }
        )
        assert.isAbove(steps, 30)
      }
    })
  }
})

describe("settling at every scheduler step of others", () => {
  const actions: Record<string, (permit: Throttle.Permit) => Effect.Effect<void>> = {
    "for less": (permit) => permit.settle(0),
    "for more": (permit) => permit.settle(4),
    "cancel": (permit) => permit.cancel
  }
  for (const [name, action] of Object.entries(actions)) {
    it.each(Object.entries(swept))(`${name}: calls start in order, and none too early: %s`, (kind, policy) => {
      for (let step = 0;; step++) {
        const where = `${name}, ${kind}, step ${step}`
        let hit = false
        let first = Infinity
        let permit: Throttle.Permit | undefined
        const order: Array<number> = []
        const simulator = Simulator.make({
          limit: 100_000,
          beforeStep: (current) => {
            if (current !== first + step) return
            hit = true
            simulator.fork(action(permit!))
          }
        })
        const throttle = throttleIn(simulator, policy)
        const scope = Scope.makeUnsafe()
        simulator.fork(Effect.map(Scope.provide(throttle.takeScoped(2), scope), (taken) => void (permit = taken)))
        simulator.run()
        first = simulator.steps()
        const fibers = [0, 1, 2].map((i) =>
          simulator.fork(throttle.withPermits(
            Effect.suspend(() => {
              order.push(i)
              return Effect.sleep(1)
            }),
            2
          ))
        )
        simulator.at(30, () => void simulator.fork(Scope.close(scope, Exit.void)))
        simulator.run()
        for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), where)
        assert.deepStrictEqual(order, [0, 1, 2], where)
        assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
        assertIdle(throttle, where)
        if (!hit) {
          assert.isAbove(step, 20)
          break
        }
      }
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// A law
// ---------------------------------------------------------------------------------------------------------------------

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Data = Schema.Union([
  Schema.Struct({ _tag: Schema.Literal("TokenBucket"), capacity: int(4, 7), refill: int(1, 7), per: int(5, 40) }),
  Schema.Struct({
    _tag: Schema.Literal("Window"),
    limit: int(4, 7),
    per: int(5, 40),
    kind: Schema.Literals(["sliding", "fixed"])
  })
])

const Calls = Schema.Array(Schema.Struct({
  at: int(0, 40),
  cost: int(1, 4),
  /** Milliseconds after its start at which it is settled, or cancelled. */
  runs: int(0, 30),
  actual: int(0, 4),
  how: Schema.Literals(["settle", "cancel", "nothing"])
})).check(Schema.isMaxLength(10))

interface Ran {
  readonly at: number
  readonly cost: number
  /** When it is known what it has cost. */
  known: number
  actual: number
}

describe("a law", () => {
  it.prop(
    "calls start as soon as they may by what those before them have cost, as far as it is known then, and no sooner",
    [Data, Calls],
    ([data, calls]) => {
      const simulator = Simulator.make({ operations: 2_048 })
      const throttle = throttleIn(simulator, Throttle.fromData(data as any))
      const meter = firstMeterOf(throttle)
      const ran: Array<Ran & { readonly arrival: number }> = []
      calls.toSorted((a, b) => a.at - b.at).forEach((call) => {
        const use = (permit: Throttle.Permit) =>
          Effect.suspend(() => {
            const entry = {
              arrival: call.at,
              at: simulator.now(),
              cost: call.cost,
              known: Infinity,
              actual: call.how === "cancel" ? 0 : Math.min(call.cost, call.actual)
            }
            ran.push(entry)
            const end = Effect.suspend(() => {
              if (call.how === "nothing") return Effect.void
              entry.known = simulator.now()
              return call.how === "cancel" ? permit.cancel : permit.settle(entry.actual)
            })
            return Effect.andThen(call.runs === 0 ? Effect.void : Effect.sleep(call.runs), end)
          })
        simulator.at(call.at, () => void simulator.fork(throttle.usePermits(use, call.cost)))
      })
      simulator.run()
      assert.strictEqual(ran.length, calls.length)
      assertIdle(throttle)
      const wall = (at: number) => at / 1e6
      /** When a call may start, asked just before `at`, by what was known then of the calls before it. */
      const due = (before: ReadonlyArray<Ran>, at: number, cost: number) => {
        const state = before.reduce((state, call) => {
          const spent = call.known <= at ? call.actual : call.cost
          return spent === 0 ? state : meter.charge(state, call.at * 1e6, spent, wall)
        }, meter.initial)
        return meter.readyAt(state, at * 1e6, cost, wall) / 1e6
      }
      for (const [i, { arrival, at, cost }] of ran.entries()) {
        const before = ran.slice(0, i)
        assert.isAtMost(due(before, at, cost), at + 2e-3, `start ${i} at ${at}: too early`)
        const earlier = at - 0.01
        if (earlier < Math.max(arrival, before.at(-1)?.at ?? 0)) continue
        assert.isAbove(due(before, earlier, cost), earlier + 5e-3, `start ${i} at ${at}: too late`)
      }
    },
    { arbitrary: { runs: 400 } }
  )
})
