/**
 * Levels on a store, whatever happens: a call is interrupted at every step, also while the store's answer is on its way,
 * processes compete, levels close. No level is charged for a call that did not start, no bound is exceeded, no call is lost.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { MemoryStore, RedisStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import { TestClock } from "effect/testing"
import { randomNumbers } from "../utils/random-program.ts"
import { describeRedis, RedisLive, send, uniqueKey } from "../utils/redis.ts"

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
        decideTogether: (requests) => later(store.decideTogether!(requests)),
        renew: (...args) => later(store.renew(...args)),
        pause: (...args) => later(store.pause(...args))
      }
    })
  ).pipe(Layer.provide(MemoryStore.layer))

/** While time jumps, an answer that takes some steps may seem to take a second. */
const patient = { timeout: "1 hour" } as const

const stores = { "at once": MemoryStore.layer, "after some steps": slow(7) }

const yields = (n: number) => Effect.forEach(Array.from({ length: n }), () => Effect.yieldNow, { discard: true })

const settled = Effect.andThen(TestClock.adjust("1 seconds"), yields(200))

const made = (tag: string, policies: ReadonlyArray<Throttle.Policy<any>>) =>
  Effect.forEach(policies, (policy, i) => RedisThrottle.make(policy, { key: `{${tag}}:${i}`, ...patient }))

const assertIdle = (throttles: ReadonlyArray<Throttle.Throttle>, message: string) =>
  Effect.forEach(
    throttles,
    ({ statistics }) =>
      Effect.map(statistics, ({ running, waiting }) => assert.deepStrictEqual([running, waiting], [0, 0], message))
  )

type Ways = Record<string, (levels: Throttle.Levels) => Effect.Effect<unknown, unknown>>

const ways: Ways = {
  withPermit: (levels) => levels.withPermit(Effect.void),
  "withPermit, working": (levels) => levels.withPermit(Effect.never),
  withPermitsIfAvailable: (levels) => levels.withPermitsIfAvailable(Effect.never, 1),
  takeScoped: (levels) => Effect.scoped(Effect.andThen(levels.takeScoped(), Effect.never)),
  usePermits: (levels) => levels.usePermits(1)(() => Effect.never),
  cancel: (levels) =>
    Effect.scoped(Effect.flatMap(levels.takeScoped(), (permit) => Effect.andThen(permit.cancel, Effect.never)))
}

for (const [answers, store] of Object.entries(stores)) {
  /** Milliseconds: the catch-up, and how long an answer may be on its way while time jumps. */
  const slack = answers === "at once" ? 10 : 30

  describe(`levels, the store answers ${answers}`, () => {
    for (const [way, call] of Object.entries(ways)) {
      it.effect(`${way}: the permits of all levels are free again, whenever it is interrupted`, () =>
        Effect.gen(function*() {
          const one = Throttle.concurrency({ limit: 1 })
          for (
            const policies of [[one, Throttle.concurrency({ limit: 2 })], [Throttle.concurrency({ limit: 2 }), one]]
          ) {
            const throttles = yield* made(`held ${policies.indexOf(one)}`, policies)
            const levels = Throttle.levels(throttles)
            for (let steps = 0; steps < 50; steps++) {
              const fiber = yield* Effect.forkChild(call(levels))
              const second = yield* Effect.forkChild(call(levels))
              yield* yields(steps)
              yield* Fiber.interrupt(fiber)
              yield* yields(steps % 5)
              yield* Fiber.interrupt(second)
              yield* settled
              const free = yield* Effect.forkChild(levels.withPermitsIfAvailable(Effect.succeed("free"), 1))
              yield* settled
              assert.deepStrictEqual(yield* Fiber.join(free), Option.some("free"), `after ${steps} steps`)
              yield* settled
              yield* assertIdle(throttles, `after ${steps} steps`)
            }
          }
        }).pipe(Effect.scoped, Effect.provide(store)))
    }

    it.effect("what was not started costs nothing at any level, whenever it is interrupted", () =>
      Effect.gen(function*() {
        const bucket = Throttle.tokenBucket({ capacity: 1_000, refill: 1, per: "1 day" })
        const perDay = Throttle.window({ limit: 1_000, per: "30 days" })
        const throttles = yield* made("spent", [bucket, perDay, bucket])
        const users = yield* RedisThrottle.makeMap({ name: "users", lookup: (_user: string) => bucket, ...patient })
        let started = 0
        for (let steps = 0; steps < 60; steps++) {
          // Two of one user, and one of another at the same time
          const fibers = yield* Effect.forEach(["ada", "ada", "grace"], (user) =>
            Effect.forkChild(
              Throttle.levels([users.get(`{spent}:${user}`), ...throttles]).withPermit(
                Effect.sync(() => void started++)
              )
            ))
          yield* yields(steps)
          yield* Fiber.interruptAll(fibers)
          yield* settled
        }
        assert.isAbove(started, 0)
        assert.isBelow(started, 180)
        for (const throttle of throttles) {
          const rest = yield* Effect.forkChild(throttle.estimateWait(1_000 - started))
          yield* settled
          // A day wins back one permit; these were seconds.
          assert.deepStrictEqual(Option.map(yield* Fiber.join(rest), Duration.toMillis), Option.some(0))
        }
        yield* assertIdle(throttles, "idle")
      }).pipe(Effect.scoped, Effect.provide(store)))

    it.effect(
      "random calls of two processes, random interruptions: all bounds hold, and those that stay all start",
      () =>
        Effect.gen(function*() {
          for (let seed = 0; seed < 12; seed++) {
            const next = randomNumbers(seed)
            const random = (below: number) => Math.floor(next() * below)
            const hasPauses = seed % 3 === 2
            const users = ["ada", "grace"]
            const user = [Throttle.rate({ limit: 60, burst: 1 }), Throttle.concurrency({ limit: 2 })][seed % 2]!
            const organisation = Throttle.all([
              Throttle.rate({ limit: 100, burst: 2 }),
              Throttle.concurrency({ limit: 3 })
            ])
            const processes = yield* Effect.forEach(["a", "b"], () =>
              Effect.all({
                map: RedisThrottle.makeMap({ name: "users", lookup: (_user: string) => user, ...patient }),
                organisation: RedisThrottle.make(organisation, { key: `{${seed}}`, ...patient })
              }))
            const starts: Array<number> = []
            const running = { all: 0, ada: 0, grace: 0, plain: 0 } as Record<string, number>
            const work = (name: string) =>
              Effect.acquireUseRelease(
                TestClock.testClockWith((clock) =>
                  Effect.sync(() => {
                    starts.push(Number(clock.monotonicTimeNanosUnsafe()) / 1e6)
                    assert.isAtMost(++running.all!, 3)
                    running[name]!++
                    if (seed % 2 === 1 && name !== "plain") assert.isAtMost(running[name]!, 2)
                  })
                ),
                () => Effect.sleep(random(30)),
                () =>
                  Effect.sync(() => {
                    running.all!--
                    running[name]!--
                  })
              )
            const staying: Array<Fiber.Fiber<unknown, unknown>> = []
            for (let step = 0; step < 60; step++) {
              const name = users[random(2)]!
              const process = processes[random(2)]!
              const all = Throttle.levels([process.map.get(`{${seed}}:${name}`), process.organisation])
              const kind = random(5)
              const fiber = yield* Effect.forkChild(
                kind === 0
                  ? process.organisation.withPermits(work("plain"), 1)
                  : kind === 1
                  ? all.withPermitsIfAvailable(work(name), 1)
                  : all.withPermits(work(name), 1 + random(2))
              )
              if (random(3) > 0) staying.push(fiber)
              else yield* Effect.forkChild(Effect.andThen(Effect.sleep(random(60)), Fiber.interrupt(fiber)))
              if (hasPauses && random(12) === 0) yield* Effect.forkChild(process.organisation.pause(random(40)))
              yield* random(2) === 0 ? yields(random(5)) : TestClock.adjust(random(20))
            }
            for (let i = 0; i < 60; i++) yield* TestClock.adjust("1 second")
            for (const fiber of staying) {
              const exit = fiber.pollUnsafe()
              assert.isTrue(exit !== undefined && Exit.isSuccess(exit), `seed ${seed}: ${exit}`)
            }
            // What is reserved is charged at its instant, and starts later if a pause begins.
            for (let i = 0; i < (hasPauses ? 0 : starts.length); i++) {
              for (let j = i; j < starts.length; j++) {
                assert.isAtMost(j - i + 1, 3 + (starts[j]! - starts[i]! + slack) / 10 + 1e-6, `seed ${seed}`)
              }
            }
            assert.deepStrictEqual(running, { all: 0, ada: 0, grace: 0, plain: 0 })
            for (const { map, organisation } of processes) {
              yield* assertIdle([organisation], `seed ${seed}`)
              assert.deepInclude(yield* map.statistics, { waiting: 0, running: 0, keys: 0 }, `seed ${seed}`)
            }
          }
        }).pipe(Effect.scoped, Effect.provide(store)),
      60_000
    )

    it.effect("a level closes at any step: all calls are interrupted, and nothing is held in the store", () =>
      Effect.gen(function*() {
        for (let steps = 0; steps < 60; steps++) {
          const scope = yield* Scope.make()
          const closing = steps % 2
          const policies = [Throttle.concurrency({ limit: 1 }), Throttle.concurrency({ limit: 2 })]
          const throttles = yield* Effect.forEach(policies, (policy, i) => {
            const throttle = RedisThrottle.make(policy, { key: `{closed ${steps}}:${i}`, ...patient })
            return i === closing ? Scope.provide(throttle, scope) : throttle
          })
          const levels = Throttle.levels(throttles)
          const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(levels.withPermit(Effect.never)))
          yield* yields(Math.floor(steps / 2))
          const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void))
          yield* settled
          yield* Fiber.join(closed)
          for (const fiber of fibers) assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
          const others = yield* made(`closed ${steps}`, policies)
          const free = yield* Effect.forkChild(
            Throttle.levels(others).withPermitsIfAvailable(Effect.succeed("free"), 1)
          )
          yield* settled
          assert.deepStrictEqual(yield* Fiber.join(free), Option.some("free"), `after ${steps} steps`)
        }
      }).pipe(Effect.scoped, Effect.provide(store)))
  })
}

it.effect("nothing is left to run when no call waits: no pump, no timer, no renewal", () =>
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
      const throttles = yield* made("idle", [
        Throttle.all([Throttle.rate({ limit: 10, timeout: "5 seconds" }), Throttle.concurrency({ limit: 1 })]),
        Throttle.rate({ limit: 5, timeout: "9 seconds" })
      ])
      const call = Throttle.levels(throttles).withPermit(Effect.void)
      const calls = yield* Effect.forkChild(Effect.all([call, call, call], { concurrency: "unbounded" }))
      yield* yields(50)
      assert.isAbove(sleeping, 0)
      for (let i = 0; i < 40; i++) yield* TestClock.adjust("50 millis")
      yield* Fiber.join(calls)
      yield* yields(20)
      assert.strictEqual(sleeping, 0)
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer), Effect.provideService(Clock.Clock, counting))
  }))

it.effect("a queue is not emptied by one call for each round trip", () =>
  Effect.gen(function*() {
    const store = yield* ThrottleStore.ThrottleStore
    // Answers take a millisecond.
    const far: ThrottleStore.ThrottleStore = {
      ...store,
      decideTogether: (requests) => Effect.tap(store.decideTogether!(requests), () => Effect.sleep("1 millis"))
    }
    yield* Effect.gen(function*() {
      const users = yield* RedisThrottle.makeMap({
        name: "users",
        lookup: (_user: string) => Throttle.rate({ limit: 10 }),
        ...patient
      })
      const wide = yield* RedisThrottle.make(Throttle.concurrency({ limit: 400 }), { key: "{acme}", ...patient })
      yield* wide.pause("1 second")
      const started: Array<string> = []
      for (let i = 0; i < 300; i++) {
        const levels = Throttle.levels([users.get(`{acme}:${i}`), wide])
        yield* Effect.forkChild(levels.withPermit(Effect.sync(() => void started.push(`${i}`))), {
          startImmediately: true
        })
      }
      for (let i = 0; i < 1_100; i++) yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(started, Array.from({ length: 300 }, (_, i) => `${i}`))
    }).pipe(Effect.scoped, Effect.provideService(ThrottleStore.ThrottleStore, far))
  }).pipe(Effect.provide(MemoryStore.layer)))

describeRedis("levels in Redis", () => {
  const process = Layer.fresh(RedisStore.layer.pipe(Layer.provide(RedisLive)))
  /** The machine is shared, and these tests are not about slow answers. */
  const timeout = "5 seconds"

  it.live("two clients compete: all or none, and every permit that is left can be spent", () =>
    Effect.gen(function*() {
      const tag = uniqueKey("acme")
      const user = Throttle.tokenBucket({ capacity: 30, refill: 1, per: "1 day" })
      const organisation = Throttle.all([
        Throttle.window({ limit: 50, per: "1 day" }),
        Throttle.concurrency({ limit: 4 })
      ], { timeout: "600 millis" })
      const clients = yield* Effect.forEach([1, 2], () =>
        Effect.flatMap(Layer.build(process), (store) =>
          Effect.provide(
            Effect.all({
              users: RedisThrottle.makeMap({ name: "users", lookup: (_user: string) => user, timeout }),
              organisation: RedisThrottle.make(organisation, { key: `{${tag}}`, timeout })
            }),
            store
          )))
      const started = { ada: 0, grace: 0 }
      const running = { now: 0, most: 0 }
      const call = (client: (typeof clients)[number], name: "ada" | "grace") =>
        Throttle.levels([client.users.get(`{${tag}}:${name}`), client.organisation]).withPermit(
          Effect.acquireUseRelease(
            Effect.sync(() => {
              started[name]++
              running.most = Math.max(running.most, ++running.now)
            }),
            () => Effect.sleep("2 millis"),
            () => Effect.sync(() => void running.now--)
          )
        )
      const calls = Array.from(
        { length: 80 },
        (_, i) => Effect.exit(call(clients[i % 2]!, i % 4 < 2 ? "ada" : "grace"))
      )
      yield* Effect.all(calls, { concurrency: "unbounded" })
      assert.isAtMost(running.most, 4)
      assert.deepStrictEqual([started.ada <= 30, started.grace <= 30, started.ada + started.grace], [true, true, 50])
      const [{ users }] = clients as [(typeof clients)[number], (typeof clients)[number]]
      for (const name of ["ada", "grace"] as const) {
        const [left] = yield* users.get(`{${tag}}:${name}`).remaining
        assert.strictEqual(left!.remaining, 30 - started[name], name)
      }
      const names = (yield* send("KEYS", `throttle:*${tag}*`)) as Array<string>
      assert.includeMembers(names, [`throttle:users:{${tag}}:ada:`, `throttle:{${tag}}:`])
      const slots = yield* Effect.forEach(names, (name) => send("CLUSTER", "KEYSLOT", name).pipe(Effect.option))
      assert.isAtMost(new Set(slots.map((slot) => Option.getOrUndefined(slot))).size, 1)
    }).pipe(Effect.scoped, Effect.provide(RedisLive)), 20_000)
})
