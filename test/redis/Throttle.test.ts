/**
 * A throttle on a store behaves as one in memory: the store in memory on a TestClock, to the millisecond.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Metric, Option, Random, References, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { MemoryStore, RedisThrottle, ThrottleStore } from "effect-throttle/redis"
import * as Testing from "effect-throttle/testing"
import { TestClock } from "effect/testing"
import { collect } from "../utils/telemetry.ts"

const make = (policy: Throttle.Policy<any>, options: Partial<RedisThrottle.Options> = {}) =>
  RedisThrottle.make(policy, { key: "test", ...options })

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const now = TestClock.testClockWith((clock) => Effect.sync(() => Number(clock.monotonicTimeNanosUnsafe()) / 1e6))

const settled = TestClock.adjust(0)

const startsOf = (throttle: Throttle.Throttle, costs: ReadonlyArray<Throttle.Cost>) =>
  Effect.gen(function*() {
    const starts: Array<number | string> = costs.map(() => "none")
    const fibers = yield* Effect.forEach(costs, (cost, i) =>
      fork(
        Effect.flatMap(now, (at) => Effect.sync(() => void (starts[i] = at))).pipe(
          throttle.withPermits(cost),
          Effect.catchTag("ThrottleError", ({ reason }) => Effect.sync(() => void (starts[i] = reason._tag)))
        )
      ))
    return { starts, fibers }
  })

const reasonOf = (exit: Exit.Exit<unknown, unknown>): ThrottleError["reason"] => {
  const error = Option.getOrThrow(Exit.findErrorOption(exit))
  assert.instanceOf(error, ThrottleError)
  return (error as ThrottleError).reason
}

const test = (name: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope | ThrottleStore.ThrottleStore>) =>
  it.effect(name, () => Effect.scoped(body()).pipe(Effect.provide(MemoryStore.layer)))

describe("a throttle on a store", () => {
  test("starts on schedule, first come, first served", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, burst: 1 }))
      const { starts } = yield* startsOf(throttle, [1, 1, 1, 1, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [0, 0, 100, 200, 300])
    }))

  test("a heavy call is not overtaken", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.tokenBucket({ capacity: 4, refill: 10 }))
      const { starts } = yield* startsOf(throttle, [4, 3, 1, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [0, 300, 400, 500])
    }))

  test("who is interrupted costs nothing: the slot goes to the next", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10 }))
      const { fibers, starts } = yield* startsOf(throttle, [1, 1, 1, 1, 1])
      yield* settled
      yield* TestClock.adjust("50 millis")
      yield* Fiber.interruptAll([fibers[1]!, fibers[2]!])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [0, "none", "none", 100, 200])
      const { interrupted, waiting } = yield* throttle.statistics
      assert.deepStrictEqual([interrupted, waiting], [2, 0])
    }))

  test("and so where all are interrupted, also where the next asks for something else", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      const { fibers } = yield* startsOf(throttle, [10, ...Array.from({ length: 60 }, () => 10)])
      yield* TestClock.adjust("50 millis")
      yield* Fiber.interruptAll(fibers)
      yield* settled
      const { starts } = yield* startsOf(throttle, [1, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [100, 200])
      const heavy = yield* startsOf(throttle, [10, 1])
      yield* TestClock.adjust(0)
      yield* Fiber.interrupt(heavy.fibers[0]!)
      yield* TestClock.adjust("3 seconds")
      assert.isNumber(heavy.starts[1])
    }))

  test("bounds: maxQueue, maxWait, timeout", () =>
    Effect.gen(function*() {
      const queue = yield* make(Throttle.rate({ limit: 1, maxQueue: 2 }))
      const first = yield* startsOf(queue, [1, 1, 1, 1])
      yield* settled
      assert.deepStrictEqual(first.starts, [0, "none", "none", "QueueFull"])
      const late = yield* Effect.exit(queue.wait())
      const reason = reasonOf(late)
      assert.deepStrictEqual([reason._tag, reason.queued], ["QueueFull", 2])
      assert.deepStrictEqual("retryAfter" in reason && reason.retryAfter, Duration.seconds(3))

      const wait = yield* make(Throttle.rate({ limit: 1, maxWait: "2 seconds" }), { key: "wait" })
      const second = yield* startsOf(wait, [1, 1, 1, 1])
      yield* settled
      assert.deepStrictEqual(second.starts, [0, "none", "none", "WaitTooLong"])

      const timeout = yield* make(Throttle.rate({ limit: 1, timeout: "2 seconds" }), { key: "timeout" })
      const third = yield* startsOf(timeout, [1, 1, 1, 1])
      yield* TestClock.adjust("1999 millis")
      assert.deepStrictEqual(third.starts, [0, 1_000, "none", "none"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(third.starts, [0, 1_000, 2_000, "TimedOut"])

      const never = yield* make(Throttle.rate({ limit: 1, maxQueue: 0 }), { key: "never" })
      const fourth = yield* startsOf(never, [1, 1, 2])
      yield* settled
      assert.deepStrictEqual(fourth.starts.slice(1), ["QueueFull", "PermitsExceedCapacity"])
      assert.strictEqual(Option.getOrThrow(yield* never.estimateWait()).pipe(Duration.toMillis), 1_000 - 0)
    }))

  test("withPermitsIfAvailable never waits, passes nobody and leaves nothing behind", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10 }))
      const maybe = throttle.withPermitsIfAvailable(Effect.succeed("ran"), 1)
      assert.deepStrictEqual(yield* maybe, Option.some("ran"))
      assert.deepStrictEqual(yield* maybe, Option.none())
      const { starts } = yield* startsOf(throttle, [1])
      yield* settled
      assert.deepStrictEqual(yield* maybe, Option.none())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [100])
      assert.deepStrictEqual(yield* maybe, Option.some("ran"))
    }))

  test("permits are held, and given back however it ends", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.concurrency({ limit: 2 }))
      const run = (effect: Effect.Effect<unknown, unknown>) => fork(throttle.withPermit(effect))
      const a = yield* run(Effect.never)
      yield* run(Effect.delay(Effect.fail("failed"), "1 second").pipe(Effect.ignore))
      yield* Testing.waitUntilRunning(throttle, 2)
      const c = yield* run(Effect.never)
      yield* TestClock.adjust("500 millis")
      assert.strictEqual((yield* throttle.statistics).running, 2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* throttle.statistics).running, 2)
      yield* Fiber.interruptAll([a, c])
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* throttle.statistics).running, 0)
      const { starts } = yield* startsOf(throttle, [2])
      yield* TestClock.adjust("1 second")
      assert.isNumber(starts[0])
    }))

  test("all: permits and time at one instant", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 1 })]))
      const starts: Array<number> = []
      const call = throttle.withPermit(
        Effect.flatMap(now, (at) => Effect.delay(Effect.sync(() => starts.push(at)), "250 millis"))
      )
      yield* fork(Effect.all([call, call, call], { concurrency: "unbounded" }))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(starts.length, 3)
      for (let i = 1; i < 3; i++) {
        assert.isAtLeast(starts[i]! - starts[i - 1]!, 250)
        assert.isAtMost(starts[i]! - starts[i - 1]!, 251)
      }
    }))

  test("settle and cancel", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.tokenBucket({ capacity: 100, refill: 100, unit: "tokens" }))
      const wait = (tokens: number) =>
        Effect.map(throttle.estimateWait({ tokens }), (wait) => Duration.toMillis(Option.getOrThrow(wait)))
      yield* throttle.usePermits({ tokens: 80 })((permit) => permit.settle({ tokens: 30 }))
      yield* settled
      assert.strictEqual(yield* wait(100), 300)
      yield* throttle.usePermits({ tokens: 20 })((permit) => permit.settle({ tokens: 90 }))
      yield* settled
      assert.strictEqual(yield* wait(100), 1_200)
      yield* TestClock.adjust("2 seconds")
      yield* Effect.scoped(Effect.flatMap(throttle.takeScoped({ tokens: 100 }), (permit) => permit.cancel))
      yield* settled
      assert.strictEqual(yield* wait(100), 0)
    }))

  test("pause and resume", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10 }))
      const other = yield* make(Throttle.rate({ limit: 10 }))
      const { starts } = yield* startsOf(throttle, [1, 1])
      yield* settled
      yield* throttle.pause("1 second")
      const theirs = yield* startsOf(other, [1])
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual([starts, theirs.starts], [[0, "none"], ["none"]])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(starts[1], 1_000)
      assert.strictEqual(theirs.starts[0], 1_000)
      yield* throttle.pause("1 hour")
      const more = yield* startsOf(throttle, [1])
      yield* settled
      yield* throttle.resume
      yield* TestClock.adjust("1 second")
      assert.isNumber(more.starts[0])
    }))

  test("a pause has a log line, and lines, spans and events say how much of a wait it was", () =>
    Effect.gen(function*() {
      const seen = collect()
      const events: Array<Throttle.Event> = []
      const observe = <A, E, R>(self: Effect.Effect<A, E, R>) =>
        seen.in(Effect.provideService(self, Throttle.Observer, (event) => Effect.sync(() => void events.push(event))))
          .pipe(Effect.provideService(References.MinimumLogLevel, "Debug"))
      const throttle = yield* make(Throttle.rate({ limit: 10, name: "api" }))
      const other = yield* make(Throttle.rate({ limit: 10, name: "api" }))
      yield* observe(throttle.pause(300))
      // A shorter one changes nothing, and is not reported.
      yield* observe(throttle.pause(100))
      const calls = yield* Effect.forEach([throttle, other], (one) => fork(observe(one.withPermit(Effect.void))))
      yield* TestClock.adjust("1 second")
      for (const fiber of calls) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      const paused = seen.lines.filter(({ message }) => message === "throttle.paused")
      assert.deepStrictEqual(paused.map(({ annotations }) => annotations["wait"]), [300])
      const admitted = events.filter((event) => event._tag === "Admitted")
      assert.lengthOf(admitted, 2)
      for (const event of admitted) assert.closeTo((event as { readonly paused: number }).paused, 300, 1)
      for (const span of seen.spans) assert.closeTo(span.attributes.get("paused") as number, 300, 1)
    }))

  test("update: new limits for those in line, and what is spent stays spent", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 1 }))
      const { starts } = yield* startsOf(throttle, [1, 1, 1])
      yield* TestClock.adjust("100 millis")
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(starts[0], 0)
      assert.isBelow(starts[2] as number, 500)
    }))

  test("when its scope closes, those who wait are interrupted, and so are later calls", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(make(Throttle.rate({ limit: 1 })), scope)
      const { fibers } = yield* startsOf(throttle, [1, 1])
      yield* settled
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Fiber.await(fibers[1]!)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      const late = yield* Effect.exit(throttle.wait())
      assert.isTrue(Exit.isFailure(late) && Cause.hasInterruptsOnly(late.cause))
      // Its slot has come back
      const next = yield* make(Throttle.rate({ limit: 1 }))
      assert.strictEqual(Option.getOrThrow(yield* next.estimateWait()).pipe(Duration.toMillis), 1_000)
    }))

  test("a fiber that would wait for itself is told so", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.concurrency({ limit: 1 }))
      const exit = yield* Effect.exit(throttle.withPermit(throttle.withPermit(Effect.void)))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      const pass = yield* make(Throttle.concurrency({ limit: 1, onReentry: "bypass" }), { key: "pass" })
      assert.strictEqual(yield* pass.withPermit(pass.withPermit(Effect.succeed(1))), 1)
      assert.strictEqual(yield* pass.withPermit(pass.usePermits(1)((permit) => Effect.as(permit.settle(1), 2))), 2)
    }))

  test("none: nobody is asked", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.none).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, {} as ThrottleStore.ThrottleStore)
      )
      assert.strictEqual(yield* throttle.withPermit(Effect.succeed(1)), 1)
      assert.strictEqual(yield* throttle.usePermits(1)((permit) => Effect.as(permit.cancel, 2)), 2)
      assert.strictEqual((yield* throttle.statistics).admitted, 2)
    }))

  test("a lease has a fencing number that grows, and it is lost where it is not renewed", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const state = { deaf: false }
      const silent: ThrottleStore.ThrottleStore = {
        ...store,
        renew: (...args) =>
          state.deaf
            ? Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("no network") }))
            : store.renew(...args)
      }
      const throttle = yield* make(Throttle.concurrency({ limit: 1 }), { leaseTtl: "3 seconds" }).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, silent)
      )
      const first = Option.getOrThrow(yield* throttle.withPermit(RedisThrottle.currentFence))
      const work = yield* fork(throttle.withPermit(Effect.flatMap(RedisThrottle.currentFence, () => Effect.never)))
      yield* Testing.waitUntilRunning(throttle, 1)
      yield* TestClock.adjust("30 seconds")
      assert.isUndefined(work.pollUnsafe())
      state.deaf = true
      yield* TestClock.adjust("3 seconds")
      const reason = reasonOf(yield* Fiber.await(work))
      assert.strictEqual(reason._tag, "LeaseLost")
      assert.isAbove(reason._tag === "LeaseLost" ? reason.fence : 0, first)
      assert.strictEqual((yield* throttle.statistics).running, 0)
    }))

  test("a permit that is held for a scope says when its lease is lost", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const forgetful = { ...store, renew: () => Effect.succeed([false]) }
      const throttle = yield* make(Throttle.concurrency({ limit: 1 }), { leaseTtl: "3 seconds" }).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, forgetful)
      )
      const permit = yield* throttle.takeScoped()
      const lease = Option.getOrThrow(RedisThrottle.leaseOf(permit))
      const [one, two] = [yield* fork(lease.lost), yield* fork(lease.lost)]
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(one.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      for (const fiber of [one, two]) {
        const reason = reasonOf(yield* Fiber.await(fiber))
        assert.deepStrictEqual([reason._tag, reason._tag === "LeaseLost" && reason.fence], ["LeaseLost", lease.fence])
      }
      const timing = yield* make(Throttle.rate({ limit: 1 }), { key: "timing" })
      assert.isTrue(Option.isNone(RedisThrottle.leaseOf(yield* timing.takeScoped())))
      assert.isTrue(Option.isNone(yield* timing.withPermits(RedisThrottle.currentFence, 0)))
    }))

  test("a lease's name is its own: also where processes have the same seed, and keys of a map the same text", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 2 })
      const seeded = Random.withSeed(make(policy), "seed")
      const [one, two] = [yield* seeded, yield* seeded]
      yield* one.takeScoped()
      yield* two.takeScoped()
      assert.deepStrictEqual(yield* one.withPermitsIfAvailable(Effect.void, 1), Option.none())
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: string | number) => policy })
      yield* map.takeScoped(1)
      yield* map.takeScoped("1")
      assert.deepStrictEqual(yield* map.withPermitsIfAvailable(1, 1)(Effect.void), Option.none())
    }))

  test("timeout: a pause does not put it off, nor does anybody ask for the time over and over", () =>
    Effect.gen(function*() {
      const throttle = yield* make(Throttle.rate({ limit: 10, timeout: "200 millis" }))
      const { starts } = yield* startsOf(throttle, [1, 1])
      yield* TestClock.adjust("30 millis")
      yield* throttle.pause("2 seconds")
      yield* TestClock.adjust("169 millis")
      assert.deepStrictEqual(starts, [0, "none"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(starts, [0, "TimedOut"])
    }))

  test("update: a new timeout is that of those in line too, and of those who come once all of them were late", () =>
    Effect.gen(function*() {
      const slow = { limit: 1, per: "10 seconds" } as const
      const throttle = yield* make(Throttle.rate({ ...slow, maxQueue: 10 }))
      const first = yield* startsOf(throttle, [1, 1])
      yield* TestClock.adjust("100 millis")
      yield* throttle.update(Throttle.rate({ ...slow, timeout: "200 millis" }))
      yield* TestClock.adjust("99 millis")
      assert.deepStrictEqual(first.starts, [0, "none"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(first.starts, [0, "TimedOut"])
      yield* throttle.update(Throttle.rate({ ...slow, maxQueue: 10 }))
      const late = yield* startsOf(throttle, [1])
      yield* TestClock.adjust("1 second")
      yield* throttle.update(Throttle.rate({ ...slow, timeout: "500 millis" }))
      yield* settled
      assert.deepStrictEqual(late.starts, ["TimedOut"])
      const last = yield* startsOf(throttle, [1])
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(last.starts, ["TimedOut"])
    }))

  test("update: permits that are held come back, also when the new policy has none", () =>
    Effect.gen(function*() {
      const rate = Throttle.rate({ limit: 1_000, burst: 100 })
      const policy = Throttle.all([rate, Throttle.concurrency({ limit: 1 })])
      const [one, two] = [yield* make(policy), yield* make(policy)]
      yield* fork(one.withPermit(Effect.sleep("200 millis")))
      yield* Testing.waitUntilRunning(one, 1)
      yield* one.update(rate)
      const { starts } = yield* startsOf(two, [1])
      yield* TestClock.adjust("199 millis")
      assert.deepStrictEqual(starts, ["none"])
      yield* TestClock.adjust("1 millis")
      // The news goes by way of the store; who is not told would look every 250 ms.
      yield* Effect.forEach([1, 2, 3], () => settled)
      assert.deepStrictEqual(starts, [200])
    }))

  test("its scope closes: the permit is given away only when the work has ended, finalizers and all", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 1 })
      const scope = yield* Scope.make()
      const closing = yield* Scope.provide(make(policy), scope)
      const other = yield* make(policy)
      const work = yield* fork(
        closing.withPermit(Effect.ensuring(Effect.never, Effect.sleep("300 millis")))
      )
      yield* Testing.waitUntilRunning(closing, 1)
      const close = yield* fork(Scope.close(scope, Exit.void))
      const { starts } = yield* startsOf(other, [1])
      yield* TestClock.adjust("299 millis")
      assert.deepStrictEqual(starts, ["none"])
      yield* TestClock.adjust("2 millis")
      assert.isNumber(starts[0])
      yield* Fiber.await(work)
      yield* Fiber.join(close)
    }))

  test("its scope closes: work that does not end is waited for no longer than its lease lasts", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const closing = yield* Scope.provide(make(Throttle.concurrency({ limit: 1 }), { leaseTtl: "3 seconds" }), scope)
      yield* fork(closing.withPermit(Effect.uninterruptible(Effect.sleep("10 seconds"))))
      yield* Testing.waitUntilRunning(closing, 1)
      const close = yield* fork(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(close.pollUnsafe())
      yield* TestClock.adjust("2 millis")
      assert.isDefined(close.pollUnsafe())
      yield* TestClock.adjust("10 seconds")
    }))

  test("a release outlives an outage, however many calls fail meanwhile, and holds up none of them", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const state = { isDown: false }
      const down = Effect.fail(new ThrottleStore.StoreFailure({ outcome: "unavailable", cause: new Error("down") }))
      const throttle = yield* make(Throttle.concurrency({ limit: 1 })).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, {
          ...store,
          decide: (request) => Effect.suspend(() => state.isDown ? down : store.decide(request))
        })
      )
      const work = yield* fork(throttle.withPermit(Effect.sleep("100 millis")))
      yield* Testing.waitUntilRunning(throttle, 1)
      state.isDown = true
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(work)
      for (let i = 0; i < 60; i++) {
        const call = yield* fork(throttle.withPermit(Effect.void))
        yield* TestClock.adjust("10 millis")
        assert.isDefined(call.pollUnsafe())
      }
      state.isDown = false
      yield* TestClock.adjust("1500 millis")
      assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(Effect.succeed("free"), 1), Option.some("free"))
    }))

  test("work does not begin under a lease that is lost already", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const forgetful = { ...store, renew: () => Effect.succeed([false]) }
      const throttle = yield* make(Throttle.concurrency({ limit: 1 }), { leaseTtl: "3 seconds" }).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, forgetful)
      )
      let begun = false
      yield* fork(throttle.withPermit(Effect.sleep("100 millis")))
      yield* Testing.waitUntilRunning(throttle, 1)
      // The observer takes so long that the lease is lost before the work may begin.
      const work = yield* fork(
        throttle.usePermits(1)(() => Effect.sync(() => void (begun = true))).pipe(
          Effect.provideService(
            Throttle.Observer,
            ({ _tag }) => _tag === "Admitted" ? Effect.sleep("2 seconds") : Effect.void
          )
        )
      )
      yield* Testing.waitUntilWaiting(throttle, 1)
      yield* TestClock.adjust("100 millis")
      yield* Effect.forEach([1, 2, 3], () => settled)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.await(work))._tag, "LeaseLost")
      assert.isFalse(begun)
    }))

  test("a store that refuses one key opens no breaker, and closes one", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const state = { isDown: false }
      const failing = (outcome: "refused" | "unavailable") =>
        Effect.fail(new ThrottleStore.StoreFailure({ outcome, cause: new Error("WRONGTYPE") }))
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: string) => Throttle.rate({ limit: 1 }) })
        .pipe(
          Effect.provideService(ThrottleStore.ThrottleStore, {
            ...store,
            decide: (request) =>
              Effect.suspend(() =>
                state.isDown
                  ? failing("unavailable")
                  : request.key.includes("bad")
                  ? failing("refused")
                  : store.decide(request)
              )
          })
        )
      const outcomeOf = (key: string) =>
        Effect.map(Effect.exit(map.wait(key)), (exit) => {
          if (Exit.isSuccess(exit)) return "started"
          const reason = reasonOf(exit)
          return reason._tag === "StoreError" ? reason.outcome : reason._tag
        })
      const count = () =>
        Effect.map(
          Metric.value(RedisThrottle.metrics.requests.pipe(Metric.withAttributes({ outcome: "refused" }))),
          ({ count }) => count
        )
      const before = yield* count()
      for (let i = 0; i < 5; i++) assert.strictEqual(yield* outcomeOf("bad"), "refused")
      assert.strictEqual((yield* count()) - before, 5)
      assert.strictEqual(yield* outcomeOf("good"), "started")
      state.isDown = true
      for (let i = 0; i < 3; i++) assert.strictEqual(yield* outcomeOf("good"), "unavailable")
      state.isDown = false
      assert.strictEqual(yield* outcomeOf("bad"), "open")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* outcomeOf("bad"), "refused")
      assert.strictEqual(yield* outcomeOf("good"), "started")
    }))

  test("a store that hangs opens the breaker after three timeouts, however many keys ask at once", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: number) => Throttle.rate({ limit: 1 }) })
        .pipe(
          Effect.provideService(ThrottleStore.ThrottleStore, { ...store, decide: () => Effect.never })
        )
      const outcomes = new Map<string, number>()
      const begun = yield* now
      const call = (key: number) =>
        Effect.gen(function*() {
          const reason = reasonOf(yield* Effect.exit(map.wait(key)))
          const outcome = reason._tag === "StoreError" ? reason.outcome : reason._tag
          if (!outcomes.has(outcome)) outcomes.set(outcome, (yield* now) - begun)
          yield* Effect.sleep("10 millis")
        })
      // They do not all begin at the same moment.
      for (let key = 0; key < 20; key++) yield* fork(Effect.delay(Effect.forever(call(key)), key))
      for (let step = 0; step < 500; step++) yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([...outcomes.keys()], ["timeout", "open"])
      assert.strictEqual(outcomes.get("timeout"), 100)
      // The second and third one were sent when the one before had failed.
      assert.isAtLeast(outcomes.get("open")!, 300)
      assert.isAtMost(outcomes.get("open")!, 340)
    }))

  test("a late answer is taken back, and who still waits keeps the place in the store's line", () =>
    Effect.gen(function*() {
      const store = yield* ThrottleStore.ThrottleStore
      const joins: Array<boolean> = []
      const state = { delay: 0 }
      const throttle = yield* make(Throttle.rate({ limit: 1 })).pipe(
        Effect.provideService(ThrottleStore.ThrottleStore, {
          ...store,
          decide: (request) => {
            if (request.runs.length === 0) joins.push(request.joins)
            return Effect.delay(store.decide(request), state.delay)
          }
        })
      )
      state.delay = 150
      yield* fork(Effect.exit(throttle.withPermit(Effect.void)))
      yield* TestClock.adjust("120 millis")
      state.delay = 0
      assert.deepStrictEqual(joins, [])
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(joins, [true])
      state.delay = 150
      yield* fork(Effect.exit(throttle.withPermit(Effect.void)))
      yield* TestClock.adjust("120 millis")
      state.delay = 0
      yield* fork(throttle.withPermit(Effect.never))
      yield* fork(throttle.withPermit(Effect.never))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(joins.slice(0, 2), [true, false])
    }))

  test("a map: every operation, key by key", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" }),
        Throttle.concurrency({ limit: 2 })
      ])
      const map = yield* RedisThrottle.makeMap({ name: "map", lookup: (_key: string | number) => policy })
      const wait = (key: string) =>
        Effect.map(map.estimateWait(key, { tokens: 10 }), (wait) => Duration.toMillis(Option.getOrThrow(wait)))
      yield* map.withPermits("a", { tokens: 5 })(Effect.void)
      yield* settled
      assert.deepStrictEqual([yield* wait("a"), yield* wait("b")], [500, 0])
      yield* map.usePermits("a", { tokens: 5 })((permit) => permit.settle({ tokens: 1 }))
      yield* settled
      assert.strictEqual(yield* wait("a"), 600)
      const held = yield* fork(Effect.scoped(Effect.andThen(map.takeScoped("b"), Effect.never)))
      yield* settled
      assert.deepStrictEqual(
        [(yield* map.statisticsOf("b")).running, (yield* map.statistics).running, (yield* map.statistics).keys],
        [1, 1, 1]
      )
      yield* Fiber.interrupt(held)
      yield* settled
      assert.strictEqual((yield* map.statistics).keys, 0)
      yield* map.pause("b", "1 second")
      assert.isTrue(Option.isNone(yield* map.withPermitsIfAvailable("b", 1)(Effect.void)))
      assert.isTrue(Option.isSome(yield* map.withPermitsIfAvailable("a", 1)(Effect.void)))
      yield* map.resume("b")
      assert.isTrue(Option.isSome(yield* map.withPermitsIfAvailable("b", 1)(Effect.void)))
      const { admitted } = yield* map.statistics
      assert.strictEqual(admitted, 5)
      const defect = yield* Effect.exit(map.wait("a"))
      assert.isTrue(Exit.isFailure(defect) && Cause.hasDies(defect.cause))
    }))

  test("events, statistics and metrics are those of a throttle in memory", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const throttle = yield* make(Throttle.rate({ limit: 10, name: "observed", maxQueue: 1 }))
      yield* fork(
        Effect.all(Array.from({ length: 3 }, () => Effect.ignore(throttle.withPermit(Effect.void))), {
          concurrency: "unbounded"
        }).pipe(
          Effect.provideService(Throttle.Observer, (event) =>
            Effect.sync(() =>
              void events.push(
                event._tag === "Waiting" ? `Waiting ${event.queued} ${event.expected}` : event._tag
              )
            ))
        )
      )
      yield* TestClock.adjust("1 second")
      assert.sameMembers(events, ["Waiting 1 100", "Rejected", "Admitted"])
      const { admitted, longestWait, rejected } = yield* throttle.statistics
      assert.deepStrictEqual([admitted, rejected.QueueFull, Duration.toMillis(longestWait)], [2, 1, 100])
      const metric = Metric.withAttributes(Throttle.metrics.admitted, { throttle: "observed" })
      assert.strictEqual((yield* Metric.value(metric)).count, 2)
    }))
})
