/**
 * Calls in levels where their limiters change, drain, or are in shadow, and calls that wait behind one ahead.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Option } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { fork, reasonOf } from "./utils/kit.ts"

describe("levels and bounds of calls", () => {
  for (const [which, choose] of [["of both levels", 1], ["of the narrow level alone", 0]] as const) {
    it.effect(`a call ${which}, behind one that waits at a wider level, times out in time`, () =>
      Effect.gen(function*() {
        const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
        const wide = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
        const both = Throttle.levels([narrow, wide])
        yield* fork(wide.withPermit(Effect.never))
        yield* fork(both.withPermit(Effect.void))
        const hurried = yield* fork(
          [narrow, both][choose]!.withPermit(Effect.void).pipe(Throttle.withBounds({ timeout: "100 millis" }))
        )
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(reasonOf(hurried.pollUnsafe()), "TimedOut")
      }))
  }

  it.effect("a call sent back to a level that was open on arrival keeps its own timeout", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      const call = yield* fork(both.withPermit(Effect.void).pipe(Throttle.withBounds({ timeout: "2 seconds" })))
      yield* narrow.pause("1 hour")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(reasonOf(call.pollUnsafe()), "TimedOut")
    }))

  it.effect("an update of the narrow level's timeout ends a wait at the wide one", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
      const wide = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* fork(wide.withPermit(Effect.never))
      const call = yield* fork(both.withPermit(Effect.void))
      yield* narrow.update(Throttle.rate({ limit: 100, burst: 99, timeout: "1 second" }))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(reasonOf(call.pollUnsafe()), "TimedOut")
    }))

  it.effect("maxQueue: 0 at the narrow level rejects no call while that level has permits", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99, maxQueue: 0 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      yield* fork(both.withPermit(Effect.void))
      const third = yield* fork(both.withPermit(Effect.void))
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(reasonOf(third.pollUnsafe()))
    }))
})

describe("levels and work", () => {
  /** How often a throttle reads the clock while nothing happens: the first call of `narrow` waits at a wider level. */
  const readsAfter = (act: (narrow: Throttle.Throttle) => Effect.Effect<unknown, unknown>) =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let reads = 0
      const counting: Clock.Clock = Object.assign(Object.create(clock), {
        monotonicTimeNanosUnsafe: () => {
          reads++
          return clock.monotonicTimeNanosUnsafe()
        }
      })
      return yield* Effect.gen(function*() {
        const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
        const wide = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
        const both = Throttle.levels([narrow, wide])
        yield* fork(wide.withPermit(Effect.never))
        yield* fork(both.withPermit(Effect.void))
        yield* act(narrow)
        const before = reads
        for (let i = 0; i < 100; i++) yield* Effect.yieldNow
        return reads - before
      }).pipe(Effect.provideService(Clock.Clock, counting))
    })
  const acts: Record<string, (narrow: Throttle.Throttle) => Effect.Effect<unknown, unknown>> = {
    nothing: () => Effect.void,
    "a reset": (narrow) => narrow.reset,
    "an update": (narrow) => narrow.update(Throttle.rate({ limit: 50, burst: 50 })),
    "the end of a pause": (narrow) => Effect.andThen(narrow.pause(5), narrow.resume),
    "a call with bounds of its own": (narrow) =>
      fork(narrow.withPermit(Effect.void).pipe(Throttle.withBounds({ timeout: "1 hour" })))
  }
  for (const [name, act] of Object.entries(acts)) {
    it.effect(`a throttle whose first call waits at a wider level is at rest after ${name}`, () =>
      Effect.gen(function*() {
        assert.isBelow(yield* readsAfter(act), 1_000)
      }))
  }
})

describe("levels and drains", () => {
  it.effect("allow fails with Draining as that of the throttle does", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* wide.drain()
      assert.strictEqual(reasonOf(yield* Effect.exit(wide.allow())), "Draining")
      assert.strictEqual(reasonOf(yield* Effect.exit(Throttle.levels([narrow, wide]).allow())), "Draining")
    }))

  it.effect("withPermitsIfAvailable fails with Draining as that of the throttle does", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* wide.drain()
      const one = yield* Effect.exit(wide.withPermitsIfAvailable(Effect.void, 1))
      assert.strictEqual(reasonOf(one), "Draining")
      const both = yield* Effect.exit(Throttle.levels([narrow, wide]).withPermitsIfAvailable(Effect.void, 1))
      assert.strictEqual(reasonOf(both), "Draining")
    }))
})

describe("levels and statistics", () => {
  it.effect("a call that waits at a wider level is among the waiting calls of the narrower ones too", () =>
    Effect.gen(function*() {
      const narrow = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* both.withPermit(Effect.void)
      yield* fork(both.withPermit(Effect.void))
      assert.deepStrictEqual([(yield* narrow.statistics).waiting, (yield* wide.statistics).waiting], [1, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([(yield* narrow.statistics).waiting, (yield* wide.statistics).waiting], [0, 0])
      assert.strictEqual(Duration.toMillis((yield* wide.statistics).waited), 1_000)
    }))
})

describe("levels in shadow", () => {
  const urgent = Throttle.withCaller({ priority: 1 })

  it.effect("a call that started at every level has left every queue", () =>
    Effect.gen(function*() {
      const inForce = Throttle.rate({ limit: 100, burst: 99, order: "priority", ageing: "1 minute" })
      const narrow = yield* Throttle.make(inForce)
      const wide = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const both = Throttle.levels([narrow, wide])
      yield* fork(wide.withPermit(Effect.sleep("1 second")))
      yield* narrow.pause("100 millis")
      const low = yield* fork(both.withPermit(Effect.sleep("1 second")))
      const high = yield* fork(both.withPermit(Effect.sleep("1 second")).pipe(urgent))
      yield* TestClock.adjust("200 millis") // the urgent one waits at the wide level
      yield* narrow.update(Throttle.shadow(inForce))
      yield* TestClock.adjust("10 seconds")
      assert.isDefined(low.pollUnsafe())
      assert.isDefined(high.pollUnsafe())
      yield* narrow.update(inForce)
      const later = yield* fork(narrow.withPermit(Effect.void))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([(yield* narrow.statistics).waiting, later.pollUnsafe() !== undefined], [0, true])
    }))

  it.effect("a level that an update puts into shadow holds back no call behind one that waits at a wider level", () =>
    Effect.gen(function*() {
      const inForce = Throttle.rate({ limit: 100, burst: 99 })
      const user = yield* Throttle.make(inForce)
      const busy = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const free = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* fork(busy.withPermit(Effect.never))
      yield* fork(Throttle.levels([user, busy]).withPermit(Effect.void))
      const second = yield* fork(Throttle.levels([user, free]).withPermit(Effect.void))
      yield* user.update(Throttle.shadow(inForce))
      yield* TestClock.adjust("10 seconds")
      assert.isDefined(second.pollUnsafe())
    }))
})

describe("levels and nested calls", () => {
  for (const [onReentry, expected] of [["bypass", "ran"], ["die", "died"]] as const) {
    it.effect(`a call for permits that its own fiber holds does not wait for ever: ${onReentry}`, () =>
      Effect.gen(function*() {
        const user = yield* Throttle.make(Throttle.rate({ limit: 100, burst: 99 }))
        const everybody = yield* Throttle.make(Throttle.concurrency({ limit: 1, onReentry }))
        const both = Throttle.levels([user, everybody])
        const nested = (throttle: Throttle.Levels) =>
          fork(throttle.withPermit(Effect.andThen(Effect.sleep("1 second"), throttle.withPermit(Effect.void))))
        const outer = yield* nested(both)
        yield* fork(both.withPermit(Effect.void))
        yield* TestClock.adjust("10 seconds")
        const exit = outer.pollUnsafe()
        assert.strictEqual(exit && (Exit.isSuccess(exit) ? "ran" : Exit.hasDies(exit) ? "died" : "failed"), expected)
      }))
  }
})

describe("a full map that evicts", () => {
  const full = Effect.gen(function*() {
    const users = yield* ThrottleMap.make({
      lookup: (_key: string) => Throttle.window({ limit: 5, per: "1 day" }),
      maxKeys: 1,
      onFull: "evict"
    })
    yield* users.withPermit("ada")(Effect.void)
    return users
  })
  const leftToAda = (users: ThrottleMap.ThrottleMap<string>) =>
    Effect.map(users.remaining("ada"), ([part]) => part!.remaining)
  const spent = (bounds: { readonly maxQueue?: number } = {}) =>
    Effect.gen(function*() {
      const wide = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 day", ...bounds }))
      yield* wide.withPermit(Effect.void)
      return wide
    })

  for (const isObserved of [false, true]) {
    it.effect(`keeps its keys when a wider level rejects a call${isObserved ? ", with an observer" : ""}`, () =>
      Effect.gen(function*() {
        const users = yield* full
        const wide = yield* spent({ maxQueue: 0 })
        const events: Array<string> = []
        const observer = (event: Throttle.Event) => Effect.sync(() => void events.push(event._tag))
        const call = Throttle.levels([users.get("eve"), wide]).withPermit(Effect.void)
        const observed = isObserved ? Effect.provideService(call, Throttle.Observer, observer) : call
        assert.strictEqual(reasonOf(yield* Effect.exit(observed)), "QueueFull")
        assert.deepStrictEqual(events, isObserved ? ["Rejected"] : [])
        assert.strictEqual((yield* wide.statistics).rejected.QueueFull, 1)
        assert.strictEqual(yield* leftToAda(users), 4)
      }))
  }

  it.effect("keeps its keys when a call may not wait, may wait for less, or costs too much", () =>
    Effect.gen(function*() {
      const users = yield* full
      const wide = yield* spent()
      const both = Throttle.levels([users.get("eve"), wide])
      assert.isFalse(yield* both.allow())
      assert.isTrue(Option.isNone(yield* both.withPermitsIfAvailable(Effect.void, 1)))
      const hurried = both.withPermit(Effect.void).pipe(Throttle.withBounds({ maxWait: "1 second" }))
      assert.strictEqual(reasonOf(yield* Effect.exit(hurried)), "WaitTooLong")
      assert.strictEqual(reasonOf(yield* Effect.exit(both.withPermits(Effect.void, 6))), "PermitsExceedCapacity")
      assert.strictEqual(reasonOf(yield* Effect.exit(both.allow(6))), "PermitsExceedCapacity")
      assert.strictEqual(yield* leftToAda(users), 4)
    }))

  it.effect("evicts one for a call that waits or starts", () =>
    Effect.gen(function*() {
      const users = yield* full
      const wide = yield* spent()
      yield* fork(Throttle.levels([users.get("eve"), wide]).withPermit(Effect.void))
      assert.strictEqual(yield* leftToAda(users), 5)
    }))
})
