/**
 * Windows whose starts are cancelled, or fall a fraction of a microsecond before their instants.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"

const simulated = (policy: Throttle.Policy<any>) => {
  const simulator = Simulator.make({ operations: 2_048, context: Simulator.ownMetrics() })
  return [simulator, Simulator.result(simulator, Scope.provide(Throttle.make(policy), Scope.makeUnsafe()))] as const
}

describe("a sliding window", () => {
  it.effect("forgets a start that is cancelled or settled for nothing: a map has room for another key", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({
        lookup: (_key: string) => Throttle.window({ limit: 5, per: "1 hour" }),
        maxKeys: 1
      })
      yield* map.usePermits("a", 1)((permit) => permit.cancel)
      yield* map.usePermits("b", 5)((permit) => permit.settle(0))
      yield* map.withPermit("c")(Effect.void)
      assert.strictEqual((yield* map.statistics).keys, 1)
    }))

  it.effect("of starts at one instant returns what each has cost, and no more", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 200, per: "1 hour" }))
      const scope = yield* Scope.make()
      const permits = yield* Effect.replicateEffect(Scope.provide(throttle.takeScoped(2), scope), 100)
      const mayStart = (cost: number) => Effect.map(throttle.estimateWait(cost), Option.exists(Duration.isZero))
      for (const [i, permit] of permits.entries()) {
        yield* i % 2 === 0 ? permit.cancel : permit.settle(1)
        // Each pair returns 3 of its 4.
        const free = 3 * ((i >> 1) + 1) - (i % 2 === 0 ? 1 : 0)
        assert.isTrue(yield* mayStart(free), `${i}`)
        assert.isFalse(yield* mayStart(free + 1), `${i}`)
        if (i % 10 === 9) yield* TestClock.adjust(1)
      }
    }))

  it("a start a fraction of a microsecond early can be cancelled after others", () => {
    const [simulator, throttle] = simulated(Throttle.window({ limit: 3, per: 10.0007 }))
    const ran = simulator.fork(Effect.gen(function*() {
      yield* throttle.wait(3)
      // Due at 10.0007, and started at a whole microsecond before that.
      return yield* throttle.usePermits(1)((permit) =>
        Effect.gen(function*() {
          yield* throttle.wait(1)
          yield* permit.cancel
          // One of three is spent.
          return yield* throttle.withPermitsIfAvailable(Effect.succeed("ran"), 2)
        })
      )
    }))
    simulator.run()
    assert.deepStrictEqual(Effect.runSync(Effect.flatten(Effect.sync(() => ran.pollUnsafe()!))), Option.some("ran"))
  })
})

describe("a fixed window", () => {
  const aligned = Throttle.spacing({ interval: 2, align: true })
  for (const [name, beside] of Object.entries({ alone: undefined, "with slots of the clock": aligned })) {
    it(`${name}: no more than its limit start in any window of the clock`, () => {
      for (let seed = 151; seed <= 250; seed++) {
        const next = randomNumbers(seed)
        const limit = 1 + Math.floor(next() * 4)
        const offset = 1_000 * next()
        const window = Throttle.window({ limit, per: 10, kind: "fixed" })
        const [simulator, throttle] = simulated(beside === undefined ? window : Throttle.all([window, beside]))
        simulator.setWall(offset)
        const counts = new Map<number, number>()
        const call = Effect.sync(() => {
          // What starts within a microsecond before a boundary belongs behind it.
          const index = Math.floor((simulator.now() + offset + 1e-3) / 10)
          counts.set(index, (counts.get(index) ?? 0) + 1)
        })
        let at = 0
        for (let i = 0; i < 40; i++) {
          at += next() < 0.4 ? 0 : next() * 3
          simulator.at(at, () => {
            simulator.fork(next() < 0.7 ? throttle.withPermit(call) : throttle.withPermitsIfAvailable(call, 1))
          })
        }
        simulator.run()
        for (const [index, count] of counts) assert.isAtMost(count, limit, `seed ${seed}, window ${index}`)
      }
    })
  }
})
