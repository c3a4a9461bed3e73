/**
 * What can be seen of a throttle: log lines, the span, metrics, events, statistics; and that nothing else is.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, type LogLevel, Metric, Option, References, Scope } from "effect"
import { Throttle, ThrottleError, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { errorOf, fork, inMillis, noRejections, now } from "./utils/kit.ts"
import { collect } from "./utils/telemetry.ts"

/** Collects what a program logs, its spans and the throttles' events. */
const observed = () => {
  const seen = collect()
  const events: Array<Throttle.Event> = []
  return {
    ...seen,
    events,
    /** The wait spans. */
    waits: () => seen.spans.filter((span) => span.name === "throttle.wait"),
    in: <A, E, R>(self: Effect.Effect<A, E, R>) =>
      seen.in(
        Effect.provideService(self, Throttle.Observer, (event) => Effect.sync(() => void events.push(event)))
      )
  }
}

const logging = (level: LogLevel.LogLevel) => Effect.provideService(References.MinimumLogLevel, level)

const levelOfWaits = (level: LogLevel.LogLevel) => Effect.provideService(Throttle.WaitLogLevel, level)

/** A policy that starts one a second, and what is said of it. */
const perSecond = (bounds: Throttle.Bounds = {}) => Throttle.rate({ limit: 1, name: "api", ...bounds })
const about = { throttle: "api", policy: "1 per second", cost: 1 }

describe("log entries", () => {
  it.effect("one when a call starts to wait and one when it is admitted, at Debug", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      const calls = Effect.all([1, 2, 3].map(() => limited(Effect.void)), { concurrency: "unbounded" })
      yield* fork(seen.in(calls).pipe(logging("Debug")))
      assert.deepStrictEqual(seen.lines, [
        { message: "throttle.waiting", level: "Debug", annotations: { ...about, queued: 1, expected: 1_000 } },
        { message: "throttle.waiting", level: "Debug", annotations: { ...about, queued: 2, expected: 2_000 } }
      ])
      seen.lines.length = 0
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.lines, [
        { message: "throttle.admitted", level: "Debug", annotations: { ...about, waited: 1_000 } }
      ])
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.lines.slice(1), [
        { message: "throttle.admitted", level: "Debug", annotations: { ...about, waited: 2_000 } }
      ])
    }))

  it.effect("tell what was expected from where the schedule stands", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      yield* TestClock.adjust(250.5)
      yield* fork(seen.in(limited(Effect.void)).pipe(logging("Debug")))
      yield* TestClock.adjust(749.5)
      assert.deepStrictEqual(seen.lines.map((line) => line.annotations), [
        { ...about, queued: 1, expected: 749.5 },
        { ...about, waited: 749.5 }
      ])
    }))

  it.effect("contain the cost as it was passed", () =>
    Effect.gen(function*() {
      const seen = observed()
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 9, refill: 1, unit: "tokens", name: "openai" })
      )
      yield* throttle.withPermits(Effect.void, { tokens: 9 })
      yield* fork(seen.in(throttle.withPermits(Effect.void, { tokens: 2 })).pipe(logging("Debug")))
      assert.deepStrictEqual(seen.lines.map((line) => line.annotations), [{
        throttle: "openai",
        policy: "1 tokens per second, bucket of 9",
        cost: { tokens: 2 },
        queued: 1,
        expected: 2_000
      }])
    }))

  it.effect("omit the estimate where the wait cannot be estimated", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = Throttle.concurrency({ limit: 1 })
      yield* fork(limited(Effect.sleep(5)))
      yield* fork(seen.in(limited(Effect.void)).pipe(logging("Debug")))
      assert.deepStrictEqual(seen.lines.map((line) => line.annotations), [
        { throttle: "concurrency", policy: "at most 1 at once", cost: 1, queued: 1 }
      ])
    }))

  it.effect("carry the caller's annotations, and do not change the effect's own log entries", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      const work = Effect.log("working").pipe(limited, Effect.annotateLogs({ user: "ann" }))
      yield* fork(seen.in(work).pipe(logging("Debug")))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.lines.map(({ annotations, message }) => [message, annotations]), [
        ["throttle.waiting", { user: "ann", ...about, queued: 1, expected: 1_000 }],
        ["throttle.admitted", { user: "ann", ...about, waited: 1_000 }],
        ["working", { user: "ann" }]
      ])
    }))

  it.effect("are hidden at the usual minimum, and at any above WaitLogLevel", () =>
    Effect.gen(function*() {
      const table: ReadonlyArray<readonly [LogLevel.LogLevel, minimum: LogLevel.LogLevel, level: string | undefined]> =
        [
          ["Debug", "Info", undefined],
          ["Debug", "Debug", "Debug"],
          ["Debug", "All", "Debug"],
          ["Debug", "None", undefined],
          ["Info", "Info", "Info"],
          ["Info", "Warn", undefined],
          ["Warn", "Info", "Warn"],
          ["Fatal", "Error", "Fatal"],
          ["Trace", "Debug", undefined],
          ["Trace", "Trace", "Trace"],
          ["None", "All", undefined],
          ["None", "None", undefined]
        ]
      for (const [level, minimum, expected] of table) {
        const seen = observed()
        const limited = Throttle.rate({ limit: 1 })
        yield* limited(Effect.void)
        yield* fork(seen.in(limited(Effect.void)).pipe(levelOfWaits(level), logging(minimum)))
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(
          seen.lines.map((line) => line.level),
          expected === undefined ? [] : [expected, expected],
          `${level} at minimum ${minimum}`
        )
        assert.deepStrictEqual(seen.lines.map((line) => line.message).length, expected === undefined ? 0 : 2)
        assert.deepStrictEqual(
          seen.events.map((event) => event._tag),
          ["Waiting", "Admitted"],
          "events are not affected"
        )
      }
    }))

  it.effect("at their default level are hidden from a program that sets no levels", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond({ maxQueue: 1 })
      yield* limited(Effect.void)
      yield* fork(seen.in(limited(Effect.void)))
      yield* Effect.flip(seen.in(limited(Effect.void)))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.lines, [])
    }))

  it.effect("a call that need not wait writes none", () =>
    Effect.gen(function*() {
      const seen = observed()
      yield* Effect.gen(function*() {
        const throttle = yield* Throttle.make(
          Throttle.all([Throttle.rate({ limit: 9, burst: 9 }), Throttle.concurrency({ limit: 1 })])
        )
        yield* throttle.withPermit(Effect.void)
        yield* throttle.withPermits(Effect.void, 1)
        yield* throttle.withPermits(Effect.void, 0)
        yield* throttle.withPermitsIfAvailable(Effect.void, 1)
        yield* Effect.scoped(throttle.takeScoped())
        yield* throttle.estimateWait()
        yield* throttle.statistics
        yield* Throttle.none(Effect.void)
        // One that may not wait does not: it says so to its caller alone.
        yield* throttle.withPermits(throttle.withPermitsIfAvailable(Effect.void, 1), 1)
      }).pipe(seen.in, levelOfWaits("Info"), logging("All"))
      assert.deepStrictEqual([seen.lines, seen.spans, seen.events], [[], [], []])
    }))

  it.effect("a rejection is logged at Debug, whatever the level of waits", () =>
    Effect.gen(function*() {
      for (const level of ["None", "Debug", "Error"] as const) {
        const seen = observed()
        const limited = perSecond({ maxQueue: 0 })
        yield* limited(Effect.void)
        const error = yield* Effect.flip(seen.in(limited(Effect.void)).pipe(levelOfWaits(level), logging("Debug")))
        assert.deepStrictEqual(seen.lines, [{
          message: "throttle.rejected",
          level: "Debug",
          annotations: {
            ...about,
            policy: "1 per second (never waiting)",
            waited: 0,
            reason: "QueueFull",
            message: error.message
          }
        }])
      }
    }))

  it.effect("a rejection after a wait contains the duration of the wait", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond({ timeout: 250 })
      yield* limited(Effect.void)
      const waiting = yield* fork(seen.in(limited(Effect.void)).pipe(logging("Debug")))
      yield* TestClock.adjust(250)
      const error = yield* Effect.flip(Fiber.join(waiting))
      const policy = "1 per second (timing out after 250 milliseconds)"
      assert.deepStrictEqual(seen.lines.map(({ annotations, message }) => [message, annotations]), [
        ["throttle.waiting", { ...about, policy, queued: 1, expected: 1_000 }],
        ["throttle.rejected", { ...about, policy, waited: 250, reason: "TimedOut", message: error.message }]
      ])
    }))

  it.effect("an interruption is logged at Debug", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      const waiting = yield* fork(seen.in(limited(Effect.void)).pipe(levelOfWaits("Info"), logging("Debug")))
      yield* TestClock.adjust(300)
      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(seen.lines.slice(1), [
        { message: "throttle.interrupted", level: "Debug", annotations: { ...about, waited: 300 } }
      ])
    }))

  it.effect("a call that is interrupted while it runs logs nothing", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = Throttle.concurrency({ limit: 1 })
      const running = yield* fork(seen.in(limited(Effect.never)).pipe(logging("All")))
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual([seen.lines, seen.spans, seen.events], [[], [], []])
    }))
})

describe("the span", () => {
  it.effect("is around the wait alone, a child of the caller's, and tells of it", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      const work = Effect.sleep(500).pipe(Effect.withSpan("work"), limited, Effect.withSpan("caller"))
      yield* TestClock.adjust(100)
      yield* fork(seen.in(work))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(seen.spans.map((span) => span.name), ["caller", "throttle.wait", "work"])
      const [caller, wait, ran] = seen.spans
      assert.strictEqual(Option.getOrUndefined(wait!.parent), caller)
      assert.strictEqual(Option.getOrUndefined(ran!.parent), caller, "what runs is not part of the wait")
      assert.deepStrictEqual(Object.fromEntries(wait!.attributes), {
        ...about,
        queued: 1,
        expected: 900,
        waited: 900
      })
      const { status } = wait!
      assert.strictEqual(status.startTime, 100_000_000n)
      assert.isTrue(status._tag === "Ended" && status.endTime === 1_000_000_000n)
      assert.isTrue(status._tag === "Ended" && Exit.isSuccess(status.exit))
      assert.isFalse(caller!.attributes.has("throttle"), "the caller's span is left alone")
    }))

  it.effect("is a root where the caller has none", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      yield* fork(seen.in(limited(Effect.void)))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.spans.map((span) => [span.name, Option.isNone(span.parent)]), [[
        "throttle.wait",
        true
      ]])
    }))

  it.effect("is made for every way to wait", () =>
    Effect.gen(function*() {
      const ways: Record<string, (throttle: Throttle.Throttle) => Effect.Effect<unknown, ThrottleError>> = {
        withPermit: (throttle) => throttle.withPermit(Effect.void),
        withPermits: (throttle) => throttle.withPermits(Effect.void, 1),
        wait: (throttle) => throttle.wait(),
        takeScoped: (throttle) => Effect.scoped(throttle.takeScoped())
      }
      for (const [name, way] of Object.entries(ways)) {
        const seen = observed()
        const throttle = yield* Throttle.make(perSecond())
        yield* throttle.wait()
        yield* fork(seen.in(way(throttle)).pipe(logging("Debug")))
        yield* TestClock.adjust(1_000)
        const [wait] = seen.waits()
        assert.isTrue(wait?.status._tag === "Ended", name)
        assert.deepStrictEqual(wait!.attributes.get("waited"), 1_000, name)
        assert.deepStrictEqual(seen.events.map((event) => event._tag), ["Waiting", "Admitted"], name)
        assert.deepStrictEqual(seen.lines.map((line) => line.message), ["throttle.waiting", "throttle.admitted"], name)
      }
    }))

  it.effect("omits the estimate where the wait cannot be estimated", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = Throttle.concurrency({ limit: 1 })
      yield* fork(limited(Effect.sleep(5)))
      yield* fork(seen.in(limited(Effect.void)))
      yield* TestClock.adjust(5)
      assert.deepStrictEqual(Object.fromEntries(seen.waits()[0]!.attributes), {
        throttle: "concurrency",
        policy: "at most 1 at once",
        cost: 1,
        queued: 1,
        waited: 5
      })
    }))

  it.effect("fails with the rejection when the wait times out", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond({ timeout: 250 })
      yield* limited(Effect.void)
      const waiting = yield* fork(seen.in(limited(Effect.void)))
      yield* TestClock.adjust(250)
      const error = yield* Effect.flip(Fiber.join(waiting))
      const { attributes, status } = seen.waits()[0]!
      assert.isTrue(status._tag === "Ended" && status.endTime === 250_000_000n)
      assert.strictEqual(status._tag === "Ended" ? errorOf(status.exit) : undefined, error)
      assert.strictEqual(attributes.get("waited"), 250)
    }))

  it.effect("ends when the wait is interrupted", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      const waiting = yield* fork(seen.in(limited(Effect.void)))
      yield* TestClock.adjust(300)
      yield* Fiber.interrupt(waiting)
      const { attributes, status } = seen.waits()[0]!
      assert.isTrue(status._tag === "Ended" && status.endTime === 300_000_000n)
      assert.isTrue(status._tag === "Ended" && Exit.hasInterrupts(status.exit))
      assert.strictEqual(attributes.get("waited"), 300)
    }))

  it.effect("ends when the throttle's scope closes", () =>
    Effect.gen(function*() {
      const seen = observed()
      const scope = yield* Scope.make()
      const throttle = yield* Throttle.make(perSecond()).pipe(Scope.provide(scope))
      yield* throttle.wait()
      yield* fork(seen.in(throttle.wait()))
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(0)
      const { status } = seen.waits()[0]!
      assert.isTrue(status._tag === "Ended" && Exit.hasInterrupts(status.exit))
    }))

  it.effect("is not made for a call that is rejected on arrival", () =>
    Effect.gen(function*() {
      const seen = observed()
      const throttle = yield* Throttle.make(perSecond({ maxQueue: 0 }))
      yield* throttle.wait()
      yield* Effect.flip(seen.in(throttle.wait()))
      yield* Effect.flip(seen.in(throttle.wait(2)))
      yield* seen.in(throttle.withPermitsIfAvailable(Effect.void, 1))
      assert.deepStrictEqual(seen.spans, [])
    }))

  it.effect("is not made where tracing is off", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond()
      yield* limited(Effect.void)
      yield* fork(seen.in(limited(Effect.void)).pipe(Effect.withTracerEnabled(false), logging("Debug")))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(seen.spans, [])
      assert.strictEqual(seen.lines.length, 2)
    }))
})

describe("metrics", () => {
  const inRegistry = (registry: Metric.MetricRegistry = new Map()) =>
    Effect.provideService(Metric.MetricRegistry, registry)

  /** What a snapshot holds of throttles: states by name and attributes. */
  const snapshot = Effect.map(Metric.snapshot, (metrics) =>
    Object.fromEntries(
      metrics.filter((metric) => metric.id.startsWith("throttle_")).map(({ attributes, id, state }) => {
        const named = Object.entries(attributes ?? {}).map(([key, value]) => `${key}=${value}`).toSorted().join(",")
        return [`${id}{${named}}`, state]
      })
    ))

  const count = (count: number) => ({ count, incremental: true })

  it.effect("of every kind of call", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 2, refill: 1 }),
        Throttle.concurrency({ limit: 9 })
      ], {
        name: "api",
        maxQueue: 3,
        maxWait: 3_000,
        timeout: 3_500
      })
      const throttle = yield* Throttle.make(policy)
      // Two at once, held for 5 seconds; one waits 1 s, one is interrupted, one more waits 2 s.
      for (let i = 0; i < 3; i++) yield* fork(throttle.withPermit(Effect.sleep(5_000)))
      const interrupted = yield* fork(throttle.withPermit(Effect.void))
      yield* fork(throttle.withPermit(Effect.sleep(5_000)))
      yield* Effect.flip(throttle.withPermit(Effect.void))
      yield* Effect.flip(throttle.withPermits(Effect.void, 3))
      const { "throttle_wait_seconds{throttle=api,unit=seconds}": noWaits, ...first } = yield* snapshot
      assert.strictEqual((noWaits as Metric.HistogramState | undefined)?.count ?? 0, 0)
      assert.deepStrictEqual(first, {
        "throttle_admitted_total{throttle=api}": count(2),
        "throttle_interrupted_total{throttle=api}": count(0),
        "throttle_rejected_total{reason=PermitsExceedCapacity,throttle=api}": count(1),
        "throttle_rejected_total{reason=QueueFull,throttle=api}": count(1),
        "throttle_rejected_total{reason=TimedOut,throttle=api}": count(0),
        "throttle_rejected_total{reason=WaitTooLong,throttle=api}": count(0),
        "throttle_running{throttle=api}": { value: 2 },
        "throttle_waiting{throttle=api}": { value: 3 }
      })
      yield* Fiber.interrupt(interrupted)
      // Two wait, so this one would wait 4 s.
      yield* Effect.flip(throttle.withPermits(Effect.void, 2))
      yield* TestClock.adjust(2_000)
      const { "throttle_wait_seconds{throttle=api,unit=seconds}": waits, ...others } = yield* snapshot
      assert.deepStrictEqual(others, {
        "throttle_admitted_total{throttle=api}": count(4),
        "throttle_interrupted_total{throttle=api}": count(1),
        "throttle_rejected_total{reason=PermitsExceedCapacity,throttle=api}": count(1),
        "throttle_rejected_total{reason=QueueFull,throttle=api}": count(1),
        "throttle_rejected_total{reason=TimedOut,throttle=api}": count(0),
        "throttle_rejected_total{reason=WaitTooLong,throttle=api}": count(1),
        "throttle_running{throttle=api}": { value: 4 },
        "throttle_waiting{throttle=api}": { value: 0 }
      })
      const { buckets, ...histogram } = waits as Metric.HistogramState
      assert.deepStrictEqual(histogram, { count: 2, min: 1, max: 2, sum: 3 })
      assert.deepStrictEqual(buckets.filter(([boundary]) => boundary >= 0.5 && boundary <= 5), [
        [0.5, 0],
        [1, 1],
        [2, 2],
        [5, 2]
      ])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* snapshot)["throttle_running{throttle=api}"], { value: 0 })
    }).pipe(inRegistry()))

  it.effect("TimedOut is counted when it comes", () =>
    Effect.gen(function*() {
      const limited = perSecond({ timeout: 100 })
      yield* limited(Effect.void)
      yield* fork(limited(Effect.void))
      yield* TestClock.adjust(100)
      const metrics = yield* snapshot
      assert.deepStrictEqual(metrics["throttle_rejected_total{reason=TimedOut,throttle=api}"], count(1))
      assert.deepStrictEqual(metrics["throttle_waiting{throttle=api}"], { value: 0 })
      const waits = metrics["throttle_wait_seconds{throttle=api,unit=seconds}"] as Metric.HistogramState | undefined
      assert.strictEqual(waits?.count ?? 0, 0, "a refused call is none that was let in")
    }).pipe(inRegistry()))

  it.effect("are read one by one with Metric.value", () =>
    Effect.gen(function*() {
      const limited = perSecond({ maxQueue: 1 })
      yield* limited(Effect.void)
      yield* fork(limited(Effect.void))
      yield* Effect.flip(limited(Effect.void))
      const { admitted, interrupted, rejected, running, waitSeconds, waiting } = Throttle.metrics
      const value = <Input, State>(metric: Metric.Metric<Input, State>, more: Record<string, string> = {}) =>
        Metric.value(Metric.withAttributes(metric, { throttle: "api", ...more }))
      assert.deepStrictEqual(yield* value(admitted), count(1))
      assert.deepStrictEqual(yield* value(rejected, { reason: "QueueFull" }), count(1))
      assert.deepStrictEqual(yield* value(rejected, { reason: "TimedOut" }), count(0))
      assert.deepStrictEqual(yield* value(interrupted), count(0))
      assert.deepStrictEqual(yield* value(waiting), { value: 1 })
      assert.deepStrictEqual(yield* value(running), { value: 0 })
      yield* TestClock.adjust(1_000)
      const { buckets: _, ...waits } = yield* value(waitSeconds)
      assert.deepStrictEqual(waits, { count: 1, min: 1, max: 1, sum: 1 })
      assert.deepStrictEqual(yield* value(admitted), count(2))
      assert.deepStrictEqual(yield* value(waiting), { value: 0 })
    }).pipe(inRegistry()))

  it.effect("have names, types and descriptions", () =>
    Effect.gen(function*() {
      const limited = perSecond()
      yield* limited(Effect.void)
      yield* fork(limited(Effect.void))
      yield* TestClock.adjust(1_000)
      const described = (yield* Metric.snapshot).map(({ description, id, type }) =>
        [id, type, description ?? ""] as const
      )
      const types = Object.fromEntries(described.map(([id, type]) => [id, type]))
      assert.deepStrictEqual(types, {
        throttle_admitted_total: "Counter",
        throttle_rejected_total: "Counter",
        throttle_interrupted_total: "Counter",
        throttle_waiting: "Gauge",
        throttle_running: "Gauge",
        throttle_wait_seconds: "Histogram"
      })
      for (const [id, , description] of described) assert.isNotEmpty(description, id)
    }).pipe(inRegistry()))

  it.effect("the histogram has three round steps a decade, and counts a wait where it belongs", () =>
    Effect.gen(function*() {
      const limited = Throttle.spacing({ interval: 250, name: "api" })
      for (let i = 0; i < 4; i++) yield* fork(limited(Effect.void))
      yield* TestClock.adjust("1 second")
      const { buckets, ...waits } = yield* Metric.value(
        Metric.withAttributes(Throttle.metrics.waitSeconds, { throttle: "api" })
      )
      assert.deepStrictEqual(waits, { count: 3, min: 0.25, max: 0.75, sum: 1.5 })
      const steps = ["-4", "-3", "-2", "-1", "0", "1", "2", "3", "4"].flatMap((power) =>
        ["1", "2", "5"].map((step) => Number(`${step}e${power}`))
      )
      assert.deepStrictEqual(buckets.map(([boundary]) => boundary).slice(0, steps.length), steps)
      // 0.25 s, 0.5 s and 0.75 s; each bucket holds all up to its boundary.
      const counts = new Map(buckets)
      assert.deepStrictEqual([0.1, 0.2, 0.5, 1, 50_000].map((boundary) => counts.get(boundary)), [0, 0, 2, 3, 3])
    }).pipe(inRegistry()))

  it.effect("a histogram without waits reads like any of Effect's that is empty", () =>
    Effect.gen(function*() {
      yield* Throttle.rate({ limit: 1, name: "api" })(Effect.void)
      const ours = yield* Metric.value(Metric.withAttributes(Throttle.metrics.waitSeconds, { throttle: "api" }))
      const boundaries = ours.buckets.map(([boundary]) => boundary).filter(Number.isFinite)
      assert.deepStrictEqual(ours, yield* Metric.value(Metric.histogram("another", { boundaries })))
    }).pipe(inRegistry()))

  it.effect("of two throttles of one name add up", () =>
    Effect.gen(function*() {
      const [a, b] = [perSecond(), Throttle.concurrency({ limit: 1, name: "api" })]
      yield* a(Effect.void)
      yield* fork(a(Effect.void))
      yield* fork(b(Effect.sleep(500)))
      yield* fork(b(Effect.sleep(500)))
      yield* fork(b(Effect.sleep(500)))
      const before = yield* snapshot
      assert.deepStrictEqual(before["throttle_admitted_total{throttle=api}"], count(2))
      assert.deepStrictEqual(before["throttle_waiting{throttle=api}"], { value: 3 })
      assert.deepStrictEqual(before["throttle_running{throttle=api}"], { value: 1 })
      yield* TestClock.adjust("1 minute")
      const after = yield* snapshot
      assert.deepStrictEqual(after["throttle_admitted_total{throttle=api}"], count(5))
      assert.deepStrictEqual(after["throttle_waiting{throttle=api}"], { value: 0 })
      assert.deepStrictEqual(after["throttle_running{throttle=api}"], { value: 0 })
      const { buckets: _, ...waits } =
        after["throttle_wait_seconds{throttle=api,unit=seconds}"] as Metric.HistogramState
      assert.deepStrictEqual(waits, { count: 3, min: 0.5, max: 1, sum: 2.5 })
      assert.strictEqual(
        (yield* (yield* Throttle.inline(a)).statistics).admitted,
        2,
        "statistics are one throttle's own"
      )
    }).pipe(inRegistry()))

  it.effect("of two names are apart", () =>
    Effect.gen(function*() {
      yield* Throttle.rate({ limit: 1, name: "a" })(Effect.void)
      yield* Throttle.rate({ limit: 1, name: "b" })(Effect.void)
      yield* Throttle.rate({ limit: 1 })(Effect.void)
      const metrics = yield* snapshot
      for (const name of ["a", "b", "rate"]) {
        assert.deepStrictEqual(metrics[`throttle_admitted_total{throttle=${name}}`], count(1))
      }
    }).pipe(inRegistry()))

  it.effect("of a Service class carry its name", () =>
    Effect.gen(function*() {
      class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 1 })) {}
      yield* GitHub.withPermit(Effect.void).pipe(Effect.provide(GitHub.layer))
      assert.deepStrictEqual((yield* snapshot)["throttle_admitted_total{throttle=app/GitHub}"], count(1))
    }).pipe(inRegistry()))

  it.effect("live in the registry of the throttle, each registry its own", () =>
    Effect.gen(function*() {
      const use = Effect.gen(function*() {
        const throttle = yield* Throttle.make(perSecond())
        yield* throttle.wait()
        return (yield* snapshot)["throttle_admitted_total{throttle=api}"]
      })
      assert.deepStrictEqual(yield* use.pipe(inRegistry()), count(1))
      assert.deepStrictEqual(yield* use.pipe(inRegistry()), count(1))
    }))

  it.effect("remain after the throttle has closed, with 0 waiting calls", () =>
    Effect.gen(function*() {
      const spend = Effect.gen(function*() {
        const throttle = yield* Throttle.make(perSecond())
        yield* throttle.wait()
        yield* fork(throttle.wait())
      })
      for (const round of [1, 2]) {
        yield* Effect.scoped(spend)
        yield* TestClock.adjust(0)
        const metrics = yield* snapshot
        assert.deepStrictEqual(metrics["throttle_admitted_total{throttle=api}"], count(round))
        assert.deepStrictEqual(metrics["throttle_interrupted_total{throttle=api}"], count(round))
        assert.deepStrictEqual(metrics["throttle_waiting{throttle=api}"], { value: 0 })
      }
    }).pipe(inRegistry()))

  it.effect("carry the current attributes", () =>
    Effect.gen(function*() {
      const limited = perSecond()
      yield* limited(Effect.void)
      yield* fork(limited(Effect.void))
      yield* TestClock.adjust(1_000)
      const metrics = yield* Metric.snapshot
      assert.strictEqual(metrics.length, 9)
      for (const { attributes, id } of metrics) assert.strictEqual(attributes?.["region"], "eu", id)
    }).pipe(Effect.provideService(Metric.CurrentMetricAttributes, { region: "eu" }), inRegistry()))

  it.effect("of one throttle carry the same attributes, wherever it was made and is called", () =>
    Effect.gen(function*() {
      const inRegion = (region: string) => Effect.provideService(Metric.CurrentMetricAttributes, { region })
      const throttle = yield* Throttle.make(perSecond()).pipe(inRegion("eu"))
      yield* throttle.wait()
      yield* fork(throttle.wait().pipe(inRegion("us")))
      yield* TestClock.adjust(1_000)
      const regions = new Set((yield* Metric.snapshot).map(({ attributes }) => attributes?.["region"]))
      assert.strictEqual(regions.size, 1, [...regions].join())
    }).pipe(inRegistry()))

  it.effect("of one name under different attributes are apart", () =>
    Effect.gen(function*() {
      for (const [region, times] of [["eu", 1], ["us", 2]] as const) {
        yield* Effect.gen(function*() {
          const throttle = yield* Throttle.make(Throttle.rate({ limit: 9, burst: 9, name: "api" }))
          yield* Effect.repeat(throttle.wait(), { times: times - 1 })
        }).pipe(Effect.provideService(Metric.CurrentMetricAttributes, { region }))
      }
      const metrics = yield* snapshot
      assert.deepStrictEqual(metrics["throttle_admitted_total{region=eu,throttle=api}"], count(1))
      assert.deepStrictEqual(metrics["throttle_admitted_total{region=us,throttle=api}"], count(2))
    }).pipe(inRegistry()))

  it.effect("the histogram carries its unit", () =>
    Effect.gen(function*() {
      yield* Throttle.make(perSecond())
      const waits = (yield* Metric.snapshot).find(({ id }) => id === "throttle_wait_seconds")
      assert.strictEqual(waits?.attributes?.["unit"], "seconds")
    }).pipe(inRegistry()))

  /** The admitted calls in a snapshot, and the series there are. */
  const sums = Effect.map(snapshot, (metrics) => {
    const admitted = Object.entries(metrics).filter(([key]) => key.startsWith("throttle_admitted_total"))
    return {
      names: admitted.length,
      series: Object.keys(metrics).length,
      admitted: admitted.reduce((sum, [, state]) => sum + (state as Metric.CounterState<number>).count, 0),
      other: metrics["throttle_admitted_total{throttle=other}"]
    }
  })

  it.effect("of names that come and go stay bounded, and lose no call", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 3_000; i++) {
        yield* Effect.scoped(
          Effect.flatMap(Throttle.make(Throttle.rate({ limit: 1, name: `tenant ${i}` })), (throttle) => throttle.wait())
        )
      }
      const { admitted, names, other, series } = yield* sums
      assert.isAtMost(names, 1_001)
      assert.isAtMost(series, 9_100)
      assert.strictEqual(admitted, 3_000)
      assert.isDefined(other)
      // The newest are there under their own names.
      assert.deepStrictEqual((yield* snapshot)["throttle_admitted_total{throttle=tenant 2999}"], count(1))
    }).pipe(inRegistry()))

  it.effect("of more names than there is room for, all of them in use, count as other", () =>
    Effect.gen(function*() {
      yield* Effect.forEach(
        Array.from({ length: 1_100 }, (_, i) => Throttle.rate({ limit: 1, name: `tenant ${i}` })),
        (policy) => Effect.flatMap(Throttle.make(policy), (throttle) => throttle.wait())
      )
      const { admitted, names, other } = yield* sums
      assert.isAtMost(names, 1_001)
      assert.strictEqual(admitted, 1_100)
      assert.isAtLeast((other as Metric.CounterState<number>).count, 99)
    }).pipe(inRegistry()))

  it.effect("of a name that was closed and is made again go on", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 3; i++) {
        yield* Effect.scoped(Effect.flatMap(Throttle.make(perSecond()), (throttle) => throttle.wait()))
      }
      assert.deepStrictEqual((yield* snapshot)["throttle_admitted_total{throttle=api}"], count(3))
    }).pipe(inRegistry()))
})

describe("how much of a wait was a pause", () => {
  /** The attributes of one call, in each event and in the span. */
  const told = (act: (throttle: Throttle.Throttle) => Effect.Effect<unknown>) =>
    Effect.gen(function*() {
      const seen = observed()
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "api" }))
      const pausedOf = (event: Throttle.Event) => "paused" in event ? event.paused : undefined
      yield* seen.in(Effect.andThen(throttle.wait(), act(throttle)))
      return [
        ...seen.events.map((event) => [event._tag, pausedOf(event)]),
        ["span", ...seen.waits().map(({ attributes }) => attributes.get("paused"))]
      ]
    })
  const call = (throttle: Throttle.Throttle) => fork(throttle.wait())

  it.effect("none where there was none, or it was over", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          yield* throttle.pause(100)
          yield* TestClock.adjust(200)
          yield* call(throttle)
          yield* TestClock.adjust(2_000)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", undefined], ["Admitted", undefined], ["span", undefined]])
    }))

  it.effect("what is left of one that was there", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          yield* throttle.pause(1_500)
          yield* TestClock.adjust(300)
          yield* throttle.pause(1_700)
          yield* call(throttle)
          yield* TestClock.adjust(5_000)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", 1_700], ["Admitted", 1_700], ["span", 1_700]])
    }))

  it.effect("one that came while it waited, up to its end", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          yield* call(throttle)
          yield* TestClock.adjust(400)
          yield* throttle.pause(200)
          yield* TestClock.adjust(5_000)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", undefined], ["Admitted", 200], ["span", 200]])
    }))

  it.effect("all of several", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          yield* throttle.pause(100)
          yield* TestClock.adjust(60)
          // 40 ms of the first, 50 of a second that is cut short, 300 of a third that is made longer.
          yield* call(throttle)
          yield* TestClock.adjust(140)
          yield* throttle.pause(Infinity)
          yield* TestClock.adjust(50)
          yield* throttle.resume
          yield* TestClock.adjust(100)
          yield* throttle.pause(200)
          yield* TestClock.adjust(100)
          yield* throttle.pause(200)
          yield* TestClock.adjust(5_000)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", 40], ["Admitted", 390], ["span", 390]])
    }))

  it.effect("of a key whose limiter another key had before", () =>
    Effect.gen(function*() {
      const seen = observed()
      const map = yield* ThrottleMap.make({ lookup: () => Throttle.concurrency({ limit: 1 }) })
      for (const key of ["a", "b"]) {
        yield* map.pause(key, 300)
        yield* fork(seen.in(map.withPermit(key)(Effect.void)))
        yield* TestClock.adjust(1_000)
      }
      const told = seen.events.map((event) => "paused" in event ? event.paused : undefined)
      assert.deepStrictEqual(told, [300, 300, 300, 300])
    }))

  it.effect("and a log entry marks the begin and the extension of a pause", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "api" }))
      const shadow = yield* Throttle.make(Throttle.shadow(Throttle.rate({ limit: 1 })))
      const map = yield* ThrottleMap.make({ name: "hosts", lookup: () => Throttle.rate({ limit: 1 }) })
      yield* Effect.gen(function*() {
        yield* throttle.pause(100)
        yield* throttle.pause(100)
        yield* throttle.pause(50)
        yield* throttle.pause("1 second")
        yield* throttle.pause(Infinity)
        yield* throttle.resume
        yield* shadow.pause(100)
        yield* map.pause("a", 20)
      }).pipe(Effect.annotateLogs("why", "test"), Effect.provideService(Throttle.WaitLogLevel, "Info"), telemetry.in)
      const common = { why: "test", throttle: "api", policy: "1 per second" }
      assert.deepStrictEqual(
        telemetry.lines,
        [
          { ...common, wait: 100 },
          { ...common, wait: 1_000 },
          common,
          { ...common, throttle: "hosts", wait: 20 }
        ].map((annotations) => ({ message: "throttle.paused", level: "Info", annotations }))
      )
    }))

  it.effect("one without an end, up to its resume", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          yield* throttle.pause(Infinity)
          yield* call(throttle)
          yield* TestClock.adjust(2_500)
          yield* throttle.resume
          yield* TestClock.adjust(0)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", undefined], ["Admitted", 2_500], ["span", 2_500]])
    }))

  it.effect("up to the interruption", () =>
    Effect.gen(function*() {
      const events = yield* told((throttle) =>
        Effect.gen(function*() {
          const fiber = yield* call(throttle)
          yield* throttle.pause(3_000)
          yield* TestClock.adjust(700)
          yield* Fiber.interrupt(fiber)
        })
      )
      assert.deepStrictEqual(events, [["Waiting", undefined], ["Interrupted", 700], ["span", 700]])
    }))
})

describe("Observer", () => {
  it.effect("receives events of calls that wait, are admitted, rejected or interrupted, and no others", () =>
    Effect.gen(function*() {
      const seen = observed()
      const limited = perSecond({ maxQueue: 2, timeout: 1_500 })
      const policy = "1 per second (at most 2 waiting, timing out after 1500 milliseconds)"
      const call = seen.in(limited(Effect.void))
      yield* call
      yield* fork(call)
      const third = yield* fork(call)
      const full = yield* Effect.flip(call)
      yield* TestClock.adjust(400)
      yield* Fiber.interrupt(third)
      const fourth = yield* fork(call)
      yield* TestClock.adjust(1_500)
      const timedOut = errorOf(yield* Fiber.await(fourth))
      assert.deepStrictEqual(seen.events, [
        { _tag: "Waiting", ...about, policy, queued: 1, expected: 1_000 },
        { _tag: "Waiting", ...about, policy, queued: 2, expected: 2_000 },
        { _tag: "Rejected", ...about, policy, waited: 0, error: full as ThrottleError },
        { _tag: "Interrupted", ...about, policy, waited: 400 },
        { _tag: "Waiting", ...about, policy, queued: 2, expected: 1_600 },
        { _tag: "Admitted", ...about, policy, waited: 1_000 },
        { _tag: "Rejected", ...about, policy, waited: 1_500, error: timedOut as ThrottleError }
      ])
      assert.deepStrictEqual([(full as ThrottleError).reason._tag, (timedOut as ThrottleError).reason._tag], [
        "QueueFull",
        "TimedOut"
      ])
    }))

  it.effect("receives each kind of rejection", () =>
    Effect.gen(function*() {
      const seen = observed()
      const throttle = yield* Throttle.make(perSecond({ maxWait: 500 }))
      yield* throttle.wait()
      yield* Effect.flip(seen.in(throttle.wait()))
      yield* Effect.flip(seen.in(throttle.wait(2)))
      yield* Effect.flip(seen.in(throttle.withPermitsIfAvailable(Effect.void, 2)))
      assert.deepStrictEqual(
        seen.events.map((event) => event._tag === "Rejected" ? [event.error.reason._tag, event.cost] : []),
        [["WaitTooLong", 1], ["PermitsExceedCapacity", 2], ["PermitsExceedCapacity", 2]]
      )
    }))

  it.effect("runs in the fiber of the call, with its context", () =>
    Effect.gen(function*() {
      const limited = perSecond()
      const heard: Array<unknown> = []
      yield* limited(Effect.void)
      const waiting = yield* fork(
        limited(Effect.void).pipe(
          Effect.provideService(Throttle.Observer, (event) =>
            Effect.map(
              Effect.all([Effect.fiberId, Effect.annotateLogs(References.CurrentLogAnnotations, {})]),
              ([id, annotations]) => void heard.push([event._tag, id, annotations["user"]])
            )),
          Effect.annotateLogs({ user: "ann" })
        )
      )
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(heard, [["Waiting", waiting.id, "ann"], ["Admitted", waiting.id, "ann"]])
    }))

  const only = (tag: Throttle.Event["_tag"], effect: (event: Throttle.Event) => Effect.Effect<void>) =>
    Effect.provideService(Throttle.Observer, (event) => event._tag === tag ? effect(event) : Effect.void)

  /** A throttle of one start a second and one at once, with all bounds, and starts as they come. */
  const playground = Effect.gen(function*() {
    const throttle = yield* Throttle.make(
      Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })], { maxQueue: 3 })
    )
    const starts: Array<readonly [string, number]> = []
    const call = (name: string) =>
      throttle.withPermit(Effect.flatMap(now, (at) => Effect.sync(() => void starts.push([name, at]))))
    return { throttle, starts, call }
  })

  describe("that is slow", () => {
    it.effect("at Waiting: the call keeps its place, and starts on time if the observer is done by then", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        yield* fork(call("b").pipe(only("Waiting", () => Effect.sleep(600))))
        yield* fork(call("c"))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["b", 1_000], ["c", 2_000]])
        assert.deepStrictEqual(inMillis(yield* throttle.statistics), {
          admitted: 3,
          rejected: noRejections,
          interrupted: 0,
          waiting: 0,
          running: 0,
          waited: 3_000,
          longestWait: 2_000
        })
      }))

    it.effect("at Waiting: an observer slower than the wait is not overtaken, and each call starts", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        yield* fork(call("b").pipe(only("Waiting", () => Effect.sleep(2_500))))
        yield* fork(call("c"))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["b", 2_500], ["c", 3_490]])
        const { admitted, running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 3, running: 0, waiting: 0 })
      }))

    it.effect("at Waiting: a call that is interrupted meanwhile leaves the queue, and the calls behind it move up", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        const b = yield* fork(call("b").pipe(only("Waiting", () => Effect.never)))
        yield* fork(call("c"))
        yield* TestClock.adjust(500)
        yield* Fiber.interrupt(b)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["c", 1_000]])
        const { admitted, interrupted, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, interrupted, waiting }, { admitted: 2, interrupted: 1, waiting: 0 })
      }))

    it.effect("at Waiting: the throttle's scope closes meanwhile, the call is interrupted after it", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const throttle = yield* Throttle.make(perSecond()).pipe(Scope.provide(scope))
        yield* throttle.wait()
        const waiting = yield* fork(throttle.wait().pipe(only("Waiting", () => Effect.sleep(500))))
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust(500)
        assert.isTrue(Exit.hasInterrupts(waiting.pollUnsafe() ?? Exit.void))
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
      }))

    it.effect("at Admitted: the effect starts after it, the permit is held, the schedule stands", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        yield* fork(call("b").pipe(only("Admitted", () => Effect.sleep(300))))
        yield* fork(call("c"))
        yield* TestClock.adjust(1_000)
        assert.strictEqual((yield* throttle.statistics).running, 1)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["b", 1_300], ["c", 2_000]])
        assert.strictEqual((yield* throttle.statistics).running, 0)
      }))

    it.effect("at Admitted: interrupted meanwhile, the call gives its permit back", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        const b = yield* fork(call("b").pipe(only("Admitted", () => Effect.never)))
        const held = yield* fork(
          Effect.scoped(Effect.andThen(throttle.takeScoped(), Effect.never)).pipe(only("Admitted", () => Effect.never))
        )
        yield* fork(call("c"))
        yield* TestClock.adjust(1_000)
        yield* Fiber.interrupt(b)
        yield* TestClock.adjust(1_000)
        assert.strictEqual((yield* throttle.statistics).running, 1)
        held.interruptUnsafe()
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["c", 3_000]])
        const { admitted, running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 4, running: 0, waiting: 0 })
      }))

    it.effect("at Rejected: the call fails after the observer, and other calls are not delayed", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        for (const name of ["b", "c", "d"]) yield* fork(call(name))
        const refused = yield* fork(call("e").pipe(only("Rejected", () => Effect.sleep(1_500))))
        assert.strictEqual((yield* throttle.statistics).rejected.QueueFull, 1)
        yield* TestClock.adjust(1_500)
        assert.instanceOf(errorOf(refused.pollUnsafe()), ThrottleError)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["b", 1_000], ["c", 2_000], ["d", 3_000]])
      }))

    it.effect("at Rejected after a wait: the calls behind do not wait for the observer", () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(perSecond({ timeout: 1_500 }))
        yield* throttle.wait()
        yield* fork(throttle.wait())
        const late = yield* fork(throttle.wait().pipe(only("Rejected", () => Effect.sleep("1 hour"))))
        yield* TestClock.adjust(1_200)
        const next = yield* fork(Effect.andThen(throttle.wait(), now))
        yield* TestClock.adjust(1_000)
        assert.strictEqual(yield* Fiber.join(next), 2_000)
        assert.isUndefined(late.pollUnsafe())
        yield* TestClock.adjust("1 hour")
        assert.instanceOf(errorOf(late.pollUnsafe()), ThrottleError)
      }))

    it.effect("at Interrupted: the calls behind move up at once", () =>
      Effect.gen(function*() {
        const { call, starts, throttle } = yield* playground
        yield* call("a")
        const b = yield* fork(call("b").pipe(only("Interrupted", () => Effect.sleep("1 hour"))))
        yield* fork(call("c"))
        b.interruptUnsafe()
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(starts, [["a", 0], ["c", 1_000]])
        assert.strictEqual((yield* throttle.statistics).waiting, 0)
        yield* TestClock.adjust("1 hour")
        assert.isDefined(b.pollUnsafe())
      }))
  })

  // What an observer should not do: it never influences a call.
  const broken: Record<string, () => Effect.Effect<void>> = {
    dies: () => Effect.die("no paper"),
    throws: () => {
      throw "no paper"
    },
    fails: () => Effect.fail("no paper") as any,
    "interrupts itself": () => Effect.interrupt,
    "returns nothing": () => undefined as any,
    "returns a promise": () => Promise.resolve() as any
  }

  for (const [how, observer] of Object.entries(broken)) {
    describe(`that ${how}`, () => {
      it.effect("at Waiting: the call waits and starts as ever", () =>
        Effect.gen(function*() {
          const { call, starts, throttle } = yield* playground
          yield* call("a")
          const b = yield* fork(call("b").pipe(only("Waiting", observer)))
          yield* fork(call("c"))
          yield* TestClock.adjust("1 minute")
          assert.isTrue(Exit.isSuccess(b.pollUnsafe()!))
          assert.deepStrictEqual(starts, [["a", 0], ["b", 1_000], ["c", 2_000]])
          const { admitted, running, waiting } = yield* throttle.statistics
          assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 3, running: 0, waiting: 0 })
        }))

      it.effect("at Admitted: what was charged runs", () =>
        Effect.gen(function*() {
          const { call, starts, throttle } = yield* playground
          yield* call("a")
          const b = yield* fork(call("b").pipe(only("Admitted", observer)))
          const held = yield* fork(Effect.scoped(throttle.takeScoped()).pipe(only("Admitted", observer)))
          yield* fork(call("c"))
          yield* TestClock.adjust("1 minute")
          assert.isTrue(Exit.isSuccess(b.pollUnsafe()!))
          assert.isTrue(Exit.isSuccess(held.pollUnsafe()!))
          assert.deepStrictEqual(starts, [["a", 0], ["b", 1_000], ["c", 3_000]])
          const { admitted, running, waiting } = yield* throttle.statistics
          assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 4, running: 0, waiting: 0 })
        }))

      it.effect("at Rejected: the call fails with its ThrottleError, on arrival and after a wait", () =>
        Effect.gen(function*() {
          const { call, throttle } = yield* playground
          yield* call("a")
          for (const name of ["b", "c", "d"]) yield* fork(call(name))
          const refused: ReadonlyArray<Effect.Effect<unknown, ThrottleError>> = [
            call("e"),
            throttle.withPermitsIfAvailable(Effect.void, 2),
            Effect.scoped(throttle.takeScoped(2))
          ]
          const exits = yield* Effect.forEach(refused, (one) => Effect.exit(one.pipe(only("Rejected", observer))))
          assert.deepStrictEqual(
            exits.map((exit) => (errorOf(exit) as ThrottleError).reason._tag),
            ["QueueFull", "PermitsExceedCapacity", "PermitsExceedCapacity"]
          )
          const timing = yield* Throttle.make(perSecond({ timeout: 1_500 }))
          yield* timing.wait()
          yield* fork(timing.wait())
          const late = yield* fork(timing.wait().pipe(only("Rejected", observer)))
          yield* TestClock.adjust("1 minute")
          assert.strictEqual((errorOf(late.pollUnsafe()) as ThrottleError).reason._tag, "TimedOut")
        }))

      it.effect("at Interrupted: the call is out of the queue all the same", () =>
        Effect.gen(function*() {
          const { call, starts, throttle } = yield* playground
          yield* call("a")
          const b = yield* fork(call("b").pipe(only("Interrupted", observer)))
          yield* fork(call("c"))
          b.interruptUnsafe()
          yield* TestClock.adjust("1 minute")
          assert.isTrue(Exit.isFailure(b.pollUnsafe()!) && Cause.hasInterruptsOnly((b.pollUnsafe() as any).cause))
          assert.deepStrictEqual(starts, [["a", 0], ["c", 1_000]])
          const { admitted, interrupted, waiting } = yield* throttle.statistics
          assert.deepStrictEqual({ admitted, interrupted, waiting }, { admitted: 2, interrupted: 1, waiting: 0 })
        }))
    })
  }

  it.effect("that fails is reported once, with what it failed with", () =>
    Effect.gen(function*() {
      const seen = collect()
      const limited = perSecond()
      const failing = Effect.provideService(Throttle.Observer, () => Effect.die(new Error("no paper")))
      yield* fork(seen.in(Effect.repeat(limited(Effect.void), { times: 3 })).pipe(failing))
      yield* TestClock.adjust("1 minute")
      const reported = seen.lines.filter(({ level }) => level === "Error")
      assert.deepStrictEqual(
        reported.map(({ annotations, message }) => [message, annotations]),
        [["throttle.observer-failed", { event: "Waiting" }]]
      )
    }))

  it.effect("that is no function is reported, and changes nothing", () =>
    Effect.gen(function*() {
      const seen = collect()
      const limited = perSecond()
      const observed = Effect.provideService(Throttle.Observer, 7 as never)
      const fiber = yield* fork(seen.in(Effect.repeat(limited(Effect.succeed("ran")), { times: 3 })).pipe(observed))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed("ran"))
      assert.deepStrictEqual(
        seen.lines.filter(({ level }) => level === "Error").map(({ message }) => message),
        ["throttle.observer-failed"]
      )
    }))
})

describe("statistics", () => {
  it.effect("of a throttle that was not used", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(perSecond())
      assert.deepStrictEqual(inMillis(yield* throttle.statistics), {
        admitted: 0,
        rejected: noRejections,
        interrupted: 0,
        waiting: 0,
        running: 0,
        waited: 0,
        longestWait: 0
      })
    }))

  it.effect("add up at every moment", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.tokenBucket({ capacity: 2, refill: 1 }), Throttle.concurrency({ limit: 3 })], {
          maxQueue: 3,
          maxWait: 3_500,
          timeout: 3_000
        })
      )
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      const call = (runs: number, cost = 1) =>
        Effect.map(fork(throttle.withPermits(Effect.sleep(runs), cost)), (fiber) => void fibers.push(fiber))
      const check = (expected: object) =>
        Effect.gen(function*() {
          const statistics = inMillis(yield* throttle.statistics)
          assert.deepStrictEqual(
            statistics,
            { interrupted: 0, rejected: noRejections, waited: 0, longestWait: 0, ...expected } as any
          )
          const refused = Object.values(statistics.rejected).reduce((a, b) => a + b)
          assert.strictEqual(
            statistics.admitted + refused + statistics.interrupted + statistics.waiting,
            fibers.length,
            "each call is counted once"
          )
        })
      yield* call(1_500)
      yield* call(0)
      yield* check({ admitted: 2, running: 1, waiting: 0 })
      yield* call(10_000) // 1 s
      yield* call(10_000) // 2 s
      yield* call(10_000) // 3 s
      yield* check({ admitted: 2, running: 1, waiting: 3 })
      yield* call(0)
      yield* call(0, 4)
      const rejected = { ...noRejections, QueueFull: 1, PermitsExceedCapacity: 1 }
      yield* check({ admitted: 2, running: 1, waiting: 3, rejected })
      yield* TestClock.adjust(1_000)
      yield* check({ admitted: 3, running: 2, waiting: 2, rejected, waited: 1_000, longestWait: 1_000 })
      yield* Fiber.interrupt(fibers[3]!)
      const waits = { rejected, interrupted: 1, waited: 1_000, longestWait: 1_000 }
      yield* check({ admitted: 3, running: 2, waiting: 1, ...waits })
      yield* TestClock.adjust(1_000)
      const longer = { ...waits, waited: 3_000, longestWait: 2_000 }
      yield* check({ admitted: 4, running: 2, waiting: 0, ...longer })
      yield* call(10_000, 1)
      yield* TestClock.adjust(1_000)
      yield* check({ admitted: 5, running: 3, waiting: 0, ...longer, waited: 4_000 })
      // All three permits are held until 11 s: what waits now, times out.
      yield* call(0)
      yield* TestClock.adjust(2_999)
      yield* check({ admitted: 5, running: 3, waiting: 1, ...longer, waited: 4_000 })
      yield* TestClock.adjust(1)
      const all = { ...longer, waited: 4_000, rejected: { ...rejected, TimedOut: 1 } }
      yield* check({ admitted: 5, running: 3, waiting: 0, ...all })
      yield* Fiber.interrupt(fibers[2]!)
      yield* check({ admitted: 5, running: 2, waiting: 0, ...all })
      yield* TestClock.adjust("1 minute")
      yield* check({ admitted: 5, running: 0, waiting: 0, ...all })
    }))

  it.effect("WaitTooLong is counted", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(perSecond({ maxWait: 500 }))
      yield* throttle.wait()
      yield* Effect.flip(throttle.wait())
      assert.deepStrictEqual((yield* throttle.statistics).rejected, { ...noRejections, WaitTooLong: 1 })
    }))

  it.effect("count holders of permits only as running", () =>
    Effect.gen(function*() {
      const timing = yield* Throttle.make(perSecond())
      yield* fork(timing.withPermit(Effect.never))
      assert.strictEqual((yield* timing.statistics).running, 0)
      const spacing = yield* Throttle.make(Throttle.spacing({ interval: 5, from: "end" }))
      yield* fork(spacing.withPermit(Effect.never))
      assert.strictEqual((yield* spacing.statistics).running, 1)
      const weighted = yield* Throttle.make(Throttle.concurrency({ limit: 5 }))
      yield* fork(weighted.withPermits(Effect.never, 3))
      yield* Effect.scoped(weighted.takeScoped(2))
      assert.strictEqual((yield* weighted.statistics).running, 1, "calls, not permits")
    }))

  it.effect("are a picture of their moment", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(perSecond({ maxQueue: 0 }))
      const before = yield* throttle.statistics
      yield* throttle.wait()
      yield* Effect.flip(throttle.wait())
      assert.strictEqual(before.admitted, 0)
      assert.deepStrictEqual(before.rejected, noRejections)
    }))

  it.effect("a call that fails, dies or is interrupted while it runs was admitted all the same", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      yield* Effect.exit(throttle.withPermit(Effect.fail("bad")))
      yield* Effect.exit(throttle.withPermit(Effect.die("worse")))
      yield* Effect.exit(throttle.withPermit(Effect.interrupt))
      const running = yield* fork(throttle.withPermit(Effect.never))
      yield* Fiber.interrupt(running)
      const { admitted, interrupted, running: held } = yield* throttle.statistics
      assert.deepStrictEqual({ admitted, interrupted, held }, { admitted: 4, interrupted: 0, held: 0 })
    }))

  it.effect("are the same with any observer", () =>
    Effect.gen(function*() {
      const run = <A, E>(
        watch: (effect: Effect.Effect<A, E>) => Effect.Effect<A, E>,
        call: (throttle: Throttle.Throttle) => Effect.Effect<A, E>
      ) =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(perSecond({ maxQueue: 2 }))
          for (let i = 0; i < 4; i++) yield* fork(watch(call(throttle)))
          yield* TestClock.adjust(1_500)
          return inMillis(yield* throttle.statistics)
        })
      const seen = observed()
      const call = (throttle: Throttle.Throttle) => throttle.wait()
      const unwatched = yield* run((effect) => effect.pipe(Effect.withTracerEnabled(false)), call)
      const watched = yield* run((effect) => seen.in(effect).pipe(logging("All")), call)
      assert.deepStrictEqual(watched, unwatched)
      assert.isNotEmpty(seen.lines)
    }))

  it.effect("a Layer's throttle tells its own", () =>
    Effect.gen(function*() {
      const { admitted } = yield* Effect.andThen(Throttle.wait(), Throttle.statistics)
      assert.strictEqual(admitted, 1)
    }).pipe(Effect.provide(Layer.fresh(perSecond()))))
})
