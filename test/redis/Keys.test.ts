/** Keys in Redis: which throttles share one, and how long it lives. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import type { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { slotOf } from "../../src/redis/internal/slots.ts"
import { keysOf } from "../../src/redis/internal/wire.ts"
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
        // A key with a hash tag of its own
        yield* Effect.provide(Logins.wait("{acme}:ada"), RedisThrottle.layerMap(Logins, options))
        yield* Effect.provide(Logins.wait("{acme}"), RedisThrottle.layerMap(Logins, options))
        yield* Effect.provide(Logins.wait("a{b}"), RedisThrottle.layerMap(Logins, options))
        const keys = (yield* send("KEYS", `${prefix}*`)) as Array<string>
        return keys.map((key) => key.slice(prefix.length))
      })
      assert.sameMembers(yield* Effect.provide(program, RedisLive), [
        "test/Logins:{ada}",
        "other:{ada}",
        "{unnamed}",
        "a%7Bb}%3Ac%25:{named}",
        "test/Logins:{acme}:ada:",
        "test/Logins:{acme}:",
        "test/Logins:{a{b%7D}"
      ])
    }))
})

describe("a key with a hash tag", () => {
  it.effect("is no other key's, nor what belongs to one", () =>
    Effect.gen(function*() {
      const asked = new Set<string>()
      const store = yield* ThrottleStore.ThrottleStore
      const policy = Throttle.all([Throttle.window({ limit: 9, per: "1 day" }), Throttle.concurrency({ limit: 9 })])
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_user: string) => policy }).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, {
          ...store,
          decide: (request) =>
            Effect.suspend(() => {
              const keys = keysOf(request)
              for (const key of keys) asked.add(key)
              return store.decide(request)
            })
        })
      )
      const users = [
        "acme",
        "{acme}",
        "{acme}:",
        "{acme}:leases",
        "{acme}:leases:",
        "{acme}:line",
        "{acme}:s0",
        "acme:"
      ]
      for (const user of users) {
        const before = asked.size
        yield* map.withPermit(user)(Effect.void)
        yield* TestClock.adjust(0)
        // The state, the log, the leases and the line, each its own
        assert.strictEqual(asked.size - before, 4, user)
      }
      assert.deepStrictEqual(
        new Set([...asked].filter((key) => key.includes("{acme}")).map(slotOf)),
        new Set([slotOf("acme")])
      )
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)))
})

describeRedis("a key that is charged for a permit which may be settled", () => {
  /** Milliseconds from a start until the state equals the initial state. */
  const policies = {
    rate: [Throttle.rate({ limit: 10 }), 100],
    tokenBucket: [Throttle.tokenBucket({ capacity: 10, refill: 10, per: "30 seconds" }), 3_000],
    sliding: [Throttle.window({ limit: 10, per: "200 millis" }), 200],
    // And half a window more: a window that opens right behind it is then known to be the next one.
    fixed: [Throttle.window({ limit: 10, per: "200 millis", kind: "fixed" }), 300],
    spacing: [Throttle.spacing({ interval: "300 millis" }), 300],
    concurrency: [Throttle.concurrency({ limit: 1 }), 2_000],
    all: [Throttle.all([Throttle.rate({ limit: 10 }), Throttle.spacing({ interval: "300 millis" })]), 300]
  } as const

  type Name = keyof typeof policies

  it.live("expires when its state is initial, however long the permit may be settled", () =>
    Effect.gen(function*() {
      const prefix = uniqueKey("expiry:")
      const map = yield* RedisThrottle.makeMap({
        name: "settled",
        prefix,
        leaseTtl: "2 seconds",
        lookup: (name: Name) => policies[name][0],
        ...patient
      })
      for (const name of Object.keys(policies) as Array<Name>) {
        yield* Effect.scoped(map.takeScoped(name))
        const keys = (yield* send("KEYS", `${prefix}settled:{${name}}*`)) as Array<string>
        assert.isNotEmpty(keys)
        for (const key of keys) {
          const left = Number(yield* send("PTTL", key))
          // -2: it is gone; -1 would be: it never expires
          assert.notStrictEqual(left, -1, key)
          // A second of slack for the client's and the server's clocks
          assert.isAtMost(left, policies[name][1] + 1_001, key)
        }
      }
    }).pipe(Effect.scoped, Effect.provide(onRedis(RedisStore.layer))))

  it.live("is gone a moment later, and what is settled then changes nothing", () =>
    Effect.gen(function*() {
      const prefix = uniqueKey("expiry:")
      const map = yield* RedisThrottle.makeMap({
        name: "settled",
        prefix,
        lookup: (_user: string) => Throttle.tokenBucket({ capacity: 10, refill: 100 }),
        ...patient
      })
      yield* Effect.scoped(Effect.gen(function*() {
        const permits = yield* Effect.forEach(Array.from({ length: 50 }), (_, i) => map.takeScoped(`user ${i}`, 10))
        assert.lengthOf((yield* send("KEYS", `${prefix}*`)) as Array<string>, 50)
        yield* Effect.sleep("1300 millis")
        assert.deepStrictEqual(yield* send("KEYS", `${prefix}*`), [])
        // Another call spends what is there; nothing of the first one is left that could come back.
        yield* map.wait("user 0", 10)
        yield* permits[0]!.settle(0)
        assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("user 0", 9)(Effect.void)))
      }))
    }).pipe(Effect.scoped, Effect.provide(onRedis(RedisStore.layer))))
})

describe("settleWithin", () => {
  const bucket = Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 day" })

  for (
    const [option, inTime, late] of [[undefined, "599 seconds", "2 seconds"], [
      "5 seconds",
      "4999 millis",
      "2 millis"
    ]] as const
  ) {
    it.effect(`${option ?? "its default of 10 minutes"}: the cost may be settled for so long after the start`, () =>
      Effect.gen(function*() {
        const throttle = yield* RedisThrottle.make(bucket, { key: "settled", settleWithin: option })
        const isFree = Effect.gen(function*() {
          yield* TestClock.adjust(0)
          return Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1))
        })
        yield* Effect.scoped(Effect.gen(function*() {
          const first = yield* throttle.takeScoped(5)
          const second = yield* throttle.takeScoped(5)
          yield* TestClock.adjust(inTime)
          // Another call, of which nothing may be settled, shortens that for none.
          assert.isFalse(yield* isFree)
          yield* first.settle(4)
          assert.isTrue(yield* isFree)
          yield* TestClock.adjust(late)
          yield* second.settle(0)
          assert.isFalse(yield* isFree)
        }))
      }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)))
  }

  it("must be a positive duration", () => {
    assert.throws(
      () => RedisThrottle.layer(bucket, { key: "a", settleWithin: "0 seconds" }),
      RangeError,
      "RedisThrottle.layer: \"settleWithin\" must be a finite duration ≥ 1 millisecond, received \"0 seconds\""
    )
  })
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
