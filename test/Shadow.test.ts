/**
 * A policy in shadow admits every call at once, and counts what it would have done.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Metric, Option, References, Schema, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, defectOf, fork, inMillis, noRejections, now, onlyFreeOf, policyOf } from "./utils/kit.ts"
import { type Call, play } from "./utils/play.ts"
import * as Sweep from "./utils/sweep.ts"
import { collect } from "./utils/telemetry.ts"

/** What a throttle has counted, without what is 0. */
const counted = (throttle: Throttle.Throttle) =>
  Effect.map(throttle.statistics, (statistics) => {
    const { rejected, ...others } = inMillis(statistics)
    return Object.fromEntries(Object.entries({ ...others, ...rejected }).filter(([, value]) => value !== 0))
  })

/** Collects what a program logs, its spans and the throttles' events. */
const observed = () => {
  const seen = collect()
  const events: Array<Throttle.Event> = []
  return {
    ...seen,
    events,
    in: <A, E, R>(self: Effect.Effect<A, E, R>) =>
      seen.in(self).pipe(
        Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event))),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
  }
}

/** Each would let one of two calls start, and reject the second one or let it wait. */
const strict: Record<string, Throttle.Policy<any>> = {
  rate: Throttle.rate({ limit: 1, maxQueue: 0 }),
  tokenBucket: Throttle.tokenBucket({ capacity: 1, refill: 1, maxWait: "1 millis" }),
  "sliding window": Throttle.window({ limit: 1, per: "1 second", timeout: "1 millis" }),
  "fixed window": Throttle.window({ limit: 1, per: "1 second", kind: "fixed", maxQueue: 0 }),
  spacing: Throttle.spacing({ interval: "1 second" }),
  "spacing on the clock": Throttle.spacing({ interval: "1 second", align: true }),
  "spacing from the end": Throttle.spacing({ interval: "1 second", from: "end" }),
  concurrency: Throttle.concurrency({ limit: 1 }),
  "concurrency that never waits": Throttle.concurrency({ limit: 1, maxQueue: 0 }),
  all: Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })], { maxQueue: 1 })
}

describe("no call waits, and no call is rejected", () => {
  for (const [name, policy] of Object.entries(strict)) {
    const shadow = Throttle.shadow(policy)

    it.effect(`${name}: all calls start at once, by any operation`, () =>
      Effect.gen(function*() {
        yield* TestClock.adjust(300)
        const throttle = yield* Throttle.make(shadow)
        const starts: Array<number> = []
        const note = Effect.map(now, (at) => void starts.push(at))
        const calls = [
          throttle.withPermit(note),
          throttle.withPermits(note, 1),
          throttle.withPermitsIfAvailable(note, 1),
          throttle.usePermits(1)(() => note),
          Effect.scoped(Effect.andThen(throttle.takeScoped(), note)),
          shadow(note)
        ]
        const fibers = yield* Effect.forEach([...calls, ...calls, ...calls], (call) => fork(call))
        for (const fiber of fibers) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
        assert.deepStrictEqual(starts, Array.from(fibers, () => 300))
        yield* TestClock.adjust("1 minute")
        const { interrupted, waiting } = yield* throttle.statistics
        assertIdle(throttle)
        assert.deepStrictEqual({ interrupted, waiting }, { interrupted: 0, waiting: 0 })
      }))

    it.effect(`${name}: the effect's own outcome is the outcome`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(shadow)
        for (let i = 0; i < 3; i++) {
          assert.deepStrictEqual(yield* Effect.exit(throttle.withPermit(Effect.succeed(1))), Exit.succeed(1))
          assert.deepStrictEqual(yield* Effect.exit(throttle.withPermit(Effect.fail("no"))), Exit.fail("no"))
          assert.strictEqual(defectOf(yield* Effect.exit(throttle.withPermit(Effect.die("bug")))), "bug")
          const fiber = yield* fork(throttle.withPermit(Effect.never))
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(
            yield* throttle.withPermitsIfAvailable(Effect.succeed(2), 1),
            Option.some(2)
          )
        }
        yield* TestClock.adjust("1 minute")
        yield* throttle.statistics
        assertIdle(throttle)
      }))
  }

  it.effect("a call that exceeds the capacity runs too, and counts as rejected", () =>
    Effect.gen(function*() {
      for (
        const policy of [
          Throttle.tokenBucket({ capacity: 3, refill: 1 }),
          Throttle.concurrency({ limit: 3 }),
          Throttle.window({ limit: 3, per: 10 })
        ]
      ) {
        const throttle = yield* Throttle.make(Throttle.shadow(policy))
        assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), 4), "ran")
        assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(Effect.succeed("ran"), 4), Option.some("ran"))
        yield* Effect.scoped(Effect.flatMap(throttle.takeScoped(4), (permit) => permit.settle(1)))
        yield* Effect.scoped(Effect.flatMap(throttle.takeScoped(4), (permit) => permit.cancel))
        assert.deepStrictEqual(yield* counted(throttle), { PermitsExceedCapacity: 4 })
        assertIdle(throttle)
        // Nothing was charged for it.
        yield* throttle.withPermits(Effect.void, 3)
        assert.deepStrictEqual(yield* counted(throttle), { admitted: 1, PermitsExceedCapacity: 4 })
      }
    }))

  it.effect("a cost in a unit that no part counts is a mistake in shadow too", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      assert.instanceOf(defectOf(yield* Effect.exit(throttle.withPermits(Effect.void, { tokens: 1 }))), RangeError)
    }))

  it.effect("re-entry has no effect", () =>
    Effect.gen(function*() {
      const limited = Throttle.shadow(Throttle.concurrency({ limit: 1 }))
      assert.strictEqual(yield* limited(limited(limited(Effect.succeed("in")))), "in")
      const throttle = yield* Throttle.inline(limited)
      assert.strictEqual((yield* throttle.statistics).admitted, 3)
      assertIdle(throttle)
    }))

  it.effect("an effect may be throttled by a policy and, in shadow, by the next one", () =>
    Effect.gen(function*() {
      const real = Throttle.rate({ limit: 100 })
      const candidate = Throttle.shadow(Throttle.rate({ limit: 50 }))
      const starts: Array<number> = []
      for (let i = 0; i < 4; i++) yield* fork(Effect.map(now, (at) => void starts.push(at)).pipe(candidate, real))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [0, 10, 20, 30])
      // Behind the real one they arrive at 0, 10, 20 and 30; they would start at 0, 20, 40 and 60.
      assert.deepStrictEqual(yield* counted(yield* Throttle.inline(candidate)), {
        admitted: 4,
        waited: 60,
        longestWait: 30
      })
    }))
})

// ---------------------------------------------------------------------------------------------------------------------
// What would have happened
// ---------------------------------------------------------------------------------------------------------------------

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Rate = Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(5, 40), burst: int(0, 4) })
const TokenBucket = Schema.Struct({
  _tag: Schema.Literal("TokenBucket"),
  capacity: int(1, 6),
  refill: int(1, 7),
  per: int(5, 40)
})
const Window = Schema.Struct({
  _tag: Schema.Literal("Window"),
  limit: int(1, 5),
  per: int(5, 40),
  kind: Schema.Literals(["sliding", "fixed"])
})
const Spacing = Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), align: Schema.Boolean })

const Timing = Schema.Union([Rate, TokenBucket, Window, Spacing])

/**
 * Arrivals off the millisecond, no two at one instant, and at none at which a permit comes free: no draws to decide.
 *
 * In force a start is up to 1 µs early, since sleeps are whole microseconds, and the calls behind it inherit that; in shadow
 * it is exact. So what is to happen off something else is 3 µs off it or more.
 */
const arrivals = (heaviest: number) =>
  Schema.Array(Schema.Struct({ at: int(0, 80), cost: int(0, heaviest) })).check(Schema.isMaxLength(16))

const programOf = (drawn: ReadonlyArray<{ readonly at: number; readonly cost: number }>): ReadonlyArray<Call> =>
  drawn.map(({ at, cost }, i) => ({ at: at + 0.0137 * (i + 1) + 0.00071 * (i + 1) ** 2, cost, runs: 0 }))

const arbitrary = { arbitrary: { runs: 250 } }

/** A pause, or an update to other data. */
interface Turn {
  readonly at: number
  readonly pause?: number
  readonly update?: object
}

/** Whether the shadow of a policy counts what the policy does. */
const agrees = (data: object, program: ReadonlyArray<Call>, turns: ReadonlyArray<Turn> = []) => {
  const policy = Throttle.fromData(data as any)
  const playedWith = (given: (policy: Throttle.Policy<any>) => Throttle.Policy<any>) =>
    play(given(policy), program, {
      readAt: 100_000,
      turns: turns.map(({ at, pause, update }) => ({
        at,
        turn: (throttle) =>
          update === undefined ? throttle.pause(pause!) : throttle.update(given(Throttle.fromData(update as any)))
      }))
    })
  const real = playedWith((policy) => policy)
  const shadow = playedWith((policy) => Throttle.shadow(policy))
  for (const [i, { end, start }] of shadow.outcomes.entries()) {
    assert.strictEqual(end, "done")
    assert.closeTo(start!, program[i]!.at, 1e-9)
  }
  const { longestWait, waited, ...others } = inMillis(shadow.statistics)
  const expected = inMillis(real.statistics)
  assert.deepStrictEqual({ ...others, waited: 0, longestWait: 0 }, { ...expected, waited: 0, longestWait: 0 })
  const tolerance = 2e-3 * (program.length + 1)
  assert.closeTo(waited, expected.waited, tolerance, "waited")
  assert.closeTo(longestWait, expected.longestWait, tolerance, "longestWait")
}

describe("counts what the policy would have done", () => {
  it.prop("without bounds, calls of any weight", [Timing, arrivals(4)], ([data, drawn]) => {
    agrees(data, programOf(drawn))
  }, arbitrary)

  it.prop("several parts, without bounds", [Timing, Schema.Union([Rate, TokenBucket, Window]), arrivals(3)], (
    [first, second, drawn]
  ) => {
    agrees({ _tag: "All", policies: [first, second] }, programOf(drawn))
  }, arbitrary)

  it.prop("maxQueue, calls of any weight", [Timing, arrivals(4), int(0, 4)], ([data, drawn, maxQueue]) => {
    agrees({ ...data, maxQueue }, programOf(drawn))
  }, arbitrary)

  it.prop("maxWait, calls of any weight", [Timing, arrivals(4), int(1, 60)], ([data, drawn, maxWait]) => {
    agrees({ ...data, maxWait: maxWait + 0.00333 }, programOf(drawn))
  }, arbitrary)

  it.prop("maxQueue and maxWait", [Timing, arrivals(4), int(0, 4), int(1, 60)], ([data, drawn, maxQueue, maxWait]) => {
    agrees({ ...data, maxQueue, maxWait: maxWait + 0.00333 }, programOf(drawn))
  }, arbitrary)

  it.prop("maxQueue of several parts", [Timing, Schema.Union([Rate, TokenBucket, Window]), arrivals(3), int(0, 4)], (
    [first, second, drawn, maxQueue]
  ) => {
    agrees({ _tag: "All", policies: [first, second], maxQueue }, programOf(drawn))
  }, arbitrary)

  it.prop("timeout, calls of one weight", [Timing, arrivals(1), int(1, 60)], ([data, drawn, timeout]) => {
    agrees({ ...data, timeout: timeout + 0.00333 }, programOf(drawn.map(({ at }) => ({ at, cost: 1 }))))
  }, arbitrary)

  it.prop("timeout, calls of any weight", [Timing, arrivals(4), int(1, 60)], ([data, drawn, timeout]) => {
    agrees({ ...data, timeout: timeout + 0.00333 }, programOf(drawn))
  }, arbitrary)

  it.prop("timeout and maxQueue, calls of one weight", [Timing, arrivals(1), int(1, 60), int(0, 4)], (
    [data, drawn, timeout, maxQueue]
  ) => {
    agrees({ ...data, timeout: timeout + 0.00333, maxQueue }, programOf(drawn.map(({ at }) => ({ at, cost: 1 }))))
  }, arbitrary)

  /** A run is off the millisecond as well, so that it never ends when something else happens. */
  const running = (drawn: ReadonlyArray<{ readonly at: number; readonly cost: number; readonly runs: number }>) =>
    programOf(drawn).map((call, i) => ({ ...call, runs: drawn[i]!.runs + 0.01931 * (i + 1) }))

  const Runs = (heaviest: number) =>
    Schema.Array(Schema.Struct({ at: int(0, 80), cost: int(0, heaviest), runs: int(0, 40) })).check(
      Schema.isMaxLength(16)
    )

  const Pool = Schema.Struct({ _tag: Schema.Literal("Concurrency"), limit: int(1, 4) })
  const Gap = Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), from: Schema.Literal("end") })
  const Bounds = Schema.Struct({
    maxQueue: Schema.Union([int(0, 4), Schema.Literal(99)]),
    timeout: Schema.Union([int(1, 60), Schema.Literal(9_999)])
  })
  const bounded = ({ maxQueue, timeout }: typeof Bounds.Type) => ({ maxQueue, timeout: timeout + 0.00333 })

  it.prop("calls that hold permits while they run, with bounds", [Schema.Union([Pool, Gap]), Runs(4), Bounds], (
    [data, drawn, bounds]
  ) => {
    agrees({ ...data, ...bounded(bounds) }, running(drawn))
  }, arbitrary)

  it.prop("permits and time together, with every bound", [Timing, Pool, Runs(3), Bounds, int(1, 80)], (
    [timing, pool, drawn, bounds, maxWait]
  ) => {
    agrees(
      { _tag: "All", policies: [timing, pool], ...bounded(bounds), maxWait: maxWait + 0.00555 },
      running(drawn)
    )
  }, arbitrary)

  it.prop("several parts, with every bound", [Timing, Rate, Window, Runs(3), Bounds, int(1, 80)], (
    [first, second, third, drawn, bounds, maxWait]
  ) => {
    agrees(
      { _tag: "All", policies: [first, second, third], ...bounded(bounds), maxWait: maxWait + 0.00555 },
      running(drawn)
    )
  }, arbitrary)

  it.prop("across a pause and an update", [Timing, Timing, Pool, Runs(3), Bounds, int(0, 90), int(0, 90), int(0, 60)], (
    [first, second, pool, drawn, bounds, pausedAt, updatedAt, pause]
  ) => {
    const all = (timing: object, limit: number) => ({
      _tag: "All",
      policies: [timing, { ...pool, limit }],
      ...bounded(bounds)
    })
    agrees(all(first, pool.limit), running(drawn), [
      { at: pausedAt + 0.005_17, pause },
      { at: updatedAt + 0.009_29, update: all(second, 1 + (pool.limit + updatedAt) % 4) }
    ])
  }, arbitrary)

  it("maxWait over several parts: what the policy admits is admitted", () => {
    const parts = [{ _tag: "Rate", limit: 1, per: 100 }, { _tag: "Window", limit: 2, per: 150 }]
    agrees(
      { _tag: "All", policies: parts, maxWait: 320 },
      [0, 1, 2, 3, 4, 5].map((at) => ({ at, cost: 1, runs: 0 }))
    )
  })

  it("permits that come free just after a slot of the clock: the call behind has the next one", () => {
    const parts = [{ _tag: "Spacing", interval: 1, align: true }, { _tag: "Concurrency", limit: 1 }]
    agrees({ _tag: "All", policies: parts }, [
      { at: 0.5, cost: 1, runs: 2 },
      // From 3 to 4.0193.
      { at: 0.7, cost: 1, runs: 1.0193 },
      // From 5.
      { at: 3.4, cost: 1, runs: 0 }
    ])
  })

  it("timeout, with calls that hold permits", () => {
    agrees(
      { _tag: "Concurrency", limit: 1, timeout: 25 },
      [0, 1, 2].map((at) => ({ at, cost: 1, runs: 20 }))
    )
  })

  it("three of rate: at once, after one, after two", () => {
    agrees(
      { _tag: "Rate", limit: 10 },
      [0, 1, 2].map((at) => ({ at, cost: 1, runs: 0 }))
    )
  })

  it("a heavy call that would time out would delay the calls behind it until then", () => {
    agrees({ _tag: "TokenBucket", capacity: 5, refill: 1, per: 100, timeout: 50 }, [
      { at: 0, cost: 4, runs: 0 },
      { at: 1, cost: 5, runs: 0 },
      { at: 2, cost: 1, runs: 0 }
    ])
  })

  it("calls that would time out would fill the queue until then", () => {
    agrees({ _tag: "Rate", limit: 1, per: 1_000, timeout: 50, maxQueue: 1 }, [
      { at: 0, cost: 1, runs: 0 },
      { at: 1, cost: 1, runs: 0 },
      { at: 2, cost: 1, runs: 0 }
    ])
  })

  it.effect("withPermitsIfAvailable would not have started later: it is not charged", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10 })
      const ask = (throttle: Throttle.Throttle) =>
        Effect.forEach([1, 2, 3], () => throttle.withPermitsIfAvailable(Effect.void, 1))
      const real = yield* Throttle.make(policy)
      const shadow = yield* Throttle.make(Throttle.shadow(policy))
      yield* ask(real)
      yield* ask(shadow)
      assert.deepStrictEqual(yield* counted(shadow), yield* counted(real))
    }))
})

describe("concurrency", () => {
  it.effect("calls above the limit wait in the simulated queue, and run as long as they really ran", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 2 })))
      for (let i = 0; i < 5; i++) yield* fork(throttle.withPermit(Effect.sleep(10)))
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2, waiting: 3, running: 2 })
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* counted(throttle), {
        admitted: 4,
        waiting: 1,
        running: 2,
        waited: 20,
        longestWait: 10
      })
      yield* TestClock.adjust(20)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 5, waited: 40, longestWait: 20 })
      assertIdle(throttle)
    }))

  it.effect("maxQueue rejects the calls above the limit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 2, maxQueue: 1 })))
      for (let i = 0; i < 5; i++) yield* fork(throttle.withPermit(Effect.sleep(10)))
      // Two would run, one would wait, two would be rejected.
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2, waiting: 1, running: 2, QueueFull: 2 })
      yield* TestClock.adjust(10)
      yield* throttle.withPermit(Effect.void)
      const waits = { waited: 10, longestWait: 10 }
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 4, running: 1, QueueFull: 2, ...waits })
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 4, QueueFull: 2, ...waits })
      assertIdle(throttle)
    }))

  it.effect("maxQueue: 0 counts how often the limit would have been hit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 1, maxQueue: 0 })))
      yield* fork(throttle.withPermit(Effect.sleep(10)))
      for (let i = 0; i < 3; i++) yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* TestClock.adjust(10)
      yield* throttle.withPermit(Effect.void)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2, QueueFull: 3 })
    }))

  it.effect("maxQueue counts calls, not permits", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 4, maxQueue: 2 })))
      // One would run, the other would wait: one more may wait.
      for (const cost of [4, 4, 4]) yield* fork(throttle.withPermits(Effect.sleep(10), cost))
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 1, waiting: 2, running: 1 })
    }))

  it.effect("the Semaphore is not touched", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 2 })))
      for (let i = 0; i < 5; i++) yield* fork(throttle.withPermit(Effect.never))
      yield* fork(Effect.scoped(Effect.andThen(throttle.takeScoped(2), Effect.never)))
      assert.strictEqual(onlyFreeOf(throttle), 0)
      assert.strictEqual((yield* throttle.statistics).running, 2)
    }))

  it.effect("spacing from the end: the end of a call counts", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.shadow(Throttle.spacing({ interval: 50, from: "end", maxQueue: 0 }))
      )
      yield* fork(throttle.withPermit(Effect.sleep(10)))
      yield* throttle.withPermit(Effect.void)
      yield* TestClock.adjust(59)
      yield* throttle.withPermit(Effect.void)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 1, QueueFull: 2 })
      yield* TestClock.adjust(1)
      yield* throttle.withPermit(Effect.void)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2, QueueFull: 2 })
    }))
})

describe("what is seen", () => {
  const policy = "in shadow: 1 per second (at most 1 waiting)"
  const shadow = () => Throttle.shadow(Throttle.rate({ limit: 1, maxQueue: 1, name: "api" }))

  it.effect("events of calls that would wait or be rejected are marked, and contain the error", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = shadow()
      for (let i = 0; i < 3; i++) yield* seen.in(limited(Effect.void))
      assert.strictEqual(seen.events.length, 2)
      assert.deepStrictEqual(seen.events[0], {
        _tag: "Waiting",
        throttle: "api",
        policy,
        cost: 1,
        shadow: true,
        queued: 1,
        expected: 1_000
      })
      const rejected = seen.events[1]!
      assert.strictEqual(rejected._tag, "Rejected")
      if (rejected._tag !== "Rejected") return
      assert.isTrue(rejected.shadow)
      assert.strictEqual(rejected.waited, 0)
      assert.strictEqual(rejected.policy, policy)
      assert.instanceOf(rejected.error, ThrottleError)
      const { reason } = rejected.error
      assert.strictEqual(reason._tag, "QueueFull")
      assert.strictEqual(reason.throttle, "api")
      assert.deepStrictEqual(reason.cost, { permits: 1 })
      assert.strictEqual(reason._tag === "QueueFull" && reason.limit, 1)
      assert.deepStrictEqual(reason.parts, ["api"])
      assert.deepStrictEqual(rejected.error.retryAfter, Duration.millis(2_000))
      // One would be waiting.
      assert.strictEqual(reason.queued, 1)
    }))

  it.effect("log entries are marked too", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = shadow()
      for (let i = 0; i < 3; i++) yield* seen.in(limited(Effect.void))
      assert.deepStrictEqual(seen.lines.map(({ level, message }) => [level, message]), [
        ["Debug", "throttle.waiting"],
        ["Debug", "throttle.rejected"]
      ])
      for (const { annotations } of seen.lines) {
        assert.strictEqual(annotations["shadow"], true)
        assert.strictEqual(annotations["throttle"], "api")
        assert.strictEqual(annotations["policy"], policy)
      }
      assert.strictEqual(seen.lines[1]!.annotations["reason"], "QueueFull")
    }))

  it.effect("at the level of WaitLogLevel", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = shadow()
      yield* Effect.forEach([1, 2], () => seen.in(limited(Effect.void))).pipe(
        Effect.provideService(Throttle.WaitLogLevel, "Info")
      )
      assert.deepStrictEqual(seen.lines.map(({ level }) => level), ["Info"])
    }))

  it.effect("a call that would not wait emits no event, and events of a policy in force are not marked", () =>
    Effect.gen(function*() {
      const seen = observed()
      yield* seen.in(shadow()(Effect.void))
      assert.deepStrictEqual(seen.events, [])
      const real = Throttle.rate({ limit: 1, maxQueue: 0 })
      yield* Effect.exit(seen.in(Effect.andThen(real(Effect.void), real(Effect.void))))
      assert.strictEqual(seen.events.length, 1)
      assert.notProperty(seen.events[0], "shadow")
    }))

  it.effect("there is no span, for there is no wait", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = shadow()
      for (let i = 0; i < 3; i++) yield* seen.in(Effect.withSpan(limited(Effect.void), "own"))
      assert.deepStrictEqual(seen.spans.map(({ name }) => name), ["own", "own", "own"])
    }))

  it.effect("where concurrency decides the expected wait is left out, and the call counts itself", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = Throttle.shadow(Throttle.concurrency({ limit: 1, name: "pool" }))
      yield* fork(limited(Effect.never))
      yield* seen.in(limited(Effect.void))
      assert.deepStrictEqual(seen.events, [
        { _tag: "Waiting", throttle: "pool", policy: "in shadow: at most 1 at once", cost: 1, shadow: true, queued: 1 }
      ])
    }))

  it.effect("each event contains the number of calls that would wait", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = Throttle.shadow(Throttle.rate({ limit: 10 }))
      for (let i = 0; i < 4; i++) yield* seen.in(limited(Effect.void))
      yield* TestClock.adjust(150)
      yield* seen.in(limited(Effect.void))
      const waiting = seen.events.filter(({ _tag }) => _tag === "Waiting")
      assert.deepStrictEqual(waiting.map((event) => event._tag === "Waiting" && [event.queued, event.expected]), [
        [1, 100],
        [2, 200],
        [3, 300],
        [3, 250]
      ])
    }))

  it.effect("takeScoped and if available are seen as well", () =>
    Effect.gen(function*() {
      const seen = observed()
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1, maxQueue: 0 })))
      yield* throttle.wait()
      yield* seen.in(Effect.scoped(throttle.takeScoped()))
      assert.deepStrictEqual(seen.events.map((event) => [event._tag, event.shadow]), [["Rejected", true]])
    }))

  it.effect("metrics count what would have happened, under the shadow's name", () =>
    Effect.gen(function*() {
      const limited = Throttle.shadow(Throttle.rate({ limit: 1, maxQueue: 1 }), { name: "candidate" })
      for (let i = 0; i < 4; i++) yield* limited(Effect.void)
      yield* TestClock.adjust("1 second")
      const tagged = <In, Out>(metric: Metric.Metric<In, Out>, attributes = {}) =>
        Metric.value(metric.pipe(Metric.withAttributes({ throttle: "candidate", ...attributes })))
      assert.strictEqual((yield* tagged(Throttle.metrics.admitted)).count, 2)
      assert.strictEqual((yield* tagged(Throttle.metrics.rejected, { reason: "QueueFull" })).count, 2)
      const waits = yield* tagged(Throttle.metrics.waitSeconds)
      assert.deepStrictEqual([waits.count, waits.sum], [1, 1])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("an observer that takes its time does not keep the call from being interrupted", () =>
    Effect.gen(function*() {
      const refusing = Throttle.rate({ limit: 1, maxQueue: 0 })
      // The last one is in force: so it is there, and so it should be in shadow.
      for (const limited of [Throttle.shadow(Throttle.rate({ limit: 1 })), Throttle.shadow(refusing), refusing]) {
        yield* limited(Effect.void)
        const fiber = yield* limited(Effect.void).pipe(
          Effect.provideService(Throttle.Observer, () => Effect.sleep(100)),
          fork
        )
        const interruption = yield* fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1)
        const gone = fiber.pollUnsafe() !== undefined
        yield* TestClock.adjust(100)
        yield* Fiber.join(interruption)
        assert.isTrue(gone, Throttle.describe(limited))
      }
    }))
})

describe("the service in shadow", () => {
  it.effect("wait returns at once, and dies where a part limits running calls", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      for (let i = 0; i < 3; i++) yield* throttle.wait()
      assert.strictEqual(yield* now, 0)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 3, waited: 3_000, longestWait: 2_000 })
      const gated = yield* Throttle.make(Throttle.shadow(Throttle.concurrency({ limit: 1 })))
      assert.instanceOf(defectOf(yield* Effect.exit(gated.wait())), RangeError)
    }))

  it.effect("takeScoped holds until the scope closes, and may be settled", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(
        Throttle.all([Throttle.tokenBucket({ capacity: 10, refill: 10 }), Throttle.concurrency({ limit: 5 })])
      ))
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(throttle.takeScoped(4), scope)
      assert.deepStrictEqual(permit.cost, 4)
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* permit.settle(1)
      yield* Scope.close(scope, Exit.void)
      assertIdle(throttle)
      // One of ten is spent.
      yield* Effect.scoped(throttle.takeScoped(5))
      yield* Effect.scoped(throttle.takeScoped(4))
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 3 })
      yield* Effect.scoped(throttle.takeScoped(1))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 4, waited: 100, longestWait: 100 })
    }))

  it.effect("a cancelled call counts as never admitted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.tokenBucket({ capacity: 2, refill: 10 })))
      const scope = yield* Scope.make()
      const permit = yield* Scope.provide(throttle.takeScoped(2), scope)
      yield* permit.cancel
      yield* throttle.wait(2)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2 })
      yield* Scope.close(scope, Exit.void)
      assertIdle(throttle)
    }))

  it.effect("estimateWait tells how long a call would wait if the policy were in force", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 10 })))
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.zero))
      yield* throttle.wait()
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.millis(100)))
      yield* throttle.wait()
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.millis(200)))
    }))

  it.effect("a pause holds no call back, and counts as a wait", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 10 })))
      yield* throttle.pause(300)
      yield* throttle.wait()
      yield* throttle.wait()
      assert.strictEqual(yield* now, 0)
      yield* TestClock.adjust(400)
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 2, waited: 700, longestWait: 400 })
    }))

  it.effect("a pause without end that is ended leaves no trace in what comes after", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 10 })))
      yield* throttle.pause(Infinity)
      yield* throttle.wait()
      yield* throttle.resume
      yield* TestClock.adjust("1 hour")
      const before = inMillis(yield* throttle.statistics)
      assert.isTrue(Number.isFinite(before.waited), "a wait that cannot be estimated is counted")
      yield* throttle.wait()
      const after = inMillis(yield* throttle.statistics)
      assert.strictEqual(after.waited, before.waited)
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.millis(100)))
    }))

  for (
    const [name, policy] of Object.entries({
      rate: Throttle.rate({ limit: 1 }),
      concurrency: Throttle.concurrency({ limit: 1 })
    })
  ) {
    it.effect(`when its scope closes running calls continue, and later calls are interrupted: ${name}`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const throttle = yield* Scope.provide(Throttle.make(Throttle.shadow(policy)), scope)
        const running = yield* Effect.forEach([1, 2], () => fork(throttle.withPermit(Effect.sleep(10))))
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust(10)
        for (const fiber of running) assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
        const later: Record<string, Effect.Effect<unknown, unknown>> = {
          withPermit: throttle.withPermit(Effect.void),
          withPermits: throttle.withPermits(Effect.void, 1),
          withPermitsIfAvailable: throttle.withPermitsIfAvailable(Effect.void, 1),
          takeScoped: Effect.scoped(throttle.takeScoped()),
          usePermits: throttle.usePermits(1)(() => Effect.void)
        }
        for (const [way, call] of Object.entries(later)) {
          const exit = yield* Effect.exit(call)
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause), way)
        }
        // The second would have waited when the scope closed.
        assert.deepStrictEqual(yield* counted(throttle), { admitted: 1, interrupted: 1 })
        assertIdle(throttle)
      }))
  }

  it.effect("provided as a Layer, inline use below it is the same throttle", () =>
    Effect.gen(function*() {
      const limited = Throttle.shadow(Throttle.rate({ limit: 1, burst: 1 }))
      const { admitted } = yield* Effect.gen(function*() {
        yield* Throttle.withPermit(Effect.void)
        yield* limited(Effect.void)
        return yield* Throttle.statistics
      }).pipe(Effect.provide(limited))
      assert.strictEqual(admitted, 2)
    }))

  it.effect("a Service class without errors may be put in the shadow of a bounded policy", () =>
    Effect.gen(function*() {
      class Api extends Throttle.Service<Api>()("app/Api", Throttle.rate({ limit: 1 })) {}
      const seen = observed()
      const calls: Effect.Effect<void, never, Api> = Effect.andThen(
        Api.withPermit(Effect.void),
        Api.withPermit(Effect.void)
      )
      const tried = Throttle.shadow(Throttle.rate({ limit: 1, maxQueue: 0 }))
      yield* seen.in(Effect.provide(calls, Api.layerWith(tried)))
      assert.deepStrictEqual(seen.events.map(({ throttle }) => throttle), ["app/Api"])
    }))

  it("interrupted at every scheduler step it leaves nothing behind", () => {
    const uses: Record<string, Sweep.Use> = {
      withPermit: (throttle, self) => throttle.withPermit(self),
      takeScoped: (throttle, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(), self))
    }
    for (const name of ["all", "concurrency", "spacing from the end"]) {
      for (const [way, use] of Object.entries(uses)) {
        const steps = Sweep.everyStep(
          { policy: Throttle.shadow(strict[name]!), calls: 3, use, act: Sweep.interrupt(0, 1) },
          `${name}, ${way}`,
          ({ simulator, throttle }, where) => {
            simulator.at(simulator.now() + 60_000, () => {})
            simulator.run()
            Effect.runSync(throttle.statistics)
            assertIdle(throttle, where)
          }
        )
        assert.isAbove(steps, 10)
      }
    }
  })
})

describe("as data", () => {
  const candidate = Throttle.rate({ limit: 5, maxQueue: 0 })

  it.effect("there and back, from data and from outside", () =>
    Effect.gen(function*() {
      const policies = [
        ...Object.values(strict).map((policy) => Throttle.shadow(policy)),
        Throttle.shadow(candidate, { name: "tried" }),
        Throttle.shadow(Throttle.none)
      ]
      for (const policy of policies) {
        const json = JSON.parse(JSON.stringify(policy.data))
        assert.deepStrictEqual(json, policy.data)
        assert.deepStrictEqual(Throttle.fromData(json).data, policy.data)
        assert.deepStrictEqual((yield* Throttle.decode(json)).data, policy.data)
        assert.deepStrictEqual(Schema.decodeUnknownSync(Throttle.PolicyData)(json), policy.data)
        assert.deepStrictEqual(Schema.encodeSync(Throttle.PolicyData)(policy.data), policy.data)
      }
      assert.deepStrictEqual(Throttle.shadow(candidate).data, { _tag: "Shadow", policy: candidate.data } as any)
      assert.deepStrictEqual(Throttle.shadow(candidate, { name: undefined }).data, Throttle.shadow(candidate).data)
    }))

  it.effect("from data it is in shadow as well", () =>
    Effect.gen(function*() {
      const limited = yield* Throttle.decode({ _tag: "Shadow", policy: { _tag: "Rate", limit: 1, maxQueue: 0 } })
      yield* Effect.andThen(limited(Effect.void), limited(Effect.void))
      const { admitted, rejected } = yield* (yield* Throttle.inline(limited)).statistics
      assert.deepStrictEqual([admitted, rejected], [1, { ...noRejections, QueueFull: 1 }])
    }))

  it("in words", () => {
    assert.strictEqual(Throttle.describe(Throttle.shadow(candidate)), "in shadow: 5 per second (never waiting)")
    assert.strictEqual(String(Throttle.shadow(candidate)), "Throttle(in shadow: 5 per second (never waiting))")
    const both = Throttle.all([Throttle.rate({ limit: 5 }), Throttle.concurrency({ limit: 2 })])
    assert.strictEqual(Throttle.describe(Throttle.shadow(both)), "in shadow: 5 per second; at most 2 at once")
  })

  it.effect("its name is its own, or that of what is in shadow", () =>
    Effect.gen(function*() {
      const nameOf = (policy: Throttle.Policy<any>) =>
        Effect.map(Throttle.make(policy), (throttle) => policyOf(throttle).name)
      assert.strictEqual(yield* nameOf(Throttle.shadow(candidate)), "rate")
      assert.strictEqual(yield* nameOf(Throttle.shadow(Throttle.rate({ limit: 1, name: "api" }))), "api")
      assert.strictEqual(
        yield* nameOf(Throttle.shadow(Throttle.rate({ limit: 1, name: "api" }), { name: "tried" })),
        "tried"
      )
    }))

  it.effect("within an all it is a mistake", () =>
    Effect.gen(function*() {
      const shadow = Throttle.shadow(candidate)
      for (const parts of [[shadow], [candidate, shadow], [Throttle.all([]), shadow]]) {
        assert.throws(() => Throttle.all(parts), RangeError, /Throttle\.all: shadow is for a whole policy/)
        const data = { _tag: "All", policies: parts.map(({ data }) => data) }
        assert.throws(() => Throttle.fromData(data as any), RangeError, /shadow is for a whole policy/)
        assert.include(String(yield* Effect.flip(Throttle.decode(data))), "shadow is for a whole policy")
      }
    }))

  it.effect("of a shadow it is a mistake", () =>
    Effect.gen(function*() {
      const shadow = Throttle.shadow(candidate)
      assert.throws(() => Throttle.shadow(shadow), RangeError, /Throttle\.shadow: the policy is in shadow already/)
      const data = { _tag: "Shadow", policy: shadow.data }
      assert.throws(() => Throttle.fromData(data as any), RangeError, /in shadow already/)
      assert.include(String(yield* Effect.flip(Throttle.decode(data))), "in shadow already")
    }))

  it.effect("what else is a mistake", () =>
    Effect.gen(function*() {
      assert.throws(() => Throttle.shadow({ limit: 1 } as any), RangeError)
      assert.throws(() => Throttle.shadow(candidate, { name: "" }), RangeError, /"name" must be a non-empty string/)
      assert.throws(() => Throttle.shadow(candidate, { maxQueue: 1 } as any), RangeError, /unknown option "maxQueue"/)
      assert.throws(
        () => Throttle.shadow(candidate, { policy: Throttle.none.data } as any),
        RangeError,
        /unknown option/
      )
      for (
        const data of [
          { _tag: "Shadow" },
          { _tag: "Shadow", policy: 3 },
          { _tag: "Shadow", policy: { _tag: "Rate", limit: 0 } },
          { _tag: "Shadow", policy: candidate.data, maxQueue: 1 }
        ]
      ) {
        assert.throws(() => Throttle.fromData(data as any), RangeError)
        assert.strictEqual((yield* Effect.flip(Throttle.decode(data)))._tag, "SchemaError")
      }
    }))

  it("adds no error, whatever it is the shadow of", () => {
    const limited: Throttle.Policy<never> = Throttle.shadow(candidate)
    const effect: Effect.Effect<number, "own"> = limited(Effect.fail("own") as Effect.Effect<number, "own">)
    assert.isTrue(Throttle.isPolicy(limited) && Effect.isEffect(effect))
  })
})

describe("to and from shadow, by update", () => {
  it.effect("calls that wait for permits start at once, by any operation", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const holding = yield* Effect.forkChild(throttle.withPermit(Effect.never), { startImmediately: true })
      const waiting = yield* Effect.all([
        Effect.forkChild(throttle.withPermit(Effect.succeed("in")), { startImmediately: true }),
        Effect.forkChild(Effect.scoped(Effect.as(throttle.takeScoped(), "in")), { startImmediately: true })
      ])
      yield* throttle.update(Throttle.shadow(Throttle.concurrency({ limit: 1 })))
      yield* TestClock.adjust(0)
      for (const fiber of waiting) assert.strictEqual(yield* Fiber.join(fiber), "in")
      yield* Fiber.interrupt(holding)
      const { running, waiting: left } = yield* throttle.statistics
      assert.deepStrictEqual([running, left], [0, 0])
      yield* throttle.update(Throttle.concurrency({ limit: 1 }))
      assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
    }))

  for (
    const policy of [
      Throttle.rate({ limit: 1 }),
      Throttle.window({ limit: 1, per: "1 second" }),
      Throttle.window({ limit: 1, per: "1 second", kind: "fixed" }),
      Throttle.spacing({ interval: "1 second" })
    ]
  ) {
    it.effect(`${Throttle.describe(policy)}: what it only thought of is no debt when it is put in force`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.shadow(policy))
        yield* Effect.repeat(throttle.wait(), { times: 99 })
        yield* throttle.update(policy)
        assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.seconds(1)))
      }))
  }

  it.effect("calls that wait for more than the shadow would ever grant start as well", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 10, maxQueue: 9 }))
      yield* throttle.wait(10)
      const heavy = yield* Effect.forkChild(throttle.withPermits(Effect.succeed("ran"), 8), { startImmediately: true })
      yield* throttle.update(Throttle.shadow(Throttle.tokenBucket({ capacity: 5, refill: 5 })))
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* Fiber.join(heavy), "ran")
    }))

  it.effect("simulated waits are kept when the parts come in another order", () =>
    Effect.gen(function*() {
      const a = Throttle.concurrency({ limit: 1, name: "a", unit: "a" })
      const b = Throttle.concurrency({ limit: 1, name: "b", unit: "b" })
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.all([a, b], { maxQueue: 2 })))
      const call = Effect.forkChild(throttle.withPermits(Effect.never, { a: 1 }), { startImmediately: true })
      yield* call
      yield* call
      yield* throttle.update(Throttle.shadow(Throttle.all([b, a], { maxQueue: 2 })))
      yield* call
      assert.strictEqual((yield* throttle.statistics).rejected.QueueFull, 0)
      yield* call
      assert.strictEqual((yield* throttle.statistics).rejected.QueueFull, 1)
    }))

  it.effect("admitted in shadow and held when the policy is in force again: no fiber waits on the Semaphore", () =>
    Effect.gen(function*() {
      const one = Throttle.concurrency({ limit: 1 })
      const throttle = yield* Throttle.make(one)
      const first = yield* Effect.forkChild(throttle.withPermit(Effect.never), { startImmediately: true })
      const second = yield* Effect.scoped(Effect.andThen(throttle.takeScoped(), Effect.never)).pipe(
        Effect.provideService(
          Throttle.Observer,
          (event) => event._tag === "Admitted" ? Effect.sleep(100) : Effect.void
        ),
        Effect.forkChild({ startImmediately: true })
      )
      yield* throttle.update(Throttle.shadow(one))
      yield* TestClock.adjust(50)
      yield* throttle.update(one)
      yield* TestClock.adjust(100)
      yield* Fiber.interrupt(second)
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* Fiber.interrupt(first)
      assert.isTrue(Option.isSome(yield* throttle.withPermitsIfAvailable(Effect.void, 1)))
    }))

  it.effect("a start that is still to come, settled for more: the log stays in order", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ limit: 2, per: "10 seconds" })
      const throttle = yield* Throttle.make(Throttle.shadow(policy))
      yield* throttle.wait(2)
      // It would start at 10 s.
      yield* throttle.usePermits(1)((permit) => permit.settle(2))
      yield* TestClock.adjust("19 seconds")
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.seconds(1)))
    }))

  it.effect("without a bound at most 10,000 calls wait; calls beyond them count as admitted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      yield* Effect.repeat(throttle.wait(), { times: 10_999 })
      assert.deepStrictEqual(yield* counted(throttle), { admitted: 1_000, waiting: 10_000 })
      yield* TestClock.adjust("3 hours")
      assert.strictEqual((yield* throttle.statistics).admitted, 11_000)
    }))
})
