/**
 * `drain`, `awaitIdle` and `awaitQueue` on a store: those of one process, on the store in memory.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { fork, reasonOf } from "../utils/kit.ts"

const test = (name: string, body: () => Effect.Effect<void, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer)))

/** Lets time go on in small steps, so that everything that happens meanwhile happens in its order. */
const pass = (millis: number) =>
  Effect.forEach(Array.from({ length: millis / 10 }), () => TestClock.adjust("10 millis"), { discard: true })

const wasInterrupted = (exit: Exit.Exit<unknown, unknown> | undefined): boolean =>
  exit !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

const work = Effect.sleep("100 millis")
/** A Redis that is never asked. */
const unused = Layer.succeed(Redis.Redis, {
  send: () => Effect.never,
  eval: () => () => Effect.never,
  subscribe: () => Effect.never,
  reserve: Effect.never
} as never)

const one = Throttle.concurrency({ limit: 1 })

describe("drain on a store", () => {
  test("newcomers are refused; waiting calls and leases of this process finish; other processes go on", () =>
    Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(one, { key: "one" })
      const other = yield* RedisThrottle.make(one, { key: "one" })
      const calls = [yield* fork(throttle.withPermit(work))]
      yield* pass(10)
      calls.push(yield* fork(throttle.withPermit(work)))
      yield* pass(10)
      const idle = yield* fork(throttle.awaitIdle)
      const queued = yield* fork(throttle.awaitQueue(1))
      const drain = yield* fork(throttle.drain())
      for (
        const call of [
          throttle.withPermit(work),
          throttle.withPermitsIfAvailable(work, 1),
          Effect.scoped(throttle.takeScoped())
        ]
      ) assert.strictEqual(reasonOf(yield* Effect.exit(call)), "Draining")
      yield* pass(10)
      assert.isDefined(queued.pollUnsafe())
      assert.isUndefined(drain.pollUnsafe())
      yield* pass(1_000)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
      assert.strictEqual((yield* throttle.statistics).rejected.Draining, 3)
      const elsewhere = yield* fork(other.withPermit(work))
      yield* pass(1_000)
      assert.deepStrictEqual(elsewhere.pollUnsafe(), Exit.void)
    }))

  test("a policy that decides by time alone is drained when no call waits", () =>
    Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 10 }), { key: "one" })
      const calls = yield* Effect.forEach([0, 1, 2], () => fork(throttle.wait()))
      const drain = yield* fork(throttle.drain())
      yield* pass(150)
      assert.isUndefined(drain.pollUnsafe())
      yield* pass(100)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
    }))

  test("at the deadline waiting calls and the work under leases are interrupted, and the leases released", () =>
    Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(one, { key: "one" })
      const other = yield* RedisThrottle.make(one, { key: "one" })
      const running = yield* fork(throttle.withPermit(Effect.never))
      yield* pass(10)
      const waiting = yield* fork(throttle.withPermit(work))
      yield* pass(10)
      const drain = yield* fork(throttle.drain("1 second"))
      yield* pass(1_000)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(2))
      for (const call of [running, waiting]) assert.isTrue(wasInterrupted(call.pollUnsafe()))
      const elsewhere = yield* fork(other.withPermit(Effect.succeed("free")))
      yield* pass(1_000)
      assert.deepStrictEqual(elsewhere.pollUnsafe(), Exit.succeed("free"))
    }))

  test("a call within a running call of the same fiber is let through", () =>
    Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(Throttle.concurrency({ limit: 2 }), { key: "one" })
      const call = yield* fork(
        throttle.withPermit(Effect.andThen(work, throttle.withPermit(Effect.succeed("inner"))))
      )
      yield* pass(10)
      const drain = yield* fork(throttle.drain())
      yield* pass(500)
      assert.deepStrictEqual(call.pollUnsafe(), Exit.succeed("inner"))
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
    }))

  test("newcomers of inline use of a policy without bounds are interrupted", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10 })
      yield* Effect.gen(function*() {
        yield* Throttle.drain()
        const inline = yield* fork(policy(Effect.void))
        assert.isTrue(wasInterrupted(yield* Fiber.await(inline)))
      }).pipe(Effect.provide(RedisThrottle.layer(policy, { key: "one" })), Effect.provide(unused))
    }))

  test("a map drains all keys, and refuses those that it has not seen", () =>
    Effect.gen(function*() {
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: string) => one })
      const calls = [yield* fork(map.withPermit("a")(work)), yield* fork(map.withPermit("b")(work))]
      yield* pass(10)
      const drain = yield* fork(map.drain("1 minute"))
      const idle = yield* fork(map.awaitIdle)
      for (const key of ["a", "new"]) {
        assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit(key)(Effect.void))), "Draining")
      }
      assert.isUndefined(drain.pollUnsafe())
      yield* pass(500)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
    }))

  test("a map drains one key, which admits newcomers again afterwards", () =>
    Effect.gen(function*() {
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: string) => one })
      yield* fork(map.withPermit("a")(work))
      yield* pass(10)
      const queued = yield* fork(map.awaitQueue("a", 1))
      yield* fork(map.withPermit("a")(work))
      yield* pass(10)
      assert.isDefined(queued.pollUnsafe())
      const drain = yield* fork(map.drainOf("a"))
      const idle = yield* fork(map.get("a").awaitIdle)
      assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("a")(Effect.void))), "Draining")
      const other = yield* fork(map.withPermit("b")(Effect.succeed("b")))
      yield* pass(1_000)
      assert.deepStrictEqual(other.pollUnsafe(), Exit.succeed("b"))
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
      assert.deepStrictEqual(idle.pollUnsafe(), Exit.void)
      const again = yield* fork(map.withPermit("a")(Effect.succeed("again")))
      yield* pass(100)
      assert.deepStrictEqual(again.pollUnsafe(), Exit.succeed("again"))
    }))

  for (const pause of ["reaches the store", "does not reach the store"]) {
    test(`a key admits newcomers once its calls have ended, in a pause that ${pause}`, () =>
      Effect.gen(function*() {
        const store = yield* ThrottleStore.ThrottleStore
        const down = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))
        const mapOf = (policy: Throttle.Policy<any>) =>
          RedisThrottle.makeMap({ name: "map", lookup: (_key: string) => policy }).pipe(
            Effect.provideService(
              ThrottleStore.ThrottleStore,
              pause === "reaches the store" ? store : { ...store, pause: () => down }
            )
          )
        const map = yield* mapOf(Throttle.concurrency({ limit: 1 }))
        yield* fork(map.withPermit("a")(work))
        yield* pass(10)
        yield* map.pause("a", "1 second")
        yield* map.pause("idle", "1 second")
        const drain = yield* fork(map.drainOf("a"))
        yield* Effect.forEach([0, 1], () => map.drainOf("idle"))
        assert.strictEqual(reasonOf(yield* Effect.exit(map.withPermit("a")(Effect.void))), "Draining")
        yield* pass(500)
        assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        const calls = [yield* fork(map.withPermit("a")(Effect.void)), yield* fork(map.withPermit("idle")(Effect.void))]
        yield* pass(400)
        for (const call of calls) assert.isUndefined(call.pollUnsafe())
        yield* pass(1_000)
        for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
      }))
  }

  test("without a decision of the store, calls that the share of the policy has taken over are waited for", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const down = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))
      const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 1 }), {
        key: "one",
        onStoreError: { local: 1 }
      }).pipe(Effect.provideService(ThrottleStore.ThrottleStore, { ...store, decide: () => down }))
      const calls = yield* Effect.forEach([0, 1], () => fork(throttle.wait()))
      yield* pass(100)
      const drain = yield* fork(throttle.drain("10 seconds"))
      yield* pass(500)
      assert.isUndefined(drain.pollUnsafe())
      yield* pass(1_000)
      for (const call of calls) assert.deepStrictEqual(call.pollUnsafe(), Exit.void)
      assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
    }))
})
