/**
 * Updates that put a policy in shadow or in force: what calls hold, owe and count across them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Metric, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import * as Simulator from "./utils/simulator.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const now = TestClock.testClockWith((clock) => Effect.sync(() => Number(clock.monotonicTimeNanosUnsafe()) / 1e6))

const gauge = (metric: any, name: string) =>
  Effect.map(Metric.value(Metric.withAttributes(metric, { throttle: name })), (state: any) => state.value as number)

const fresh = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.provideService(self, Metric.MetricRegistry, new Map() as any)

const waitOf = (throttle: Throttle.Throttle) =>
  Effect.map(throttle.estimateWait(), (wait) => Option.map(wait, Duration.toMillis))

describe("an update to or from shadow", () => {
  it.effect("a call that would wait when its policy is put in force gives its permit back in shadow again", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1 })
      const throttle = yield* Throttle.make(Throttle.shadow(one))
      const first = yield* fork(throttle.withPermit(Effect.sleep(10)))
      const second = yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* throttle.update(one)
      yield* throttle.update(Throttle.shadow(one))
      yield* TestClock.adjust(10)
      yield* Fiber.join(first)
      yield* Fiber.join(second)
      yield* TestClock.adjust("1 hour")
      const { running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
    }))

  it.effect("so does a permit of takeScoped", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1, maxQueue: 5 })
      const throttle = yield* Throttle.make(Throttle.shadow(one))
      const scopes = [yield* Scope.make(), yield* Scope.make()]
      for (const scope of scopes) yield* Scope.provide(throttle.takeScoped(), scope)
      yield* throttle.update(one)
      yield* throttle.update(Throttle.shadow(one))
      for (const scope of scopes) yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      const { running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
    }))

  it.effect("fixed window put in force: a settlement still to come is charged to the window that is open", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ limit: 3, per: 1_000, kind: "fixed" })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      yield* throttle.wait(3)
      yield* TestClock.adjust(100)
      // It would start at 1000 and be settled at 2100: 1200 later than it is.
      yield* fork(throttle.usePermits(1)((permit) => Effect.andThen(Effect.sleep(1_100), permit.settle(3))))
      yield* TestClock.adjust(1_100)
      yield* throttle.update(policy)
      // 1200: at most 3 are spent in this window, which ends at 2000.
      const calls = yield* Effect.forEach([1, 2, 3], () => fork(Effect.andThen(throttle.wait(), now)))
      yield* TestClock.adjust("1 minute")
      const starts = yield* Effect.forEach(calls, Fiber.join)
      for (const start of starts) assert.isAtMost(start, 2_000, `${starts}`)
    }))

  it.effect("sliding window put in force: a settlement still to come is charged now", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ limit: 3, per: 1_000 })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      yield* throttle.wait(3)
      yield* TestClock.adjust(500)
      // It would start at 1000, and be settled at 1400.
      yield* fork(throttle.usePermits(1)((permit) => Effect.andThen(Effect.sleep(400), permit.settle(2))))
      yield* TestClock.adjust(400)
      yield* TestClock.adjust(200)
      // 1100: put in force. Spent are 2 since 1000 and now.
      yield* throttle.update(policy)
      yield* throttle.wait(1)
      // 2000: what started at 1000 is a window ago, and what came at 1100 will be in 100 ms.
      yield* TestClock.adjust(900)
      assert.deepStrictEqual(yield* throttle.estimateWait(2), Option.some(Duration.millis(100)))
    }))

  it.effect("rate put in force: a settlement still to come costs what it costs", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 10, per: 1_000 })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      yield* throttle.wait(10)
      yield* fork(throttle.usePermits(10)((permit) => Effect.andThen(Effect.sleep(900), permit.settle(11))))
      // It would start at 1000, and be settled at 1900.
      yield* TestClock.adjust(1_000)
      yield* throttle.update(policy)
      // 10 were charged at 1000, 1 more is 11: until 10 are left again it takes 1.1 s.
      assert.closeTo(
        Duration.toMillis(Option.getOrThrow(yield* throttle.estimateWait(10))),
        1_100,
        1e-3
      )
    }))

  it.effect("spacing from the end put in force: an end still to come is an end now", () =>
    Effect.gen(function*() {
      const policy = Throttle.spacing({ interval: 100, from: "end" })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      yield* fork(throttle.withPermit(Effect.sleep(1_000)))
      yield* fork(throttle.withPermit(Effect.sleep(1_000)))
      // Both have ended at 1000; the second would run from 1100 to 2100.
      yield* TestClock.adjust(1_150)
      yield* throttle.update(policy)
      assert.isAtMost(Option.getOrThrow(yield* waitOf(throttle)), 100)
    }))

  it.effect("a settlement still to come is charged to its own parts, whatever order an update gives them", () =>
    Effect.gen(function*() {
      const calls = Throttle.tokenBucket({ capacity: 10, refill: 1, per: 1_000 })
      const tokens = Throttle.tokenBucket({ capacity: 1_000, refill: 1, per: 1_000, unit: "tokens" })
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.all([calls, tokens])))
      yield* throttle.wait(10)
      // It would start in a second, and be settled at once for 500 tokens and one permit.
      yield* throttle.usePermits({ permits: 1, tokens: 100 })((permit) => permit.settle({ permits: 1, tokens: 500 }))
      yield* throttle.update(Throttle.shadow(Throttle.all([tokens, calls])))
      yield* TestClock.adjust("1 second")
      yield* throttle.statistics
      // Nothing is left of the permits; of 1000 tokens 500.
      const wait = Duration.toMillis(Option.getOrThrow(yield* throttle.estimateWait({ permits: 1, tokens: 0 })))
      assert.closeTo(wait, 1_000, 1)
    }))

  it.effect("a permit taken for a scope in shadow is no re-entry for the fiber that took it", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1 })
      const throttle = yield* Throttle.make(Throttle.shadow(one))
      const scope = yield* Scope.make()
      const inner = yield* fork(Effect.gen(function*() {
        yield* Scope.provide(throttle.takeScoped(), scope)
        yield* Effect.sleep(10)
        return yield* throttle.withPermit(now)
      }))
      yield* throttle.update(one)
      yield* TestClock.adjust(10)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(inner.pollUnsafe(), Exit.succeed(10))
    }))

  it.effect("nor is one of usePermits that another fiber cancels", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1 })
      const throttle = yield* Throttle.make(Throttle.shadow(one))
      const inner = yield* fork(
        throttle.usePermits(1)((permit) =>
          Effect.andThen(
            Effect.forkChild(Effect.delay(permit.cancel, 20), { startImmediately: true }),
            Effect.delay(throttle.withPermit(now), 10)
          )
        )
      )
      yield* throttle.update(one)
      yield* TestClock.adjust(30)
      assert.deepStrictEqual(inner.pollUnsafe(), Exit.succeed(20))
    }))
})

describe("a call that waits when an update puts its policy in shadow", () => {
  // On a simulated clock, since a fiber that hangs where it cannot be interrupted would hang a test on TestClock.
  const play = (use: (throttle: Throttle.Throttle) => Effect.Effect<unknown, unknown>, interruptAt: number) => {
    const simulator = Simulator.make({ operations: 2_048, context: Simulator.ownMetrics() })
    const two = Throttle.concurrency({ limit: 2, name: "two" })
    const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(two), Scope.makeUnsafe()))
    simulator.fork(throttle.withPermits(Effect.sleep(1_000), 2))
    const second = simulator.fork(Effect.provideService(
      use(throttle),
      Throttle.Observer,
      (event) => event._tag === "Admitted" ? Effect.sleep(100) : Effect.void
    ))
    simulator.at(
      10,
      () => void simulator.fork(throttle.update(Throttle.shadow(Throttle.concurrency({ limit: 1, name: "one" }))))
    )
    simulator.at(50, () => void simulator.fork(throttle.update(two)))
    simulator.at(interruptAt, () => second.interruptUnsafe())
    simulator.run()
    return { exit: second.pollUnsafe(), statistics: Effect.runSync(throttle.statistics) }
  }
  for (
    const [name, use] of Object.entries<(throttle: Throttle.Throttle) => Effect.Effect<unknown, unknown>>({
      withPermits: (throttle) => throttle.withPermits(Effect.succeed("ran"), 2),
      usePermits: (throttle) => throttle.usePermits(2)(() => Effect.succeed("ran")),
      takeScoped: (throttle) => Effect.scoped(Effect.as(throttle.takeScoped(2), "ran"))
    })
  ) {
    it(`${name}: a call that started in shadow takes no permits of a part that an update removes`, () => {
      const { exit, statistics } = play(use, 10_000)
      assert.deepStrictEqual(exit, Exit.succeed("ran"))
      assert.deepInclude(statistics, { running: 0, waiting: 0 })
    })

    it(`${name}: it can be interrupted before it runs`, () => {
      const { exit, statistics } = play(use, 111)
      assert.isDefined(exit)
      assert.deepInclude(statistics, { running: 0, waiting: 0 })
    })
  }
})

describe("numbers of a policy in shadow", () => {
  it.effect("throttle_running falls when the last simulated call ends", () =>
    fresh(Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 1, name: "shy" })))
      for (let i = 0; i < 2; i++) yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* TestClock.adjust(15)
      assert.strictEqual(yield* gauge(Throttle.metrics.running, "shy"), 1)
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* gauge(Throttle.metrics.running, "shy"), 0)
    })))

  it.effect("throttle_running falls to 0 after the throttle is closed", () =>
    fresh(Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(
        Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 1, name: "shut" }))),
        scope
      )
      for (let i = 0; i < 2; i++) yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* TestClock.adjust(15)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* gauge(Throttle.metrics.running, "shut"), 0)
    })))

  it.effect("a call that an update makes time out does so at the update", () =>
    Effect.gen(function*() {
      const two = (timeout: number) => Throttle.concurrency({ limit: 2, timeout })
      const counts: Array<unknown> = []
      for (const isShadow of [false, true]) {
        const given = (timeout: number) => isShadow ? Throttle.shadow(two(timeout)) : two(timeout)
        const throttle = yield* Throttle.make(given(60_000))
        yield* fork(throttle.withPermit(Effect.sleep(100_000)))
        yield* TestClock.adjust(1_000)
        yield* fork(Effect.exit(throttle.withPermits(Effect.sleep(10), 2)))
        yield* TestClock.adjust(3_500)
        // It waits behind the heavy one, for which it would not have to wait.
        yield* fork(throttle.withPermit(Effect.sleep(10)))
        yield* TestClock.adjust(500)
        yield* throttle.update(given(3_000))
        yield* TestClock.adjust(20)
        const { longestWait, rejected, waited } = yield* throttle.statistics
        counts.push({ rejected, waited: Duration.toMillis(waited), longestWait: Duration.toMillis(longestWait) })
      }
      assert.deepStrictEqual(counts[1], counts[0])
    }))

  it.effect("a nested call that passes is charged nothing, as in force", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.concurrency({ limit: 1, onReentry: "bypass" }),
        Throttle.tokenBucket({ capacity: 2, refill: 1, per: "1 minute" })
      ])
      const counts: Array<unknown> = []
      for (const given of [policy, Throttle.shadow(policy)]) {
        const throttle = yield* Throttle.make(given)
        yield* fork(throttle.withPermit(Effect.andThen(throttle.withPermit(Effect.void), Effect.sleep(10))))
        yield* TestClock.adjust(20)
        const { longestWait, waited, ...others } = yield* throttle.statistics
        counts.push({ ...others, waited: Duration.toMillis(waited), longestWait: Duration.toMillis(longestWait) })
      }
      assert.deepStrictEqual(counts[1], counts[0])
    }))
})
