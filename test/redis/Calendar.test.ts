/**
 * Windows of a calendar that processes share: a store decides by the edges that it is told, as the store in memory does by
 * the calendar itself.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import * as Plan from "../../src/internal/plan.ts"
import { type Rules, rulesOf } from "../../src/redis/internal/rules.ts"
import * as Memory from "../../src/redis/MemoryStore.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import type * as Store from "../../src/redis/ThrottleStore.ts"
import { startsOf } from "../utils/kit.ts"
import { randomNumbers } from "../utils/random-program.ts"
import { describeRedis, isThere, RedisLive, uniqueKey } from "../utils/redis.ts"

type Unit = "day" | "week" | "month"

const hour = 3_600e6
const at = (iso: string): number => Date.parse(iso) * 1e3
const iso = (micros: number): string => new Date(micros / 1e3).toISOString().replace(":00.000Z", "Z")

const quota = (zone: string, per: Unit, limit: number) => Throttle.window({ kind: "calendar", limit, per, zone })
const rules = (policy: Throttle.Policy<any>): Rules => rulesOf(Plan.make(policy.data))

interface Held {
  now: number
}

const stores: Record<string, (clock: Held) => Effect.Effect<Store.ThrottleStore, never, Redis.Redis>> = {
  memory: (clock) => Effect.succeed(Memory.make(() => clock.now, (at) => at / 1e6)),
  redis: (clock) => Effect.map(Redis.Redis, (redis) => RedisStore.make(redis, () => clock.now))
}

const request = (policy: Throttle.Policy<any>, key: string, more: Partial<Store.Request>): Store.Request => ({
  key,
  asksLeft: false,
  rules: rules(policy),
  returns: undefined,
  settlements: [],
  releases: [],
  runs: [],
  waited: 0,
  since: undefined,
  maxWait: -1,
  isDry: false,
  owner: "a",
  joins: false,
  channel: "wake:",
  ttl: 10e6,
  patience: 1e6,
  firstLease: 0,
  settleWithin: 0,
  ...more
})

const calls = (count: number, cost = 1): Partial<Store.Request> => ({ runs: [{ count, meters: [cost], pools: [] }] })

for (const [name, make] of Object.entries(stores)) {
  const suite = name === "memory" ? describe : describeRedis
  suite(`a store: ${name}`, () => {
    const layer = name === "memory" || !isThere
      ? Layer.succeed(Redis.Redis, undefined as never)
      : Layer.orDie(RedisLive)

    it.layer(layer)((it) => {
      const setting = (policy: Throttle.Policy<any>, start: string) =>
        Effect.gen(function*() {
          const clock: Held = { now: at(start) }
          const store = yield* make(clock)
          const key = uniqueKey("{calendar}")
          return { clock, decide: (more: Partial<Store.Request>) => store.decide(request(policy, key, more)) }
        })

      it.effect.each<readonly [zone: string, per: Unit, start: string, edges: ReadonlyArray<string>]>([
        ["America/Los_Angeles", "day", "2026-03-07T20:00Z", ["2026-03-08T08:00Z", "2026-03-09T07:00Z"]],
        ["America/Los_Angeles", "day", "2026-10-31T20:00Z", ["2026-11-01T07:00Z", "2026-11-02T08:00Z"]],
        ["Asia/Beirut", "day", "2022-03-26T21:30Z", ["2022-03-26T22:00Z", "2022-03-27T21:00Z"]],
        ["Pacific/Apia", "day", "2011-12-30T09:00Z", ["2011-12-30T10:00Z", "2011-12-31T10:00Z"]],
        ["UTC", "week", "2026-01-01T00:00Z", ["2026-01-05T00:00Z", "2026-01-12T00:00Z"]],
        ["Europe/Berlin", "month", "2026-02-10T00:00Z", ["2026-02-28T23:00Z", "2026-03-31T22:00Z"]]
      ])("%s, %s: the limit until each edge, then it again", ([zone, per, start, edges]) =>
        Effect.gen(function*() {
          const { clock, decide } = yield* setting(quota(zone, per, 3), start)
          for (const edge of edges) {
            const { granted, wait } = yield* decide(calls(5))
            assert.strictEqual(granted, 3)
            assert.strictEqual(iso(clock.now + wait!), edge)
            clock.now = at(edge) - 1_000
            assert.strictEqual((yield* decide(calls(5))).granted, 0)
            clock.now += 1_000
          }
          assert.strictEqual((yield* decide(calls(5))).granted, 3)
        }))

      it.effect("a slot at midnight opens the next window, and gives it up when it is returned", () =>
        Effect.gen(function*() {
          const { clock, decide } = yield* setting(quota("America/Los_Angeles", "month", 2), "2026-02-27T00:00Z")
          const { granted, slot, version } = yield* decide({ ...calls(3), maxWait: 1e18 })
          assert.strictEqual(granted, 2)
          assert.strictEqual(iso(slot!.at), "2026-03-01T08:00Z")
          yield* decide({ returns: { version, slot: { at: slot!.at, meters: [1] }, grants: undefined } })
          clock.now = at("2026-03-01T08:00Z")
          assert.strictEqual((yield* decide(calls(3))).granted, 2)
        }))

      it.effect("a settlement returns to the window that was charged, and to no other", () =>
        Effect.gen(function*() {
          const { clock, decide } = yield* setting(quota("America/Los_Angeles", "day", 10), "2026-11-01T06:30Z")
          const settleWithin = 48 * hour
          const first = yield* decide({ ...calls(1, 10), settleWithin })
          yield* decide({ settlements: [{ at: first.now, more: [-4], isUndone: false, version: 0 }], settleWithin })
          const second = yield* decide({ ...calls(9), settleWithin })
          assert.strictEqual(second.granted, 4)
          clock.now = at("2026-11-01T07:00Z")
          const third = yield* decide({ ...calls(1, 10), settleWithin })
          assert.strictEqual(third.granted, 1)
          yield* decide({ settlements: [{ at: second.now, more: [-1], isUndone: false, version: 0 }], settleWithin })
          assert.strictEqual((yield* decide({ ...calls(1), settleWithin })).granted, 0)
          // In the twenty-fifth hour of the day
          clock.now = at("2026-11-02T07:30Z")
          yield* decide({ settlements: [{ at: third.now, more: [-3], isUndone: false, version: 0 }], settleWithin })
          assert.strictEqual((yield* decide({ ...calls(9), settleWithin })).granted, 3)
        }))
    })
  })
}

describeRedis("Redis and the store in memory", () => {
  it.live("a server's clock that is set back by an hour before midnight opens no day twice", () =>
    Effect.gen(function*() {
      const clock: Held = { now: at("2026-07-02T06:30Z") }
      const store = yield* stores.redis!(clock)
      const key = uniqueKey("{calendar}")
      const ask = store.decide(request(quota("America/Los_Angeles", "day", 3), key, calls(5)))
      assert.strictEqual((yield* ask).granted, 3)
      clock.now -= hour
      const { granted, wait } = yield* ask
      assert.deepStrictEqual([granted, wait], [0, hour / 2])
      clock.now += hour / 2
      const next = yield* ask
      assert.strictEqual(next.granted, 3)
      // It shows 23:00 again: this is the window of the next day.
      assert.strictEqual(iso(clock.now + next.wait!), "2026-07-03T07:00Z")
    }).pipe(Effect.provide(RedisLive)))

  it.live(
    "give the same answers to random requests, over days, weeks and months of odd zones",
    () =>
      Effect.gen(function*() {
        const zones = ["America/Los_Angeles", "America/Sao_Paulo", "Australia/Lord_Howe", "Antarctica/Troll", "UTC"]
        for (let seed = 0; seed < 30; seed++) {
          const next = randomNumbers(seed)
          const random = (below: number) => Math.floor(next() * below)
          const zone = zones[seed % zones.length]!
          const per = (["day", "week", "month"] as const)[random(3)]!
          const length = { day: 24, week: 7 * 24, month: 30 * 24 }[per] * hour
          const clock: Held = { now: at("2018-01-01T00:00Z") + random(1_000) * 24 * hour }
          const policy = quota(zone, per, 1 + random(4))
          const key = uniqueKey("{calendar}")
          const both = yield* Effect.forEach(Object.values(stores), (make) => make(clock))
          for (let step = 0; step < 60; step++) {
            const ask = { ...calls(1 + random(3)), maxWait: random(3) === 0 ? 1e18 : -1, joins: true }
            const answers = yield* Effect.forEach(both, (store) => store.decide(request(policy, key, ask)))
            const [first, second] = answers.map(({ granted, slot, wait }) => ({ granted, slot, wait }))
            assert.deepStrictEqual(second, first, `seed ${seed}, step ${step}: ${per} in ${zone} at ${iso(clock.now)}`)
            const wait = first!.slot?.wait ?? first!.wait ?? 0
            clock.now += random(3) === 0 ? wait : random(Math.floor(length / 3))
          }
        }
      }).pipe(Effect.provide(RedisLive)),
    30_000
  )

  it.live("two processes share the limit of a month of a zone", () =>
    Effect.gen(function*() {
      const key = uniqueKey("calendar")
      const policy = quota("America/Los_Angeles", "month", 5)
      const process = Effect.gen(function*() {
        const throttle = yield* Throttle.Throttle
        const ran = yield* Effect.forEach([1, 2, 3, 4], () => throttle.withPermitsIfAvailable(Effect.void, 1))
        return ran.filter(Option.isSome).length
      }).pipe(Effect.provide(RedisThrottle.layer(policy, { key })))
      assert.deepStrictEqual([yield* process, yield* process], [4, 1])
    }).pipe(Effect.provide(RedisLive)))
})

describe("a throttle on a store", () => {
  it.effect("lets waiting calls start at midnight, over a change of the clocks", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.parse("2026-03-07T20:00Z"))
      const throttle = yield* RedisThrottle.make(quota("America/Los_Angeles", "day", 2), { key: "test" })
      const starts = yield* startsOf(throttle, 5)
      yield* TestClock.adjust("3 days")
      assert.deepStrictEqual(starts.map((start) => iso(start * 1e3)), [
        "2026-03-07T20:00Z",
        "2026-03-07T20:00Z",
        "2026-03-08T08:00Z",
        "2026-03-08T08:00Z",
        "2026-03-09T07:00Z"
      ])
    }).pipe(Effect.provide(MemoryStore.layer)))
})
