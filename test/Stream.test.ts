/**
 * A stream whose elements start by a policy, one by one: a chunk is not an element.
 */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Cause, Effect, Exit, Fiber, Stream } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { TestClock } from "effect/testing"
import { assertIdle, fork, now, reasonOf } from "./utils/kit.ts"

/** Runs a stream and notes when each element came. */
const timed = <A, E, R>(self: Stream.Stream<A, E, R>) => {
  const seen: Array<readonly [A, number]> = []
  return { seen, run: Stream.runForEach(self, (element) => Effect.map(now, (at) => void seen.push([element, at]))) }
}

/** Whether two types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

const typed = <_Same extends true>() => {}

type ErrorOf<S> = S extends Stream.Stream<any, infer E, any> ? E : "no stream"

/** The same five elements, as the source may emit them. */
const sources: Record<string, Stream.Stream<number>> = {
  "in one chunk": Stream.fromArray([1, 2, 3, 4, 5]),
  "in chunks of two": Stream.fromArrays([1, 2], [3, 4], [5]),
  "one by one": Stream.range(1, 5).pipe(Stream.rechunk(1)),
  "from an iterable": Stream.fromIterable(new Set([1, 2, 3, 4, 5])),
  "from a range": Stream.range(1, 5)
}

/** When five elements come that could all be there at once. */
const policies: ReadonlyArray<readonly [string, Throttle.Policy<never>, ReadonlyArray<number>]> = [
  ["rate", Throttle.rate({ limit: 10 }), [0, 100, 200, 300, 400]],
  ["rate with burst", Throttle.rate({ limit: 10, burst: 2 }), [0, 0, 0, 100, 200]],
  ["tokenBucket", Throttle.tokenBucket({ capacity: 2, refill: 20 }), [0, 0, 50, 100, 150]],
  ["sliding window", Throttle.window({ limit: 2, per: 50 }), [0, 0, 50, 50, 100]],
  ["fixed window", Throttle.window({ limit: 2, per: 50, kind: "fixed" }), [0, 0, 50, 50, 100]],
  ["spacing", Throttle.spacing({ interval: 5 }), [0, 5, 10, 15, 20]],
  ["spacing from the end", Throttle.spacing({ interval: 5, from: "end" }), [0, 5, 10, 15, 20]],
  ["concurrency", Throttle.concurrency({ limit: 1 }), [0, 0, 0, 0, 0]],
  ["none", Throttle.none, [0, 0, 0, 0, 0]],
  [
    "all",
    Throttle.all([
      Throttle.spacing({ interval: 5 }),
      Throttle.window({ limit: 2, per: 50 }),
      Throttle.concurrency({ limit: 1 })
    ]),
    [0, 5, 50, 55, 100]
  ]
]

describe("element by element", () => {
  for (const [name, policy, times] of policies) {
    for (const [kind, source] of Object.entries(sources)) {
      it.effect(`${name}: ${kind}`, () =>
        Effect.gen(function*() {
          const { run, seen } = timed(Throttle.stream(policy)(source))
          const fiber = yield* fork(run)
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(fiber.pollUnsafe(), Exit.void)
          assert.deepStrictEqual(seen.map(([n]) => n), [1, 2, 3, 4, 5])
          for (const [i, at] of times.entries()) assert.closeTo(seen[i]![1], at, 2e-3)
          const { admitted, running, waiting } = yield* (yield* Throttle.inline(policy)).statistics
          assert.deepStrictEqual({ admitted, running, waiting }, { admitted: 5, running: 0, waiting: 0 })
        }))
    }
  }

  it.effect("one big chunk of a thousand comes one a millisecond", () =>
    Effect.gen(function*() {
      const { run, seen } = timed(Stream.range(0, 999).pipe(Throttle.stream(Throttle.rate({ limit: 1_000 }))))
      yield* fork(run)
      yield* TestClock.adjust(499)
      assert.strictEqual(seen.length, 500)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(seen.length, 1_000)
      for (const [n, at] of seen) assert.closeTo(at, n, 2e-3)
    }))

  it.effect("an element comes when it may start, not when the chunk is complete", () =>
    Effect.gen(function*() {
      const chunks = yield* Stream.fromArray([1, 2, 3]).pipe(
        Throttle.stream(Throttle.rate({ limit: 1_000, burst: 9 })),
        Stream.chunks,
        Stream.runCollect
      )
      assert.deepStrictEqual(chunks.map((chunk) => Arr.fromIterable(chunk)), [[1], [2], [3]])
    }))

  it.effect("an empty stream costs nothing", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1 })
      assert.deepStrictEqual(yield* Stream.runCollect(Throttle.stream(policy)(Stream.empty)), [])
      assert.strictEqual((yield* (yield* Throttle.inline(policy)).statistics).admitted, 0)
    }))

  it.effect("keeps up after a source that was slow: what was not used is not made up for", () =>
    Effect.gen(function*() {
      const source = Stream.fromArrays([1], [2, 3], [4]).pipe(
        Stream.mapEffect((n) => n === 2 ? Effect.delay(Effect.succeed(n), 250) : Effect.succeed(n))
      )
      const { run, seen } = timed(Throttle.stream(Throttle.rate({ limit: 10 }))(source))
      yield* fork(run)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, [[1, 0], [2, 250], [3, 350], [4, 450]])
    }))

  it.effect("permits of concurrency come back when the element is emitted, however long it is worked on", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 1 })
      const throttle = yield* Throttle.inline(policy)
      const fiber = yield* Stream.range(1, 3).pipe(
        Throttle.stream(policy),
        Stream.runForEach(() => Effect.andThen(policy(Effect.void), Effect.sleep(100))),
        fork
      )
      yield* TestClock.adjust(50)
      const { running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
      yield* TestClock.adjust(250)
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
    }))
})

describe("backpressure", () => {
  it.effect("the source is pulled when the element before has been emitted", () =>
    Effect.gen(function*() {
      let pulled = 0
      const source = Stream.fromEffectRepeat(Effect.sync(() => ++pulled))
      const { run, seen } = timed(Throttle.stream(Throttle.rate({ limit: 10 }))(source))
      const fiber = yield* fork(run)
      for (let i = 1; i <= 10; i++) {
        assert.isAtMost(pulled - seen.length, 1)
        assert.strictEqual(seen.length, i)
        yield* TestClock.adjust(100)
      }
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("a source that emits chunks is not more than a chunk ahead", () =>
    Effect.gen(function*() {
      let pulled = 0
      const source = Stream.fromEffectRepeat(Effect.sync(() => {
        pulled++
        return [1, 2, 3, 4]
      })).pipe(Stream.flattenIterable)
      const { run, seen } = timed(Throttle.stream(Throttle.spacing({ interval: 10 }))(source))
      const fiber = yield* fork(run)
      for (let i = 0; i < 20; i++) {
        assert.isAtMost(pulled, Math.floor(seen.length / 4) + 1)
        yield* TestClock.adjust(10)
      }
      assert.strictEqual(seen.length, 21)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("a slow consumer delays, and gathers no elements to come at once", () =>
    Effect.gen(function*() {
      const starts: Array<number> = []
      yield* Stream.range(1, 4).pipe(
        Throttle.stream(Throttle.rate({ limit: 10 })),
        Stream.runForEach((n) =>
          Effect.andThen(Effect.map(now, (at) => void starts.push(at)), Effect.sleep(n === 1 ? 250 : 0))
        ),
        fork
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts, [0, 250, 350, 450])
    }))

  it.effect("taking some elements charges only those", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 5, refill: 1, per: "1 hour" })
      assert.deepStrictEqual(
        yield* Stream.range(1, 100).pipe(Throttle.stream(policy), Stream.take(3), Stream.runCollect),
        [
          1,
          2,
          3
        ]
      )
      assert.strictEqual((yield* (yield* Throttle.inline(policy)).statistics).admitted, 3)
    }))
})

describe("costs", () => {
  it.effect("each element costs what it weighs", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" })
      const { run, seen } = timed(
        Stream.fromArray(["aaaaaa", "bbbb", "c", "", "ddd"]).pipe(
          Throttle.stream(policy, { cost: (text: string) => ({ tokens: text.length }) })
        )
      )
      yield* fork(run)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, [["aaaaaa", 0], ["bbbb", 0], ["c", 100], ["", 100], ["ddd", 400]])
    }))

  it.effect("a plain number is a cost in permits", () =>
    Effect.gen(function*() {
      const { run, seen } = timed(
        Stream.fromArray([1, 2, 2]).pipe(
          Throttle.stream(Throttle.tokenBucket({ capacity: 2, refill: 10 }), { cost: (n: number) => n })
        )
      )
      yield* fork(run)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, [[1, 0], [2, 100], [2, 300]])
    }))

  it.effect("an element that exceeds the capacity fails the stream after the elements before it", () =>
    Effect.gen(function*() {
      const { run, seen } = timed(
        Stream.fromArray([1, 9, 1]).pipe(
          Throttle.stream(Throttle.tokenBucket({ capacity: 5, refill: 10 }), { cost: (n: number) => n })
        )
      )
      assert.strictEqual(reasonOf(yield* Effect.exit(run)), "PermitsExceedCapacity")
      assert.deepStrictEqual(seen, [[1, 0]])
    }))

  it.effect("a cost that makes no sense is a defect, and so is one that throws", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1_000, burst: 9 })
      for (
        const cost of [
          () => -1,
          () => 0.5,
          () => ({ tokens: 1 }),
          (): number => {
            throw new Error("thrown")
          }
        ]
      ) {
        const exit = yield* Effect.exit(Stream.runDrain(Throttle.stream(policy, { cost })(Stream.make(1))))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }
      assert.strictEqual((yield* (yield* Throttle.inline(policy)).statistics).admitted, 0)
    }))

  it.effect("a policy that counts only a unit lets pass for free what names no cost", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 1, refill: 1, unit: "tokens" })
      const { run, seen } = timed(Throttle.stream(policy)(Stream.range(1, 3)))
      yield* run
      assert.deepStrictEqual(seen, [[1, 0], [2, 0], [3, 0]])
    }))
})

describe("errors", () => {
  it("the types contain the errors of the stream", () => {
    const source: Stream.Stream<number, "own"> = Stream.make(1)
    const unbounded = Throttle.rate({ limit: 1 })
    const bounded = Throttle.rate({ limit: 1, maxQueue: 1 })
    const plain = source.pipe(Throttle.stream(unbounded))
    const refusing = source.pipe(Throttle.stream(bounded))
    const weighed = source.pipe(Throttle.stream(unbounded, { cost: (n: number) => n }))
    const mixed = source.pipe(Throttle.stream(Throttle.all([unbounded, bounded])))
    const shadowed = source.pipe(Throttle.stream(Throttle.shadow(bounded)))
    typed<Same<ErrorOf<typeof plain>, "own">>()
    typed<Same<ErrorOf<typeof refusing>, "own" | ThrottleError>>()
    typed<Same<ErrorOf<typeof weighed>, "own" | ThrottleError>>()
    typed<Same<ErrorOf<typeof mixed>, "own" | ThrottleError>>()
    typed<Same<ErrorOf<typeof shadowed>, "own">>()
    const fine: Stream.Stream<number, "own"> = plain
    // @ts-expect-error It may be rejected.
    const wrong: Stream.Stream<number, "own"> = refusing
    // @ts-expect-error A cost may be more than can ever be granted.
    const heavy: Stream.Stream<number, "own"> = weighed
    // @ts-expect-error An element is a number.
    const other = source.pipe(Throttle.stream(unbounded, { cost: (text: string) => text.length }))
    for (const stream of [fine, wrong, heavy, other]) assert.isTrue(Stream.isStream(stream))
  })

  it.effect("a rejection fails the stream after the elements before it", () =>
    Effect.gen(function*() {
      const { run, seen } = timed(
        Stream.range(1, 5).pipe(Throttle.stream(Throttle.rate({ limit: 1, burst: 1, maxQueue: 0 })))
      )
      assert.strictEqual(reasonOf(yield* Effect.exit(run)), "QueueFull")
      assert.deepStrictEqual(seen, [[1, 0], [2, 0]])
    }))

  it.effect("a timeout counts for each element", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10, timeout: 100 })
      const { run, seen } = timed(Stream.range(1, 4).pipe(Throttle.stream(policy)))
      const fiber = yield* fork(run)
      yield* TestClock.adjust(300)
      assert.isTrue(Exit.isSuccess(fiber.pollUnsafe()!))
      assert.strictEqual(seen.length, 4)
      const late = yield* fork(
        Stream.runDrain(
          Stream.make(1).pipe(Throttle.stream(Throttle.all([Throttle.spacing({ interval: 50 })], { timeout: 1 })))
        )
      )
      assert.isTrue(Exit.isSuccess(late.pollUnsafe()!))
    }))

  it.effect("the source's own errors and defects pass", () =>
    Effect.gen(function*() {
      const limited = Throttle.stream(Throttle.rate({ limit: 1_000, burst: 9 }))
      const failing = Stream.concat(Stream.make(1, 2), Stream.fail("own"))
      const { run, seen } = timed(limited(failing))
      assert.deepStrictEqual(yield* Effect.exit(run), Exit.fail("own"))
      assert.deepStrictEqual(seen.map(([n]) => n), [1, 2])
      const died = yield* Effect.exit(Stream.runDrain(limited(Stream.die("bug"))))
      assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
    }))

  it("what is not a policy is a RangeError when the stream is built", () => {
    assert.throws(() => Throttle.stream({ limit: 1 } as any), RangeError)
  })
})

describe("one budget", () => {
  it.effect("inline use of the policy elsewhere and several streams share it", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10 })
      yield* policy(Effect.void)
      const a = timed(Throttle.stream(policy)(Stream.range(1, 2)))
      const b = timed(Throttle.stream(policy)(Stream.range(1, 2)))
      yield* fork(a.run)
      yield* fork(b.run)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(a.seen, [[1, 100], [2, 300]])
      assert.deepStrictEqual(b.seen, [[1, 200], [2, 400]])
    }))

  for (const [way, options] of Object.entries({ "without a cost": undefined, "with a cost": { cost: () => 1 } })) {
    it.effect(`where the policy is provided it is the provided throttle: ${way}`, () =>
      Effect.gen(function*() {
        const policy = Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 hour" })
        const source = Stream.range(1, 2)
        const stream: Stream.Stream<number, ThrottleError> = options === undefined
          ? source.pipe(Throttle.stream(policy))
          : source.pipe(Throttle.stream(policy, options))
        const inside = Effect.gen(function*() {
          yield* Stream.runDrain(stream)
          yield* Throttle.withPermit(Effect.void)
          return yield* Throttle.statistics
        })
        assert.strictEqual((yield* Effect.provide(inside, policy)).admitted, 3)
        // Provided to the stream itself, it is another build.
        yield* Stream.runDrain(stream.pipe(Stream.provide(policy)))
        assert.strictEqual((yield* (yield* Throttle.inline(policy)).statistics).admitted, 0)
      }))
  }

  it.effect("an update, a pause and a shadow are felt by streams", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 10 })
      const throttle = yield* Throttle.inline(policy)
      const { run, seen } = timed(Throttle.stream(policy)(Stream.range(1, 5)))
      yield* fork(run)
      yield* TestClock.adjust(100)
      yield* throttle.pause(300)
      yield* TestClock.adjust(300)
      yield* throttle.update(Throttle.rate({ limit: 100 }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.map(([, at]) => at), [0, 100, 400, 410, 420])
      const shadowed = timed(Throttle.stream(Throttle.shadow(policy))(Stream.range(1, 5)))
      yield* shadowed.run
      assert.strictEqual(shadowed.seen.length, 5)
    }))
})

describe("interruption", () => {
  for (const [name, policy] of policies) {
    it.effect(`of a stream leaves nothing: ${name}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.inline(policy)
        const fiber = yield* fork(Stream.runDrain(
          Throttle.stream(policy)(Stream.forever(Stream.range(1, 3))).pipe(
            Stream.mapEffect((n) => Effect.delay(Effect.succeed(n), 1))
          )
        ))
        yield* TestClock.adjust(62.5)
        yield* Fiber.interrupt(fiber)
        const { admitted, running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 })
        assertIdle(throttle)
        yield* TestClock.adjust("1 second")
        yield* policy(Effect.void)
        assert.strictEqual((yield* throttle.statistics).admitted, admitted + 1)
      }))
  }

  it.effect("the source is finalised", () =>
    Effect.gen(function*() {
      let closed = 0
      const source = Stream.range(1, 9).pipe(Stream.ensuring(Effect.sync(() => void closed++)))
      const fiber = yield* fork(Stream.runDrain(Throttle.stream(Throttle.rate({ limit: 1 }))(source)))
      yield* TestClock.adjust(500)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(closed, 1)
    }))
})
