/**
 * Every store decides alike: one suite for the store in memory and for the one in Redis, on a clock that the tests hold,
 * and random requests to both.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Queue } from "effect"
import { Throttle } from "effect-throttle"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import * as Plan from "../../src/internal/plan.ts"
import { type Rules, rulesOf } from "../../src/redis/internal/rules.ts"
import * as MemoryStore from "../../src/redis/MemoryStore.ts"
import * as RedisStore from "../../src/redis/RedisStore.ts"
import * as Store from "../../src/redis/ThrottleStore.ts"
import { randomNumbers } from "../utils/random-program.ts"
import { describeRedis, isThere, RedisLive, send, uniqueKey } from "../utils/redis.ts"

/** Microseconds since somewhen; a round hour, so that windows of the clock begin here. */
const epoch = 3_600e6

interface Held {
  now: number
}

const stores: Record<string, (clock: Held) => Effect.Effect<Store.ThrottleStore, never, Redis.Redis>> = {
  memory: (clock) => Effect.succeed(MemoryStore.make(() => clock.now, (at) => at / 1e6)),
  redis: (clock) => Effect.map(Redis.Redis, (redis) => RedisStore.make(redis, () => clock.now))
}

const rules = (policy: Throttle.Policy<any>): Rules => rulesOf(Plan.make(policy.data))

/** A process that asks a store. */
const asker = (store: Store.ThrottleStore, rules: Rules, key: string, owner = "a") => {
  const state = { lease: 0 }
  const blank: Store.Request = {
    key,
    rules,
    returns: undefined,
    settlements: [],
    releases: [],
    runs: [],
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
    firstLease: 0,
    settleWithin: 0
  }
  const ones = (length: number) => Array.from({ length }, () => 1)
  const run = (count: number, cost = 1): Store.Run => ({
    count,
    meters: ones(rules.meters.length).map(() => cost),
    pools: ones(rules.pools.length).map(() => cost)
  })
  const decide = (request: Partial<Store.Request>) =>
    Effect.suspend(() => {
      const firstLease = state.lease
      state.lease += 1_000
      return Effect.map(store.decide({ ...blank, firstLease, ...request }), (decision) => ({ ...decision, firstLease }))
    })
  return {
    run,
    decide,
    /** So many calls, and a slot for the one after those that may start. */
    ask: (count: number, cost = 1, more: Partial<Store.Request> = {}) =>
      decide({ runs: [run(count, cost)], maxWait: Infinity, joins: true, ...more }),
    take: (count: number, cost = 1, more: Partial<Store.Request> = {}) => decide({ runs: [run(count, cost)], ...more }),
    peek: (cost = 1) => Effect.map(decide({ runs: [run(1, cost)], isDry: true }), ({ wait }) => wait)
  }
}

const millis = 1_000
const seconds = 1e6

for (const [name, make] of Object.entries(stores)) {
  const suite = name === "memory" ? describe : describeRedis
  suite(`a store: ${name}`, () => {
    const setting = (policy: Throttle.Policy<any>) =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* make(clock)
        const key = uniqueKey("{store}")
        const processes = (owner: string) => asker(store, rules(policy), key, owner)
        return { clock, store, key, processes, ...processes("a") }
      })
    const layer = name === "memory" || !isThere
      ? Layer.succeed(Redis.Redis, undefined as never)
      : Layer.orDie(RedisLive)

    it.layer(layer)((it) => {
      it.effect("rate: the burst, then one slot, a schedule apart", () =>
        Effect.gen(function*() {
          const { ask, clock, take } = yield* setting(Throttle.rate({ limit: 10, burst: 2 }))
          const first = yield* ask(5)
          assert.strictEqual(first.granted, 3)
          assert.deepStrictEqual(first.slot, { at: epoch + 100 * millis, wait: 100 * millis })
          assert.deepStrictEqual((yield* ask(1)).slot, { at: epoch + 200 * millis, wait: 200 * millis })
          const refused = yield* take(1)
          assert.deepStrictEqual([refused.granted, refused.slot, refused.wait], [0, undefined, 300 * millis])
          clock.now += 300 * millis
          assert.strictEqual((yield* take(2)).granted, 1)
        }))

      it.effect("rate: a call that waited is charged when it was due, by at most the catch-up", () =>
        Effect.gen(function*() {
          const { ask, clock } = yield* setting(Throttle.rate({ limit: 1_000 }))
          const first = yield* ask(2)
          clock.now += 8 * millis
          // 7 ms late: those of 2 to 8 ms
          const late = yield* ask(9, 1, { since: first.slot!.at, waited: 9 })
          assert.strictEqual(late.granted, 7)
          clock.now += 1_000 * millis
          const later = yield* ask(30, 1, { since: late.slot!.at, waited: 30 })
          assert.strictEqual(later.granted, 11)
          // One that has just come has nothing to make up for
          clock.now += 1_000 * millis
          assert.strictEqual((yield* ask(30, 1, { since: later.slot!.at, waited: 0 })).granted, 1)
        }))

      it.effect("rate: fractions of a microsecond add up", () =>
        Effect.gen(function*() {
          const { ask, clock } = yield* setting(Throttle.tokenBucket({ capacity: 3, refill: 3 }))
          assert.strictEqual((yield* ask(3)).granted, 3)
          let started = 0
          for (let i = 0; i < 90; i++) {
            clock.now += 333_334
            started += (yield* ask(1)).granted
          }
          assert.strictEqual(started, 90)
          assert.strictEqual((yield* ask(1)).granted, 0)
        }))

      it.effect("sliding window: never more than the limit in any window", () =>
        Effect.gen(function*() {
          const { ask, clock, take } = yield* setting(Throttle.window({ limit: 3, per: "1 second" }))
          assert.strictEqual((yield* take(1)).granted, 1)
          clock.now += 400 * millis
          const decision = yield* ask(4)
          assert.strictEqual(decision.granted, 2)
          assert.deepStrictEqual(decision.slot, { at: epoch + seconds, wait: 600 * millis })
          assert.deepStrictEqual((yield* ask(1)).slot, { at: epoch + 1_400 * millis, wait: 1_000 * millis })
          clock.now = epoch + 1_400 * millis
          assert.strictEqual((yield* take(3)).granted, 1)
          assert.strictEqual((yield* take(1)).wait, 600 * millis)
        }))

      it.effect("fixed window: those of the clock", () =>
        Effect.gen(function*() {
          const { ask, clock, take } = yield* setting(Throttle.window({ limit: 2, per: "1 second", kind: "fixed" }))
          clock.now += 700 * millis
          const decision = yield* ask(3)
          assert.strictEqual(decision.granted, 2)
          assert.deepStrictEqual(decision.slot, { at: epoch + seconds, wait: 300 * millis })
          clock.now = epoch + 1_100 * millis
          assert.strictEqual((yield* take(2)).granted, 1)
          assert.strictEqual((yield* take(1)).wait, 900 * millis)
        }))

      it.effect("spacing: one a gap, whatever it costs; aligned: on the clock", () =>
        Effect.gen(function*() {
          const plain = yield* setting(Throttle.spacing({ interval: "100 millis" }))
          const decision = yield* plain.ask(3)
          assert.strictEqual(decision.granted, 1)
          assert.strictEqual(decision.slot!.wait, 100 * millis)
          assert.strictEqual((yield* plain.ask(3)).slot!.wait, 200 * millis)
          const aligned = yield* setting(Throttle.spacing({ interval: "100 millis", align: true }))
          aligned.clock.now += 30 * millis
          assert.strictEqual((yield* aligned.ask(1)).slot!.wait, 70 * millis)
          assert.strictEqual((yield* aligned.ask(1)).slot!.wait, 170 * millis)
        }))

      it.effect("all: charged together or not at all", () =>
        Effect.gen(function*() {
          const { decide, peek } = yield* setting(Throttle.all([
            Throttle.tokenBucket({ capacity: 10, refill: 1 }),
            Throttle.tokenBucket({ capacity: 100, refill: 100, unit: "tokens" })
          ]))
          const cost = (count: number, calls: number, tokens: number) => ({
            runs: [{ count, meters: [calls, tokens], pools: [] }]
          })
          const { granted, part, wait } = yield* decide(cost(3, 1, 40))
          assert.deepStrictEqual([granted, part, wait], [2, 2, 200 * millis])
          // What does not ask for tokens need not wait for them
          assert.strictEqual((yield* decide(cost(8, 1, 0))).granted, 8)
          assert.strictEqual((yield* decide(cost(1, 1, 0))).granted, 0)
          assert.strictEqual(yield* peek(1), seconds)
        }))

      it.effect("what is asked without reserving leaves nothing behind", () =>
        Effect.gen(function*() {
          const { peek, take } = yield* setting(Throttle.rate({ limit: 1 }))
          assert.strictEqual(yield* peek(), 0)
          assert.strictEqual(yield* peek(), 0)
          assert.strictEqual((yield* take(1)).granted, 1)
          for (let i = 0; i < 3; i++) assert.strictEqual((yield* take(1)).wait, seconds)
          assert.strictEqual(yield* peek(), seconds)
        }))

      it.effect("a slot further away than maxWait is not reserved", () =>
        Effect.gen(function*() {
          const { ask, peek } = yield* setting(Throttle.rate({ limit: 1 }))
          yield* ask(1)
          const refused = yield* ask(1, 1, { maxWait: 999 * millis })
          assert.deepStrictEqual([refused.slot, refused.wait], [undefined, seconds])
          assert.strictEqual((yield* ask(1, 1, { maxWait: seconds })).slot!.wait, seconds)
          assert.strictEqual(yield* peek(), 2 * seconds)
        }))

      it.effect("all: a slot that one part puts off comes back whole to the others", () =>
        Effect.gen(function*() {
          const { ask, decide, peek } = yield* setting(Throttle.all([
            Throttle.tokenBucket({ capacity: 10, refill: 10 }),
            Throttle.window({ limit: 4, per: "10 seconds" })
          ]))
          const decision = yield* ask(5)
          assert.deepStrictEqual([decision.granted, decision.slot!.wait], [4, 10 * seconds])
          yield* decide({
            returns: { version: decision.version, slot: { at: decision.slot!.at, meters: [1, 1] }, grants: undefined },
            runs: []
          })
          const free = yield* decide({ runs: [{ count: 7, meters: [1, 0], pools: [] }] })
          assert.deepStrictEqual([free.granted, free.wait], [6, 100 * millis])
          assert.strictEqual(yield* peek(), 10 * seconds)
        }))

      for (
        const [what, policy] of Object.entries({
          rate: Throttle.rate({ limit: 10, burst: 4 }),
          "sliding window": Throttle.window({ limit: 5, per: "1 second" }),
          "fixed window": Throttle.window({ limit: 5, per: "1 second", kind: "fixed" }),
          spacing: Throttle.spacing({ interval: "100 millis" }),
          all: Throttle.all([
            Throttle.rate({ limit: 10, burst: 4 }),
            Throttle.window({ limit: 6, per: "1 second" }),
            Throttle.spacing({ interval: "1 millis" })
          ])
        })
      ) {
        it.effect(`${what}: what nobody wants comes back, if nothing has changed since`, () =>
          Effect.gen(function*() {
            const { ask, clock, decide, peek, take } = yield* setting(policy)
            const slotOf = (decision: Store.Decision, meters: ReadonlyArray<number>): Store.Return => ({
              version: decision.version,
              slot: { at: decision.slot!.at, meters },
              grants: undefined
            })
            const parts = rules(policy).meters.length
            const cost = Array.from({ length: parts }, () => 1)
            // Until a slot has to be reserved
            let decision = yield* ask(10)
            assert.isDefined(decision.slot)
            const before = decision.slot!.wait
            const back = yield* decide({ returns: slotOf(decision, cost) })
            assert.isTrue(back.hasReturned)
            assert.strictEqual(yield* peek(), before)
            // The same once more, but somebody else came in between
            decision = yield* ask(1)
            assert.strictEqual(decision.slot!.wait, before)
            const behind = yield* ask(1)
            assert.isFalse((yield* decide({ returns: slotOf(decision, cost) })).hasReturned)
            assert.isAtLeast((yield* peek())!, behind.slot!.wait)
            // What was granted at once
            clock.now += 10 * seconds
            const granted = yield* take(1)
            assert.strictEqual(granted.granted, 1)
            yield* decide({
              returns: { version: granted.version, slot: undefined, grants: { at: granted.now, meters: cost } }
            })
            const again = yield* take(20)
            clock.now += 10 * seconds
            assert.strictEqual((yield* take(20)).granted, again.granted)
          }))
      }

      it.effect("a settled call costs what it costs: what is gone anyway does not come back", () =>
        Effect.gen(function*() {
          const { clock, decide, peek, take } = yield* setting(Throttle.tokenBucket({ capacity: 100, refill: 100 }))
          const settle = (at: number, more: number) =>
            decide({ settlements: [{ version: 1e18, at, isUndone: false, more: [more] }] })
          const within = { settleWithin: 60 * seconds }
          const estimate = yield* take(1, 80, within)
          assert.strictEqual(yield* peek(100), 800 * millis)
          yield* settle(estimate.now, -50)
          assert.strictEqual(yield* peek(100), 300 * millis)
          yield* settle(estimate.now, 70)
          assert.strictEqual(yield* peek(100), 1_000 * millis)
          // The bucket runs dry in between: nothing is left of the first call that could come back
          clock.now += 10 * seconds
          const first = yield* take(1, 50, within)
          clock.now += 490 * millis
          yield* take(1, 99, within)
          yield* settle(first.now, -50)
          assert.strictEqual(yield* peek(100), 990 * millis)
        }))

      it.effect("a sliding window is settled at the instant of the start", () =>
        Effect.gen(function*() {
          const { clock, decide, peek, take } = yield* setting(Throttle.window({ limit: 10, per: "1 second" }))
          const first = yield* take(1, 8, { settleWithin: 60 * seconds })
          clock.now += 100 * millis
          yield* take(1, 2)
          assert.strictEqual(yield* peek(3), 900 * millis)
          yield* decide({ settlements: [{ version: 1e18, at: first.now, isUndone: false, more: [-5] }] })
          assert.strictEqual(yield* peek(5), 0)
          assert.strictEqual(yield* peek(6), 900 * millis)
        }))

      it.effect("leases: so many are held, and come back by release or by silence", () =>
        Effect.gen(function*() {
          const { ask, clock, decide, key, store, take } = yield* setting(Throttle.concurrency({ limit: 2 }))
          const decision = yield* ask(3)
          assert.deepStrictEqual([decision.granted, decision.isBusy, decision.nextExpiry], [2, true, 10 * seconds])
          clock.now += 6 * seconds
          const mine = decision.leases
          assert.lengthOf(mine, 2)
          assert.deepStrictEqual(yield* store.renew(key, [mine[0]!, "other"], 10 * seconds), [true, false])
          clock.now += 4 * seconds - 1
          assert.strictEqual((yield* take(1)).granted, 0)
          clock.now += 1
          const next = yield* take(2)
          assert.strictEqual(next.granted, 1)
          assert.isAbove(next.fence, decision.fence + 1)
          assert.deepStrictEqual(yield* store.renew(key, mine, 10 * seconds), [true, false])
          yield* decide({ releases: [mine[0]!, mine[0]!] })
          assert.strictEqual((yield* take(2)).granted, 1)
        }))

      it.effect("leases: one that was granted already is not taken twice", () =>
        Effect.gen(function*() {
          const { take } = yield* setting(Throttle.concurrency({ limit: 2 }))
          assert.strictEqual((yield* take(1, 1, { firstLease: 7 })).granted, 1)
          assert.strictEqual((yield* take(1, 1, { firstLease: 7 })).granted, 1)
          assert.strictEqual((yield* take(1, 1, { firstLease: 8 })).granted, 1)
          assert.strictEqual((yield* take(1, 1, { firstLease: 9 })).granted, 0)
        }))

      it.effect("leases: processes take turns, and one that is silent loses its own", () =>
        Effect.gen(function*() {
          const { clock, processes } = yield* setting(Throttle.concurrency({ limit: 1 }))
          const [a, b, c] = [processes("a"), processes("b"), processes("c")]
          const held = yield* a.ask(2)
          assert.strictEqual(held.granted, 1)
          assert.isTrue((yield* b.ask(1)).isBusy)
          assert.isTrue((yield* c.ask(1)).isBusy)
          // a's is back, and it asks again: it went to the end of the line when it was served
          const again = yield* a.ask(1, 1, { releases: held.leases })
          assert.strictEqual(again.granted, 1, "a is first: it has stood in line since it was served")
          assert.isTrue((yield* c.ask(1)).isBusy)
          yield* a.decide({ releases: again.leases })
          assert.isTrue((yield* c.ask(1)).isBusy, "b is first")
          // Without messages a process looks every 250 ms
          clock.now += 250 * millis
          assert.isTrue((yield* c.ask(1)).isBusy, "b has not looked yet")
          clock.now += 51 * millis
          assert.strictEqual((yield* c.ask(1)).granted, 1, "b was woken and did not come")
        }))

      it.effect("leases: a heavy call at the head is not overtaken", () =>
        Effect.gen(function*() {
          const { processes } = yield* setting(Throttle.concurrency({ limit: 3 }))
          const [a, b, c] = [processes("a"), processes("b"), processes("c")]
          yield* a.ask(2)
          assert.isTrue((yield* b.ask(1, 2)).isBusy)
          assert.isTrue((yield* c.ask(1)).isBusy)
          assert.isTrue((yield* c.take(1)).isBusy)
        }))

      it.effect("all with concurrency: permits and time at one instant", () =>
        Effect.gen(function*() {
          const { ask, clock, decide } = yield* setting(
            Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 2 })])
          )
          const first = yield* ask(2)
          assert.strictEqual(first.granted, 1)
          assert.strictEqual(first.slot!.wait, 100 * millis)
          // Both permits are taken, the one of the slot included
          const busy = yield* ask(1)
          assert.deepStrictEqual([busy.granted, busy.isBusy, busy.slot], [0, true, undefined])
          clock.now += 100 * millis
          yield* decide({ releases: [first.leases[0]!] })
          assert.strictEqual((yield* ask(1)).slot!.wait, 100 * millis)
        }))

      it.effect("what is granted beside a slot comes back, and then the slot: nothing is lost", () =>
        Effect.gen(function*() {
          const { clock, decide, peek, run } = yield* setting(
            Throttle.tokenBucket({ capacity: 10, refill: 10, per: "10 seconds" })
          )
          const first = yield* decide({ runs: [run(5, 2), run(1, 5)], maxWait: Infinity })
          assert.deepStrictEqual([first.granted, first.slot!.wait], [5, 5 * seconds])
          const grants = yield* decide({
            returns: { version: first.version, slot: undefined, grants: { at: first.now, meters: [4] } }
          })
          assert.isTrue(grants.hasReturned)
          clock.now += 1 * seconds
          const slot = yield* decide({
            returns: { version: grants.version, slot: { at: first.slot!.at, meters: [5] }, grants: undefined }
          })
          assert.isTrue(slot.hasReturned)
          // 10 - 6 + 1
          assert.strictEqual(yield* peek(5), 0)
          assert.strictEqual(yield* peek(6), 1 * seconds)
        }))

      it.effect("what is granted beside a slot comes back, and the window that the slot has opened keeps it", () =>
        Effect.gen(function*() {
          const { ask, clock, decide, take } = yield* setting(
            Throttle.window({ limit: 4, per: "10 seconds", kind: "fixed" })
          )
          clock.now += 9 * seconds
          const first = yield* ask(5)
          assert.deepStrictEqual([first.granted, first.slot!.wait], [4, 1 * seconds])
          yield* decide({
            returns: { version: first.version, slot: undefined, grants: { at: first.now, meters: [3] } }
          })
          clock.now += 1 * seconds
          assert.strictEqual((yield* take(4)).granted, 3)
        }))

      it.effect("what is granted beside a slot comes back, and what the slot takes from a bucket stays taken", () =>
        Effect.gen(function*() {
          const { clock, decide } = yield* setting(
            Throttle.all([Throttle.tokenBucket({ capacity: 4, refill: 4 }), Throttle.spacing({ interval: "1 second" })])
          )
          const run = (...meters: ReadonlyArray<number>) => ({ count: 1, meters, pools: [] })
          const first = yield* decide({ runs: [run(4, 1), run(1, 1)], maxWait: Infinity })
          assert.deepStrictEqual([first.granted, first.slot!.wait], [1, 1 * seconds])
          yield* decide({
            returns: { version: first.version, slot: undefined, grants: { at: first.now, meters: [4, 1] } }
          })
          clock.now += 1 * seconds
          // A full bucket, but for the one
          assert.strictEqual((yield* decide({ runs: [run(4, 0)], isDry: true })).wait, 250 * millis)
        }))

      it.effect("spacing: a start that came back beside a slot counts no more once the slot has come back", () =>
        Effect.gen(function*() {
          const { ask, decide, take } = yield* setting(Throttle.spacing({ interval: "1 second" }))
          const first = yield* ask(2)
          assert.deepStrictEqual([first.granted, first.slot!.wait], [1, 1 * seconds])
          const grants = yield* decide({
            returns: { version: first.version, slot: undefined, grants: { at: first.now, meters: [1] } }
          })
          yield* decide({
            returns: { version: grants.version, slot: { at: first.slot!.at, meters: [1] }, grants: undefined }
          })
          assert.strictEqual((yield* take(1)).granted, 1)
        }))

      it.effect("to have waited since an instant that is still to come makes nobody wait for it", () =>
        Effect.gen(function*() {
          const { ask, clock } = yield* setting(Throttle.rate({ limit: 10 }))
          const since = clock.now + 3_600 * seconds
          assert.strictEqual((yield* ask(1, 1, { since, waited: 1 })).granted, 1)
        }))

      it.effect("leases: one of a part that an update took away comes back, and who waits is first", () =>
        Effect.gen(function*() {
          const rate = Throttle.rate({ limit: 100, burst: 10 })
          const { key, processes, store } = yield* setting(Throttle.all([rate, Throttle.concurrency({ limit: 1 })]))
          const [a, b, c] = [processes("a"), processes("b"), processes("c")]
          const held = yield* a.ask(1)
          assert.isTrue((yield* b.ask(1)).isBusy)
          yield* asker(store, rules(rate), key, "a").decide({ releases: held.leases })
          assert.isTrue((yield* c.ask(1)).isBusy)
          assert.strictEqual((yield* b.ask(1)).granted, 1)
        }))

      it.effect("a pause takes nobody's place in the line for permits", () =>
        Effect.gen(function*() {
          const { clock, key, processes, store } = yield* setting(Throttle.concurrency({ limit: 1 }))
          const [a, b, c] = [processes("a"), processes("b"), processes("c")]
          const held = yield* a.ask(1)
          yield* b.ask(1)
          yield* c.ask(1)
          yield* store.pause(key, 2 * seconds)
          for (let looks = 0; looks < 8; looks++) {
            yield* b.ask(1)
            yield* c.ask(1)
            clock.now += 250 * millis
          }
          yield* a.decide({ releases: held.leases })
          assert.isTrue((yield* c.ask(1)).isBusy, "b is first")
          assert.strictEqual((yield* b.ask(1)).granted, 1)
        }))

      it.effect("a pause holds back everybody, and only grows", () =>
        Effect.gen(function*() {
          const { ask, clock, key, peek, store, take } = yield* setting(Throttle.rate({ limit: 10 }))
          yield* store.pause(key, 2 * seconds)
          yield* store.pause(key, 1 * seconds)
          const paused = yield* ask(1)
          assert.deepStrictEqual([paused.granted, paused.isPaused, paused.wait, paused.slot], [
            0,
            true,
            2 * seconds,
            undefined
          ])
          assert.strictEqual(yield* peek(), 2 * seconds)
          clock.now += 2 * seconds - 1
          assert.strictEqual((yield* take(1)).granted, 0)
          clock.now += 1
          assert.strictEqual((yield* take(1)).granted, 1)
          yield* store.pause(key, 2 * seconds)
          yield* store.pause(key, 0)
          clock.now += 100 * millis
          assert.strictEqual((yield* take(1)).granted, 1)
        }))

      it.effect("new limits: what is spent stays spent", () =>
        Effect.gen(function*() {
          const { key, peek, store, take } = yield* setting(Throttle.rate({ limit: 1, burst: 1 }))
          yield* take(2)
          assert.strictEqual(yield* peek(), seconds)
          const faster = asker(store, rules(Throttle.rate({ limit: 10, burst: 1 })), key, "b")
          assert.strictEqual(yield* faster.peek(), 100 * millis)
        }))

      it.effect("who waits for permits is told when they are free", () =>
        Effect.gen(function*() {
          const { processes, store } = yield* setting(Throttle.concurrency({ limit: 1 }))
          const channel = uniqueKey("wake")
          const [a, b] = [processes("a"), processes("b")]
          const woken = yield* store.wakeups(`${channel}b`)
          // A subscription takes a moment
          for (let tries = 0;; tries++) {
            const held = yield* a.ask(1, 1, { channel })
            yield* b.ask(1, 1, { channel })
            yield* a.decide({ releases: held.leases, channel })
            const got = yield* TestClock.withLive(Effect.timeoutOption(Queue.take(woken), "50 millis"))
            if (got._tag === "Some") return
            assert.isBelow(tries, 20)
            yield* b.decide({ runs: [b.run(1)], joins: true, channel }).pipe(
              Effect.flatMap((mine) => b.decide({ releases: mine.leases, joins: true, channel }))
            )
          }
        }))
    })
  })
}

describeRedis("a store in Redis", () => {
  it.layer(Layer.orDie(RedisLive))((it) => {
    const setting = (policy: Throttle.Policy<any>) =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        return { clock, ...asker(store, rules(policy), uniqueKey("{redis}")) }
      })

    for (
      const [name, policy] of Object.entries({
        rate: Throttle.rate({ limit: 1 }),
        "sliding window": Throttle.window({ limit: 1, per: "1 second" }),
        spacing: Throttle.spacing({ interval: "1 second" })
      })
    ) {
      it.effect(`${name}: the server's clock goes back by an hour, and nobody is freed or locked`, () =>
        Effect.gen(function*() {
          const { ask, clock, peek, take } = yield* setting(policy)
          assert.strictEqual((yield* take(1)).granted, 1)
          clock.now += 400 * millis
          assert.strictEqual((yield* ask(1)).slot!.wait, 600 * millis)
          clock.now -= 3_600 * seconds
          assert.strictEqual(yield* peek(), 1_600 * millis)
          clock.now += 1_599 * millis
          assert.strictEqual((yield* take(1)).granted, 0)
          clock.now += 1 * millis
          assert.strictEqual((yield* take(1)).granted, 1)
        }))
    }

    it.effect("leases: the server's clock goes back, and they end after as long as ever since the last change", () =>
      Effect.gen(function*() {
        const { ask, clock, take } = yield* setting(Throttle.concurrency({ limit: 1 }))
        yield* take(1)
        clock.now += 4 * seconds
        assert.isTrue((yield* ask(1)).isBusy)
        clock.now -= 3_600 * seconds
        assert.strictEqual((yield* take(1)).granted, 0)
        clock.now += 6 * seconds
        assert.strictEqual((yield* take(1)).granted, 1)
      }))

    it.effect("a large sliding window keeps its bound exactly, at the ends of its steps", () =>
      Effect.gen(function*() {
        const { ask, clock } = yield* setting(Throttle.window({ limit: 2_000, per: "10 millis" }))
        const random = randomNumbers(7)
        const log: Array<readonly [at: number, count: number]> = []
        for (let step = 0; step < 300; step++) {
          const { granted, slot, wait } = yield* ask(1 + Math.floor(random() * 1_500), 1, {
            maxWait: random() < 0.3 ? Infinity : -1
          })
          log.push([clock.now, granted])
          if (slot !== undefined) log.push([slot.at, 1])
          clock.now += wait === undefined ? Math.floor(random() * 9_000) : wait + Math.floor(random() * 3) - 1
        }
        for (const [from] of log) {
          const inWindow = log.reduce((sum, [at, count]) => at >= from && at < from + 10_000 ? sum + count : sum, 0)
          assert.isAtMost(inWindow, 2_000)
        }
      }))

    it.effect("a large sliding window keeps its log in steps: never more, and at most a step later", () =>
      Effect.gen(function*() {
        const { ask, clock } = yield* setting(Throttle.window({ limit: 5_000, per: "1 second" }))
        const random = randomNumbers(1)
        const log: Array<readonly [at: number, count: number]> = []
        let exact = 0
        for (let step = 0; step < 400; step++) {
          clock.now += Math.floor(random() * 20_000)
          const want = Math.floor(random() * 200)
          const { granted } = yield* ask(want, 1, { maxWait: -1 })
          const inWindow = log.reduce((sum, [at, count]) => at > clock.now - seconds ? sum + count : sum, 0)
          assert.isAtMost(inWindow + granted, 5_000)
          // What an exact log would have let start a step ago
          const settled = log.reduce((sum, [at, count]) => at > clock.now - seconds - millis ? sum + count : sum, 0)
          assert.isAtLeast(granted, Math.min(want, 5_000 - settled))
          if (granted > 0) log.push([clock.now, granted])
          exact += granted
        }
        assert.isAbove(exact, 15_000)
      }))

    const policiesAside = {
      "knows less": [
        Throttle.tokenBucket({ capacity: 1_000, refill: 1_000 }),
        Throttle.all([
          Throttle.tokenBucket({ capacity: 1_000, refill: 1_000 }),
          Throttle.tokenBucket({ capacity: 10, refill: 10, name: "second" })
        ])
      ],
      "is faster": [
        Throttle.tokenBucket({ capacity: 50, refill: 1_000 }),
        Throttle.tokenBucket({ capacity: 10, refill: 10, per: "1 hour" })
      ],
      "has a shorter window": [
        Throttle.window({ limit: 20, per: "10 millis" }),
        Throttle.window({ limit: 10, per: "1 hour" })
      ]
    }

    it.effect("a part that another process does not know drains as ever, however often that asks", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const [other, own] = policiesAside["knows less"].map(rules)
        const key = uniqueKey("{other}")
        const [here, there] = [asker(store, own!, key), asker(store, other!, key, "b")]
        assert.strictEqual((yield* here.take(10)).granted, 10)
        for (let i = 0; i < 10; i++) {
          yield* there.take(1)
          clock.now += 100 * millis
        }
        assert.strictEqual((yield* here.take(10)).granted, 10)
      }))

    it.effect.each(Object.entries(policiesAside))(
      "a process whose policy %s makes no key of the others expire",
      ([, [other, own]]) =>
        Effect.gen(function*() {
          const clock: Held = { now: epoch }
          const store = yield* stores.redis!(clock)
          const key = uniqueKey("{other}")
          const [here, there] = [asker(store, rules(own!), key), asker(store, rules(other!), key, "b")]
          const lives = Effect.gen(function*() {
            const keys = (yield* send("KEYS", `${key.replace(/[{}]/g, "?")}*`)) as Array<string>
            const all = yield* Effect.forEach(keys, (one) => Effect.map(send("PTTL", one), Number))
            return Math.min(...all)
          })
          yield* here.take(10)
          const before = yield* lives
          yield* there.take(1)
          // What these reads take
          assert.isAtLeast(yield* lives, before - 500)
        })
    )

    it.effect("nor does one without concurrency those of the leases", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const key = uniqueKey("{other}")
        const rate = Throttle.rate({ limit: 1_000, burst: 100 })
        const here = asker(store, rules(Throttle.all([rate, Throttle.concurrency({ limit: 1 })])), key)
        assert.strictEqual((yield* here.take(1)).granted, 1)
        yield* asker(store, rules(rate), key, "b").take(1)
        assert.isAbove(Number(yield* send("PTTL", key)), 9_000)
      }))

    it.effect("a sliding window that lost its key, but not its log, costs one burst more", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const key = uniqueKey("{window}")
        const { take } = asker(store, rules(Throttle.window({ limit: 3, per: "300 millis" })), key)
        const counts = [(yield* take(9)).granted]
        yield* send("DEL", key)
        clock.now += 20 * millis
        counts.push((yield* take(9)).granted)
        for (let i = 0; i < 4; i++) {
          // When the first three have left the window, and when the second three have
          clock.now += 285 * millis
          counts.push((yield* take(9)).granted)
          clock.now += 15 * millis
          counts.push((yield* take(9)).granted)
        }
        assert.deepStrictEqual(counts, [3, 3, 0, 3, 0, 3, 0, 3, 0, 3])
      }))

    it.effect("slots of a sliding window that were returned leave nothing in its log", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const key = uniqueKey("{window}")
        const { ask, decide, take } = asker(store, rules(Throttle.window({ limit: 2, per: "1 hour" })), key)
        yield* take(2)
        for (let i = 0; i < 20; i++) {
          clock.now += millis
          const { slot, version } = yield* ask(1)
          yield* decide({ returns: { version, slot: { at: slot!.at, meters: [1] }, grants: undefined } })
        }
        assert.isAtMost(Number(yield* send("LLEN", `${key}:s0`)), 2)
      }))

    it.effect("a request that fails because one of its keys holds something else has changed none of the others", () =>
      Effect.gen(function*() {
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const key = uniqueKey("{bad}")
        const window = Throttle.window({ limit: 2, per: "1 second" })
        const { take } = asker(store, rules(window), key)
        yield* take(2)
        yield* send("SET", `${key}:s0#second`, "text")
        yield* send("SET", `${key}:leases`, "text")
        for (
          const other of [
            Throttle.window({ limit: 2, per: "1 second", name: "second" }),
            Throttle.concurrency({ limit: 1 })
          ]
        ) {
          clock.now += seconds
          const failure = yield* Effect.flip(asker(store, rules(Throttle.all([window, other])), key).take(1))
          assert.strictEqual(failure.outcome, "refused")
          assert.strictEqual(yield* send("LLEN", `${key}:s0`), 1)
        }
      }))

    it.effect("a key that holds something else: refused, not unavailable", () =>
      Effect.gen(function*() {
        const key = uniqueKey("{bad}")
        yield* send("HSET", key, "a", "b")
        const store = yield* stores.redis!({ now: epoch })
        const failure = yield* Effect.flip(asker(store, rules(Throttle.rate({ limit: 1 })), key).take(1))
        assert.strictEqual(failure.outcome, "refused")
      }))

    it.effect("leases end with their key, also where a pause makes it anew before anybody asks", () =>
      Effect.gen(function*() {
        const key = uniqueKey("{lost}")
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const { take } = asker(store, rules(Throttle.concurrency({ limit: 1 })), key)
        const held = yield* take(1)
        yield* send("DEL", key)
        yield* store.pause(key, millis)
        clock.now += 2 * millis
        assert.strictEqual((yield* take(1)).granted, 1)
        assert.deepStrictEqual(yield* store.renew(key, held.leases, 10 * seconds), [false])
      }))

    it.effect("what was lost with its key is not taken back, nor released twice", () =>
      Effect.gen(function*() {
        const key = uniqueKey("{lost}")
        const clock: Held = { now: epoch }
        const store = yield* stores.redis!(clock)
        const { ask, decide, take } = asker(
          store,
          rules(Throttle.all([Throttle.rate({ limit: 1, burst: 1 }), Throttle.concurrency({ limit: 2 })])),
          key
        )
        const before = yield* ask(2)
        assert.strictEqual(before.granted, 2)
        yield* send("DEL", key)
        clock.now += millis
        assert.strictEqual((yield* take(2)).granted, 2)
        const back = yield* decide({
          returns: { version: before.version, slot: undefined, grants: { at: before.now, meters: [2] } },
          releases: before.leases
        })
        assert.isFalse(back.hasReturned)
        assert.isTrue((yield* take(1)).isBusy)
      }))
  })
})

describeRedis("the same random requests", () => {
  const policies = [
    Throttle.rate({ limit: 100, burst: 3 }),
    Throttle.window({ limit: 7, per: "80 millis" }),
    Throttle.window({ limit: 5, per: "50 millis", kind: "fixed" }),
    Throttle.spacing({ interval: "7 millis" }),
    Throttle.spacing({ interval: "9 millis", align: true }),
    Throttle.all([
      Throttle.tokenBucket({ capacity: 6, refill: 200 }),
      Throttle.window({ limit: 9, per: "50 millis" }),
      Throttle.spacing({ interval: "2 millis" })
    ]),
    Throttle.concurrency({ limit: 3 }),
    Throttle.all([Throttle.rate({ limit: 300, burst: 2 }), Throttle.concurrency({ limit: 4 })])
  ]

  it.layer(Layer.orDie(RedisLive))((it) => {
    it.effect.each(policies.map((policy) => ({ policy, name: Throttle.describe(policy) })))(
      "$name",
      ({ policy }) =>
        Effect.gen(function*() {
          const clock: Held = { now: epoch }
          const both = [yield* stores.memory!(clock), yield* stores.redis!(clock)]
          for (let seed = 0; seed < 25; seed++) {
            const next = randomNumbers(seed)
            const random = (below: number) => Math.floor(next() * below)
            const key = uniqueKey("{random}")
            const askers = both.map((store) => ["a", "b"].map((owner) => asker(store, rules(policy), key, owner)))
            const history: Array<unknown> = []
            let slots: ReadonlyArray<Store.Decision> | undefined
            let slotCost = 1
            /** The leases held, by their names in each store. */
            const held: Array<ReadonlyArray<string>> = []
            /** What may still be settled. */
            const charged: Array<
              { readonly at: number; readonly cost: number; readonly versions: ReadonlyArray<number> }
            > = []
            for (let step = 0; step < 40; step++) {
              clock.now += random(3) === 0 ? random(60_000) : random(4_000)
              const who = random(2)
              const kind = random(8)
              const [count, cost] = [1 + random(4), 1 + random(2)]
              const parts = rules(policy).meters.map(() => cost)
              const begun = charged.filter(({ at }) => at <= clock.now)
              const past = kind === 5 ? begun[random(begun.length)] : undefined
              if (past !== undefined) charged.splice(charged.indexOf(past), 1)
              const settled = past && { at: past.at, more: random(3) === 0 ? 1 : -past.cost }
              const release = held.length > 0 && random(2) === 0 ? held.shift() : undefined
              // One of those who started beside a slot; later perhaps the slot itself
              const isBeside = kind === 1 && slots?.[0]?.slot !== undefined && slots[0].granted > 0
              const answers = yield* Effect.forEach(both, (_, i) => {
                const one = askers[i]![who]!
                const released = release === undefined ? [] : [release[i]!]
                if (kind === 0) return one.decide({ runs: [one.run(1, cost)], isDry: true })
                if (kind === 7) return Effect.andThen(both[i]!.reset(key), one.decide({ isDry: true, asksLeft: true }))
                if (kind === 6) return one.decide({ isDry: true, asksLeft: true })
                if (kind === 5) {
                  return one.decide({
                    settlements: settled === undefined
                      ? []
                      : [{
                        version: past!.versions[i]!,
                        at: settled.at,
                        isUndone: false,
                        more: parts.map(() => settled.more)
                      }]
                  })
                }
                if (isBeside) {
                  const { now, version } = slots![i]!
                  return one.decide({
                    returns: { version, slot: undefined, grants: { at: now, meters: parts.map(() => slotCost) } }
                  })
                }
                if (kind === 1 && slots?.[i]?.slot !== undefined) {
                  return one.decide({
                    returns: {
                      version: slots[i]!.version,
                      slot: { at: slots[i]!.slot!.at, meters: parts.map(() => slotCost) },
                      grants: undefined
                    }
                  })
                }
                return kind < 4
                  ? one.ask(count, kind === 3 ? cost : 1, { releases: released, settleWithin: 60 * seconds })
                  : one.take(count, cost, { releases: released, settleWithin: 60 * seconds })
              })
              const [memory, redis] = answers.map((answer) => ({
                ...answer,
                // Of two parts that say the same but for a fraction, either may be told.
                part: undefined,
                // Each store names leases itself.
                leases: answer.leases.length,
                now: undefined,
                version: undefined,
                fence: undefined
              }))
              history.push({ now: clock.now - epoch, settled, who, kind, count, cost, release, memory })
              assert.deepStrictEqual(
                redis,
                memory,
                `seed ${seed}: ${JSON.stringify(redis)} after\n${
                  history.map((line) => JSON.stringify(line)).join("\n")
                }`
              )
              if (kind === 2 || kind === 3) slotCost = kind === 3 ? cost : 1
              // What has come back cannot be settled.
              if (answers[1]!.hasReturned) {
                const { now, slot } = slots![1]!
                charged.splice(charged.findIndex(({ at }) => at === (isBeside ? now : slot!.at)), 1)
              }
              if (kind > 0 && kind < 5) {
                const { granted, now, slot } = answers[1]!
                const versions = answers.map(({ version }) => version)
                const each = kind === 1 || kind === 2 ? 1 : cost
                for (let i = 0; i < granted; i++) charged.push({ at: now, cost: each, versions })
                if (slot !== undefined) charged.push({ at: slot.at, cost: each, versions })
              }
              slots = kind === 2 || kind === 3
                ? answers
                : kind === 0 || kind === 6
                ? slots
                : isBeside
                ? slots!.map((slot, i) => ({ ...slot, version: answers[i]!.version, granted: 0 }))
                : undefined
              for (let i = 0; i < answers[0]!.leases.length; i++) held.push(answers.map(({ leases }) => leases[i]!))
            }
          }
        }),
      30_000
    )
  })
})

describe("requests within a microsecond of the instant at which the next permit is free", () => {
  /** Most permits that start in any span of this length, its end not included, and fewest microseconds between two starts. */
  const most = (starts: ReadonlyArray<number>, span: number) =>
    Math.max(...starts.map((from) => starts.filter((at) => at >= from && at < from + span).length))
  const least = (starts: ReadonlyArray<number>) => Math.min(...starts.slice(1).map((at, i) => at - starts[i]!))
  const perWindow = (starts: ReadonlyArray<number>, per: number) =>
    Math.max(...starts.map((one) => starts.filter((at) => Math.floor(at / per) === Math.floor(one / per)).length))

  const sliding = (limit: number, per: Duration.Input) => Throttle.window({ limit, per })
  const bucket = Throttle.tokenBucket({ capacity: 2, refill: 1, per: Duration.nanos(7_300_300n) })
  const policies: Record<string, readonly [Throttle.Policy<any>, (starts: ReadonlyArray<number>) => void]> = {
    "sliding window": [sliding(3, "10 millis"), (starts) => assert.isAtMost(most(starts, 10_000), 3)],
    "sliding window of a fraction of a microsecond": [
      sliding(2, Duration.nanos(7_333_333n)),
      (starts) => assert.isAtMost(most(starts, 7_333.333), 2)
    ],
    spacing: [Throttle.spacing({ interval: "5 millis" }), (starts) => assert.isAtLeast(least(starts), 5_000)],
    "aligned spacing": [
      Throttle.spacing({ interval: "5 millis", align: true }),
      (starts) => {
        assert.isAtMost(perWindow(starts, 5_000), 1)
      }
    ],
    "fixed window": [
      Throttle.window({ limit: 3, per: "10 millis", kind: "fixed" }),
      (starts) => assert.isAtMost(perWindow(starts, 10_000), 3)
    ],
    "all of them": [
      Throttle.all([bucket, sliding(3, "10 millis"), Throttle.spacing({ interval: "1 millis" })]),
      (starts) => {
        assert.isAtMost(most(starts, 10_000), 3)
        assert.isAtLeast(least(starts), 1_000)
      }
    ]
  }

  /** Random requests, to as many stores as there are; and when what they granted starts. */
  const startsOf = (policy: Throttle.Policy<any>, seed: number, all: typeof stores) =>
    Effect.gen(function*() {
      const clock: Held = { now: epoch }
      const next = randomNumbers(seed)
      const random = (below: number) => Math.floor(next() * below)
      const key = uniqueKey("{exact}")
      const askers = yield* Effect.forEach(
        Object.values(all),
        (make) => Effect.map(make(clock), (store) => asker(store, rules(policy), key))
      )
      const starts: Array<number> = []
      for (let step = 0; step < 60; step++) {
        const count = 1 + random(3)
        const isReserving = random(4) === 0
        const answers = yield* Effect.forEach(
          askers,
          ({ ask }) => ask(count, 1, { maxWait: isReserving ? Infinity : -1 })
        )
        const [first, ...others] = answers.map(({ granted, slot, wait }) => ({ granted, slot, wait }))
        for (const other of others) assert.deepStrictEqual(other, first, `seed ${seed}, step ${step}`)
        const { granted, slot, wait } = first!
        for (let i = 0; i < granted; i++) starts.push(clock.now)
        if (slot !== undefined) starts.push(slot.at)
        // To the instant itself, just before it, just behind it, or anywhere
        clock.now += wait === undefined || random(4) === 0 ? random(9_000) : Math.max(0, wait + random(3) - 1)
      }
      return starts
    })

  for (const [name, [policy, check]] of Object.entries(policies)) {
    it.effect(`${name}: its bound holds exactly, in memory`, () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < 50; seed++) check(yield* startsOf(policy, seed, { memory: stores.memory! }))
      }).pipe(Effect.provideService(Redis.Redis, undefined as never)))

    it.live.skipIf(!isThere)(
      `${name}: its bound holds exactly, in Redis, which answers as the store in memory`,
      () =>
        Effect.gen(function*() {
          for (let seed = 0; seed < 25; seed++) check(yield* startsOf(policy, seed, stores))
        }).pipe(Effect.provide(RedisLive)),
      30_000
    )
  }
})
