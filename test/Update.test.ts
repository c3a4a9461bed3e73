/**
 * New limits for a throttle that is at work: what is spent stays spent, what is held stays held, nothing leaks.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Fiber,
  Metric,
  Option,
  Schema,
  Scope,
  Stream,
  SubscriptionRef
} from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { TestClock } from "effect/testing"
import {
  assertIdle,
  defectOf,
  estimateOf,
  fork,
  freeOf,
  now,
  onlyFreeOf,
  policyOf,
  reasonOf,
  remainingOf,
  throttleIn,
  waitersOf
} from "./utils/kit.ts"
import { play } from "./utils/play.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"
import { collect } from "./utils/telemetry.ts"

const step = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** Records the starts. */
const diary = () => {
  const starts: Array<readonly [string, number]> = []
  return { starts, note: (name: string) => Effect.map(now, (at) => void starts.push([name, at])) }
}

describe("rate", () => {
  it.effect("what is spent stays spent, each permit at its new price", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      yield* throttle.wait(3)
      yield* throttle.update(Throttle.rate({ limit: 1, burst: 4 }))
      // Three of five are spent: two are left, and the third takes a second of the new schedule.
      assert.strictEqual(yield* estimateOf(throttle, 2), 0)
      assert.strictEqual(yield* estimateOf(throttle, 3), 1_000)
      assert.strictEqual(yield* estimateOf(throttle, 5), 3_000)
    }))

  it.effect("what has come back in between has come back, parts of a permit too", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      yield* throttle.wait(3)
      yield* TestClock.adjust(50)
      yield* throttle.update(Throttle.rate({ limit: 1, burst: 4 }))
      // Two and a half are spent.
      assert.strictEqual(yield* estimateOf(throttle, 5), 2_500)
      yield* throttle.update(Throttle.rate({ limit: 100, burst: 4 }))
      assert.strictEqual(yield* estimateOf(throttle, 5), 25)
    }))

  it.effect("never more than the new capacity is spent", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      yield* throttle.wait(5)
      yield* throttle.update(Throttle.rate({ limit: 10, burst: 1 }))
      assert.strictEqual(yield* estimateOf(throttle, 1), 100)
      assert.strictEqual(yield* estimateOf(throttle, 2), 200)
    }))

  it.effect("an idle throttle has all that the new limits give", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      yield* throttle.wait()
      yield* TestClock.adjust("1 hour")
      yield* throttle.update(Throttle.rate({ limit: 1, burst: 9 }))
      assert.strictEqual(yield* estimateOf(throttle, 10), 0)
    }))

  it.effect("the same limits again change nothing, however often", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 3, burst: 2 })
      const throttle = yield* Throttle.make(policy)
      yield* throttle.wait(3)
      for (let i = 0; i < 10; i++) {
        yield* TestClock.adjust(10)
        yield* throttle.update(policy)
      }
      assert.closeTo((yield* estimateOf(throttle))!, 1_000 / 3 - 100, 2e-3)
    }))
})

describe("estimateWait", () => {
  it("answers for one policy or for the other, in whatever step an update comes", () => {
    const answers = new Set<string>()
    for (let interleaving = 0; interleaving < 60; interleaving++) {
      let step = interleaving
      const simulator = Simulator.make()
      const spent = Throttle.rate({ limit: 1, name: "spent" })
      const other = Throttle.all([Throttle.window({ limit: 5, per: "1 second", name: "other" }), spent])
      const throttle = throttleIn(simulator, Throttle.all([spent]))
      simulator.fork(throttle.wait())
      simulator.run()
      const steps: Effect.Effect<void> = Effect.suspend(() =>
        step-- > 0 ? Effect.andThen(Effect.void, steps) : Effect.void
      )
      simulator.fork(Effect.andThen(steps, throttle.update(other)))
      const asking = simulator.fork(Effect.repeat(throttle.estimateWait(1), { until: () => true }))
      simulator.run()
      answers.add(String(asking.pollUnsafe()))
    }
    assert.deepStrictEqual([...answers], [String(Exit.succeed(Option.some(Duration.seconds(1))))])
  })
})

describe("concurrency, and an observer that takes its time", () => {
  it.effect("an admitted call runs on when the limit is lowered, even while its observer runs", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      const started: Array<string> = []
      const hold = (name: string) =>
        throttle.withPermit(Effect.andThen(Effect.sync(() => started.push(name)), Effect.never))
      yield* Effect.forkChild(hold("a"), { startImmediately: true })
      const c = yield* Effect.forkChild(hold("c"), { startImmediately: true })
      yield* hold("b").pipe(
        Effect.provideService(
          Throttle.Observer,
          (event) => event._tag === "Admitted" ? Effect.sleep(1_000) : Effect.void
        ),
        Effect.forkChild({ startImmediately: true })
      )
      yield* Fiber.interrupt(c)
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* throttle.statistics).running, 2)
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(started, ["a", "c", "b"])
    }))
})

describe("tokenBucket", () => {
  it.effect("what was settled for more than there is stays owed, however often the limits are read again", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 10 })
      const throttle = yield* Throttle.make(policy)
      yield* throttle.usePermits(1)((permit) => permit.settle(30))
      assert.strictEqual(yield* estimateOf(throttle), 2_100)
      for (let i = 0; i < 5; i++) yield* throttle.update(policy)
      assert.strictEqual(yield* estimateOf(throttle), 2_100)
      // Of the 10 that were there 5 could be now; the 20 beyond them are owed.
      yield* throttle.update(Throttle.tokenBucket({ capacity: 5, refill: 10 }))
      assert.strictEqual(yield* estimateOf(throttle), 2_100)
      yield* TestClock.adjust("1 second")
      yield* throttle.update(Throttle.tokenBucket({ capacity: 5, refill: 5 }))
      assert.strictEqual(yield* estimateOf(throttle), 2_200)
    }))

  it.effect("a larger bucket has the difference at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 2, refill: 10 }))
      yield* throttle.wait(2)
      yield* throttle.update(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      assert.strictEqual(yield* estimateOf(throttle, 8), 0)
      assert.strictEqual(yield* estimateOf(throttle, 9), 100)
    }))

  it.effect("a smaller bucket has what is left of it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      yield* throttle.wait(2)
      yield* throttle.update(Throttle.tokenBucket({ capacity: 3, refill: 10 }))
      assert.strictEqual(yield* estimateOf(throttle, 1), 0)
      assert.strictEqual(yield* estimateOf(throttle, 2), 100)
      assert.isUndefined(yield* estimateOf(throttle, 4))
    }))

  it.effect("a bucket that is smaller than what is spent is empty", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 10 }))
      yield* throttle.wait(10)
      yield* throttle.update(Throttle.tokenBucket({ capacity: 3, refill: 10 }))
      assert.strictEqual(yield* estimateOf(throttle, 1), 100)
      assert.strictEqual(yield* estimateOf(throttle, 3), 300)
    }))

  it.effect("follows a rate, and a rate follows it: they are one kind", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, burst: 4 }))
      yield* throttle.wait(5)
      yield* throttle.update(Throttle.tokenBucket({ capacity: 5, refill: 1 }))
      assert.strictEqual(yield* estimateOf(throttle), 1_000)
      yield* throttle.update(Throttle.rate({ limit: 10, burst: 4 }))
      assert.strictEqual(yield* estimateOf(throttle), 100)
    }))
})

describe("sliding window", () => {
  /** Three starts, at 0, 20 and 40 ms; it is 50. */
  const used = Effect.gen(function*() {
    const throttle = yield* Throttle.make(Throttle.window({ limit: 3, per: "100 millis" }))
    for (const pause of [20, 20, 10]) {
      yield* throttle.wait()
      yield* TestClock.adjust(pause)
    }
    return throttle
  })

  const cases: ReadonlyArray<readonly [string, number, number, ReadonlyArray<number | undefined>]> = [
    // What, limit, per, and until 1, 2 and 3 permits could start.
    ["a larger limit has the difference at once", 5, 100, [0, 0, 50]],
    ["a smaller limit waits until enough have left the log", 2, 100, [70, 90, undefined]],
    ["a limit of one waits until all have left the log", 1, 100, [90, undefined, undefined]],
    ["a longer window counts the same starts for longer", 3, 200, [150, 170, 190]],
    ["a shorter window forgets what is older", 3, 25, [0, 0, 15]]
  ]
  for (const [name, limit, per, waits] of cases) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const throttle = yield* used
        yield* throttle.update(Throttle.window({ limit, per }))
        for (const [i, wait] of waits.entries()) assert.strictEqual(yield* estimateOf(throttle, i + 1), wait)
      }))
  }

  it.effect("there and back again the log is what it was", () =>
    Effect.gen(function*() {
      const throttle = yield* used
      yield* throttle.update(Throttle.window({ limit: 1, per: "10 millis" }))
      yield* throttle.update(Throttle.window({ limit: 3, per: "100 millis" }))
      for (const [i, wait] of [50, 70, 90].entries()) assert.strictEqual(yield* estimateOf(throttle, i + 1), wait)
    }))
})

describe("fixed window", () => {
  /** Two starts in the window from 700 to 800 ms; it is 730. */
  const used = (limit = 2) =>
    Effect.gen(function*() {
      yield* TestClock.adjust(710)
      const throttle = yield* Throttle.make(Throttle.window({ limit, per: "100 millis", kind: "fixed" }))
      yield* throttle.wait(2)
      yield* TestClock.adjust(20)
      return throttle
    })

  it.effect("a larger limit has the difference in this window", () =>
    Effect.gen(function*() {
      const throttle = yield* used()
      yield* throttle.update(Throttle.window({ limit: 3, per: "100 millis", kind: "fixed" }))
      assert.strictEqual(yield* estimateOf(throttle, 1), 0)
      assert.strictEqual(yield* estimateOf(throttle, 2), 70)
    }))

  it.effect("a smaller limit admits no call until the next window", () =>
    Effect.gen(function*() {
      const throttle = yield* used(5)
      yield* throttle.update(Throttle.window({ limit: 1, per: "100 millis", kind: "fixed" }))
      const { note, starts } = diary()
      for (const name of ["a", "b"]) yield* fork(throttle.withPermit(note(name)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["a", 800], ["b", 900]])
    }))

  it.effect("estimates follow a smaller limit", () =>
    Effect.gen(function*() {
      const throttle = yield* used(5)
      yield* throttle.update(Throttle.window({ limit: 1, per: "100 millis", kind: "fixed" }))
      assert.strictEqual(yield* estimateOf(throttle), 70)
      yield* fork(throttle.wait())
      assert.strictEqual(yield* estimateOf(throttle), 170)
    }))

  it.effect("the window that is open ends when it would have; those after it have the new length", () =>
    Effect.gen(function*() {
      const throttle = yield* used()
      yield* throttle.update(Throttle.window({ limit: 2, per: "20 millis", kind: "fixed" }))
      assert.strictEqual(yield* estimateOf(throttle), 70)
      yield* TestClock.adjust(75)
      yield* throttle.wait(2)
      assert.strictEqual(yield* estimateOf(throttle), 15)
    }))

  it.effect("the window after the one that is open ends on the clock, also where it is a short rest of a longer one", () =>
    Effect.gen(function*() {
      const throttle = yield* used()
      yield* throttle.update(Throttle.window({ limit: 2, per: "1 second", kind: "fixed" }))
      assert.strictEqual(yield* estimateOf(throttle), 70)
      yield* TestClock.adjust(70)
      yield* throttle.wait(2)
      // It is 800: the window [0, 1000) of the clock ends in 200 ms.
      assert.strictEqual(yield* estimateOf(throttle), 200)
    }))
})

describe("spacing", () => {
  for (const [name, interval, due] of [["shorter", 30, 30], ["longer", 500, 500]] as const) {
    it.effect(`a ${name} interval counts from the last start`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis" }))
        yield* throttle.wait()
        yield* TestClock.adjust(10)
        yield* throttle.update(Throttle.spacing({ interval }))
        assert.strictEqual(yield* estimateOf(throttle), due - 10)
      }))
  }

  it.effect("an interval that has passed already lets the next start at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis" }))
      yield* throttle.wait()
      yield* TestClock.adjust(50)
      yield* throttle.update(Throttle.spacing({ interval: 20 }))
      assert.strictEqual(yield* estimateOf(throttle), 0)
    }))

  it.effect("put on the clock, it starts on the clock", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis" }))
      const { note, starts } = diary()
      yield* TestClock.adjust(30)
      yield* throttle.withPermit(note("first"))
      yield* fork(throttle.withPermit(note("second")))
      yield* throttle.update(Throttle.spacing({ interval: "100 millis", align: true }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["first", 30], ["second", 200]])
    }))

  it.effect("from the end: a call that runs starts the new interval when it ends", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis", from: "end" }))
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(Effect.sleep(50)))
      yield* fork(throttle.withPermit(note("second")))
      yield* throttle.update(Throttle.spacing({ interval: "10 millis", from: "end" }))
      yield* TestClock.adjust(49)
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* TestClock.adjust(51)
      assert.deepStrictEqual(starts, [["second", 60]])
      assertIdle(throttle)
    }))

  it.effect("from the end: the rest after a call that has ended is as long as the new interval", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis", from: "end" }))
      yield* throttle.withPermit(Effect.void)
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(note("second")))
      yield* TestClock.adjust(50)
      yield* throttle.update(Throttle.spacing({ interval: "300 millis", from: "end" }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["second", 300]])
    }))

  it.effect("from the start and from the end are two kinds: the other starts afresh", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis" }))
      yield* throttle.wait()
      yield* throttle.update(Throttle.spacing({ interval: "100 millis", from: "end" }))
      assert.strictEqual(yield* estimateOf(throttle), 0)
    }))
})

describe("concurrency", () => {
  it.effect("a higher limit lets waiters start at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const { note, starts } = diary()
      for (const name of ["a", "b", "c", "d"]) {
        yield* fork(throttle.withPermit(Effect.andThen(note(name), Effect.sleep(100))))
      }
      yield* TestClock.adjust(10)
      yield* throttle.update(Throttle.concurrency({ limit: 3 }))
      yield* Effect.yieldNow
      assert.deepStrictEqual(starts, [["a", 0], ["b", 10], ["c", 10]])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts[3], ["d", 100])
      assertIdle(throttle)
    }))

  it.effect("a lower limit admits no call until enough permits are released", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      const { note, starts } = diary()
      for (const millis of [10, 20, 30]) yield* fork(throttle.withPermit(Effect.sleep(millis)))
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      yield* fork(throttle.withPermit(Effect.andThen(note("d"), Effect.sleep(10))))
      yield* fork(throttle.withPermit(note("e")))
      assert.strictEqual((yield* throttle.statistics).running, 3)
      assert.isTrue(Option.isNone(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["d", 30], ["e", 40]])
      assertIdle(throttle)
    }))

  it.effect("lowered and raised again while all are held, nothing is lost and nothing is won", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      const running = yield* Effect.forEach([1, 2, 3], () => fork(throttle.withPermit(Effect.never)))
      for (const limit of [1, 5, 2, 4]) yield* throttle.update(Throttle.concurrency({ limit }))
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(Effect.andThen(note("fourth"), Effect.never)))
      yield* fork(throttle.withPermit(note("fifth")))
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [["fourth", 0]])
      yield* Fiber.interruptAll(running)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(starts, [["fourth", 0], ["fifth", 1]])
      assert.strictEqual((yield* throttle.statistics).running, 1)
      assert.strictEqual(onlyFreeOf(throttle), 3)
    }))

  it.effect("heavy calls hold all their permits across updates", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5 }))
      yield* fork(throttle.withPermits(Effect.sleep(10), 4))
      yield* throttle.update(Throttle.concurrency({ limit: 2 }))
      const { note, starts } = diary()
      yield* fork(throttle.withPermits(Effect.andThen(note("two"), Effect.sleep(10)), 2))
      yield* throttle.update(Throttle.concurrency({ limit: 6 }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["two", 0]])
      assertIdle(throttle)
    }))
})

describe("parts", () => {
  const rate = (limit: number, name?: string, unit?: string) =>
    Throttle.rate({ limit, ...(name !== undefined && { name }), ...(unit !== undefined && { unit }) })

  it.effect("a new part starts afresh beside one that is carried over", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(rate(1))
      yield* throttle.wait()
      yield* throttle.update(Throttle.all([rate(10), Throttle.window({ limit: 1, per: "50 millis" })]))
      assert.strictEqual(yield* estimateOf(throttle), 100)
      yield* TestClock.adjust(100)
      yield* throttle.wait()
      yield* throttle.update(Throttle.window({ limit: 1, per: "50 millis" }))
      assert.strictEqual(yield* estimateOf(throttle), 50)
    }))

  it.effect("a removed part delays no call, and starts from its initial state when it is added again", () =>
    Effect.gen(function*() {
      const both = Throttle.all([rate(1), Throttle.concurrency({ limit: 2 })])
      const throttle = yield* Throttle.make(both)
      const { note, starts } = diary()
      yield* throttle.withPermit(Effect.void)
      yield* fork(throttle.withPermit(note("waited")))
      yield* throttle.update(Throttle.concurrency({ limit: 2 }))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [["waited", 0]])
      yield* throttle.update(both)
      assert.strictEqual(yield* estimateOf(throttle), 0)
    }))

  it.effect("named parts are known again in any order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([rate(1, "a"), Throttle.rate({ limit: 9, burst: 8, name: "b" })])
      )
      yield* throttle.wait()
      // The first has spent all of it, the second one of nine.
      yield* throttle.update(Throttle.all([Throttle.rate({ limit: 1, burst: 8, name: "b" }), rate(10, "a")]))
      assert.strictEqual(yield* estimateOf(throttle), 100)
      yield* throttle.update(Throttle.rate({ limit: 1, burst: 8, name: "b" }))
      assert.strictEqual(yield* estimateOf(throttle, 8), 0)
      assert.strictEqual(yield* estimateOf(throttle, 9), 1_000)
    }))

  it.effect("permits of named parts are known again in any order", () =>
    Effect.gen(function*() {
      const a = (limit: number) => Throttle.concurrency({ limit, name: "a" })
      const b = (limit: number) => Throttle.concurrency({ limit, name: "b", unit: "slots" })
      const throttle = yield* Throttle.make(Throttle.all([a(1), b(5)]))
      yield* fork(throttle.withPermits(Effect.sleep(10), { permits: 1, slots: 2 }))
      yield* throttle.update(Throttle.all([b(3), a(4)]))
      assert.deepStrictEqual(freeOf(throttle), [["b", 1], ["a", 3]])
      yield* TestClock.adjust(10)
      assertIdle(throttle)
    }))

  it.effect("a part of another name, unit or kind starts afresh", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(rate(1, "a"))
      const fresh = Effect.gen(function*() {
        assert.strictEqual(yield* estimateOf(throttle, { permits: 1 }), 0)
        yield* throttle.wait({ permits: 1 })
        assert.notStrictEqual(yield* estimateOf(throttle, { permits: 1 }), 0)
      })
      yield* throttle.wait()
      yield* throttle.update(rate(1, "b"))
      yield* fresh
      yield* throttle.update(rate(1))
      yield* fresh
      yield* throttle.update(Throttle.all([rate(1, undefined, "tokens"), Throttle.rate({ limit: 2, name: "new" })]))
      yield* fresh
      yield* throttle.update(Throttle.window({ limit: 1, per: "1 second" }))
      yield* fresh
      yield* throttle.update(Throttle.window({ limit: 1, per: "1 second", kind: "fixed" }))
      yield* fresh
    }))

  it.effect("several alike are carried over in their order", () =>
    Effect.gen(function*() {
      const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1 })
      const throttle = yield* Throttle.make(Throttle.all([bucket(5), bucket(9)]))
      yield* throttle.wait(4)
      // 4 of 5 and 4 of 9 are spent.
      yield* throttle.update(Throttle.all([bucket(2), bucket(4), bucket(6)]))
      assert.deepStrictEqual(remainingOf(throttle), [0, 0, 6])
      yield* throttle.update(bucket(8))
      // The first of them.
      assert.strictEqual(yield* estimateOf(throttle, 6), 0)
      assert.strictEqual(yield* estimateOf(throttle, 7), 1_000)
    }))

  it.effect("alike gates are carried over in their order", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.concurrency({ limit: 5 }), Throttle.concurrency({ limit: 9 })])
      )
      yield* fork(throttle.withPermits(Effect.sleep(10), 3))
      yield* throttle.update(Throttle.all([4, 3, 8].map((limit) => Throttle.concurrency({ limit }))))
      assert.deepStrictEqual(freeOf(throttle).map(([, free]) => free), [1, 0, 8])
      yield* TestClock.adjust(10)
      assertIdle(throttle)
    }))

  it.effect("a policy alone follows the same one in an all, and the other way about", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(rate(1))
      yield* throttle.wait()
      yield* throttle.update(Throttle.all([Throttle.all([rate(2)])], { name: "whole" }))
      assert.strictEqual(yield* estimateOf(throttle), 500)
      yield* throttle.update(rate(1))
      assert.strictEqual(yield* estimateOf(throttle), 1_000)
    }))

  it.effect("none lifts all limits, and an update puts some on none", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([rate(1), Throttle.concurrency({ limit: 1 })]))
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(Effect.sleep(50)))
      for (const name of ["a", "b", "c"]) yield* fork(throttle.withPermit(note(name)))
      yield* throttle.update(Throttle.none)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [["a", 0], ["b", 0], ["c", 0]])
      yield* TestClock.adjust(50)
      assertIdle(throttle)
      yield* throttle.update(rate(1))
      yield* throttle.wait()
      assert.strictEqual(yield* estimateOf(throttle), 1_000)
    }))

  it.effect("a call that runs when its part is removed releases nothing to a part that is added later", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* throttle.update(Throttle.none)
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(Effect.andThen(note("a"), Effect.sleep(100))))
      yield* fork(throttle.withPermit(note("b")))
      yield* TestClock.adjust(50)
      assert.deepStrictEqual(starts, [["a", 0]])
      yield* TestClock.adjust(50)
      assert.deepStrictEqual(starts, [["a", 0], ["b", 100]])
      assertIdle(throttle)
    }))

  it.effect("what used to cost only permits is held by a new gate from the next start on", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(rate(1_000))
      yield* fork(throttle.withPermit(Effect.sleep(50)))
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      assert.strictEqual((yield* throttle.statistics).running, 0)
      yield* fork(throttle.withPermit(Effect.sleep(50)))
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* TestClock.adjust(50)
      assertIdle(throttle)
    }))
})

describe("waiting calls", () => {
  it.effect("a head that sleeps starts earlier", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const { note, starts } = diary()
      for (const name of ["a", "b", "c"]) yield* fork(throttle.withPermit(note(name)))
      yield* TestClock.adjust(100)
      // Nine tenths of a permit are still to come: 90 ms.
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["a", 0], ["b", 190], ["c", 290]])
    }))

  it.effect("a head that sleeps starts later", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10 }))
      const { note, starts } = diary()
      for (const name of ["a", "b", "c"]) yield* fork(throttle.withPermit(note(name)))
      yield* TestClock.adjust(50)
      yield* throttle.update(Throttle.rate({ limit: 1 }))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(starts, [["a", 0], ["b", 550], ["c", 1_550]])
    }))

  it.effect("a sleeping head starts at once where the new limits let it, and so do the calls behind it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 1, refill: 1, per: "1 hour" }))
      const { note, starts } = diary()
      for (const name of ["a", "b", "c", "d"]) yield* fork(throttle.withPermit(note(name)))
      yield* TestClock.adjust(7)
      yield* throttle.update(Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 hour" }))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [["a", 0], ["b", 7], ["c", 7]])
    }))

  it("keep their places, and one timer", () => {
    const simulator = Simulator.make()
    const throttle = throttleIn(simulator, Throttle.rate({ limit: 10 }))
    const starts: Array<readonly [number, number]> = []
    for (let i = 0; i < 6; i++) {
      simulator.fork(throttle.withPermit(Effect.sync(() => void starts.push([i, simulator.now()]))))
    }
    const sleepers: Array<number> = []
    for (const [at, limit] of [[10, 1], [20, 100], [22, 5], [30, 20]] as const) {
      simulator.at(at, () => void simulator.fork(throttle.update(Throttle.rate({ limit }))))
      simulator.at(at + 1, () => void sleepers.push(simulator.sleepers()))
    }
    simulator.run()
    assert.deepStrictEqual(sleepers, [1, 1, 1, 1])
    assert.deepStrictEqual(starts.map(([i]) => i), [0, 1, 2, 3, 4, 5])
    assert.isTrue(starts.every(([, at], i) => i === 0 || at >= starts[i - 1]![1]))
    assertIdle(throttle)
    assert.strictEqual(simulator.sleepers(), 0)
  })

  it.effect("a call that exceeds the new capacity is rejected at once, wherever it is in the queue", () =>
    Effect.gen(function*() {
      for (const heavyAt of [0, 1, 2]) {
        const throttle = yield* Throttle.make(
          Throttle.tokenBucket({ capacity: 5, refill: 5, maxQueue: 10, name: "bucket" })
        )
        yield* throttle.wait(5)
        const began = yield* now
        const { note, starts } = diary()
        const fibers = yield* Effect.forEach(
          [0, 1, 2],
          (i) => fork(throttle.withPermits(note(`${i}`), i === heavyAt ? 4 : 1))
        )
        yield* throttle.update(Throttle.tokenBucket({ capacity: 3, refill: 5, maxQueue: 10, name: "bucket" }))
        yield* TestClock.adjust(0)
        const exit = fibers[heavyAt]!.pollUnsafe()
        const { reason } = Option.getOrThrow(Exit.findErrorOption(exit!)) as ThrottleError
        assert.strictEqual(reason._tag, "PermitsExceedCapacity")
        assert.strictEqual("limit" in reason && reason.limit, 3)
        assert.deepStrictEqual(reason.cost, { permits: 4 })
        assert.strictEqual(reason.throttle, "bucket")
        const { rejected, waiting } = yield* throttle.statistics
        assert.strictEqual(rejected.PermitsExceedCapacity, 1)
        assert.strictEqual(waiting, 2)
        yield* TestClock.adjust("10 seconds")
        const others = [0, 1, 2].filter((i) => i !== heavyAt)
        assert.deepStrictEqual(starts, [[`${others[0]}`, began + 200], [`${others[1]}`, began + 400]])
        assertIdle(throttle)
      }
    }))

  it.effect("several calls that exceed the new capacity are rejected at once, by any part", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 5, maxQueue: 10 }))
      const { note, starts } = diary()
      yield* fork(throttle.withPermits(Effect.sleep(10), 5))
      const heavy = yield* Effect.forEach([4, 3, 5], (cost) => fork(throttle.withPermits(note(`${cost}`), cost)))
      const light = yield* fork(throttle.withPermits(note("2"), 2))
      const scoped = yield* fork(Effect.scoped(throttle.takeScoped(4)))
      yield* throttle.update(Throttle.concurrency({ limit: 2, maxQueue: 10 }))
      yield* TestClock.adjust(0)
      for (const fiber of [...heavy, scoped]) assert.strictEqual(reasonOf(fiber.pollUnsafe()), "PermitsExceedCapacity")
      yield* TestClock.adjust(10)
      yield* Fiber.join(light)
      assert.deepStrictEqual(starts, [["2", 10]])
      assertIdle(throttle)
    }))

  it.effect("one whose observer takes its time fails as soon as that is done", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 5, refill: 1 }))
      yield* throttle.wait(5)
      const fiber = yield* throttle.withPermits(Effect.void, 5).pipe(
        Effect.provideService(Throttle.Observer, (event) => event._tag === "Waiting" ? Effect.sleep(10) : Effect.void),
        fork
      )
      yield* throttle.update(Throttle.tokenBucket({ capacity: 3, refill: 1 }))
      yield* TestClock.adjust(10)
      assert.strictEqual(reasonOf(fiber.pollUnsafe()), "PermitsExceedCapacity")
      assertIdle(throttle)
    }))

  it.effect("a cost in a unit that no part counts any more is not charged", () =>
    Effect.gen(function*() {
      const tokens = Throttle.tokenBucket({ capacity: 10, refill: 1, unit: "tokens" })
      const throttle = yield* Throttle.make(Throttle.all([Throttle.rate({ limit: 10 }), tokens]))
      yield* throttle.wait({ tokens: 10 })
      const { note, starts } = diary()
      yield* fork(throttle.withPermits(note("a"), { tokens: 10 }))
      yield* fork(throttle.withPermits(note("b"), { tokens: 5, permits: 1 }))
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["a", 100], ["b", 200]])
      assertIdle(throttle)
      // A later call is rejected.
      const defect = defectOf(yield* Effect.exit(throttle.wait({ tokens: 1 })))
      assert.instanceOf(defect, RangeError)
      assert.include((defect as Error).message, `"tokens"`)
    }))

  it.effect("a call without a cost demands one permit of the new policy", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, unit: "tokens" }))
      for (let i = 0; i < 3; i++) yield* throttle.wait()
      yield* throttle.update(Throttle.rate({ limit: 1 }))
      yield* throttle.wait()
      assert.strictEqual(yield* estimateOf(throttle), 1_000)
    }))

  it.effect("that are interrupted after an update leave nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 9 })])
      )
      yield* throttle.withPermit(Effect.void)
      const fibers = yield* Effect.forEach([1, 2, 3], () => fork(throttle.withPermit(Effect.void)))
      yield* throttle.update(Throttle.all([Throttle.concurrency({ limit: 2 }), Throttle.rate({ limit: 2, burst: 2 })]))
      yield* throttle.update(Throttle.all([Throttle.window({ limit: 1, per: 50 }), Throttle.rate({ limit: 1 })]))
      yield* Fiber.interruptAll(fibers)
      assertIdle(throttle)
    }))
})

describe("bounds", () => {
  it.effect("a queue that is longer than the new maxQueue stays; later calls are rejected", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, maxQueue: 5 }))
      const fibers = yield* Effect.forEach([1, 2, 3, 4], () => fork(throttle.wait()))
      yield* throttle.update(Throttle.rate({ limit: 10, maxQueue: 1 }))
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "QueueFull")
      yield* TestClock.adjust("1 second")
      for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      assert.strictEqual((yield* throttle.statistics).rejected.QueueFull, 1)
    }))

  it.effect("maxWait is that of the new policy, by the new limits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxWait: "500 millis" }))
      yield* throttle.wait()
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "WaitTooLong")
      yield* throttle.update(Throttle.rate({ limit: 10, maxWait: "500 millis" }))
      yield* fork(throttle.wait())
      assert.strictEqual((yield* throttle.statistics).waiting, 1)
      yield* throttle.update(Throttle.rate({ limit: 10, maxWait: "100 millis" }))
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "WaitTooLong")
    }))

  it.effect("calls in the queue that would now wait longer than maxWait are rejected at once, and charged nothing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 10, maxWait: 350 }))
      yield* throttle.wait()
      const calls = yield* Effect.forEach([1, 2, 3], () => fork(Effect.exit(throttle.wait())))
      yield* TestClock.adjust(50)
      // They start 112.5, 237.5 and 362.5 ms after they came.
      yield* throttle.update(Throttle.rate({ limit: 8, maxWait: 350 }))
      assert.strictEqual(reasonOf(yield* Fiber.join(calls[2]!)), "WaitTooLong")
      assert.deepInclude(yield* throttle.statistics, { admitted: 1, waiting: 2 })
      yield* TestClock.adjust(300)
      assert.strictEqual((yield* throttle.statistics).admitted, 3)
      assert.strictEqual(yield* estimateOf(throttle), 12.5)
    }))

  it.prop(
    "no call of a policy in time waits longer than maxWait, whatever updates and pauses come",
    [
      Schema.Array(Schema.Struct({ at: step(0, 200), cost: step(1, 3) })).check(Schema.isMaxLength(20)),
      Schema.Array(Schema.Struct({ at: step(0, 250), limit: step(1, 40), pause: step(0, 80) })).check(
        Schema.isMaxLength(4)
      ),
      step(10, 150)
    ],
    ([calls, turns, maxWait]) => {
      const policy = (limit: number) => Throttle.tokenBucket({ capacity: 3, refill: limit, per: 100, maxWait })
      const played = play(
        policy(20),
        calls.map(({ at, cost }) => ({ at, cost, runs: 0 })).toSorted((a, b) => a.at - b.at),
        {
          turns: turns.map(({ at, limit, pause }, i) => ({
            at: at + 0.123,
            turn: (throttle) => i % 2 === 0 ? throttle.update(policy(limit)) : throttle.pause(pause)
          }))
        }
      )
      const arrivals = calls.map(({ at }) => at).toSorted((a, b) => a - b)
      played.outcomes.forEach(({ end, start }, i) => {
        assert.include(["done", "WaitTooLong"], end)
        if (start !== undefined) assert.isAtMost(start - arrivals[i]!, maxWait + 2e-3)
      })
    },
    { arbitrary: { runs: 500 } }
  )

  it.effect("a timeout that has passed already ends waits at once, the others in time", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, maxQueue: 9 }))
      yield* fork(throttle.withPermit(Effect.sleep("1 hour")))
      const first = yield* fork(throttle.withPermit(Effect.void))
      yield* TestClock.adjust(60)
      const second = yield* fork(throttle.withPermit(Effect.void))
      yield* throttle.update(Throttle.concurrency({ limit: 1, timeout: "50 millis" }))
      yield* TestClock.adjust(0)
      assert.strictEqual(reasonOf(first.pollUnsafe()), "TimedOut")
      yield* TestClock.adjust(49)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(reasonOf(second.pollUnsafe()), "TimedOut")
    }))

  it.effect("a longer timeout lets waiting calls wait longer, and none lets them wait for ever", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, timeout: "50 millis" }))
      yield* fork(throttle.withPermit(Effect.sleep("1 hour")))
      const first = yield* fork(throttle.withPermit(Effect.void))
      yield* throttle.update(Throttle.concurrency({ limit: 1, timeout: "80 millis" }))
      yield* TestClock.adjust(79)
      assert.isUndefined(first.pollUnsafe())
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      yield* TestClock.adjust("59 minutes")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.isTrue(Exit.isSuccess(first.pollUnsafe()!))
      assertIdle(throttle)
    }))

  for (
    const [name, bounds] of Object.entries({
      maxQueue: { maxQueue: 3 },
      maxWait: { maxWait: 9 },
      timeout: { timeout: 9 }
    })
  ) {
    it.effect(`of a policy without bounds, it dies of an update with ${name}, and nothing is changed`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.inline(Throttle.rate({ limit: 10, name: "free" }))
        yield* throttle.wait()
        const { note, starts } = diary()
        yield* fork(throttle.withPermit(note("waited")))
        const defect = defectOf(yield* Effect.exit(throttle.update(Throttle.rate({ limit: 1_000, ...bounds }))))
        assert.instanceOf(defect, RangeError)
        assert.include((defect as Error).message, `throttle "free"`)
        assert.include((defect as Error).message, "no bounds")
        assert.strictEqual(policyOf(throttle).description, "10 per second")
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(starts, [["waited", 100]])
      }))
  }

  it.effect("of a policy without bounds, it dies of an all with a bounded part too", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.inline(Throttle.none)
      const bounded = Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1, maxQueue: 0 })])
      assert.instanceOf(defectOf(yield* Effect.exit(throttle.update(bounded))), RangeError)
    }))

  it.effect("a throttle of Throttle.make may get bounds: it cannot be piped, and its operations may fail", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.none)
      yield* throttle.update(Throttle.rate({ limit: 1, maxQueue: 0 }))
      yield* throttle.wait()
      assert.strictEqual((yield* Effect.flip(throttle.wait())).reason._tag, "QueueFull")
    }))

  const strict = Throttle.rate({ limit: 1, maxQueue: 0 })
  const data = { _tag: "Rate", limit: 5 } as const

  it.effect.each(Object.entries({
    fromData: Effect.succeed(Throttle.fromData(data)),
    decode: Effect.orDie(Throttle.decode(data)),
    "an all with one of these": Effect.succeed(
      Throttle.all([Throttle.fromData(data), Throttle.concurrency({ limit: 9 })])
    )
  }))("from data it may get some, since its type can fail: %s", ([, made]) =>
    Effect.gen(function*() {
      const policy = yield* made
      const throttle = yield* Throttle.inline(policy)
      yield* throttle.update(strict)
      yield* policy(Effect.void)
      const failed: ThrottleError = yield* Effect.flip(policy(Effect.void))
      assert.strictEqual(failed.reason._tag, "QueueFull")
    }))

  class Bounded extends Throttle.Service<Bounded>()("app/Bounded", Throttle.rate({ limit: 9, maxQueue: 9 })) {}

  it.effect.each(Object.entries<Throttle.Policy<ThrottleError>>({
    none: Throttle.none,
    "a policy without bounds": Throttle.rate({ limit: 5 }),
    "a policy in shadow": Throttle.shadow(strict),
    "a policy from data": Throttle.fromData(data)
  }))("a Service class declared with bounds may get some, provided with %s", ([, policy]) =>
    Effect.gen(function*() {
      yield* Bounded.update(strict)
      yield* Bounded.withPermit(Effect.void)
      const failed = yield* Effect.flip(Bounded.withPermit(Effect.void))
      assert.strictEqual(failed.reason._tag, "QueueFull")
      assert.strictEqual((yield* Bounded.statistics).rejected.QueueFull, 1)
    }).pipe(Effect.provide(Bounded.layerWith(policy))))

  it.effect("of a policy whose type cannot fail, inline use does not fail below a Service class that may", () =>
    Effect.gen(function*() {
      const plain = Throttle.rate({ limit: 5 })
      const uses: Effect.Effect<void, never, Bounded> = Effect.gen(function*() {
        yield* Bounded.update(strict)
        for (let i = 0; i < 3; i++) yield* fork(plain(Effect.void))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* (yield* Throttle.inline(plain)).statistics).admitted, 3)
      })
      yield* Effect.provide(uses, Bounded.layerWith(plain))
    }))

  it.effect("made with bounds, it may lose them and get them again", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 0 }))
      yield* throttle.update(Throttle.rate({ limit: 1 }))
      yield* throttle.update(Throttle.rate({ limit: 1, maxQueue: 0 }))
      yield* throttle.wait()
      assert.strictEqual(reasonOf(yield* Effect.exit(throttle.wait())), "QueueFull")
    }))

  it.effect("dies of what is no policy, and nothing is changed", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      assert.instanceOf(defectOf(yield* Effect.exit(throttle.update({ limit: 3 } as any))), RangeError)
      yield* throttle.wait()
      assert.strictEqual(yield* estimateOf(throttle), 1_000)
    }))
})

describe("open permits", () => {
  const bucket = (capacity: number, refill = capacity) => Throttle.tokenBucket({ capacity, refill })

  it.effect("are settled in permits of the new price", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(10))
      const permit = yield* throttle.takeScoped(4)
      yield* throttle.update(bucket(20))
      assert.strictEqual(yield* estimateOf(throttle, 20), 200)
      yield* permit.settle(2)
      assert.strictEqual(yield* estimateOf(throttle, 20), 100)
    }))

  it.effect("are settled for more in permits of the new price", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(10))
      const permit = yield* throttle.takeScoped(4)
      yield* throttle.update(bucket(20))
      yield* permit.settle(9)
      assert.strictEqual(yield* estimateOf(throttle, 20), 450)
    }))

  it.effect("are cancelled as if they had never been granted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(10))
      const permit = yield* throttle.takeScoped(4)
      yield* throttle.wait(3)
      yield* throttle.update(bucket(20))
      yield* permit.cancel
      assert.strictEqual(yield* estimateOf(throttle, 20), 150)
    }))

  it.effect("cancelled after the bucket became smaller than what was spent, leave what the others spent", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(10))
      const permit = yield* throttle.takeScoped(6)
      yield* throttle.wait(4)
      yield* throttle.update(bucket(5, 10))
      yield* permit.cancel
      assert.strictEqual(yield* estimateOf(throttle, 5), 400)
    }))

  it.effect.each(
    [
      ["cancelled", undefined, 5],
      ["settled for less", [2, 1], 2],
      ["settled for what they were granted", [5, 5], 0]
    ] as const
  )(
    "of a bucket that became smaller, all %s, leave what was really spent",
    ([, actual, left]) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(bucket(10))
        const permits = [yield* throttle.takeScoped(5), yield* throttle.takeScoped(5)]
        yield* throttle.update(bucket(5, 10))
        yield* Effect.forEach(permits, (permit, i) => actual === undefined ? permit.cancel : permit.settle(actual[i]!))
        const starts = yield* Effect.replicateEffect(throttle.withPermitsIfAvailable(Effect.void, 1), 6)
        assert.strictEqual(starts.filter(Option.isSome).length, left)
      })
  )

  it.effect("that the log of a window remembers can still be taken out of it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 5, per: "100 millis" }))
      const permit = yield* throttle.takeScoped(4)
      yield* TestClock.adjust(10)
      yield* throttle.wait()
      yield* throttle.update(Throttle.window({ limit: 3, per: "200 millis" }))
      assert.strictEqual(yield* estimateOf(throttle), 190)
      yield* permit.settle(2)
      assert.strictEqual(yield* estimateOf(throttle), 190)
      yield* throttle.update(Throttle.window({ limit: 4, per: "200 millis" }))
      assert.strictEqual(yield* estimateOf(throttle), 0)
    }))

  it.effect("hold their permits of concurrency until the scope closes, whatever the limit is by then", () =>
    Effect.gen(function*() {
      for (const limit of [1, 3, 7]) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
        const scope = yield* Scope.make()
        yield* Scope.provide(throttle.takeScoped(2), scope)
        yield* throttle.update(Throttle.concurrency({ limit }))
        assert.strictEqual(onlyFreeOf(throttle), limit - 2)
        yield* Scope.close(scope, Exit.void)
        assertIdle(throttle)
      }
    }))

  it.effect("cancelled, let waiting calls start by the new limits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      const permit = yield* throttle.takeScoped(2)
      const { note, starts } = diary()
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      yield* fork(throttle.withPermit(note("waited")))
      yield* TestClock.adjust(5)
      yield* permit.cancel
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(starts, [["waited", 5]])
      assertIdle(throttle)
    }))

  it.effect("of a removed part may be cancelled and settled", () =>
    Effect.gen(function*() {
      const tokens = Throttle.tokenBucket({ capacity: 100, refill: 100, unit: "tokens" })
      for (const way of ["settle", "cancel"] as const) {
        const throttle = yield* Throttle.make(Throttle.all([bucket(10), tokens]))
        const exit = yield* throttle.usePermits({ permits: 4, tokens: 60 })((permit) =>
          Effect.andThen(
            throttle.update(bucket(10)),
            way === "cancel" ? permit.cancel : permit.settle({ permits: 1, tokens: 50 })
          )
        ).pipe(Effect.exit)
        assert.deepStrictEqual(exit, Exit.void, way)
        assert.strictEqual(yield* estimateOf(throttle, 10), way === "cancel" ? 0 : 100)
        assertIdle(throttle)
      }
    }))

  it.effect("of a part that starts afresh in between do not touch the new one", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(10))
      const permit = yield* throttle.takeScoped(4)
      yield* throttle.update(Throttle.none)
      yield* throttle.update(bucket(10))
      yield* throttle.wait(5)
      yield* permit.cancel
      assert.strictEqual(yield* estimateOf(throttle, 10), 500)
    }))

  it.effect("granted after waiting belong to the former parts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(bucket(2, 10))
      yield* throttle.wait(2)
      const scope = yield* Scope.make()
      const waiting = yield* fork(Scope.provide(throttle.takeScoped(2), scope))
      yield* throttle.update(Throttle.all([Throttle.concurrency({ limit: 3 }), bucket(2, 10)]))
      yield* TestClock.adjust(200)
      const permit = yield* Fiber.join(waiting)
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* permit.settle(1)
      assert.strictEqual(onlyFreeOf(throttle), 1)
      yield* Scope.close(scope, Exit.void)
      assertIdle(throttle)
      assert.strictEqual(yield* estimateOf(throttle, 2), 100)
    }))
})

describe("pausing", () => {
  it.effect("an update while it is paused does not end the pause", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const { note, starts } = diary()
      yield* throttle.withPermit(note("a"))
      yield* throttle.pause(500)
      for (const name of ["b", "c"]) yield* fork(throttle.withPermit(note(name)))
      yield* TestClock.adjust(100)
      yield* throttle.update(Throttle.rate({ limit: 100 }))
      assert.strictEqual(yield* estimateOf(throttle), 420)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["a", 0], ["b", 500], ["c", 510]])
    }))

  it.effect("a call that an update rejects does not wait for the end of the pause", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3, maxQueue: 3 }))
      yield* throttle.pause(Infinity)
      const heavy = yield* fork(throttle.withPermits(Effect.void, 3))
      const light = yield* fork(throttle.withPermits(Effect.void, 2))
      yield* throttle.update(Throttle.concurrency({ limit: 2 }))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(reasonOf(heavy.pollUnsafe()), "PermitsExceedCapacity")
      assert.isUndefined(light.pollUnsafe())
      yield* throttle.resume
      yield* Fiber.join(light)
      yield* TestClock.adjust(0)
      assertIdle(throttle)
    }))
})

describe("the throttle stays the same one", () => {
  it.effect("its name stays, in statistics, metrics and errors; the policy in words is the new one", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 1, name: "api" }))
      yield* throttle.wait()
      const seen = collect()
      const events: Array<Throttle.Event> = []
      yield* throttle.update(Throttle.concurrency({ limit: 1, maxQueue: 0, name: "other" }))
      yield* fork(throttle.withPermit(Effect.never))
      const exit = yield* Effect.exit(throttle.withPermit(Effect.void)).pipe(
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event))),
        seen.in
      )
      assert.strictEqual(reasonOf(exit), "QueueFull")
      assert.include(String(Option.getOrThrow(Exit.findErrorOption(exit))), `throttle "api"`)
      assert.deepStrictEqual(events.map(({ policy, throttle }) => [throttle, policy]), [
        ["api", "at most 1 at once (never waiting)"]
      ])
      const { admitted, rejected, running } = yield* throttle.statistics
      assert.deepStrictEqual([admitted, rejected.QueueFull, running], [2, 1, 1])
      const value = (name: string) =>
        Effect.map(
          Metric.value(Throttle.metrics.admitted.pipe(Metric.withAttributes({ throttle: name }))),
          ({ count }) => count
        )
      assert.strictEqual(yield* value("api"), 2)
      assert.strictEqual(yield* value("other"), 0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("inline use of a policy is updated by Throttle.of", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 1 })
      const { note, starts } = diary()
      yield* limited(note("a"))
      yield* (yield* Throttle.inline(limited)).update(Throttle.rate({ limit: 10 }))
      yield* fork(limited(note("b")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["a", 0], ["b", 100]])
      assert.strictEqual(Throttle.describe(limited), "1 per second")
    }))

  it.effect("inline use that held nothing holds permits after an update, and the other way about", () =>
    Effect.gen(function*() {
      for (
        const [policy, other] of [
          [Throttle.rate({ limit: 1_000, burst: 9 }), Throttle.concurrency({ limit: 1 })],
          [Throttle.concurrency({ limit: 1 }), Throttle.spacing({ interval: 10, from: "end" })],
          [Throttle.none, Throttle.concurrency({ limit: 1 })]
        ]
      ) {
        const throttle = yield* Throttle.inline(policy!)
        yield* throttle.update(other!)
        yield* fork(policy!(Effect.sleep(5)))
        assert.strictEqual((yield* throttle.statistics).running, 1)
        yield* throttle.update(Throttle.rate({ limit: 1_000 }))
        yield* policy!(Effect.void)
        yield* TestClock.adjust(100)
        assertIdle(throttle)
      }
    }))

  it.effect("a Service class has update, and its Layer's next build starts with its own limits again", () =>
    Effect.gen(function*() {
      class Api extends Throttle.Service<Api>()("app/Api", Throttle.rate({ limit: 1 })) {}
      const program = Effect.gen(function*() {
        const before = yield* Api.estimateWait()
        yield* Effect.orDie(Api.wait())
        const first = yield* Api.estimateWait()
        yield* Api.update(Throttle.rate({ limit: 10 }))
        return [before, first, yield* Api.estimateWait()].map((wait) => Duration.toMillis(Option.getOrThrow(wait)))
      })
      assert.deepStrictEqual(yield* Effect.provide(program, Api.layer), [0, 1_000, 100])
      assert.deepStrictEqual(yield* Effect.provide(program, Api.layer), [0, 1_000, 100])
      // A class without bounds takes none.
      const bounded = Throttle.rate({ limit: 10, maxQueue: 1 })
      // @ts-expect-error A policy that may reject is not one of this class's.
      const exit = yield* Effect.exit(Effect.provide(Api.update(bounded), Api.layer))
      assert.instanceOf(defectOf(exit), RangeError)
    }))

  it.effect("the provided throttle is updated by Throttle.update, inline use below with it", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1 })
      const { note, starts } = diary()
      yield* Effect.gen(function*() {
        yield* policy(note("a"))
        yield* Throttle.update(Throttle.rate({ limit: 100 }))
        yield* fork(Throttle.withPermit(note("b")))
        yield* fork(policy(note("c")))
        yield* TestClock.adjust("1 second")
      }).pipe(Effect.provide(policy))
      assert.deepStrictEqual(starts, [["a", 0], ["b", 10], ["c", 20]])
    }))

  it.effect("a throttle whose scope is closed takes an update, and stays closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(Throttle.rate({ limit: 1 })), scope)
      yield* Scope.close(scope, Exit.void)
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      const exit = yield* Effect.exit(throttle.wait())
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("a policy in shadow may be put in force, and what it admitted stays spent", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* throttle.wait()
      yield* throttle.update(Throttle.rate({ limit: 10 }))
      assert.strictEqual(yield* estimateOf(throttle), 100)
      const { note, starts } = diary()
      yield* fork(throttle.withPermit(note("waited")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [["waited", 100]])
    }))

  it.effect("a throttle may go into shadow: waiting calls start at once", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const { note, starts } = diary()
      yield* throttle.withPermit(note("a"))
      for (const name of ["b", "c"]) yield* fork(throttle.withPermit(note(name)))
      yield* throttle.update(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* throttle.withPermit(note("d"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(starts.toSorted(([a], [b]) => a < b ? -1 : 1), [["a", 0], ["b", 0], ["c", 0], ["d", 0]])
    }))
})

describe("examples", () => {
  it.effect("limits that follow a SubscriptionRef", () =>
    Effect.gen(function*() {
      class Api extends Throttle.Service<Api>()("app/Api", Throttle.rate({ limit: 1 })) {}
      const { note, starts } = diary()
      yield* Effect.gen(function*() {
        const perSecond = yield* SubscriptionRef.make(1)
        const follow = SubscriptionRef.changes(perSecond).pipe(
          Stream.runForEach((limit) => Api.update(Throttle.rate({ limit })))
        )
        yield* Effect.forkScoped(follow, { startImmediately: true })
        for (const name of ["a", "b", "c", "d"]) yield* fork(Api.withPermit(note(name)))
        yield* TestClock.adjust(1_000)
        yield* SubscriptionRef.set(perSecond, 10)
        yield* TestClock.adjust(1_000)
      }).pipe(Effect.provide(Api.layer), Effect.scoped)
      assert.deepStrictEqual(starts, [["a", 0], ["b", 1_000], ["c", 1_100], ["d", 1_200]])
    }))

  it.effect("limits that come from outside", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.fromData({ _tag: "Rate", limit: 1, maxQueue: 100 }))
      yield* throttle.wait()
      const reload = (json: string) => Effect.flatMap(Throttle.decode(JSON.parse(json)), throttle.update)
      yield* reload(`{ "_tag": "Rate", "limit": 10, "maxQueue": 100 }`)
      assert.strictEqual(yield* estimateOf(throttle), 100)
      const error = yield* Effect.flip(reload(`{ "_tag": "Rate", "limit": 0 }`))
      assert.isTrue(Schema.isSchemaError(error))
      assert.strictEqual(yield* estimateOf(throttle), 100)
    }))

  it.effect("a throttle that was made from configuration takes another one of it", () =>
    Effect.gen(function*() {
      const config = (json: string) => ConfigProvider.fromEnv({ env: { API: json } })
      const waits = yield* Effect.gen(function*() {
        yield* Throttle.wait()
        const before = yield* Throttle.estimateWait()
        yield* Throttle.update(yield* Throttle.decode({ _tag: "Rate", limit: 4, timeout: "1 second" }))
        return [before, yield* Throttle.estimateWait()].map((wait) => Duration.toMillis(Option.getOrThrow(wait)))
      }).pipe(
        Effect.provide(Throttle.layerConfig(Throttle.config("API"))),
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          config(`{"_tag":"Rate","limit":2,"per":"1 second","maxQueue":9}`)
        )
      )
      assert.deepStrictEqual(waits, [500, 250])
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// At every scheduler step
// ---------------------------------------------------------------------------------------------------------------------

const all = Throttle.all
const a = (limit: number) => Throttle.concurrency({ limit })
const slots = (limit: number) => Throttle.concurrency({ limit, unit: "slots" })
const fast = Throttle.rate({ limit: 200 })
const rest = (interval: number) => Throttle.spacing({ interval, from: "end" })

/** What is in force, and what comes. */
const changes: Record<string, readonly [Throttle.Policy<any>, ...ReadonlyArray<Throttle.Policy<any>>]> = {
  "a faster rate": [Throttle.rate({ limit: 100 }), Throttle.rate({ limit: 500 })],
  "a slower rate": [Throttle.rate({ limit: 500 }), Throttle.rate({ limit: 100 })],
  "more at once": [a(1), a(3)],
  "fewer at once": [a(3), a(1)],
  "permits that go": [a(1), Throttle.none],
  "permits that come": [fast, all([fast, a(1)])],
  "permits in another order": [all([a(2), slots(2)]), all([slots(5), a(1)])],
  "permits of one kind that go": [all([a(2), slots(2)]), slots(2)],
  "a shorter rest": [rest(5), rest(1)],
  "a rest that goes": [rest(5), fast],
  "a rest that comes, before what is held": [a(2), all([rest(2), a(2)])],
  "another window": [Throttle.window({ limit: 1, per: 10 }), Throttle.window({ limit: 2, per: 5 })],
  "all of it at once": [all([a(2), slots(2), fast]), all([rest(3), slots(3), Throttle.rate({ limit: 300 }), a(3)])],
  "there and back, in two fibers": [a(2), a(1), a(2)],
  "two orders, in two fibers": [all([a(2), slots(2)]), all([slots(4), a(1)]), all([a(1), rest(1), slots(2)])],
  "gone and back, in two fibers": [all([a(1), fast]), fast, all([fast, a(2)])]
}

/** One permit, and two slots where there are any. No change takes out the slots: a newcomer's cost in them would only die. */
const one = (throttle: Throttle.Throttle): Throttle.Cost =>
  policyOf(throttle).units?.has("slots") === true ? { slots: 2 } : plain

const plain: Throttle.Cost = {}

const uses: Record<string, Sweep.Use> = {
  withPermit: (throttle, self) =>
    one(throttle) === plain ? throttle.withPermit(self) : throttle.withPermits(self, one(throttle)),
  takeScoped: (throttle, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(one(throttle)), self)),
  cancel: (throttle, self) => throttle.usePermits(one(throttle))((permit) => Effect.andThen(self, permit.cancel))
}

/** Five calls at one instant, updates and an interruption before a step, for every step. Returns the number of steps. */
const sweep = (
  [policy, ...updates]: readonly [Throttle.Policy<any>, ...ReadonlyArray<Throttle.Policy<any>>],
  use: Sweep.Use,
  victim: number | undefined,
  name: string
): number =>
  Sweep.everyStep(
    {
      policy,
      calls: 5,
      // Some steps first, so that an update, which takes some itself, can come before each of those that count.
      use: (throttle, self) => Effect.flatMap(Effect.yieldNow, () => use(throttle, self)),
      act: ({ fibers, simulator, throttle }) => {
        for (const update of updates) simulator.fork(throttle.update(update))
        if (victim !== undefined) fibers[victim]!.interruptUnsafe()
      },
      watch: ({ fibers, throttle }) => {
        const waiting = Array.from(waitersOf(throttle), ({ fiber }) => fibers.indexOf(fiber))
        if (waiting.every((at, i) => i === 0 || waiting[i - 1]! <= at)) return
        assert.deepStrictEqual(waiting, waiting.toSorted((a, b) => a - b), `${name}: overtaken in the queue`)
      }
    },
    `${name}, victim ${victim}`,
    (swept, where) => {
      for (const [i, fiber] of swept.fibers.entries()) {
        if (i !== victim) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!), `${where}: call ${i} failed`)
      }
      assertIdle(swept.throttle, where)
      assert.isAtLeast(new Set(swept.order).size, victim === undefined ? 5 : 4, `${where}: starts`)
      Sweep.assertUsable(swept, where)
      assertIdle(swept.throttle, `${where}, afterwards`)
    }
  )

describe("an update at every scheduler step", () => {
  for (const [name, change] of Object.entries(changes)) {
    for (const [way, use] of Object.entries(uses)) {
      it(`${name}: ${way}`, () => {
        // One that waits is interrupted alike, however it asked.
        for (const victim of way === "withPermit" ? [undefined, 0, 2] : [undefined, 0]) {
          assert.isAbove(sweep(change, use, victim, `${name}, ${way}`), 20)
        }
      })
    }
  }
})
