/**
 * What a call may cost, in which units, and what becomes of costs that make no sense.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, type Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { TestClock } from "effect/testing"
import { fork, noRejections, now, rangeErrorOf, throttleErrorOf } from "./utils/kit.ts"

/** Each with a capacity of 3 permits; at most one a second comes back by itself. */
const policies = {
  rate: Throttle.rate({ limit: 1, burst: 2 }),
  tokenBucket: Throttle.tokenBucket({ capacity: 3, refill: 1 }),
  "sliding window": Throttle.window({ limit: 3, per: "1 second" }),
  "fixed window": Throttle.window({ limit: 3, per: "1 second", kind: "fixed" }),
  concurrency: Throttle.concurrency({ limit: 3 }),
  all: Throttle.all([Throttle.tokenBucket({ capacity: 3, refill: 1 }), Throttle.concurrency({ limit: 9 })])
}

/** Any positive cost is one start. */
const spacings = {
  spacing: Throttle.spacing({ interval: "1 second" }),
  "spacing, aligned": Throttle.spacing({ interval: "1 second", align: true }),
  "spacing from the end": Throttle.spacing({ interval: "1 second", from: "end" })
}

const everything: ReadonlyArray<readonly [string, Throttle.Policy<never>]> = Object.entries({
  ...policies,
  ...spacings,
  none: Throttle.none
})

/** Every way to name a cost. `touched` tells whether the effect ran or was given anything. */
const verbs: Record<
  string,
  (
    throttle: Throttle.Throttle,
    cost: any,
    touch: Effect.Effect<void>
  ) => Effect.Effect<unknown, ThrottleError, Scope.Scope>
> = {
  "withPermits(cost)(self)": (throttle, cost, touch) => touch.pipe(throttle.withPermits(cost)),
  "withPermits(self, cost)": (throttle, cost, touch) => throttle.withPermits(touch, cost),
  "withPermitsIfAvailable(cost)(self)": (throttle, cost, touch) => touch.pipe(throttle.withPermitsIfAvailable(cost)),
  "withPermitsIfAvailable(self, cost)": (throttle, cost, touch) => throttle.withPermitsIfAvailable(touch, cost),
  takeScoped: (throttle, cost, touch) => Effect.andThen(throttle.takeScoped(cost), touch),
  estimateWait: (throttle, cost, touch) => Effect.andThen(throttle.estimateWait(cost), touch)
}

/** Everything that can be seen of a throttle from outside. */
const seen = (throttle: Throttle.Throttle, costs: ReadonlyArray<Throttle.Cost> = [0, 1, 2, 3]) =>
  Effect.gen(function*() {
    const next = yield* Effect.forEach(costs, throttle.estimateWait)
    const { longestWait, waited, ...counts } = yield* throttle.statistics
    return {
      ...counts,
      waited: Duration.toMillis(waited),
      longestWait: Duration.toMillis(longestWait),
      next: next.map((wait) => Option.getOrUndefined(Option.map(wait, Duration.toMillis)))
    }
  })

/** Runs a call that must be rejected at once, and checks that it started and changed nothing. */
const untouched = <E>(
  throttle: Throttle.Throttle,
  call: (touch: Effect.Effect<void>) => Effect.Effect<unknown, E, Scope.Scope>,
  costs?: ReadonlyArray<Throttle.Cost>
) =>
  Effect.gen(function*() {
    let started = false
    const before = yield* seen(throttle, costs)
    const fiber = yield* fork(Effect.scoped(call(Effect.sync(() => void (started = true)))))
    const exit = fiber.pollUnsafe()
    assert.isDefined(exit, "it waits")
    assert.isFalse(started, "the effect was started")
    const after = yield* seen(throttle, costs)
    const { rejected, ...others } = after
    const { rejected: _, ...othersBefore } = before
    assert.deepStrictEqual(others, othersBefore)
    return { exit: exit!, rejected }
  })

/** What is no cost. */
const noCosts: ReadonlyArray<unknown> = [
  -1,
  NaN,
  Infinity,
  -Infinity,
  0.5,
  1.5,
  2 ** 53,
  "2",
  "",
  null,
  true,
  2n,
  [],
  [2],
  { permits: -1 },
  { permits: NaN },
  { permits: Infinity },
  { permits: 1.5 },
  { permits: "2" },
  { permits: null },
  { permits: {} }
]

describe("what is no cost", () => {
  for (const [name, policy] of everything) {
    for (const [verb, call] of Object.entries(verbs)) {
      it.effect(`${name}: ${verb} dies with a RangeError`, () =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          for (const cost of noCosts) {
            const { exit, rejected } = yield* untouched(throttle, (touch) => call(throttle, cost, touch))
            assert.match(rangeErrorOf(exit), /^throttle "\w+": a cost must be .+, received /)
            assert.deepStrictEqual(rejected, noRejections)
          }
        }))
    }
  }

  it.effect("dies while others wait, too, and they do not notice", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const starts: Array<number> = []
      const start = Effect.flatMap(now, (at) => Effect.sync(() => void starts.push(at)))
      for (let i = 0; i < 3; i++) yield* fork(throttle.withPermit(start))
      for (const cost of noCosts) {
        const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, cost as any))
        rangeErrorOf(exit)
      }
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(starts, [0, 1_000, 2_000])
    }))

  it.effect("the module's functions and a class's statics die as well", () =>
    Effect.gen(function*() {
      class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 1 })) {}
      const attempts: ReadonlyArray<Effect.Effect<unknown, ThrottleError, GitHub | Throttle.Throttle>> = [
        Throttle.withPermits(Effect.void, -1),
        Effect.void.pipe(Throttle.withPermits(-1)),
        Throttle.withPermitsIfAvailable(Effect.void, -1),
        Effect.void.pipe(Throttle.withPermitsIfAvailable(-1)),
        Throttle.wait(-1),
        Effect.scoped(Throttle.takeScoped(-1)),
        Throttle.estimateWait(-1),
        GitHub.withPermits(Effect.void, -1),
        Effect.void.pipe(GitHub.withPermits(-1)),
        GitHub.withPermitsIfAvailable(Effect.void, -1),
        Effect.void.pipe(GitHub.withPermitsIfAvailable(-1)),
        GitHub.wait(-1),
        Effect.scoped(GitHub.takeScoped(-1)),
        GitHub.estimateWait(-1)
      ]
      for (const attempt of attempts) {
        const exit = yield* Effect.exit(attempt).pipe(Effect.provide([GitHub.layer, Throttle.rate({ limit: 1 })]))
        assert.include(rangeErrorOf(exit), "received -1")
      }
    }))

  it.effect("wait dies with a RangeError", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      for (const cost of noCosts) {
        const { exit } = yield* untouched(throttle, () => throttle.wait(cost as any))
        assert.match(rangeErrorOf(exit), /^throttle "rate": a cost must be .+, received /)
      }
    }))

  it.effect("the message says what came, so that 2 and \"2\" differ", () =>
    Effect.gen(function*() {
      const number = "a cost must be a number of permits or an amount for each unit, received "
      const whole = "a cost must be an integer ≥ 0, received "
      const table: ReadonlyArray<readonly [cost: unknown, message: string]> = [
        [-1, `${whole}-1 for "permits"`],
        [NaN, `${whole}NaN for "permits"`],
        [{ permits: 1.5 }, `${whole}1.5 for "permits"`],
        [null, `${number}null`],
        ["2", `${number}"2"`],
        ["", `${number}""`],
        [2n, `${number}2n`],
        [[], `${number}[]`],
        [[2], `${number}[2]`],
        [Symbol("two"), `${number}Symbol(two)`],
        [{ permits: "2" }, `${whole}"2" for "permits"`],
        [{ permits: {} }, `${whole}{} for "permits"`],
        [{ permits: Symbol("two") }, `${whole}Symbol(two) for "permits"`]
      ]
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      for (const [cost, message] of table) {
        const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, cost as any))
        assert.strictEqual(rangeErrorOf(exit), `throttle "rate": ${message}`)
      }
    }))

  it.effect("building the effect is safe, running it dies: a cost is a value of run time", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1 }))
      const bad = [throttle.withPermits(Effect.void, -1), throttle.wait(-1), throttle.estimateWait(NaN)]
      for (const effect of bad) assert.include(rangeErrorOf(yield* Effect.exit(effect)), "throttle \"rate\"")
    }))
})

describe("more than the policy can ever grant", () => {
  for (const [name, policy] of Object.entries(policies)) {
    for (const [verb, call] of Object.entries(verbs)) {
      if (verb === "estimateWait") continue
      it.effect(`${name}: ${verb} fails at once`, () =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          let refused = 0
          for (const used of [0, 1, 2]) {
            for (const cost of [4, { permits: 4 }, 1_000, Number.MAX_SAFE_INTEGER]) {
              const { exit, rejected } = yield* untouched(throttle, (touch) => call(throttle, cost, touch))
              const { _tag, queued } = throttleErrorOf(exit).reason
              assert.deepStrictEqual({ _tag, queued }, { _tag: "PermitsExceedCapacity", queued: 0 })
              assert.deepStrictEqual(rejected, { ...noRejections, PermitsExceedCapacity: ++refused })
            }
            // Fresh and with a permit or two in use.
            if (used < 2) yield* throttle.takeScoped(1)
          }
          assert.deepStrictEqual((yield* throttle.statistics).admitted, 2)
        }))
    }

    it.effect(`${name}: the most that it can grant starts`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), 3), "ran")
      }))

    it.effect(`${name}: estimateWait is none`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        assert.deepStrictEqual(yield* throttle.estimateWait(4), Option.none())
        yield* throttle.takeScoped(3)
        assert.deepStrictEqual(yield* throttle.estimateWait(4), Option.none())
      }))

    it.effect(`${name}: is rejected at once while other calls wait, and does not affect them`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.takeScoped(3)
        const waiting = yield* fork(throttle.withPermit(Effect.void))
        const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, 4))
        const { _tag, queued } = throttleErrorOf(exit).reason
        assert.deepStrictEqual({ _tag, queued }, { _tag: "PermitsExceedCapacity", queued: 1 })
        assert.isUndefined(waiting.pollUnsafe())
      }))
  }

  for (const [name, policy] of Object.entries({ ...spacings, none: Throttle.none })) {
    it.effect(`${name}: no cost is too much, any is one start`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), 1_000_000), "ran")
        const next = Option.getOrUndefined(yield* throttle.estimateWait(Number.MAX_SAFE_INTEGER))
        assert.deepStrictEqual(next, policy === Throttle.none ? Duration.zero : Duration.seconds(1))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* throttle.withPermit(Effect.succeed("ran")), "ran")
      }))
  }

  it.effect("inline, too", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 1 })
      const throttle = yield* Throttle.inline(limited)
      const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, 2), [0, 1])
      assert.strictEqual(throttleErrorOf(exit).reason._tag, "PermitsExceedCapacity")
      assert.strictEqual(yield* limited(Effect.succeed("ran")), "ran")
    }))
})

describe("cost 0", () => {
  for (const [name, policy] of Object.entries({ ...policies, ...spacings })) {
    const most = name in policies ? 3 : 1

    it.effect(`${name}: an estimate takes nothing`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const before = yield* seen(throttle)
        for (const cost of [0, -0, { permits: 0 }]) {
          assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), cost), "ran")
          assert.deepStrictEqual(
            yield* throttle.withPermitsIfAvailable(Effect.succeed("ran"), cost),
            Option.some("ran")
          )
          yield* throttle.takeScoped(cost)
          assert.deepStrictEqual(yield* throttle.estimateWait(cost), Option.some(Duration.zero))
        }
        assert.deepStrictEqual(yield* seen(throttle), { ...before, admitted: 9 })
        yield* throttle.withPermits(Effect.void, most)
      }))

    it.effect(`${name}: starts at once when everything is spent and the queue is empty`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.takeScoped(most)
        assert.notDeepEqual(yield* throttle.estimateWait(1), Option.some(Duration.zero))
        assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), 0), "ran")
        assert.deepStrictEqual(yield* throttle.withPermitsIfAvailable(Effect.succeed("ran"), 0), Option.some("ran"))
        assert.deepStrictEqual(yield* throttle.estimateWait(0), Option.some(Duration.zero))
      }))

    it.effect(`${name}: keeps its place in the queue and delays no other call`, () =>
      Effect.gen(function*() {
        // Who starts when: first all is taken for 10 ms, then four wait of whom some cost nothing.
        const starts = (costs: ReadonlyArray<number>) =>
          Effect.gen(function*() {
            const throttle = yield* Throttle.make(policy)
            const begin = yield* now
            const starts: Array<readonly [call: number, at: number]> = []
            yield* fork(throttle.withPermits(Effect.sleep(10), most))
            for (const [i, cost] of costs.entries()) {
              const start = Effect.flatMap(now, (at) => Effect.sync(() => void starts.push([i, at - begin])))
              yield* fork(throttle.withPermits(Effect.andThen(start, Effect.sleep(10)), cost))
            }
            assert.deepStrictEqual(starts, [], "someone passed the line")
            assert.strictEqual((yield* throttle.statistics).waiting, costs.length)
            assert.deepStrictEqual(
              yield* throttle.withPermitsIfAvailable(Effect.void, 0),
              Option.none(),
              "cost 0 passed the line"
            )
            yield* TestClock.adjust("1 minute")
            return starts
          })
        const without = yield* starts([1, 1])
        const withZero = yield* starts([1, 0, 1, 0])
        assert.deepStrictEqual(withZero.map(([call]) => call), [0, 1, 2, 3])
        assert.deepStrictEqual([withZero[0]![1], withZero[2]![1]], without.map(([, at]) => at))
        assert.strictEqual(withZero[1]![1], withZero[0]![1], "starts with the one before it")
        assert.strictEqual(withZero[3]![1], withZero[2]![1], "starts with the one before it")
      }))
  }

  it.effect("holds nothing, so it is not running", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      yield* fork(throttle.withPermits(Effect.never, 0))
      yield* fork(throttle.withPermits(Effect.never, 3))
      const { admitted, running } = yield* throttle.statistics
      assert.deepStrictEqual({ admitted, running }, { admitted: 2, running: 1 })
    }))

  it.effect("bounds hold for it as well, where it would have to wait", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 1, timeout: 1_500 }))
      yield* throttle.withPermit(Effect.void)
      yield* throttle.withPermits(Effect.void, 0)
      yield* fork(throttle.withPermit(Effect.void))
      const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, 0), [0, 1])
      assert.strictEqual(throttleErrorOf(exit).reason._tag, "QueueFull")
    }))
})

describe("units", () => {
  const requests = Throttle.tokenBucket({ capacity: 5, refill: 1 })
  const tokens = Throttle.tokenBucket({ capacity: 100, refill: 10, unit: "tokens" })
  const slots = Throttle.concurrency({ limit: 2, unit: "slots" })
  const running = Throttle.concurrency({ limit: 3 })
  const openai = Throttle.all([requests, tokens, slots, running], { name: "openai" })

  /** Whether this cost could start now. */
  const fits = (throttle: Throttle.Throttle, cost: Throttle.Cost) =>
    Effect.map(throttle.estimateWait(cost), (wait) => Option.isSome(wait) && Duration.isZero(wait.value))

  const table: ReadonlyArray<
    readonly [cost: Throttle.Cost | undefined, requests: number, tokens: number, slots: number, running: number]
  > = [
    [undefined, 1, 0, 0, 1],
    [1, 1, 0, 0, 1],
    [0, 0, 0, 0, 0],
    [2, 2, 0, 0, 2],
    [{}, 1, 0, 0, 1],
    [{ permits: 3 }, 3, 0, 0, 3],
    [{ tokens: 40 }, 1, 40, 0, 1],
    [{ permits: 0, tokens: 40 }, 0, 40, 0, 0],
    [{ permits: 0, slots: 2 }, 0, 0, 2, 0],
    [{ permits: 2, tokens: 100, slots: 1 }, 2, 100, 1, 2],
    [{ permits: 0, tokens: 0, slots: 0 }, 0, 0, 0, 0]
  ]

  for (const [cost, ofRequests, ofTokens, ofSlots, ofRunning] of table) {
    it.effect(`${JSON.stringify(cost) ?? "no cost"} charges each part its own`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(openai)
        const permit = yield* throttle.takeScoped(cost)
        assert.deepStrictEqual(permit.cost, cost ?? 1)
        const permits = Math.min(5 - ofRequests, 3 - ofRunning)
        assert.isTrue(yield* fits(throttle, { permits }), "too many permits charged")
        assert.isFalse(yield* fits(throttle, { permits: permits + 1 }), "too few permits charged")
        assert.isTrue(yield* fits(throttle, { permits: 0, tokens: 100 - ofTokens }), "too many tokens charged")
        assert.isFalse(yield* fits(throttle, { permits: 0, tokens: 101 - ofTokens }), "too few tokens charged")
        assert.isTrue(yield* fits(throttle, { permits: 0, slots: 2 - ofSlots }), "too many slots taken")
        assert.isFalse(yield* fits(throttle, { permits: 0, slots: 3 - ofSlots }), "too few slots taken")
        assert.strictEqual((yield* throttle.statistics).running, ofSlots + ofRunning > 0 ? 1 : 0)
      }))
  }

  it.effect("the scarcest part decides, and all are charged at one instant", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([requests, tokens]))
      yield* throttle.withPermits(Effect.void, { tokens: 100 })
      const waiting = yield* fork(throttle.withPermits(now, { tokens: 30 }))
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      // One request was spent 3 seconds ago and is long back: the waiting call has not been charged any.
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(waiting), 3_000)
      assert.isTrue(yield* fits(throttle, { permits: 4 }))
      assert.isFalse(yield* fits(throttle, { permits: 5 }))
    }))

  it.effect("more of one unit than its part can ever grant names that part", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(openai)
      const expected = [
        [{ permits: 6 }, 5, "1 per second, bucket of 5"],
        [{ permits: 4 }, 3, "at most 3 at once"],
        [{ tokens: 101 }, 100, "10 tokens per second, bucket of 100"],
        [{ slots: 3 }, 2, "at most 2 slots at once"]
      ] as const
      for (const [cost, limit, part] of expected) {
        const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, cost))
        const why = throttleErrorOf(exit).reason
        assert.deepStrictEqual(
          [why._tag, why.cost, "limit" in why && why.limit, why.parts],
          ["PermitsExceedCapacity", cost, limit, [part]]
        )
      }
    }))

  const unknown: ReadonlyArray<readonly [Throttle.Policy<never>, cost: Throttle.Cost, unit: string, known: string]> = [
    [Throttle.rate({ limit: 5 }), { tokens: 1 }, "tokens", `"permits"`],
    [Throttle.rate({ limit: 5 }), { permits: 1, Permits: 1 }, "Permits", `"permits"`],
    [Throttle.rate({ limit: 5 }), { tokens: 0 }, "tokens", `"permits"`],
    [tokens, 1, "permits", `"tokens"`],
    [tokens, 0, "permits", `"tokens"`],
    [tokens, 7, "permits", `"tokens"`],
    [tokens, { permits: 1 }, "permits", `"tokens"`],
    [tokens, { tokens: 1, permits: 1 }, "permits", `"tokens"`],
    [tokens, { token: 1 }, "token", `"tokens"`],
    [tokens, { toString: 1 } as any, "toString", `"tokens"`],
    [openai, { requests: 1 }, "requests", `"permits", "tokens", "slots"`],
    [Throttle.spacing({ interval: 5, unit: "pages" }), { permits: 1 }, "permits", `"pages"`],
    [Throttle.concurrency({ limit: 5, unit: "pages" }), 1, "permits", `"pages"`],
    [Throttle.window({ limit: 5, per: 5, unit: "pages" }), { page: 1 }, "page", `"pages"`]
  ]

  for (const [policy, cost, unit, known] of unknown) {
    it.effect(`${JSON.stringify(cost)} dies on ${Throttle.describe(policy)}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        for (const call of Object.values(verbs)) {
          const { exit, rejected } = yield* untouched(throttle, (touch) => call(throttle, cost, touch), [{}])
          assert.include(rangeErrorOf(exit), `unknown unit "${unit}"; this policy counts: ${known}`)
          assert.deepStrictEqual(rejected, noRejections)
        }
      }))
  }

  it.effect("none accepts every unit", () =>
    Effect.gen(function*() {
      for (const policy of [Throttle.none, Throttle.all([]), Throttle.all([Throttle.none, Throttle.none])]) {
        const throttle = yield* Throttle.make(policy)
        for (const cost of [0, 1, 1_000_000, {}, { tokens: 5, pages: 0, permits: 3 }, { toString: 1 } as any]) {
          assert.strictEqual(yield* throttle.withPermits(Effect.succeed("ran"), cost), "ran")
          assert.deepStrictEqual(yield* throttle.estimateWait(cost), Option.some(Duration.zero))
          yield* throttle.wait(cost)
        }
      }
    }))

  it.effect("a call that names no cost is charged nothing by parts with a unit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(tokens)
      yield* throttle.withPermit(Effect.void)
      yield* throttle.wait()
      yield* throttle.takeScoped()
      assert.isTrue(yield* fits(throttle, { tokens: 100 }))
      assert.isTrue(yield* fits(throttle, undefined as any))
    }))

  it.effect("the unit permits is the one that parts without a unit count", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 3, refill: 1, unit: "permits" }))
      yield* throttle.withPermit(Effect.void)
      yield* throttle.withPermits(Effect.void, 1)
      yield* throttle.withPermits(Effect.void, { permits: 1 })
      assert.isFalse(yield* fits(throttle, 1))
    }))

  it.effect("the unit of all is what parts without one count, however deep", () =>
    Effect.gen(function*() {
      const bucket = (capacity: number, unit?: string) => Throttle.tokenBucket({ capacity, refill: 1, unit })
      const throttle = yield* Throttle.make(
        Throttle.all([bucket(10), Throttle.all([bucket(20), bucket(3, "permits")]), bucket(30, "pages")], {
          unit: "tokens"
        })
      )
      yield* throttle.withPermits(Effect.void, { tokens: 4, pages: 5 })
      assert.isTrue(yield* fits(throttle, { permits: 0, tokens: 6 }))
      assert.isFalse(yield* fits(throttle, { permits: 0, tokens: 7 }))
      assert.isTrue(yield* fits(throttle, { permits: 2, pages: 25 }))
      assert.isFalse(yield* fits(throttle, { permits: 3 }))
      assert.isFalse(yield* fits(throttle, { pages: 26 }))
      const { exit } = yield* untouched(throttle, (touch) => throttle.withPermits(touch, { words: 1 }), [{}])
      assert.include(rangeErrorOf(exit), `this policy counts: "tokens", "permits", "pages"`)

      const inner = yield* Throttle.make(
        Throttle.all([Throttle.all([bucket(10)], { unit: "pages" })], { unit: "tokens" })
      )
      yield* inner.withPermits(Effect.void, { pages: 10 })
      assert.isFalse(yield* fits(inner, { pages: 1 }), "the nearest unit counts")
    }))

  it.effect("a unit may have any name", () =>
    Effect.gen(function*() {
      for (const unit of ["__proto__", "toString", "constructor", "a b", "0"]) {
        const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 3, refill: 1, unit }))
        const cost = (n: number): any => Object.fromEntries([[unit, n]])
        yield* throttle.withPermits(Effect.void, cost(2))
        yield* throttle.withPermits(Effect.void, {})
        assert.isTrue(yield* fits(throttle, cost(1)), unit)
        assert.isFalse(yield* fits(throttle, cost(2)), unit)
      }
    }))
})

describe("numbers and records, both ways", () => {
  it.effect("all forms charge the same", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 100, refill: 1 })
      class GitHub extends Throttle.Service<GitHub>()("app/GitHub", policy) {}
      const ran = Effect.succeed("ran")
      const throttle = yield* Throttle.inline(policy)
      type Form = Effect.Effect<unknown, ThrottleError, GitHub | Throttle.Throttle>
      const forms: ReadonlyArray<Form> = [
        throttle.withPermits(ran, 3),
        ran.pipe(throttle.withPermits(3)),
        throttle.withPermits(ran, { permits: 3 }),
        ran.pipe(throttle.withPermits({ permits: 3 })),
        Throttle.withPermits(ran, 3),
        ran.pipe(Throttle.withPermits(3)),
        Throttle.withPermits(ran, { permits: 3 }),
        ran.pipe(Throttle.withPermits({ permits: 3 })),
        GitHub.withPermits(ran, 3),
        ran.pipe(GitHub.withPermits(3)),
        GitHub.withPermits(ran, { permits: 3 }),
        ran.pipe(GitHub.withPermits({ permits: 3 })),
        throttle.withPermitsIfAvailable(ran, 3),
        ran.pipe(throttle.withPermitsIfAvailable(3)),
        Throttle.withPermitsIfAvailable(ran, { permits: 3 }),
        ran.pipe(Throttle.withPermitsIfAvailable({ permits: 3 })),
        GitHub.withPermitsIfAvailable(ran, 3),
        ran.pipe(GitHub.withPermitsIfAvailable(3)),
        throttle.wait(3),
        Throttle.wait({ permits: 3 }),
        GitHub.wait(3),
        Effect.scoped(throttle.takeScoped(3)),
        Effect.scoped(Throttle.takeScoped({ permits: 3 })),
        Effect.scoped(GitHub.takeScoped(3))
      ]
      for (const [i, form] of forms.entries()) {
        const [result, provided] = yield* Effect.all([form, Throttle.estimateWait(98)]).pipe(
          Effect.provide([GitHub.layer, policy])
        )
        if (i < 18) assert.deepStrictEqual(result, i < 12 ? "ran" : Option.some("ran"))
        // Some spend 3 of the provided throttle's 100, the others 3 of the inline one's.
        const waits = [provided, yield* throttle.estimateWait(98)].map(Option.getOrThrow).map(Duration.toMillis)
        assert.deepStrictEqual(waits.toSorted((a, b) => a - b), [0, 1_000])
        yield* TestClock.adjust("1 minute")
      }
    }))

  it.effect("the first argument selects the form, not the number of arguments: Array.map passes an index as well", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 100, refill: 1 }))
      const map = (f: unknown): ReadonlyArray<(self: Effect.Effect<string>) => Effect.Effect<unknown, ThrottleError>> =>
        [3, { permits: 4 }].map(f as any)
      const ran = Effect.succeed("ran")
      for (const withCost of map(throttle.withPermits)) assert.strictEqual(yield* withCost(ran), "ran")
      for (const withCost of map(throttle.withPermitsIfAvailable)) {
        assert.deepStrictEqual(yield* withCost(ran), Option.some("ran"))
      }
      assert.deepStrictEqual(yield* throttle.estimateWait(86), Option.some(Duration.zero))
      assert.deepStrictEqual(yield* throttle.estimateWait(87), Option.some(Duration.seconds(1)))
    }))

  it.effect("one more argument does no harm: Effect.fn passes the function's own", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 9, refill: 1 }))
      const upload = Effect.fn("upload")(function*(name: string, size: number) {
        yield* Effect.void
        return `${name}: ${size}`
      }, throttle.withPermits(4))
      assert.strictEqual(yield* upload("a", 1), "a: 1")
      assert.strictEqual(yield* upload("b", 2), "b: 2")
      assert.deepStrictEqual(yield* throttle.estimateWait(2), Option.some(Duration.seconds(1)))
    }))
})

describe("wait", () => {
  const holding: ReadonlyArray<Throttle.Policy<never>> = [
    Throttle.concurrency({ limit: 3 }),
    Throttle.spacing({ interval: "1 second", from: "end" }),
    Throttle.spacing({ interval: "1 second", from: "end", align: true }),
    Throttle.all([Throttle.rate({ limit: 1, burst: 2 }), Throttle.concurrency({ limit: 3 })]),
    Throttle.all([Throttle.none, Throttle.all([Throttle.concurrency({ limit: 3, unit: "slots" })])])
  ]

  for (const policy of holding) {
    it.effect(`dies on ${Throttle.describe(policy)}`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        for (const cost of [undefined, {}]) {
          const { exit, rejected } = yield* untouched(throttle, () => throttle.wait(cost), [{}])
          assert.include(rangeErrorOf(exit), "takeScoped")
          assert.deepStrictEqual(rejected, noRejections)
        }
      }))
  }

  it.effect("is what timing policies have", () =>
    Effect.gen(function*() {
      const timing = [
        Throttle.rate({ limit: 1 }),
        Throttle.tokenBucket({ capacity: 1, refill: 1 }),
        Throttle.window({ limit: 1, per: "1 second" }),
        Throttle.spacing({ interval: "1 second" }),
        Throttle.all([Throttle.rate({ limit: 1 }), Throttle.none])
      ]
      for (const policy of timing) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.wait()
        assert.deepStrictEqual(yield* throttle.estimateWait(), Option.some(Duration.seconds(1)))
        const waiting = yield* fork(Effect.andThen(throttle.wait(), now))
        const begin = yield* now
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(waiting), begin + 1_000)
        const { admitted, running, waiting: queued } = yield* throttle.statistics
        assert.deepStrictEqual({ admitted, running, queued }, { admitted: 2, running: 0, queued: 0 })
      }
    }))
})
