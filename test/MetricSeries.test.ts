/**
 * A registry keeps a bounded number of series: what counts as "other", and under which attributes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Metric, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"

const fresh = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(self, Metric.MetricRegistry, new Map() as any)

const under = (attributes: Record<string, string>) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(self, Metric.CurrentMetricAttributes, attributes)

const countOf = (metric: any, attributes: Record<string, string>) =>
  Effect.map(Metric.value(Metric.withAttributes(metric, attributes)), (state: any) => state.count as number)

const snapshot = Effect.map(Metric.snapshot, (all) => all.filter(({ id }) => id.startsWith("throttle_")))

describe("beyond 1,000 series", () => {
  it.effect("maps that count as other count their refused keys as other", () =>
    fresh(Effect.scoped(Effect.gen(function*() {
      for (let i = 0; i < 1_000; i++) yield* Throttle.make(Throttle.rate({ limit: 1, name: `open ${i}` }))
      const full = (name: string) =>
        ThrottleMap.make({ lookup: (_key: string) => Throttle.rate({ limit: 1, burst: 9 }), maxKeys: 1, name })
      const [ada, bob] = [yield* full("ada"), yield* full("bob")]
      for (const map of [ada, bob, bob]) {
        yield* map.withPermit("a")(Effect.void)
        yield* Effect.exit(map.withPermit("b")(Effect.void))
      }
      const of = (throttle: string) =>
        Effect.map(
          snapshot,
          (all) =>
            all.filter(({ attributes, id }) =>
              id === "throttle_rejected_total" && attributes?.["reason"] === "KeysExhausted" &&
              attributes["throttle"] === throttle
            ).map(({ state }: any) => state.count)
        )
      assert.deepStrictEqual([yield* of("ada"), yield* of("bob"), yield* of("other")], [[], [], [3]])
    }))))

  it.effect("throttles with attributes of their own count as other", () =>
    fresh(Effect.scoped(Effect.gen(function*() {
      for (let i = 0; i < 1_200; i++) {
        yield* under({ tenant: `${i}` })(Throttle.make(Throttle.rate({ limit: 1, name: "api" })))
      }
      // 9 series for each name, and for the name "other".
      assert.isAtMost((yield* snapshot).length, 9 * 1_001)
    }))))

  it.effect("so do those that are closed one after the other", () =>
    fresh(Effect.gen(function*() {
      for (let i = 0; i < 1_200; i++) {
        yield* under({ tenant: `${i}` })(Effect.scoped(
          Effect.flatMap(Throttle.make(Throttle.rate({ limit: 1, name: "api" })), (throttle) => throttle.wait())
        ))
      }
      assert.isAtMost((yield* snapshot).length, 9 * 1_001)
    })))

  it.effect("what a closed throttle has counted is added to no other attributes", () =>
    fresh(Effect.gen(function*() {
      const scope = yield* Scope.make()
      const ada = yield* under({ tenant: "ada" })(
        Scope.provide(Throttle.make(Throttle.rate({ limit: 1, burst: 99, name: "api" })), scope)
      )
      yield* Effect.repeat(ada.wait(), { times: 41 })
      yield* Scope.close(scope, Exit.void)
      const open = yield* Scope.make()
      for (let i = 0; i < 1_001; i++) {
        yield* under({ tenant: "bob" })(
          Scope.provide(Throttle.make(Throttle.rate({ limit: 1, name: `bob's ${i}` })), open)
        )
      }
      assert.strictEqual(yield* countOf(Throttle.metrics.admitted, { throttle: "other", tenant: "bob" }), 0)
      assert.strictEqual(yield* countOf(Throttle.metrics.admitted, { throttle: "other" }), 42)
    })))
})
