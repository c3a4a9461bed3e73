/**
 * Fixed windows at the boundaries of the wall clock: no start is forgotten, none is counted twice, and an update does not
 * move the end of an open window.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Option } from "effect"
import { Throttle } from "effect-throttle"
import { TestClock } from "effect/testing"

/** A clock that goes on by `tick` nanoseconds whenever one of its times is read. */
const movingClock = (start: number, tick: number): { readonly clock: Clock.Clock; set: (nanos: number) => void } => {
  let nanos = start
  const read = () => nanos += tick
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => Math.floor(read() / 1e6),
    currentTimeMillis: Effect.sync(() => Math.floor(read() / 1e6)),
    currentTimeNanosUnsafe: () => BigInt(read()),
    currentTimeNanos: Effect.sync(() => BigInt(read())),
    // Its zero lies elsewhere than that of the wall clock.
    monotonicTimeNanosUnsafe: () => BigInt(read() - 12_345_678),
    monotonicTimeNanos: Effect.sync(() => BigInt(read() - 12_345_678)),
    sleep: () => Effect.never
  }
  return {
    clock,
    set: (to) => {
      nanos = to
    }
  }
}

const ask = (throttle: Throttle.Throttle, times: number) =>
  Effect.map(
    Effect.forEach(Array.from({ length: times }), () => throttle.withPermitsIfAvailable(Effect.void, 1)),
    (ran) => ran.filter(Option.isSome).length
  )

describe("a fixed window that opens beside a boundary", () => {
  const offsets = [
    -2_000_000,
    -1_000_000,
    -3_000,
    -1_500,
    -1_000,
    -500,
    -1,
    0,
    1,
    500,
    1_000,
    3_000,
    999_000,
    1_000_000
  ]

  it.each([1, 100, 700, 5_000])("counts all its starts, on a clock that moves by %d ns at each read", (tick) => {
    for (const offset of offsets) {
      const boundary = 1_000_000_000
      const { clock } = movingClock(boundary + offset, tick)
      const started = Effect.runSync(
        Effect.scoped(Effect.gen(function*() {
          const throttle = yield* Throttle.make(Throttle.window({ limit: 3, per: "100 millis", kind: "fixed" }))
          return [yield* ask(throttle, 3), yield* ask(throttle, 3)]
        })).pipe(Effect.provideService(Clock.Clock, clock))
      )
      // Calls a hundredth of a millisecond apart lie in one window, or on both sides of a boundary that is passed.
      const crosses = offset < 0 && offset + 60 * tick > 0
      assert.isAtMost(started[0]! + started[1]!, crosses ? 6 : 3, `${offset} ns from the boundary`)
      assert.strictEqual(started[0], 3)
    }
  })

  it("starts no more than its limit between two boundaries that the wall clock shows, whenever it opens", () => {
    for (let open = 0; open < 100; open += 7) {
      for (const part of [0, 250_000, 999_000]) {
        const { clock, set } = movingClock(0, 50)
        const counts = Effect.runSync(
          Effect.scoped(Effect.gen(function*() {
            const throttle = yield* Throttle.make(Throttle.window({ limit: 3, per: "100 millis", kind: "fixed" }))
            set((1_000 + open) * 1e6 + part)
            yield* ask(throttle, 1)
            const counts = new Map<number, number>()
            // Around the end of the window, in steps of a quarter of a millisecond.
            for (let quarter = 0; quarter < 16; quarter++) {
              set((1_098 + quarter / 4) * 1e6)
              const shown = Math.floor((1_098 + quarter / 4) / 100)
              counts.set(shown, (counts.get(shown) ?? (shown === 10 ? 1 : 0)) + (yield* ask(throttle, 1)))
            }
            return counts
          })).pipe(Effect.provideService(Clock.Clock, clock))
        )
        assert.deepStrictEqual([...counts], [[10, 3], [11, 3]], `opened at ${open} ms and ${part} ns`)
      }
    }
  })

  it.effect.each([0.1, 1 / 3, 0.7, 0.123_456, 33.3])(
    "counts all its starts where time goes on by %d ms",
    (step) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.window({ limit: 5, per: 100, kind: "fixed" }))
        const starts = new Map<number, number>()
        for (let i = 0; i * step < 299; i++) {
          const ran = yield* ask(throttle, 7)
          const window = Math.floor(((yield* Clock.currentTimeMillis) + 1e-3) / 100)
          starts.set(window, (starts.get(window) ?? 0) + ran)
          yield* TestClock.adjust(step)
        }
        assert.deepStrictEqual([...starts.values()], [5, 5, 5])
      })
  )

  it.effect.each([1e-7, 3e-7, 1e-6, 1e-5, 1e-4, 9e-4])(
    "counts a start %d ms before a boundary as one behind it",
    (before) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.window({ limit: 5, per: 100, kind: "fixed" }))
        yield* TestClock.adjust(100 - before)
        assert.strictEqual(yield* ask(throttle, 7), 5)
        yield* TestClock.adjust(2 * before)
        assert.strictEqual(yield* ask(throttle, 7), 0)
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* ask(throttle, 7), 5)
      })
  )

  it("counts all its starts on the live clock, right behind a boundary", () => {
    const tries = Effect.runSync(
      Effect.scoped(Effect.gen(function*() {
        const started: Array<number> = []
        for (let i = 0; i < 20; i++) {
          const throttle = yield* Throttle.make(Throttle.window({ limit: 3, per: "100 millis", kind: "fixed" }))
          while (Date.now() % 100 !== 0) { /* until the wall clock shows a boundary */ }
          const at = Date.now()
          const ran = (yield* ask(throttle, 3)) + (yield* ask(throttle, 3))
          if (Math.floor(Date.now() / 100) === Math.floor(at / 100)) started.push(ran)
        }
        return started
      }))
    )
    assert.isAtLeast(tries.length, 5)
    assert.deepStrictEqual(tries.filter((ran) => ran !== 3), [])
  })
})

describe("an aligned slot beside a boundary", () => {
  it.each([1, 100, 700])("is taken once, on a clock that moves by %d ns at each read", (tick) => {
    for (const offset of [-2_000, -900, -1, 0, 1, 900, 2_000, 500_000]) {
      const { clock } = movingClock(1_000_000_000 + offset, tick)
      const started = Effect.runSync(
        Effect.scoped(Effect.gen(function*() {
          const throttle = yield* Throttle.make(Throttle.spacing({ interval: "100 millis", align: true }))
          return yield* ask(throttle, 4)
        })).pipe(Effect.provideService(Clock.Clock, clock))
      )
      assert.isAtMost(started, 1, `${offset} ns from the boundary`)
    }
  })
})

describe("the end of a fixed window", () => {
  const hour = 3_600_000
  const window = (limit: number, per: number) => Throttle.window({ limit, per, kind: "fixed" })
  const waitOf = (throttle: Throttle.Throttle) =>
    Effect.map(throttle.estimateWait(), (wait) => Duration.toMillis(Option.getOrThrow(wait)))

  it.effect("stays where it is, however often an update comes", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(window(5, 24 * hour))
      yield* TestClock.adjust(hour)
      yield* throttle.wait(5)
      for (let i = 0; i < 4; i++) {
        yield* throttle.update(window(5, 60_000))
        assert.strictEqual(yield* waitOf(throttle), 23 * hour)
      }
      yield* throttle.update(window(5, 24 * hour))
      assert.strictEqual(yield* waitOf(throttle), 23 * hour)
    }))

  it.effect("stays where it is from an hour by a minute to a day", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(window(5, hour))
      yield* TestClock.adjust(10 * 60_000)
      yield* throttle.wait(5)
      yield* throttle.update(window(5, 60_000))
      yield* throttle.update(window(5, 24 * hour))
      assert.strictEqual(yield* waitOf(throttle), 50 * 60_000)
      // The windows after it are days.
      yield* TestClock.adjust(50 * 60_000)
      yield* throttle.wait(5)
      assert.strictEqual(yield* waitOf(throttle), 23 * hour)
    }))
})
