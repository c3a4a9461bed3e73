/** What the types of effect-throttle/redis promise. */
import type { Effect, Layer, Option, Scope } from "effect"
import { Throttle, type ThrottleError, ThrottleMap } from "effect-throttle"
import { RedisCluster, RedisThrottle, type ThrottleStore } from "effect-throttle/redis"
import type { Redis } from "effect/persistence"
import { createCluster } from "redis"
import { describe, expectTypeOf, test } from "vitest"

const unbounded = Throttle.rate({ limit: 1 })

class Failing extends Throttle.Service<Failing>()("types/Failing", Throttle.rate({ limit: 1, maxQueue: 1 })) {}
class NeverFailing extends Throttle.Service<NeverFailing>()("types/NeverFailing", unbounded) {}
const declared: Throttle.Policy = Throttle.rate({ limit: 1 })
class Declared extends Throttle.Service<Declared>()("types/Declared", declared) {}
class Users extends ThrottleMap.Service<Users>()("types/Users", { lookup: (_user: string) => unbounded }) {}

describe("a Layer on Redis", () => {
  test("provides the generic service, whose calls all may fail", () => {
    expectTypeOf(RedisThrottle.layer(unbounded, { key: "a" })).toEqualTypeOf<
      Layer.Layer<Throttle.Throttle, RedisThrottle.NotDistributable, Redis.Redis>
    >()
    expectTypeOf(Throttle.wait()).toEqualTypeOf<Effect.Effect<void, ThrottleError, Throttle.Throttle>>()
  })

  test("provides a Service class whose calls may fail", () => {
    expectTypeOf(RedisThrottle.layerFor(Failing, { key: "a" })).toEqualTypeOf<
      Layer.Layer<Failing, RedisThrottle.NotDistributable, Redis.Redis>
    >()
    expectTypeOf(RedisThrottle.layerFor(Declared, { key: "a" })).toExtend<
      Layer.Layer<Declared, RedisThrottle.NotDistributable, Redis.Redis>
    >()
  })

  test("provides one whose calls cannot fail only where a failing store is no error", () => {
    // @ts-expect-error its calls know no StoreError
    RedisThrottle.layerFor(NeverFailing, { key: "a" })
    // @ts-expect-error nor does saying so help
    RedisThrottle.layerFor(NeverFailing, { key: "a", onStoreError: "fail" })
    expectTypeOf(RedisThrottle.layerFor(NeverFailing, { key: "a", onStoreError: "allow" })).toExtend<
      Layer.Layer<NeverFailing, RedisThrottle.NotDistributable, Redis.Redis>
    >()
    RedisThrottle.layerFor(NeverFailing, { key: "a", onStoreError: { local: 0.5 } })
  })

  test("provides a map", () => {
    expectTypeOf(RedisThrottle.layerMap(Users)).toEqualTypeOf<Layer.Layer<Users, never, Redis.Redis>>()
    // @ts-expect-error a symbol is no key in Redis
    RedisThrottle.makeMap({ name: "map", lookup: (_key: symbol) => unbounded })
    // @ts-expect-error a map without a class needs a name
    RedisThrottle.makeMap({ lookup: (_key: string) => unbounded })
  })

  test("needs a key", () => {
    // @ts-expect-error no key
    RedisThrottle.layer(unbounded, {})
    // @ts-expect-error an unknown option
    RedisThrottle.layer(unbounded, { key: "a", ttl: 1 })
  })
})

test("Redis on a cluster", () => {
  expectTypeOf(RedisCluster.layer((preset) => createCluster({ ...preset, rootNodes: [] }))).toEqualTypeOf<
    Layer.Layer<Redis.Redis, Redis.RedisError>
  >()
})

test("a throttle on any store", () => {
  expectTypeOf(RedisThrottle.make(unbounded, { key: "a" })).toEqualTypeOf<
    Effect.Effect<Throttle.Throttle, RedisThrottle.NotDistributable, ThrottleStore.ThrottleStore | Scope.Scope>
  >()
})

test("leases", () => {
  expectTypeOf(RedisThrottle.currentFence).toEqualTypeOf<Effect.Effect<Option.Option<number>>>()
  expectTypeOf(RedisThrottle.leaseOf).returns.toEqualTypeOf<Option.Option<RedisThrottle.Lease>>()
})
