/** The one step in which most requests are let in, held to the ways that everybody else goes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Schema, type Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { demanding } from "../../src/internal/keyed/engine.ts"
import { keyedOf } from "../../src/internal/keyed/map.ts"
import * as Together from "../../src/internal/keyed/together.ts"
import type { Limiter } from "../../src/internal/limiter.ts"
import * as List from "../../src/internal/list.ts"
import * as Local from "../../src/internal/local.ts"
import * as Plan from "../../src/internal/plan.ts"
import { remaining } from "../../src/internal/remaining.ts"
import * as Time from "../../src/internal/time.ts"
import { remainingOfKey } from "../utils/kit.ts"

const startAtOnce = <K>(
  map: ThrottleMap.ThrottleMap<K>,
  key: K,
  cost: Throttle.Cost | undefined,
  other: Limiter | undefined
): boolean => Together.startAtOnce([{ keyed: keyedOf(map)!, key, demandOf: demanding(cost) }], other)

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Timing = Schema.Union([
  Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(5, 40), burst: int(0, 4) }),
  Schema.Struct({
    _tag: Schema.Literal("Window"),
    limit: int(1, 5),
    per: int(5, 40),
    kind: Schema.Literals(["sliding", "fixed"])
  }),
  Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), align: Schema.Boolean })
])

const Calls = Schema.Array(Schema.Struct({ gap: int(0, 12), key: Schema.Literals(["a", "b", "c"]) })).check(
  Schema.isMaxLength(30)
)

/** A key is idle or busy; the line of those that may be evicted is that of the idle ones, forwards and backwards. */
const intact = <K extends ThrottleMap.Key>(map: ThrottleMap.ThrottleMap<K>, maxKeys: number) => {
  const { byUse, idle, lent } = keyedOf(map)!
  assert.isAtMost(idle.size + lent.size, maxKeys)
  for (const key of idle.keys()) assert.isFalse(lent.has(key))
  for (const [key, { key: own }] of lent) assert.strictEqual(own?.value, key)
  const line = Array.from(List.values(byUse))
  assert.strictEqual(byUse.size, idle.size)
  for (const one of line) assert.strictEqual(idle.get(one.key as K), one)
  assert.strictEqual(line.length, idle.size)
  line.forEach((one, i) => assert.strictEqual(one.prev, line[i - 1]))
  assert.strictEqual(byUse.last, line.at(-1))
}

const arbitrary = { arbitrary: { runs: 150 } }

describe("startAtOnce", () => {
  it.effect.prop("lets in whom the map would let in, and forgets the same keys", {
    data: Timing,
    calls: Calls,
    maxKeys: int(1, 3)
  }, ({ calls, data, maxKeys }) =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.fromData(data)], { maxQueue: 0 })
      const make = ThrottleMap.make({ lookup: (_key: string) => policy, maxKeys, onFull: "evict" })
      const [one, other] = [yield* make, yield* make]
      for (const { gap, key } of calls) {
        yield* TestClock.adjust(gap)
        // Whoever is not let in by it goes the usual way: a key that refused somebody has a limiter of its own for a while.
        const isLetIn = startAtOnce(one, key, undefined, undefined) ||
          Option.isSome(yield* Effect.option(one.wait(key)))
        assert.strictEqual(isLetIn, Option.isSome(yield* Effect.option(other.wait(key))))
        assert.deepStrictEqual(remainingOfKey(one, key), remainingOfKey(other, key))
      }
      assert.strictEqual((yield* one.statistics).admitted, (yield* other.statistics).admitted)
      assert.isAtMost((yield* one.statistics).keys, maxKeys)
    }).pipe(Effect.scoped), arbitrary)

  it.effect.prop("together with another limiter, as a policy of both: both are charged, or none", {
    first: Timing,
    second: Timing,
    calls: Calls
  }, ({ calls, first, second }) =>
    Effect.gen(function*() {
      const [key, everybody] = [Throttle.fromData(first), Throttle.fromData(second)]
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => key })
      const limiter = yield* Local.make(Plan.make(everybody.data))
      const both = yield* Throttle.make(Throttle.all([key, everybody], { maxQueue: 0 }))
      for (const { gap } of calls) {
        yield* TestClock.adjust(gap)
        const before = [remainingOfKey(map, "a"), remaining(limiter, Time.now(limiter.time))]
        const isLetIn = startAtOnce(map, "a", undefined, limiter)
        assert.strictEqual(isLetIn, Option.isSome(yield* both.withPermitsIfAvailable(Effect.void, 1)))
        if (!isLetIn) {
          assert.deepStrictEqual([remainingOfKey(map, "a"), remaining(limiter, Time.now(limiter.time))], before)
        }
      }
    }).pipe(Effect.scoped), arbitrary)

  it.effect("is no way past those who wait, past a pause, or in where permits are held", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (key: string) =>
          key === "held" ? Throttle.concurrency({ limit: 1 }) : Throttle.rate({ limit: 1, burst: 1 })
      })
      assert.isFalse(startAtOnce(map, "held", undefined, undefined))
      yield* map.pause("paused", "1 second")
      assert.isFalse(startAtOnce(map, "paused", undefined, undefined))
      yield* map.wait("a", 2)
      yield* Effect.forkChild(map.wait("a", 2), { startImmediately: true })
      yield* TestClock.adjust("1500 millis")
      assert.isFalse(startAtOnce(map, "a", undefined, undefined))
      const limiter = yield* Local.make(Plan.make(Throttle.concurrency({ limit: 1 }).data))
      assert.isFalse(startAtOnce(map, "b", undefined, limiter))
      assert.isFalse(startAtOnce(map, "b", 3, undefined))
    }).pipe(Effect.scoped))

  it.effect("never forgets what it has just charged", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.rate({ limit: 1 }), onFull: "evict" })
      for (let i = 0; i < 40; i++) {
        assert.isTrue(startAtOnce(map, "a", undefined, undefined), `${i}`)
        assert.isFalse(startAtOnce(map, "a", undefined, undefined), `${i}, again`)
        yield* TestClock.adjust("1 second")
      }
    }).pipe(Effect.scoped))

  it.effect("a key that is refused by the other limiter takes no other key's place", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1, per: "1 hour" })
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy, maxKeys: 1, onFull: "evict" })
      const other = yield* Local.make(Plan.make(policy.data))
      assert.isTrue(startAtOnce(map, "a", undefined, other))
      assert.isFalse(startAtOnce(map, "b", undefined, other))
      assert.strictEqual((yield* map.statistics).keysEvicted, 0)
    }).pipe(Effect.scoped))
})

describe("a full map", () => {
  const random = (seed: number) => {
    let state = seed
    // The linear congruential generator of Numerical Recipes.
    return (below: number) => Math.floor((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 * below)
  }

  it.effect("locks nobody out, and never holds more than maxKeys", () =>
    Effect.gen(function*() {
      const known = Throttle.rate({ limit: 1, maxQueue: 0 })
      const invented = Throttle.rate({ limit: 1, per: "1 hour", maxQueue: 0 })
      for (let seed = 1; seed <= 60; seed++) {
        const below = random(seed)
        yield* Effect.scoped(Effect.gen(function*() {
          const map = yield* ThrottleMap.make({
            lookup: (key: string) => key.startsWith("a") ? known : invented,
            maxKeys: 20,
            onFull: "evict"
          })
          for (let i = 0; i < 800; i++) {
            const key = below(2) === 0 ? `a${below(20)}` : `x${below(1_000_000)}`
            if (!startAtOnce(map, key, undefined, undefined)) {
              const error = yield* Effect.flip(map.wait(key))
              assert.strictEqual(error.reason._tag, "QueueFull", `seed ${seed}, call ${i}`)
            }
            assert.isAtMost((yield* map.statistics).keys, 20, `seed ${seed}, call ${i}`)
            yield* TestClock.adjust(below(400))
          }
        }))
      }
    }), 30_000)

  const Step = Schema.Struct({
    gap: int(0, 250),
    key: int(0, 4),
    way: Schema.Literals([
      "startAtOnce",
      "with other",
      "wait",
      "withPermit",
      "withPermitsIfAvailable",
      "takeScoped",
      "usePermits",
      "cancel",
      "fork",
      "pause",
      "resume",
      "estimateWait"
    ])
  })

  it.effect.prop("counts each key that it has once, whatever is done with it", {
    maxKeys: int(1, 4),
    steps: Schema.Array(Step).check(Schema.isMinLength(40), Schema.isMaxLength(120))
  }, ({ maxKeys, steps }) =>
    Effect.gen(function*() {
      const timing = Throttle.rate({ limit: 1, per: 100, burst: 1, maxQueue: 2 })
      const both = Throttle.all([Throttle.window({ limit: 2, per: 70 }), Throttle.concurrency({ limit: 2 })], {
        maxQueue: 1
      })
      const map = yield* ThrottleMap.make({
        lookup: (key: number) => key % 2 === 0 ? timing : both,
        maxKeys,
        onFull: "evict"
      })
      const other = yield* Local.make(Plan.make(Throttle.rate({ limit: 1, per: 30, burst: 1 }).data))
      for (const { gap, key, way } of steps) {
        const done: Record<typeof way, () => Effect.Effect<unknown, unknown, Scope.Scope>> = {
          startAtOnce: () => Effect.sync(() => startAtOnce(map, key, undefined, undefined)),
          "with other": () => Effect.sync(() => startAtOnce(map, key, undefined, other)),
          wait: () => key % 2 === 0 ? Effect.timeout(map.wait(key), 0) : Effect.void,
          withPermit: () => Effect.timeout(map.withPermit(key)(Effect.void), 0),
          withPermitsIfAvailable: () => map.withPermitsIfAvailable(key, 1)(Effect.void),
          takeScoped: () => Effect.scoped(Effect.timeout(map.takeScoped(key), 0)),
          usePermits: () => Effect.timeout(map.usePermits(key, 1)(() => Effect.void), 0),
          cancel: () => map.usePermits(key, 1)(({ cancel }) => cancel).pipe(Effect.timeout(0)),
          fork: () => Effect.forkScoped(map.withPermit(key)(Effect.sleep(gap)), { startImmediately: true }),
          pause: () => map.pause(key, gap + 1),
          resume: () => map.resume(key),
          estimateWait: () => map.estimateWait(key)
        }
        const fiber = yield* Effect.forkScoped(Effect.ignore(done[way]()), { startImmediately: true })
        yield* TestClock.adjust(gap)
        if (way !== "fork") yield* Fiber.join(fiber)
        intact(map, maxKeys)
      }
      // Nothing is left of anybody: every key can go, and has gone once as many calls have looked.
      yield* TestClock.adjust("10 seconds")
      for (let i = 0; i < 40; i++) yield* map.withPermitsIfAvailable(0, 1)(Effect.void)
      yield* TestClock.adjust("10 seconds")
      intact(map, maxKeys)
      for (let i = 0; i < 2 * maxKeys; i++) {
        yield* map.wait(100 + 2 * i)
        intact(map, maxKeys)
      }
    }).pipe(Effect.scoped), { arbitrary: { runs: 100 } })
})
