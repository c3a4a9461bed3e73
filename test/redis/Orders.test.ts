/**
 * The order of waiting calls within a process, on a store, and bounds of single calls.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Fiber, Layer, type Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisThrottle, type ThrottleStore } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { fork, now, reasonOf, settled, throttleErrorOf } from "../utils/kit.ts"

const test = (name: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer)))

const make = (policy: Throttle.Policy<any>) => RedisThrottle.make(policy, { key: "test" })

/** Forks calls of one permit, and notes who started when. */
const callsOf = (throttle: Throttle.Throttle) => {
  const started: Array<readonly [key: string, at: number]> = []
  const call = (caller: Partial<Throttle.Caller>, cost: Throttle.Cost = 1, runs = 0) =>
    fork(
      throttle.withPermits(
        Effect.flatMap(now, (at) => {
          started.push([caller.key ?? "", Math.round(at)])
          return Effect.sleep(runs)
        }),
        cost
      ).pipe(Throttle.withCaller(caller))
    )
  return { call, started }
}

const times = <A, E, R>(n: number, self: Effect.Effect<A, E, R>) => Effect.all(Array.from({ length: n }, () => self))

describe("order on a store", () => {
  test("fair: a light caller takes turns with a flooder", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, order: "fair" }))
      const { call, started } = callsOf(throttle)
      yield* times(10, call({ key: "flooder" }))
      yield* settled
      yield* times(3, call({ key: "light" }))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(started.length, 13)
      assert.deepStrictEqual(started.map(([, at]) => at), Array.from({ length: 13 }, (_, i) => 100 * i))
      assert.strictEqual(started.slice(0, 8).filter(([key]) => key === "light").length, 3)
    }))

  test("priority: an urgent call is next, and calls of a priority keep their order", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, order: "priority", ageing: "1 minute" }))
      const { call, started } = callsOf(throttle)
      for (const key of ["a", "b", "c"]) yield* call({ key })
      yield* settled
      for (const key of ["x", "y"]) yield* call({ key, priority: 1 })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started.map(([key]) => key), ["a", "x", "y", "b", "c"])
    }))

  test("fair with permits: each of two callers runs half of the time", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.concurrency({ limit: 1, order: "fair" }))
      const { call, started } = callsOf(throttle)
      yield* times(6, call({ key: "long" }, 1, 400))
      yield* settled
      yield* times(40, call({ key: "short" }, 1, 100))
      yield* TestClock.adjust("4 seconds")
      const long = started.filter(([key]) => key === "long").length
      assert.isAtLeast(long, 4)
      assert.isAtMost(long, 6)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(started.length, 46)
      assert.deepInclude(yield* throttle.statistics, { running: 0, waiting: 0 })
    }))

  test("interrupted calls leave nothing: the others start in their order", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, order: "fair" }))
      const { call, started } = callsOf(throttle)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (const key of ["a", "a", "b", "b", "c"]) fibers.push(yield* call({ key }))
      yield* settled
      yield* TestClock.adjust("50 millis")
      fibers[2]!.interruptUnsafe()
      fibers[4]!.interruptUnsafe()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(started.length, 3)
      assert.deepStrictEqual(started.map(([, at]) => at), [0, 100, 200])
      assert.deepInclude(yield* throttle.statistics, { interrupted: 2, waiting: 0 })
    }))

  test("an update brings another order", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10 }))
      const { call, started } = callsOf(throttle)
      for (const key of ["a", "b", "c"]) yield* call({ key })
      yield* call({ key: "urgent", priority: 1 })
      yield* settled
      yield* throttle.update(Throttle.rate({ limit: 10, order: "priority", ageing: "1 minute" }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(started.map(([key]) => key), ["a", "urgent", "b", "c"])
    }))

  test("maxQueuePerCaller rejects the caller that has too many calls waiting, and no other", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, maxQueuePerCaller: 2 }))
      const { call, started } = callsOf(throttle)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 5; i++) {
        fibers.push(yield* call({ key: "flooder" }))
        yield* settled
      }
      yield* call({ key: "light" })
      yield* settled
      assert.deepStrictEqual(fibers.map((fiber) => reasonOf(fiber.pollUnsafe())), [
        undefined,
        undefined,
        undefined,
        "QueueFull",
        "QueueFull"
      ])
      const { reason } = throttleErrorOf(fibers[4]!.pollUnsafe())
      assert.deepInclude(reason, { limit: 2, caller: "flooder" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(started.length, 4)
    }))
})

describe("bounds of single calls on a store", () => {
  test("a timeout of its own ends a wait before those of earlier calls", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 1, timeout: "1 minute" }))
      const { call, started } = callsOf(throttle)
      yield* times(3, call({}))
      const hurried = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ timeout: "500 millis" })))
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(reasonOf(hurried.pollUnsafe()), "TimedOut")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(started.length, 3)
    }))

  test("a maxWait of its own rejects at once", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 1 }))
      const { call } = callsOf(throttle)
      yield* times(3, call({}))
      yield* settled
      const hurried = yield* fork(throttle.withPermit(now).pipe(Throttle.withBounds({ maxWait: "1 second" })))
      yield* settled
      assert.strictEqual(reasonOf(hurried.pollUnsafe()), "WaitTooLong")
    }))

  /** A Redis that gives no decision: the share of the process decides, as it does in memory. */
  const silent = Layer.succeed(Redis.Redis, {
    send: () => Effect.never,
    eval: () => () => Effect.never,
    subscribe: () => Effect.never,
    reserve: Effect.never
  } as never)
  const inHurry = Throttle.withBounds({ timeout: "50 millis" })

  it.effect("calls of a policy without bounds, whose type has no error, are not affected", () => {
    const policy = Throttle.rate({ limit: 1 })
    class Api extends Throttle.Service<Api>()("test/Api", policy) {}
    return Effect.gen(function*() {
      const calls: ReadonlyArray<Effect.Effect<number, never, Api>> = [
        inHurry(Api.withPermit(now)),
        inHurry(policy(now))
      ]
      const fibers = yield* Effect.forEach(calls, fork)
      yield* TestClock.adjust("5 seconds")
      for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), String(fiber.pollUnsafe()))
    }).pipe(
      Effect.provide(RedisThrottle.layerFor(Api, { key: "api", onStoreError: { local: 1 } })),
      Effect.provide(silent)
    )
  })

  it.effect("they apply to calls of a policy from data, whose type has the error", () => {
    const policy = Throttle.fromData({ _tag: "Rate", limit: 1 })
    return Effect.gen(function*() {
      const calls = [inHurry(Throttle.withPermit(now)), inHurry(policy(now))]
      const fibers = yield* Effect.forEach(calls, fork)
      yield* TestClock.adjust("5 seconds")
      for (const fiber of fibers) assert.strictEqual(reasonOf(fiber.pollUnsafe()), "TimedOut")
    }).pipe(Effect.provide(RedisThrottle.layer(policy, { key: "api" })), Effect.provide(silent))
  })
})
