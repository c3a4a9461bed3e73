/**
 * Keys of a map: which are equal, which go to make room, and when lookup is asked again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import * as Simulator from "./utils/simulator.ts"

class Key extends Data.Class<{ readonly id: number }> {}

describe("structural keys", () => {
  for (
    const [name, policy] of Object.entries({
      concurrency: Throttle.concurrency({ limit: 1 }),
      rate: Throttle.rate({ limit: 1, per: 1_000 })
    })
  ) {
    it(`${name}: equal keys are one key in whatever step another call comes`, () => {
      for (let delay = 0; delay < 40; delay++) {
        const simulator = Simulator.make({ context: Simulator.ownMetrics() })
        const made = ThrottleMap.make({ lookup: (_key: Key) => policy })
        const map = Simulator.result(simulator, Scope.provide(made, Scope.makeUnsafe()))
        let running = 0
        let most = 0
        const starts: Array<number> = []
        const body = Effect.suspend(() => {
          starts.push(simulator.now())
          most = Math.max(most, ++running)
          return Effect.ensuring(Effect.sleep(5), Effect.sync(() => running--))
        })
        const steps = (n: number) => Array.from({ length: n }, () => Effect.yieldNow)
        for (const [before, id] of [[0, 1], [delay, 1], [2 * delay, 1]] as const) {
          simulator.fork(
            Effect.andThen(Effect.all(steps(before)), Effect.suspend(() => map.withPermit(new Key({ id }))(body)))
          )
        }
        simulator.run()
        assert.strictEqual(starts.length, 3)
        if (name === "concurrency") assert.strictEqual(most, 1, `delay ${delay}: starts at ${starts}`)
        else {
          for (let i = 1; i < 3; i++) {
            assert.isAtLeast(starts[i]! - starts[i - 1]!, 999.9, `delay ${delay}: starts at ${starts}`)
          }
        }
      }
    })
  }

  it.effect("a key that its caller changes after the call leaves nothing behind", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: unknown) => Throttle.concurrency({ limit: 1 }) })
      for (let i = 0; i < 100; i++) {
        const keys: Array<any> = [{ id: i }, [i], new Date(i), new Map([[1, i]]), new Set([i])]
        for (const key of keys) {
          const fiber = yield* Effect.forkChild(map.withPermit(key)(Effect.sleep(1)), { startImmediately: true })
          if (Array.isArray(key)) key.push(7)
          else if (key instanceof Date) key.setTime(1_000_000 + i)
          else if (key instanceof Map || key instanceof Set) key.clear()
          else key.id = -1
          yield* TestClock.adjust(1)
          yield* Fiber.join(fiber)
        }
      }
      for (let i = 0; i < 1_000; i++) yield* map.withPermit("other")(Effect.void)
      const { keys, running, waiting } = yield* map.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
      assert.isAtMost(keys, 1)
    }))
})

describe("keys that go", () => {
  it("a key whose last call started late is evicted when there is no room", () => {
    const simulator = Simulator.make({ operations: 2_048, late: () => 2 })
    const results: Array<string> = []
    simulator.fork(Effect.scoped(Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: string) => Throttle.rate({ limit: 10, per: 1_000 }),
        maxKeys: 1,
        onFull: "evict"
      })
      yield* map.withPermit("a")(Effect.void)
      // It waits, and starts 2 ms late.
      yield* map.withPermit("a")(Effect.void)
      const exit = yield* Effect.exit(map.withPermit("b")(Effect.void))
      results.push(Exit.isSuccess(exit) ? "evicted" : String(exit.cause))
    })))
    simulator.run()
    assert.deepStrictEqual(results, ["evicted"])
  })

  it.effect("no key is evicted for a call that must not wait and does not start", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (key: string) =>
          key === "aligned"
            ? Throttle.spacing({ interval: 1_000, align: true })
            : Throttle.rate({ limit: 1, per: 10_000 }),
        maxKeys: 1,
        onFull: "evict"
      })
      yield* TestClock.adjust(500)
      yield* map.withPermit("a")(Effect.void)
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("aligned", 1)(Effect.void)))
      assert.strictEqual((yield* map.statistics).keysEvicted, 0)
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("a", 1)(Effect.void)))
    }))

  it.effect("a key that is as good as new does not count as evicted", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: string) => Throttle.rate({ limit: 1, per: 1_000 }),
        maxKeys: 100,
        onFull: "evict"
      })
      for (let i = 0; i < 50; i++) yield* map.withPermit(`old ${i}`)(Effect.void)
      yield* TestClock.adjust(600)
      for (let i = 0; i < 50; i++) yield* map.withPermit(`young ${i}`)(Effect.void)
      yield* TestClock.adjust(600)
      for (let i = 0; i < 50; i++) yield* map.withPermit(`new ${i}`)(Effect.void)
      assert.strictEqual((yield* map.statistics).keysEvicted, 0)
    }))
})

describe("lookup", () => {
  for (const kind of ["fixed", "sliding"] as const) {
    it.effect(`${kind} window: is asked at the first call of a day whose quota is unspent`, () =>
      Effect.gen(function*() {
        const day = 24 * 3_600_000
        const free = Throttle.window({ limit: 1, per: day, kind })
        const paid = Throttle.window({ limit: 3, per: day, kind })
        let pays = false
        const map = yield* ThrottleMap.make({ lookup: (_key: string) => pays ? paid : free })
        const ask = Effect.gen(function*() {
          let ran = 0
          for (let i = 0; i < 3; i++) {
            if (Option.isSome(yield* map.withPermitsIfAvailable("ada", 1)(Effect.void))) ran++
          }
          return ran
        })
        yield* TestClock.adjust(day + 9 * 3_600_000)
        assert.strictEqual(yield* ask, 1)
        pays = true
        // The next mornings at nine, when nothing of the day's quota is spent.
        const answered: Array<number> = []
        for (let i = 0; i < 10; i++) {
          yield* TestClock.adjust(day)
          answered.push(yield* ask)
        }
        assert.deepStrictEqual(answered, Array.from(answered, () => 3))
      }))
  }
})
