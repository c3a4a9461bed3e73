/**
 * maxWait when a pause or an update changes the schedule of calls that wait.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"
import * as Simulator from "./utils/simulator.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const now = TestClock.testClockWith((clock) => Effect.sync(() => Number(clock.monotonicTimeNanosUnsafe()) / 1e6))

const says = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "waits"
  if (Exit.isSuccess(exit)) return `started at ${exit.value}`
  const error: any = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return error?.reason?._tag ?? String(exit.cause)
}

describe("maxWait when the schedule changes", () => {
  const policy = (limit: number) =>
    Throttle.all([Throttle.rate({ limit: 10, burst: 9 }), Throttle.concurrency({ limit })], { maxWait: "5 seconds" })

  it.effect("a call that has waited for a permit starts when an update adds one, however long it has waited", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(policy(1))
      yield* fork(throttle.withPermit(Effect.sleep(60_000)))
      const second = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(second.pollUnsafe())
      yield* throttle.update(policy(2))
      yield* TestClock.adjust(0)
      assert.strictEqual(says(second.pollUnsafe()), "started at 10000")
    }))

  it.effect("an update to the same policy rejects no call that waits for a permit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(policy(1))
      yield* fork(throttle.withPermit(Effect.sleep(60_000)))
      const second = yield* fork(throttle.withPermit(now))
      yield* TestClock.adjust("10 seconds")
      yield* throttle.update(policy(1))
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(says(second.pollUnsafe()), "started at 60000")
    }))

  it("a call whose timer is late, and those behind it, are not rejected by an update", () => {
    const simulator = Simulator.make({
      operations: 2_048,
      late: (sleep) => sleep <= 0 ? 0 : 5,
      context: Simulator.ownMetrics()
    })
    const policy = Throttle.rate({ limit: 1, maxWait: "2 seconds" })
    const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policy), Scope.makeUnsafe()))
    const call = () => simulator.fork(throttle.withPermit(Effect.sync(() => simulator.now())))
    call()
    const [second, third] = [call(), call()]
    // Due at 1000 and 2000; the timer of the second wakes at 1005.
    simulator.at(1_003, () => void simulator.fork(throttle.update(policy)))
    simulator.run()
    assert.match(says(second.pollUnsafe()), /^started at 100/)
    assert.match(says(third.pollUnsafe()), /^started at 200/)
  })
})
