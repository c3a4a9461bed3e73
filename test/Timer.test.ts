import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Option, References } from "effect"
import { TestClock } from "effect/testing"
import * as Timer from "../src/Timer.ts"
import { collect } from "./utils/telemetry.ts"

/** Collects what a program logs, and the spans it makes. */
const observed = () => {
  const seen = collect()
  return { ...seen, texts: () => seen.lines.map((line) => line.message) }
}

/** Keeps the lines that a timer prints. */
const printed = () => {
  const lines: Array<string> = []
  const print = (line: string) => Effect.sync(() => void lines.push(line))
  return { lines, print }
}

const quiet = { print: () => Effect.void }

/** Runs an effect to its end while the TestClock advances by as much. */
const during = <A, E, R>(duration: Duration.Input, self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self, { startImmediately: true })
    yield* TestClock.adjust(duration)
    return yield* Fiber.await(fiber)
  })

const run = (millis: number, timed: Timer.Timer["timed"]) => during(millis, timed(Effect.sleep(millis)))

/** Statistics with every Duration in milliseconds, and undefined for none. */
const inMillis = ({ runs, total, ...others }: Timer.Statistics) => {
  const millis = (duration: Option.Option<Duration.Duration>) =>
    Option.getOrUndefined(Option.map(duration, Duration.toMillis))
  return {
    runs,
    total: Duration.toMillis(total),
    last: millis(others.last),
    average: millis(others.average),
    shortest: millis(others.shortest),
    longest: millis(others.longest)
  }
}

const none = { runs: 0, total: 0, last: undefined, average: undefined, shortest: undefined, longest: undefined }

describe("Timer", () => {
  describe("lines", () => {
    it.effect("one at the end, at Info, with elapsed, average and annotations", () =>
      Effect.gen(function*() {
        const seen = observed()
        const timed = Timer.timed("parse")
        yield* seen.in(run(20, timed))
        yield* seen.in(run(30, timed))
        assert.deepStrictEqual(seen.lines, [
          {
            message: "parse: success after 20ms, average 20ms, runs 1",
            level: "Info",
            annotations: { timer: "parse", outcome: "success", elapsed: 20, average: 20, runs: 1 }
          },
          {
            message: "parse: success after 30ms, average 25ms, runs 2",
            level: "Info",
            annotations: { timer: "parse", outcome: "success", elapsed: 30, average: 25, runs: 2 }
          }
        ])
      }))

    it.effect("verbose: one at the beginning too, written before the effect starts", () =>
      Effect.gen(function*() {
        const seen = observed()
        const work = Effect.andThen(Effect.log("working"), Effect.sleep(5))
        yield* seen.in(during(5, Timer.timed("parse", { verbose: true })(work)))
        assert.deepStrictEqual(seen.texts(), [
          "parse: begin",
          "working",
          "parse: success after 5ms, average 5ms, runs 1"
        ])
        const [begin, own] = seen.lines.map((line) => line.annotations)
        assert.deepStrictEqual(begin, { timer: "parse" })
        assert.deepStrictEqual(own, {}, "the effect's own logs are left alone")
      }))

    it.effect("level: hidden below the fiber's minimum, counted all the same", () =>
      Effect.gen(function*() {
        const seen = observed()
        const timer = yield* Timer.make("parse", { level: "Debug" })
        yield* seen.in(run(5, timer.timed))
        assert.deepStrictEqual(seen.lines, [])
        yield* seen.in(run(5, timer.timed)).pipe(Effect.provideService(References.MinimumLogLevel, "Debug"))
        assert.deepStrictEqual(seen.lines.map((line) => line.level), ["Debug"])
        assert.strictEqual((yield* timer.statistics).runs, 2)
      }))

    it.effect("print: takes the lines instead of the logger", () =>
      Effect.gen(function*() {
        const seen = observed()
        const { lines, print } = printed()
        yield* seen.in(run(5, Timer.timed("parse", { print, verbose: true })))
        assert.deepStrictEqual(seen.lines, [])
        assert.deepStrictEqual(lines, ["parse: begin", "parse: success after 5ms, average 5ms, runs 1"])
      }))

    it.effect("print: what it logs itself carries the annotations", () =>
      Effect.gen(function*() {
        const seen = observed()
        yield* seen.in(run(5, Timer.timed("parse", { print: (line) => Effect.logWarning(`> ${line}`) })))
        assert.deepStrictEqual(seen.lines, [{
          message: "> parse: success after 5ms, average 5ms, runs 1",
          level: "Warn",
          annotations: { timer: "parse", outcome: "success", elapsed: 5, average: 5, runs: 1 }
        }])
      }))

    it.effect("print: its own time is not measured", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", { verbose: true, print: () => Effect.sleep(100) })
        yield* during(205, timer.timed(Effect.sleep(5)))
        assert.strictEqual(inMillis(yield* timer.statistics).total, 5)
      }))

    it.effect.each(
      [
        ["dies", () => Effect.die("no paper")],
        ["throws", () => {
          throw "no paper"
        }]
      ] as const
    )("print: one that %s makes the run die, counted", ([, print]) =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", { print })
        const exit = yield* run(5, timer.timed)
        assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === "no paper")
        assert.strictEqual((yield* timer.statistics).runs, 1)
      }))

    it.effect.each(
      [
        [0, "0ms"],
        [0.0125, "0.013ms"],
        [1.5, "1.5ms"],
        [999, "999ms"],
        [1_000, "1s"],
        [61_001.25, "1m 1s 1ms"]
      ] as const
    )("%s ms reads %s", ([millis, text]) =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        yield* run(millis, Timer.timed("parse", { print }))
        assert.deepStrictEqual(lines, [`parse: success after ${text}, average ${text}, runs 1`])
      }))
  })

  describe("outcome", () => {
    it.effect("passes success, failure and defect through, and names them", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        const timed = Timer.timed("parse", { print })
        assert.strictEqual(yield* timed(Effect.succeed(1)), 1)
        assert.strictEqual(yield* Effect.flip(timed(Effect.fail("bad"))), "bad")
        assert.isTrue(Exit.hasDies(yield* Effect.exit(timed(Effect.die("worse")))))
        assert.deepStrictEqual(lines, [
          "parse: success after 0ms, average 0ms, runs 1",
          "parse: failure after 0ms, average 0ms, runs 2",
          "parse: failure after 0ms, average 0ms, runs 3"
        ])
      }))

    it.effect("an interrupted run is interrupted at once, counted and named", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        const timer = yield* Timer.make("parse", { print, verbose: true })
        const fiber = yield* Effect.forkChild(timer.timed(Effect.never), { startImmediately: true })
        yield* TestClock.adjust(7)
        yield* Fiber.interrupt(fiber)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
        assert.deepStrictEqual(lines, ["parse: begin", "parse: interrupted after 7ms, average 7ms, runs 1"])
        assert.strictEqual((yield* timer.statistics).runs, 1)
      }))

    it.effect("interrupted while the begin line is written: the effect never runs, the end line is written", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        let ran = false
        const slow = (line: string) => Effect.delay(print(line), 10)
        const timed = Timer.timed("parse", { print: slow, verbose: true })
        const fiber = yield* Effect.forkChild(timed(Effect.sync(() => ran = true)), { startImmediately: true })
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* TestClock.adjust(20)
        yield* Fiber.join(interrupting)
        assert.isFalse(ran)
        assert.deepStrictEqual(lines, ["parse: begin", "parse: interrupted after 0ms, average 0ms, runs 1"])
      }))

    it.effect("leaves an uninterruptible effect uninterruptible", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        const work = Effect.uninterruptible(Timer.timed("parse", { print })(Effect.sleep(10)))
        const fiber = yield* Effect.forkChild(work, { startImmediately: true })
        yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
        yield* TestClock.adjust(10)
        yield* Fiber.await(fiber)
        assert.deepStrictEqual(lines, ["parse: success after 10ms, average 10ms, runs 1"])
      }))
  })

  describe("statistics", () => {
    it.effect("before the first run there is nothing to tell", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", quiet)
        assert.strictEqual(timer.name, "parse")
        assert.deepStrictEqual(inMillis(yield* timer.statistics), none)
      }))

    it.effect("runs, last, total, average, shortest, longest", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", quiet)
        for (const millis of [20, 50, 5, 25]) yield* run(millis, timer.timed)
        assert.deepStrictEqual(inMillis(yield* timer.statistics), {
          runs: 4,
          total: 100,
          last: 25,
          average: 25,
          shortest: 5,
          longest: 50
        })
      }))

    it.effect("exact to the nanosecond, the average rounded down", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", quiet)
        for (const millis of [0.000001, 0.000001, 0.000003]) yield* run(millis, timer.timed)
        const { average, total } = yield* timer.statistics
        assert.strictEqual(Duration.toNanosUnsafe(total), 5n)
        assert.strictEqual(Duration.toNanosUnsafe(Option.getOrThrow(average)), 1n)
      }))

    it.effect("runs that overlap are each measured on their own", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        const timer = yield* Timer.make("parse", { print })
        const runs = Effect.forEach([30, 10, 20], (millis) => timer.timed(Effect.sleep(millis)), {
          concurrency: "unbounded"
        })
        yield* during(30, runs)
        assert.deepStrictEqual(lines, [
          "parse: success after 10ms, average 10ms, runs 1",
          "parse: success after 20ms, average 15ms, runs 2",
          "parse: success after 30ms, average 20ms, runs 3"
        ])
        assert.deepStrictEqual(inMillis(yield* timer.statistics), {
          runs: 3,
          total: 60,
          last: 30,
          average: 20,
          shortest: 10,
          longest: 30
        })
      }))

    it.effect("a run within a run of the same timer counts as a run of its own", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", quiet)
        const inner = timer.timed(Effect.sleep(10))
        yield* during(15, timer.timed(Effect.andThen(inner, Effect.sleep(5))))
        assert.deepStrictEqual(inMillis(yield* timer.statistics), {
          runs: 2,
          total: 25,
          last: 15,
          average: 12.5,
          shortest: 10,
          longest: 15
        })
      }))

    it.effect("reset forgets; a run still going counts as the first of the new ones", () =>
      Effect.gen(function*() {
        const timer = yield* Timer.make("parse", quiet)
        yield* run(10, timer.timed)
        const going = yield* Effect.forkChild(timer.timed(Effect.sleep(20)), { startImmediately: true })
        yield* TestClock.adjust(5)
        yield* timer.reset
        assert.deepStrictEqual(inMillis(yield* timer.statistics), none)
        yield* TestClock.adjust(15)
        yield* Fiber.join(going)
        const { runs, total } = inMillis(yield* timer.statistics)
        assert.deepStrictEqual({ runs, total }, { runs: 1, total: 20 })
      }))

    it.effect("each run of make is a timer of its own, and so is each call of timed", () =>
      Effect.gen(function*() {
        const make = Timer.make("parse", quiet)
        const first = yield* make
        const second = yield* make
        yield* run(10, first.timed)
        assert.strictEqual((yield* second.statistics).runs, 0)

        const { lines, print } = printed()
        yield* run(10, Timer.timed("parse", { print }))
        yield* run(30, Timer.timed("parse", { print }))
        assert.deepStrictEqual(lines, [
          "parse: success after 10ms, average 10ms, runs 1",
          "parse: success after 30ms, average 30ms, runs 1"
        ])
      }))

    it.effect("a wall clock that steps back during a run does not matter", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        const timer = yield* Timer.make("parse", quiet)
        const work = Effect.gen(function*() {
          yield* Effect.sleep(4)
          yield* TestClock.setTime(0)
          yield* Effect.sleep(6)
        })
        const fiber = yield* Effect.forkChild(timer.timed(work), { startImmediately: true })
        yield* TestClock.adjust(4)
        yield* TestClock.adjust(6)
        yield* Fiber.join(fiber)
        assert.strictEqual(yield* Clock.currentTimeMillis, 6)
        assert.strictEqual(inMillis(yield* timer.statistics).total, 10)
      }))
  })

  describe("span", () => {
    it.effect("one a run, parent of the effect's own, with the end line's annotations as attributes", () =>
      Effect.gen(function*() {
        const seen = observed()
        const timed = Timer.timed("parse")
        yield* seen.in(run(20, timed))
        yield* seen.in(during(30, timed(Effect.withSpan(Effect.sleep(30), "work"))))
        assert.deepStrictEqual(seen.spans.map((span) => span.name), ["parse", "parse", "work"])
        const [first, second, work] = seen.spans
        assert.strictEqual(Option.getOrUndefined(work!.parent), second)
        assert.deepStrictEqual([first!, second!].map((span) => Object.fromEntries(span.attributes)), [
          { timer: "parse", outcome: "success", elapsed: 20, average: 20, runs: 1 },
          { timer: "parse", outcome: "success", elapsed: 30, average: 25, runs: 2 }
        ])
      }))

    it.effect("ends with the run's exit", () =>
      Effect.gen(function*() {
        const seen = observed()
        yield* seen.in(Effect.exit(Timer.timed("parse", quiet)(Effect.fail("bad"))))
        const { attributes, status } = seen.spans[0]!
        assert.strictEqual(attributes.get("outcome"), "failure")
        assert.isTrue(status._tag === "Ended" && Exit.isFailure(status.exit))
      }))
  })

  describe("Effect.fn", () => {
    it.effect("as the last argument: one timer for all calls, types kept", () =>
      Effect.gen(function*() {
        const { lines, print } = printed()
        const half = Effect.fn("half")(function*(n: number) {
          yield* Effect.sleep(n)
          return n % 2 === 0 ? n / 2 : yield* Effect.fail("odd" as const)
        }, Timer.timed("half", { print }))
        const typed: (n: number) => Effect.Effect<number, "odd"> = half
        assert.deepStrictEqual(yield* during(10, typed(10)), Exit.succeed(5))
        assert.deepStrictEqual(Exit.findErrorOption(yield* during(5, typed(5))), Option.some("odd" as const))
        assert.deepStrictEqual(lines, [
          "half: success after 10ms, average 10ms, runs 1",
          "half: failure after 5ms, average 7.5ms, runs 2"
        ])
      }))
  })

  describe("bad arguments throw a RangeError at once", () => {
    const cases: ReadonlyArray<readonly [message: string, name: unknown, options?: unknown]> = [
      [`"name" must be a non-empty string, received ""`, ""],
      [`"name" must be a non-empty string, received 1`, 1],
      [`"name" must be a non-empty string, received undefined`, undefined],
      [`options must be an object, received true`, "parse", true],
      [`options must be an object, received null`, "parse", null],
      [`unknown option "verbos"; the options are verbose, level, print`, "parse", { verbos: true }],
      [`unknown option "toString"; the options are verbose, level, print`, "parse", { toString: true }],
      [`"verbose" must be true or false, received "yes"`, "parse", { verbose: "yes" }],
      [`"level" must be "Fatal" or "Error" or "Warn" or "Info" or "Debug" or "Trace", received "All"`, "parse", {
        level: "All"
      }],
      [`"print" must be a function from a line to an Effect, received 1n`, "parse", { print: 1n }]
    ]
    for (const [message, name, options] of cases) {
      it(message, () => {
        for (const [constructor, construct] of Object.entries({ timed: Timer.timed, make: Timer.make })) {
          const attempt = () => construct(name as string, options as Timer.Options)
          assert.throws(attempt, RangeError, `Timer.${constructor}: ${message}`)
        }
      })
    }

    it("options that are undefined are not given", () => {
      Timer.timed("parse", { verbose: undefined, level: undefined, print: undefined })
    })
  })
})
