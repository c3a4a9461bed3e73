/**
 * Decisions of a store about several keys in one step: the same suite for the store in memory and for the one in Redis, on a
 * clock that the tests hold, and random requests to both.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { Redis } from "effect/persistence"
import * as Plan from "../../src/internal/plan.ts"
import { rulesOf } from "../../src/redis/internal/rules.ts"
import * as MemoryStore from "../../src/redis/MemoryStore.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import type * as Store from "../../src/redis/ThrottleStore.ts"
import { randomNumbers } from "../utils/random-program.ts"
import { describeRedis, isThere, RedisLive, send, uniqueKey } from "../utils/redis.ts"

const epoch = 3_600e6
const millis = 1_000

interface Held {
  now: number
}

const stores: Record<string, (clock: Held) => Effect.Effect<Store.ThrottleStore, never, Redis.Redis>> = {
  memory: (clock) => Effect.succeed(MemoryStore.make(() => clock.now, (at) => at / 1e6)),
  redis: (clock) => Effect.map(Redis.Redis, (redis) => RedisStore.make(redis, () => clock.now))
}

/** The requests of a process for a key. */
const requester = (policy: Throttle.Policy<any>, key: string, owner: string) => {
  const rules = rulesOf(Plan.make(policy.data))
  let lease = 0
  return (cost: number, more: Partial<Store.Request> = {}): Store.Request => ({
    key,
    rules,
    returns: undefined,
    settlements: [],
    releases: [],
    runs: cost === 0 ? [] : [{ count: 1, meters: rules.meters.map(() => cost), pools: rules.pools.map(() => cost) }],
    waited: 0,
    since: undefined,
    maxWait: -1,
    isDry: false,
    asksLeft: false,
    owner,
    joins: false,
    channel: "wake:",
    ttl: 10e6,
    patience: 1e6,
    firstLease: lease++,
    settleWithin: 60e6,
    ...more
  })
}

const waitOf = ({ wait }: Store.Decision) => wait

for (const [name, make] of Object.entries(stores)) {
  const suite = name === "memory" ? describe : describeRedis
  suite(`several keys of a store: ${name}`, () => {
    const setting = (...policies: ReadonlyArray<Throttle.Policy<any>>) =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* make(clock)
        const key = uniqueKey("{levels}")
        const requesters = policies.map((policy, i) => requester(policy, `${key}:${i}`, "a"))
        const others = policies.map((policy, i) => requester(policy, `${key}:${i}`, "b"))
        const ask = (cost = 1, more: Partial<Store.Request> = {}) =>
          store.decideTogether!(requesters.map((request) => request(cost, more)))
        const peek = (i: number, cost = 1) => Effect.map(store.decide(others[i]!(cost, { isDry: true })), waitOf)
        return { ask, clock, key, others, peek, requesters, store }
      })
    const layer = name === "memory" || !isThere
      ? Layer.succeed(Redis.Redis, undefined as never)
      : Layer.orDie(RedisLive)

    it.layer(layer)((it) => {
      it.effect("all are charged, or none: the first that cannot start is named, with its wait", () =>
        Effect.gen(function*() {
          const { ask, clock, peek } = yield* setting(
            Throttle.rate({ limit: 10, burst: 1 }),
            Throttle.window({ limit: 1, per: "1 second" })
          )
          const first = yield* ask()
          assert.deepInclude(first, { isGranted: true, blocked: undefined })
          assert.deepStrictEqual(first.decisions.map(({ granted }) => granted), [1, 1])
          const second = yield* ask()
          assert.deepInclude(second, { isGranted: false, blocked: 1 })
          assert.deepStrictEqual(second.decisions.map(({ granted, slot }) => [granted, slot]), [[0, undefined], [
            0,
            undefined
          ]])
          assert.strictEqual(second.decisions[1]!.wait, 1_000 * millis)
          assert.deepStrictEqual([yield* peek(0), yield* peek(1)], [0, 1_000 * millis])
          clock.now += 1_000 * millis - 1
          assert.strictEqual((yield* ask()).blocked, 1)
          clock.now += 1
          assert.isTrue((yield* ask()).isGranted)
        }))

      it.effect("the narrowest that cannot start is named, and a dry request charges nothing", () =>
        Effect.gen(function*() {
          const { ask, peek } = yield* setting(
            Throttle.rate({ limit: 1 }),
            Throttle.rate({ limit: 1 })
          )
          const dry = yield* ask(1, { isDry: true })
          assert.deepInclude(dry, { isGranted: false, blocked: undefined })
          assert.strictEqual(yield* peek(0), 0)
          assert.isTrue((yield* ask()).isGranted)
          assert.strictEqual((yield* ask()).blocked, 0)
        }))

      it.effect("a slot that another process has reserved at one of them comes first", () =>
        Effect.gen(function*() {
          const { ask, clock, others, store } = yield* setting(
            Throttle.rate({ limit: 10, burst: 5 }),
            Throttle.rate({ limit: 10 })
          )
          yield* ask()
          const { slot } = yield* store.decide(others[1]!(1, { maxWait: Infinity }))
          assert.strictEqual(slot?.wait, 100 * millis)
          clock.now += 100 * millis
          const after = yield* ask()
          assert.deepInclude(after, { isGranted: false, blocked: 1 })
          assert.strictEqual(after.decisions[1]!.wait, 100 * millis)
        }))

      it.effect("leases are granted at all, and missing permits of one of them at none", () =>
        Effect.gen(function*() {
          const { ask, key, others, requesters, store } = yield* setting(
            Throttle.concurrency({ limit: 2 }),
            Throttle.concurrency({ limit: 1 })
          )
          const first = yield* ask()
          assert.deepStrictEqual(first.decisions.map(({ leases }) => leases.length), [1, 1])
          const busy = yield* ask()
          assert.deepInclude(busy, { isGranted: false, blocked: 1 })
          assert.isTrue(busy.decisions[1]!.isBusy)
          // The first still has a free permit
          const one = yield* store.decide(others[0]!(1))
          assert.strictEqual(one.leases.length, 1)
          assert.strictEqual((yield* store.decide(requesters[0]!(1))).granted, 0)
          const released = first.decisions.map(({ leases }) => leases)
          const again = yield* store.decideTogether!(
            requesters.map((request, i) => request(1, { releases: released[i]! }))
          )
          assert.isTrue(again.isGranted)
          assert.deepStrictEqual(yield* store.renew(`${key}:1`, again.decisions[1]!.leases, 10e6), [true])
        }))

      it.effect("a pause of one of them holds back the call, and a reset lets it start", () =>
        Effect.gen(function*() {
          const { ask, clock, key, store } = yield* setting(
            Throttle.window({ limit: 5, per: "1 second" }),
            Throttle.window({ limit: 1, per: "1 second" })
          )
          yield* store.pause(`${key}:1`, 50 * millis)
          const paused = yield* ask()
          assert.deepInclude(paused, { isGranted: false, blocked: 1 })
          assert.isTrue(paused.decisions[1]!.isPaused)
          clock.now += 50 * millis
          assert.isTrue((yield* ask()).isGranted)
          assert.strictEqual((yield* ask()).blocked, 1)
          yield* store.reset(`${key}:1`)
          assert.isTrue((yield* ask()).isGranted)
        }))

      it.effect("one key is the same as a plain request", () =>
        Effect.gen(function*() {
          const { clock, key, store } = yield* setting()
          const policy = Throttle.all([Throttle.rate({ limit: 20, burst: 1 }), Throttle.window({ limit: 9, per: 500 })])
          const [plain, single] = ["plain", "single"].map((own) => requester(policy, `${key}:${own}`, "a"))
          for (let i = 0; i < 40; i++) {
            clock.now += 17 * millis
            const { granted, wait } = yield* store.decide(plain!(1))
            const { decisions: [decision], isGranted } = yield* store.decideTogether!([single!(1)])
            assert.strictEqual(isGranted, granted === 1, `step ${i}`)
            if (!isGranted) assert.strictEqual(decision!.wait, wait, `step ${i}`)
          }
        }))
    })
  })
}

describeRedis("the same random requests for several keys", () => {
  const policies: ReadonlyArray<ReadonlyArray<Throttle.Policy<any>>> = [
    [Throttle.rate({ limit: 100, burst: 3 }), Throttle.window({ limit: 7, per: "80 millis" })],
    [
      Throttle.window({ limit: 5, per: "50 millis", kind: "fixed" }),
      Throttle.spacing({ interval: "7 millis" }),
      Throttle.rate({ limit: 300, burst: 5 })
    ],
    [Throttle.concurrency({ limit: 2 }), Throttle.concurrency({ limit: 3 })],
    [
      Throttle.all([Throttle.rate({ limit: 300, burst: 2 }), Throttle.concurrency({ limit: 2 })]),
      Throttle.spacing({ interval: "9 millis", align: true }),
      Throttle.concurrency({ limit: 4 })
    ]
  ]

  it.layer(Layer.orDie(RedisLive))((it) => {
    it.effect.each(policies.map((levels) => ({ levels, name: levels.map(Throttle.describe).join(" | ") })))(
      "$name",
      ({ levels }) =>
        Effect.gen(function*() {
          const clock: Held = { now: epoch }
          const both = [yield* stores.memory!(clock), yield* stores.redis!(clock)]
          let grantedTogether = 0
          for (let seed = 0; seed < 25; seed++) {
            const next = randomNumbers(seed)
            const random = (below: number) => Math.floor(next() * below)
            const key = uniqueKey("{random}")
            const requesters = both.map(() =>
              ["a", "b"].map((owner) => levels.map((policy, i) => requester(policy, `${key}:${i}`, owner)))
            )
            /** The leases held of each level, by their names in each store. */
            const held = levels.map((): Array<ReadonlyArray<string>> => [])
            const history: Array<unknown> = []
            const comparable = (decision: Store.Decision) => ({
              ...decision,
              part: undefined,
              leases: decision.leases.length,
              now: undefined,
              version: undefined,
              fence: undefined
            })
            for (let step = 0; step < 30; step++) {
              clock.now += random(3) === 0 ? random(60_000) : random(4_000)
              const [who, kind, cost, level] = [random(2), random(6), 1 + random(2), random(levels.length)]
              const joins = random(2) === 0
              const since = clock.now - random(20_000)
              const isDry = random(6) === 0
              const released = held.map((all) => all.length > 0 && random(2) === 0 ? all.shift()! : undefined)
              const peeks = (i: number) =>
                Effect.forEach(requesters[i]![who]!, (request) => both[i]!.decide(request(cost, { isDry: true })))
              const answers = yield* Effect.forEach(both, (store, i) => {
                const all = requesters[i]![who]!
                const releases = (j: number) => released[j] === undefined ? [] : [released[j][i]!]
                if (kind === 0) {
                  return Effect.map(store.decide(all[level]!(cost, { maxWait: Infinity, joins })), (one) => [one])
                }
                if (kind === 1) {
                  return Effect.map(store.decide(all[level]!(cost)), (one) => [one])
                }
                const requests = all.map((request, j) =>
                  request(cost, {
                    releases: releases(j),
                    isDry,
                    ...(j === level ? { joins, waited: 1, since } : undefined)
                  })
                )
                return Effect.gen(function*() {
                  const { blocked, decisions, isGranted } = yield* store.decideTogether!(requests)
                  const granted = decisions.filter(({ granted }) => granted > 0).length
                  assert.strictEqual(granted, isGranted ? levels.length : 0, "all or none")
                  if (isGranted) grantedTogether++
                  if (!isGranted && blocked === undefined) assert.isTrue(isDry)
                  return decisions.map((decision) => ({ ...decision, blocked, isGranted }))
                })
              })
              const [memory, redis] = answers.map((all) => all.map(comparable))
              history.push({ now: clock.now - epoch, who, kind, cost, level, joins, isDry, released, memory })
              assert.deepStrictEqual(
                redis,
                memory,
                `seed ${seed}: ${JSON.stringify(redis)} after\n${
                  history.map((line) => JSON.stringify(line)).join("\n")
                }`
              )
              answers[0]!.forEach(({ leases }, j) => {
                const at = kind < 2 ? level : j
                for (let n = 0; n < leases.length; n++) held[at]!.push(answers.map((all) => all[j]!.leases[n]!))
              })
              if (kind < 2) released.forEach((one, j) => one && held[j]!.unshift(one))
              const [here, there] = [yield* peeks(0), yield* peeks(1)]
              assert.deepStrictEqual(there.map(comparable), here.map(comparable), `peeks, seed ${seed}, step ${step}`)
            }
          }
          assert.isAbove(grantedTogether, 25)
        }),
      30_000
    )
  })
})

describeRedis("several keys in Redis", () => {
  it.layer(Layer.orDie(RedisLive))((it) => {
    it.effect("a key that holds something else: refused, and nothing is charged", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const key = uniqueKey("{type}")
        yield* send("RPUSH", `${key}:b`, "something")
        const [a, b] = ["a", "b"].map((own) => requester(Throttle.rate({ limit: 1 }), `${key}:${own}`, "a"))
        const failure = yield* Effect.flip(store.decideTogether!([a!(1), b!(1)]))
        assert.strictEqual(failure.outcome, "refused")
        assert.strictEqual((yield* store.decide(a!(1))).granted, 1)
      }))
  })
})
