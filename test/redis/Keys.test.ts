/** Keys in Redis: which throttles share one, and how long it lives. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import type { Redis } from "effect/persistence"
import { describeRedis, RedisLive, send, uniqueKey } from "../utils/redis.ts"

/** The machine is shared, and these tests are not about slow answers. */
const patient = { timeout: "5 seconds" } as const

const onRedis = <R>(layer: Layer.Layer<R, unknown, Redis.Redis>) => layer.pipe(Layer.provideMerge(RedisLive))

const perDay = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day" })

class Logins extends ThrottleMap.Service<Logins>()("test/Logins", { lookup: (_user: string) => perDay }) {}
class Searches extends ThrottleMap.Service<Searches>()("test/Searches", { lookup: (_user: string) => perDay }) {}

const isGranted = <A, E, R>(self: Effect.Effect<Option.Option<A>, E, R>) => Effect.map(self, Option.isSome)

describeRedis("a key in Redis", () => {
  it.live("two map classes with the default prefix have separate budgets for the same key", () =>
    Effect.gen(function*() {
      const user = uniqueKey("ada")
      const login = isGranted(Logins.withPermitsIfAvailable(user, 3)(Effect.void))
      const search = isGranted(Searches.withPermitsIfAvailable(user, 3)(Effect.void))
      const layer = Layer.merge(RedisThrottle.layerMap(Logins, patient), RedisThrottle.layerMap(Searches, patient))
      const ran = yield* Effect.provide(Effect.all([login, search, login, search]), onRedis(layer))
      assert.deepStrictEqual(ran, [true, true, false, false])
    }))

  it.live("two Service classes with the same key have separate budgets, shared with their other processes", () =>
    Effect.gen(function*() {
      const policy: Throttle.Policy = perDay
      class GitHub extends Throttle.Service<GitHub>()("test/KeysGitHub", policy) {}
      class Mail extends Throttle.Service<Mail>()("test/KeysMail", policy) {}
      const options = { key: uniqueKey("production"), ...patient }
      const layer = onRedis(Layer.merge(RedisThrottle.layerFor(GitHub, options), RedisThrottle.layerFor(Mail, options)))
      const program = Effect.all([
        isGranted(GitHub.withPermitsIfAvailable(3)(Effect.void)),
        isGranted(Mail.withPermitsIfAvailable(3)(Effect.void))
      ])
      assert.deepStrictEqual(yield* Effect.provide(program, layer, { local: true }), [true, true])
      assert.deepStrictEqual(yield* Effect.provide(program, layer, { local: true }), [false, false])
    }))

  it.live("is made of prefix, name and key", () =>
    Effect.gen(function*() {
      const prefix = uniqueKey("keys:")
      const options = { prefix, ...patient }
      const named = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 day", name: "a{b}:c%" })
      const program = Effect.gen(function*() {
        yield* Effect.provide(Logins.wait("ada"), RedisThrottle.layerMap(Logins, options))
        yield* Effect.provide(Logins.wait("ada"), RedisThrottle.layerMap(Logins, { ...options, name: "other" }))
        yield* Effect.provide(Throttle.wait(), RedisThrottle.layer(perDay, { ...options, key: "unnamed" }))
        yield* Effect.provide(Throttle.wait(), RedisThrottle.layer(named, { ...options, key: "named" }), {
          local: true
        })
        const keys = (yield* send("KEYS", `${prefix}*`)) as Array<string>
        return keys.map((key) => key.slice(prefix.length))
      })
      assert.sameMembers(yield* Effect.provide(program, RedisLive), [
        "test/Logins:{ada}",
        "other:{ada}",
        "{unnamed}",
        "a%7Bb}%3Ac%25:{named}"
      ])
    }))
})

describe("a map without a class", () => {
  it.effect("has separate budgets from one of another name, and shares them with one of its own", () =>
    Effect.gen(function*() {
      const make = (name: string) => RedisThrottle.makeMap({ lookup: (_user: string) => perDay, name })
      const maps = yield* Effect.forEach(["logins", "searches", "logins"], make)
      const ran = yield* Effect.forEach(maps, (map) => isGranted(map.withPermitsIfAvailable("ada", 3)(Effect.void)))
      assert.deepStrictEqual(ran, [true, true, false])
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)))

  it("needs a name", () => {
    for (const name of [undefined, "", 3]) {
      assert.throws(
        () => RedisThrottle.makeMap({ lookup: () => perDay, name } as never),
        RangeError,
        /^RedisThrottle\.makeMap: "name" must be a non-empty string, received (undefined|""|3)$/
      )
    }
  })
})
