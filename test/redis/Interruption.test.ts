/**
 * A call is interrupted at every step, also while the store's answer is on its way: nothing is held, owed or waited for
 * afterwards.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import * as Testing from "effect-throttle/testing"
import { TestClock } from "effect/testing"
import { randomNumbers } from "../utils/random-program.ts"

/** The store in memory, with answers that take a while. */
const slow = (yields: number) =>
  Layer.effect(
    ThrottleStore.ThrottleStore,
    Effect.map(ThrottleStore.ThrottleStore, (store): ThrottleStore.ThrottleStore => {
      const later = <A, E>(self: Effect.Effect<A, E>) =>
        Effect.tap(self, () => Effect.repeat(Effect.yieldNow, { times: yields }))
      return {
        ...store,
        decide: (request) => later(store.decide(request)),
        renew: (...args) => later(store.renew(...args)),
        pause: (...args) => later(store.pause(...args))
      }
    })
  ).pipe(Layer.provide(MemoryStore.layer))

/** While time jumps, an answer that takes some steps may seem to take a second. */
const patient = { timeout: "1 hour" } as const

const stores = { "at once": MemoryStore.layer, "after some steps": slow(7) }

const yields = (n: number) => Effect.forEach(Array.from({ length: n }), () => Effect.yieldNow, { discard: true })

type Ways = Record<string, (throttle: Throttle.Throttle) => Effect.Effect<unknown, unknown>>

const ways: Ways = {
  withPermit: (throttle) => throttle.withPermit(Effect.void),
  "withPermit, working": (throttle) => throttle.withPermit(Effect.never),
  withPermitsIfAvailable: (throttle) => throttle.withPermitsIfAvailable(Effect.never, 1),
  takeScoped: (throttle) => Effect.scoped(Effect.andThen(throttle.takeScoped(), Effect.never)),
  usePermits: (throttle) => throttle.usePermits(1)(() => Effect.never),
  cancel: (throttle) =>
    Effect.scoped(Effect.flatMap(throttle.takeScoped(), (permit) => Effect.andThen(permit.cancel, Effect.never)))
}

/** All that can happen without time passing, and a little more. */
const settled = Effect.andThen(TestClock.adjust("1 seconds"), yields(200))

for (const [answers, store] of Object.entries(stores)) {
  describe(`the store answers ${answers}`, () => {
    for (const [way, call] of Object.entries(ways)) {
      it.effect(`${way}: permits are free again, whenever it is interrupted`, () =>
        Effect.gen(function*() {
          const throttle = yield* RedisThrottle.make(Throttle.concurrency({ limit: 1 }), { key: "held", ...patient })
          for (let steps = 0; steps < 40; steps++) {
            const fiber = yield* Effect.forkChild(call(throttle))
            const second = yield* Effect.forkChild(call(throttle))
            yield* yields(steps)
            yield* Fiber.interrupt(fiber)
            yield* yields(steps % 5)
            yield* Fiber.interrupt(second)
            yield* settled
            const free = yield* Effect.forkChild(throttle.withPermitsIfAvailable(Effect.succeed("free"), 1))
            yield* settled
            assert.deepStrictEqual(yield* Fiber.join(free), Option.some("free"), `after ${steps} steps`)
            yield* settled
            const { running, waiting } = yield* throttle.statistics
            assert.deepStrictEqual([running, waiting], [0, 0])
          }
        }).pipe(Effect.scoped, Effect.provide(store)))
    }

    it.effect("what comes back beside a slot costs nothing, nor does the slot once it has come back", () =>
      Effect.gen(function*() {
        const policy = Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 day" })
        for (let steps = 0; steps < 60; steps++) {
          const throttle = yield* RedisThrottle.make(policy, { key: `beside ${steps}`, ...patient })
          let spent = 0
          const call = (cost: number) =>
            Effect.forkChild(throttle.withPermits(Effect.sync(() => void (spent += cost)), cost))
          const small = yield* Effect.forEach([2, 2, 2, 2, 2], call)
          const large = yield* call(5)
          yield* yields(steps)
          yield* Fiber.interrupt(small[0]!)
          yield* settled
          yield* Fiber.interrupt(large)
          yield* settled
          let left = 0
          for (let isLeft = true; isLeft; left += isLeft ? 1 : 0) {
            const one = yield* Effect.forkChild(throttle.withPermitsIfAvailable(Effect.void, 1))
            yield* settled
            isLeft = Option.isSome(yield* Fiber.join(one))
          }
          assert.strictEqual(spent + left, 10, `after ${steps} steps`)
        }
      }).pipe(Effect.scoped, Effect.provide(store)))

    it.effect("what was not started costs nothing, whenever it is interrupted", () =>
      Effect.gen(function*() {
        const policy = Throttle.tokenBucket({ capacity: 1_000, refill: 1, per: "1 day" })
        const throttle = yield* RedisThrottle.make(policy, { key: "spent", ...patient })
        let started = 0
        for (let steps = 0; steps < 60; steps++) {
          const call = throttle.withPermit(Effect.sync(() => void started++))
          const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(call))
          yield* yields(steps)
          yield* Fiber.interruptAll(fibers)
          yield* settled
        }
        const rest = yield* Effect.forkChild(throttle.estimateWait(1_000 - started))
        yield* settled
        assert.isAbove(started, 0)
        assert.isBelow(started, 180)
        // A day wins back one permit; these were seconds.
        assert.deepStrictEqual(Option.map(yield* Fiber.join(rest), Duration.toMillis), Option.some(0))
      }).pipe(Effect.scoped, Effect.provide(store)))

    it.effect(
      "random calls, random interruptions: the bound holds, and those who stay all start",
      () =>
        Effect.gen(function*() {
          for (let seed = 0; seed < 10; seed++) {
            const next = randomNumbers(seed)
            const random = (below: number) => Math.floor(next() * below)
            const throttle = yield* RedisThrottle.make(
              Throttle.all([Throttle.rate({ limit: 100, burst: 2 }), Throttle.concurrency({ limit: 4 })]),
              { key: `random ${seed}`, ...patient }
            )
            const starts: Array<number> = []
            let running = 0
            const work = Effect.acquireUseRelease(
              TestClock.testClockWith((clock) =>
                Effect.sync(() => {
                  starts.push(Number(clock.monotonicTimeNanosUnsafe()) / 1e6)
                  assert.isAtMost(++running, 4)
                })
              ),
              () => Effect.sleep(random(30)),
              () => Effect.sync(() => void running--)
            )
            const staying: Array<Fiber.Fiber<unknown, unknown>> = []
            for (let step = 0; step < 60; step++) {
              const fiber = yield* Effect.forkChild(throttle.withPermits(work, 1 + random(2)))
              if (random(3) > 0) staying.push(fiber)
              else yield* Effect.forkChild(Effect.andThen(Effect.sleep(random(60)), Fiber.interrupt(fiber)))
              yield* random(2) === 0 ? yields(random(5)) : TestClock.adjust(random(20))
            }
            yield* TestClock.adjust("1 minute")
            for (const fiber of staying) {
              assert.isTrue(Exit.isSuccess((yield* Fiber.await(fiber)) as Exit.Exit<unknown>))
            }
            for (let i = 0; i < starts.length; i++) {
              for (let j = i; j < starts.length; j++) {
                assert.isAtMost(j - i + 1, 3 + (starts[j]! - starts[i]! + 10) / 10 + 1e-6)
              }
            }
            const { waiting } = yield* throttle.statistics
            assert.deepStrictEqual([waiting, running], [0, 0])
          }
        }).pipe(Effect.scoped, Effect.provide(store)),
      30_000
    )

    it.effect("the scope closes at any step: all who wait are interrupted, and nothing is held in the store", () =>
      Effect.gen(function*() {
        for (let steps = 0; steps < 30; steps++) {
          const scope = yield* Scope.make()
          const key = `closed ${steps}`
          const policy = Throttle.concurrency({ limit: 1 })
          const throttle = yield* Scope.provide(RedisThrottle.make(policy, { key, ...patient }), scope)
          const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(throttle.withPermit(Effect.never)))
          yield* yields(steps)
          const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
          yield* settled
          yield* Fiber.join(closing)
          for (const fiber of fibers) assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
          const other = yield* RedisThrottle.make(policy, { key, ...patient })
          const free = yield* Effect.forkChild(other.withPermitsIfAvailable(Effect.succeed("free"), 1))
          yield* settled
          assert.deepStrictEqual(yield* Fiber.join(free), Option.some("free"), `after ${steps} steps`)
        }
      }).pipe(Effect.scoped, Effect.provide(store)))
  })
}

it.effect("nothing is left to run when nobody waits: no pump, no timer, no renewal", () =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    let sleeping = 0
    const counting: Clock.Clock = {
      ...clock,
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      sleep: (duration) =>
        Effect.acquireUseRelease(
          Effect.sync(() => void sleeping++),
          () => clock.sleep(duration),
          () => Effect.sync(() => void sleeping--)
        )
    }
    yield* Effect.gen(function*() {
      const throttle = yield* RedisThrottle.make(
        Throttle.all([Throttle.rate({ limit: 10, timeout: "5 seconds" }), Throttle.concurrency({ limit: 1 })]),
        { key: "idle" }
      )
      const calls = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 3 }, () => throttle.withPermit(Effect.void)), { concurrency: "unbounded" })
      )
      yield* Testing.waitUntilWaiting(throttle, 1)
      assert.isAbove(sleeping, 0)
      yield* TestClock.adjust("300 millis")
      yield* Fiber.join(calls)
      yield* yields(20)
      assert.strictEqual(sleeping, 0)
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer), Effect.provideService(Clock.Clock, counting))
  }))
