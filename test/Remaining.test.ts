/**
 * `remaining`: what each part has left, and when everything is left again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { fork } from "./utils/kit.ts"
import { randomNumbers } from "./utils/random-program.ts"

/** Name, limit, what is left, and the milliseconds until it is full. */
const leftOf = ({ remaining }: { readonly remaining: Effect.Effect<ReadonlyArray<Throttle.PartRemaining>> }) =>
  Effect.map(remaining, (parts) =>
    parts.map(({ limit, remaining, untilFull, unit }) => [
      unit,
      limit,
      remaining,
      untilFull === undefined ? undefined : Duration.toMillis(untilFull)
    ]))

describe("remaining", () => {
  it.effect("of each kind of part", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.rate({ limit: 10, burst: 4 }),
        Throttle.tokenBucket({ capacity: 100, refill: 50, unit: "tokens" }),
        Throttle.window({ limit: 3, per: "1 minute", kind: "fixed", unit: "windows" }),
        Throttle.concurrency({ limit: 2 })
      ]))
      assert.deepStrictEqual(yield* leftOf(throttle), [
        ["permits", 5, 5, 0],
        ["tokens", 100, 100, 0],
        ["windows", 3, 3, 0],
        ["permits", 2, 2, 0]
      ])
      yield* fork(throttle.withPermits(Effect.never, { permits: 2, tokens: 50, windows: 1 }))
      assert.deepStrictEqual(yield* leftOf(throttle), [
        ["permits", 5, 3, 200],
        ["tokens", 100, 50, 1_000],
        ["windows", 3, 2, 60_000],
        ["permits", 2, 0, undefined]
      ])
      yield* TestClock.adjust("150 millis")
      assert.deepStrictEqual((yield* leftOf(throttle))[0], ["permits", 5, 4, 50])
    }))

  it.effect("has the part's name, or else its words", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 10 }), Throttle.rate({ limit: 5, per: "1 minute", name: "slow" })])
      )
      assert.deepStrictEqual((yield* throttle.remaining).map(({ name }) => name), ["10 per second", "slow"])
    }))

  it.effect("is nothing while calls wait, and in a pause", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      yield* throttle.pause("3 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [["permits", 10, 0, 3_000]])
      yield* throttle.resume
      yield* throttle.wait(5)
      yield* fork(throttle.wait(10))
      assert.deepStrictEqual(yield* leftOf(throttle), [["permits", 10, 0, undefined]])
    }))

  it.effect("is everything in shadow", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* throttle.withPermit(Effect.void)
      assert.deepStrictEqual(yield* leftOf(throttle), [["permits", 1, 1, 0]])
    }))

  it.effect("a rest from the end begins when the call ends", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", from: "end" }))
      yield* fork(throttle.withPermit(Effect.sleep("5 seconds")))
      assert.deepStrictEqual(yield* leftOf(throttle), [["permits", 1, 0, undefined]])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [["permits", 1, 0, 1_000]])
    }))

  it.effect("of a key, which it does not make the map remember", () =>
    Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => Throttle.rate({ limit: 10, burst: 9 }) })
      yield* map.wait("a", 4)
      assert.deepStrictEqual(yield* leftOf({ remaining: map.remaining("a") }), [["permits", 10, 6, 400]])
      assert.deepStrictEqual(yield* leftOf(map.get("b")), [["permits", 10, 10, 0]])
      assert.strictEqual((yield* map.statistics).keys, 1)
    })))

  it.effect("is no promise broken: so many start, no more; and it is full exactly when it says", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 60; seed++) {
        const next = randomNumbers(seed)
        const int = (n: number) => Math.floor(next() * n)
        const limit = 1 + int(6)
        const policy = [
          Throttle.rate({ limit: 1 + int(50), burst: limit - 1 }),
          Throttle.tokenBucket({ capacity: limit, refill: 1 + int(20) }),
          Throttle.window({ limit, per: 50 + int(500) }),
          Throttle.window({ limit, per: 50 + int(500), kind: "fixed" })
        ][int(4)]!
        const throttle = yield* Throttle.make(policy)
        for (let i = 0; i < 8; i++) {
          yield* throttle.allow(1 + int(limit))
          yield* TestClock.adjust(int(120))
        }
        const [left] = yield* throttle.remaining
        const until = Duration.toMillis(left!.untilFull!)
        const before = yield* throttle.estimateWait(limit)
        if (left!.remaining < left!.limit) assert.isFalse(yield* throttle.allow(left!.remaining + 1), `seed ${seed}`)
        if (until > 1) {
          yield* TestClock.adjust(until - 1)
          assert.isBelow((yield* throttle.remaining)[0]!.remaining, limit, `seed ${seed}: full too early`)
          yield* TestClock.adjust(1)
        } else yield* TestClock.adjust(until)
        assert.strictEqual(
          (yield* throttle.remaining)[0]!.remaining,
          limit,
          `seed ${seed}: not full, ${String(before)}`
        )
        assert.isTrue(yield* throttle.allow(limit), `seed ${seed}: it was no promise`)
      }
    }))
})
