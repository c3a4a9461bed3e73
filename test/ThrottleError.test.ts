/**
 * The errors of rejected calls: the reason, the blocking parts and `retryAfter`, and that a retry at that instant starts.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option, Predicate, Schema, type Scope } from "effect"
import { PermitsExceedCapacity, QueueFull, Throttle, ThrottleError, TimedOut, WaitTooLong } from "effect-throttle"
import { TestClock } from "effect/testing"
import { fork, rejectionOf, throttleErrorOf } from "./utils/kit.ts"

/** A reason's fields, with durations in milliseconds. */
const fields = ({ reason }: ThrottleError): object =>
  Object.fromEntries(
    ["_tag", "throttle", "cost", "queued", "parts", "limit", "retryAfter"].flatMap((key) => {
      if (!(key in reason)) return []
      const value: unknown = reason[key as keyof typeof reason]
      return [[key, Duration.isDuration(value) ? `${Duration.toMillis(value)} ms` : value]]
    })
  )

/** One of each reason, as it comes. */
const examples: Record<
  string,
  {
    readonly error: Effect.Effect<ThrottleError, ThrottleError, Scope.Scope>
    readonly fields: object
    readonly message: string
  }
> = {
  "QueueFull": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 2, maxQueue: 2, name: "api" }))
      yield* throttle.wait()
      yield* fork(throttle.wait())
      yield* fork(throttle.wait())
      yield* TestClock.adjust(100)
      return yield* rejectionOf(throttle.wait())
    }),
    fields: {
      _tag: "QueueFull",
      throttle: "api",
      cost: { permits: 1 },
      queued: 2,
      parts: ["api"],
      limit: 2,
      retryAfter: "1400 ms"
    },
    message: `QueueFull: throttle "api": 2 waiting, maxQueue is 2 (blocked by api); retry after 1s 400ms`
  },
  "QueueFull where no call may wait": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.tokenBucket({ capacity: 60, refill: 60, per: "1 minute", unit: "tokens", maxQueue: 0, name: "openai" })
      )
      yield* throttle.wait({ tokens: 60 })
      return yield* rejectionOf(throttle.wait({ tokens: 5 }))
    }),
    fields: {
      _tag: "QueueFull",
      throttle: "openai",
      cost: { tokens: 5 },
      queued: 0,
      parts: ["openai"],
      limit: 0,
      retryAfter: "5000 ms"
    },
    message:
      `QueueFull: throttle "openai": the call would have to wait, maxQueue is 0 (blocked by openai); retry after 5s`
  },
  "QueueFull of concurrency": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3, maxQueue: 0, name: "db" }))
      yield* throttle.takeScoped(2)
      return yield* rejectionOf(throttle.withPermits(Effect.void, 2))
    }),
    fields: { _tag: "QueueFull", throttle: "db", cost: { permits: 2 }, queued: 0, parts: ["db"], limit: 0 },
    message: `QueueFull: throttle "db": the call would have to wait, maxQueue is 0 (blocked by db)`
  },
  "WaitTooLong": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.window({ limit: 2, per: "1 minute", maxWait: "30 seconds", name: "search" })
      )
      yield* throttle.wait(2)
      yield* TestClock.adjust(10_000.5)
      return yield* rejectionOf(throttle.wait(2))
    }),
    fields: {
      _tag: "WaitTooLong",
      throttle: "search",
      cost: { permits: 2 },
      queued: 0,
      parts: ["search"],
      limit: "30000 ms",
      retryAfter: "50000 ms"
    },
    message: `WaitTooLong: throttle "search": the call would wait longer than maxWait, 30s (blocked by search)` +
      `; retry after 50s`
  },
  "TimedOut": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", timeout: 1_500, name: "poll" }))
      yield* throttle.wait()
      yield* fork(throttle.wait())
      const late = yield* fork(throttle.wait())
      yield* TestClock.adjust(250)
      yield* fork(throttle.wait())
      yield* TestClock.adjust(1_250)
      return throttleErrorOf(yield* Fiber.await(late))
    }),
    fields: {
      _tag: "TimedOut",
      throttle: "poll",
      cost: { permits: 1 },
      queued: 1,
      parts: ["poll"],
      limit: "1500 ms",
      retryAfter: "1500 ms"
    },
    message: `TimedOut: throttle "poll": not admitted within timeout, 1s 500ms (blocked by poll); retry after 1s 500ms`
  },
  "TimedOut of concurrency": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1, timeout: "2 seconds", name: "db" }))
      yield* throttle.takeScoped()
      const late = yield* fork(throttle.withPermit(Effect.void))
      yield* TestClock.adjust("2 seconds")
      return throttleErrorOf(yield* Fiber.await(late))
    }),
    fields: { _tag: "TimedOut", throttle: "db", cost: { permits: 1 }, queued: 0, parts: ["db"], limit: "2000 ms" },
    message: `TimedOut: throttle "db": not admitted within timeout, 2s (blocked by db)`
  },
  "PermitsExceedCapacity": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 2, burst: 9, name: "api" }))
      return yield* rejectionOf(throttle.wait(11))
    }),
    fields: {
      _tag: "PermitsExceedCapacity",
      throttle: "api",
      cost: { permits: 11 },
      queued: 0,
      parts: ["api"],
      limit: 10
    },
    message:
      `PermitsExceedCapacity: throttle "api": requested permits: 11; at most 10 can ever be granted (blocked by api)`
  },
  "PermitsExceedCapacity of a part": {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([
          Throttle.rate({ limit: 1 }),
          Throttle.tokenBucket({ capacity: 100, refill: 1, unit: "tokens" })
        ], { name: "openai" })
      )
      yield* throttle.wait()
      yield* fork(throttle.wait())
      return yield* rejectionOf(throttle.wait({ tokens: 101 }))
    }),
    fields: {
      _tag: "PermitsExceedCapacity",
      throttle: "openai",
      cost: { tokens: 101 },
      queued: 1,
      parts: ["1 tokens per second, bucket of 100"],
      limit: 100
    },
    message: `PermitsExceedCapacity: throttle "openai": requested tokens: 101; at most 100 can ever be granted` +
      ` (blocked by 1 tokens per second, bucket of 100)`
  },
  Draining: {
    error: Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, name: "api" }))
      yield* throttle.wait()
      yield* fork(throttle.wait())
      yield* fork(throttle.drain())
      return yield* rejectionOf(throttle.wait(2))
    }),
    fields: { _tag: "Draining", throttle: "api", cost: { permits: 2 }, queued: 1, parts: [] },
    message: `Draining: throttle "api": the throttle is being drained and admits no newcomers (1 waiting)`
  }
}

describe("a rejection contains", () => {
  for (const [name, example] of Object.entries(examples)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const error = yield* example.error
        assert.deepStrictEqual(fields(error), example.fields)
        assert.strictEqual(error.message, example.message)
      }))
  }

  it.effect("which parts stand in the way, and no others", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([
          Throttle.tokenBucket({ capacity: 5, refill: 1, name: "requests" }),
          Throttle.tokenBucket({ capacity: 9, refill: 1, unit: "tokens", name: "tokens" }),
          Throttle.window({ limit: 4, per: "1 hour", name: "hourly" }),
          Throttle.concurrency({ limit: 3, name: "slots" })
        ], { maxQueue: 0 })
      )
      const parts = (cost: Throttle.Cost) =>
        Effect.map(rejectionOf(throttle.withPermits(Effect.void, cost)), ({ reason }) => reason.parts)
      yield* throttle.withPermits(Effect.void, { permits: 1, tokens: 9 })
      assert.deepStrictEqual(yield* parts({ permits: 0, tokens: 1 }), ["tokens"])
      assert.deepStrictEqual(yield* parts({ permits: 3, tokens: 1 }), ["tokens"])
      yield* throttle.takeScoped(3)
      assert.deepStrictEqual(yield* parts(1), ["hourly", "slots"])
      assert.deepStrictEqual(yield* parts(2), ["requests", "hourly", "slots"])
      assert.deepStrictEqual(yield* parts({ permits: 2, tokens: 1 }), ["requests", "tokens", "hourly", "slots"])
    }))

  it.effect("the throttle's name: its own, its class's, or else the kind of policy", () =>
    Effect.gen(function*() {
      class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 1 })) {}
      const named = (call: Effect.Effect<void, ThrottleError>) =>
        Effect.map(rejectionOf(call), ({ reason }) => reason.throttle)
      const of = (policy: Throttle.Policy<any>) =>
        Effect.flatMap(Throttle.make(policy), (throttle) => named(throttle.withPermits(Effect.void, 99)))
      assert.strictEqual(yield* of(Throttle.rate({ limit: 1, name: "api" })), "api")
      assert.strictEqual(yield* of(Throttle.rate({ limit: 1 })), "rate")
      assert.strictEqual(yield* of(Throttle.tokenBucket({ capacity: 1, refill: 1 })), "tokenBucket")
      assert.strictEqual(yield* of(Throttle.window({ limit: 1, per: 1 })), "window")
      assert.strictEqual(yield* of(Throttle.concurrency({ limit: 1 })), "concurrency")
      assert.strictEqual(yield* of(Throttle.all([Throttle.rate({ limit: 1, name: "part" })])), "all")
      assert.strictEqual(yield* named(GitHub.wait(2).pipe(Effect.provide(GitHub.layer))), "app/GitHub")
    }))

  it.effect("the smallest bound of each kind, of the whole and its parts", () =>
    Effect.gen(function*() {
      const limits = (policy: Throttle.Policy<any>) =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          yield* throttle.wait()
          for (let i = 0; i < 9; i++) {
            const call = yield* fork(throttle.wait())
            const exit = call.pollUnsafe()
            if (exit !== undefined) return throttleErrorOf(exit).reason
          }
          return assert.fail("no call was rejected")
        })
      const rate = (bounds: Throttle.Bounds) => Throttle.rate({ limit: 1, ...bounds })
      const queue = yield* limits(Throttle.all([rate({ maxQueue: 2 }), rate({ maxQueue: 4 })], { maxQueue: 3 }))
      assert.deepStrictEqual([queue._tag, "limit" in queue && queue.limit], ["QueueFull", 2])
      const wait = yield* limits(Throttle.all([rate({ maxWait: 4_000 }), Throttle.all([rate({ maxWait: 2_000 })])]))
      assert.deepStrictEqual([wait._tag, "limit" in wait && wait.limit], ["WaitTooLong", Duration.seconds(2)])
      const both = yield* limits(Throttle.all([rate({ maxWait: 4_000 })], { maxWait: "1 second", maxQueue: 9 }))
      assert.deepStrictEqual([both._tag, "limit" in both && both.limit], ["WaitTooLong", Duration.seconds(1)])
    }))
})

describe("the error", () => {
  it.effect("is an Error, tagged, with a reason of its own tag", () =>
    Effect.gen(function*() {
      const error = yield* examples["QueueFull"]!.error
      assert.instanceOf(error, Error)
      assert.instanceOf(error.reason, QueueFull)
      assert.instanceOf(error.reason, Error)
      assert.strictEqual(error.name, "ThrottleError")
      assert.strictEqual(error._tag, "ThrottleError")
      assert.isTrue(Predicate.isTagged(error.reason, "QueueFull"))
      assert.include(String(error), error.message)
      assert.include(error.stack ?? "", error.message)
      assert.include(Cause.pretty(Cause.fail(error)), error.message)
    }))

  it.effect("retryAfter is its reason's, undefined where the wait cannot be estimated", () =>
    Effect.gen(function*() {
      for (const { error } of Object.values(examples)) {
        const { reason, retryAfter } = yield* error
        assert.deepStrictEqual(retryAfter, "retryAfter" in reason ? reason.retryAfter : undefined)
        const neverHelps = reason._tag === "PermitsExceedCapacity" || reason._tag === "Draining"
        if (neverHelps || reason.throttle === "db") assert.isUndefined(retryAfter)
        else assert.isDefined(retryAfter)
      }
    }))

  it.effect("can be failed with in a generator, like any other", () =>
    Effect.gen(function*() {
      const reason = new PermitsExceedCapacity({
        throttle: "api",
        cost: { permits: 2 },
        queued: 0,
        parts: [],
        limit: 1
      })
      const error = yield* Effect.flip(Effect.gen(function*() {
        return yield* new ThrottleError({ reason })
      }))
      assert.strictEqual(error.reason, reason)
      assert.strictEqual(
        error.message,
        `PermitsExceedCapacity: throttle "api": requested permits: 2; at most 1 can ever be granted`
      )
    }))

  it.effect("catchTag catches every reason", () =>
    Effect.gen(function*() {
      for (const { error } of Object.values(examples)) {
        const call = Effect.flatMap(error, (error) => Effect.fail(error))
        const tag = yield* call.pipe(Effect.catchTag("ThrottleError", ({ reason }) => Effect.succeed(reason._tag)))
        assert.isString(tag)
      }
    }))

  it.effect("catchReason catches one reason and lets the others pass", () =>
    Effect.gen(function*() {
      for (const { error } of Object.values(examples)) {
        const failed = yield* error
        const call = Effect.fail(failed)
        const caught = {
          QueueFull: call.pipe(
            Effect.catchReason("ThrottleError", "QueueFull", (reason) => Effect.succeed(reason as unknown))
          ),
          WaitTooLong: call.pipe(
            Effect.catchReason("ThrottleError", "WaitTooLong", (reason) => Effect.succeed(reason as unknown))
          ),
          TimedOut: call.pipe(
            Effect.catchReason("ThrottleError", "TimedOut", (reason) => Effect.succeed(reason as unknown))
          ),
          PermitsExceedCapacity: call.pipe(
            Effect.catchReason("ThrottleError", "PermitsExceedCapacity", (reason) => Effect.succeed(reason as unknown))
          ),
          Draining: call.pipe(
            Effect.catchReason("ThrottleError", "Draining", (reason) => Effect.succeed(reason as unknown))
          )
        }
        for (const [tag, attempt] of Object.entries(caught)) {
          if (tag === failed.reason._tag) assert.strictEqual(yield* attempt, failed.reason)
          else assert.strictEqual(yield* Effect.flip(attempt), failed)
        }
        const all = yield* call.pipe(Effect.catchReasons("ThrottleError", {
          QueueFull: (reason) => Effect.succeed(reason._tag),
          WaitTooLong: (reason) => Effect.succeed(reason._tag),
          TimedOut: (reason) => Effect.succeed(reason._tag),
          PermitsExceedCapacity: (reason) => Effect.succeed(reason._tag),
          Draining: (reason) => Effect.succeed(reason._tag)
        }))
        assert.strictEqual(all, failed.reason._tag)
        assert.strictEqual(yield* Effect.flip(call.pipe(Effect.unwrapReason("ThrottleError"))), failed.reason)
      }
    }))

  it.effect("crosses a process boundary as JSON", () =>
    Effect.gen(function*() {
      const codec = Schema.toCodecJson(ThrottleError)
      for (const { error } of Object.values(examples)) {
        const sent = yield* error
        const text = JSON.stringify(yield* Schema.encodeEffect(codec)(sent))
        const received = yield* Schema.decodeUnknownEffect(codec)(JSON.parse(text))
        assert.instanceOf(received, ThrottleError)
        assert.strictEqual(received.constructor, ThrottleError)
        assert.strictEqual(received.reason.constructor, sent.reason.constructor)
        assert.deepStrictEqual(fields(received), fields(sent))
        assert.strictEqual(received.message, sent.message)
        assert.deepStrictEqual(received.retryAfter, sent.retryAfter)
      }
    }))

  it("its JSON contains each field once", () => {
    const error = new ThrottleError({
      reason: new TimedOut({
        throttle: "api",
        cost: { permits: 1, tokens: 40 },
        queued: 3,
        parts: ["a", "b"],
        limit: Duration.seconds(2),
        retryAfter: Duration.millis(1_500)
      })
    })
    const json: any = Schema.encodeSync(Schema.toCodecJson(ThrottleError))(error)
    assert.strictEqual(json._tag, "ThrottleError")
    assert.strictEqual(json.reason._tag, "TimedOut")
    assert.deepStrictEqual(json.reason.cost, { permits: 1, tokens: 40 })
    assert.deepStrictEqual(json.reason.parts, ["a", "b"])
    assert.strictEqual(
      error.message,
      `TimedOut: throttle "api": not admitted within timeout, 2s (blocked by a, b); retry after 1s 500ms`
    )
  })

  it("nonsense is no error", () => {
    const decode = Schema.decodeUnknownOption(Schema.toCodecJson(ThrottleError))
    const reason = { _tag: "QueueFull", throttle: "api", cost: { permits: 1 }, queued: 0, parts: [], limit: 0 }
    assert.isTrue(Option.isSome(decode({ _tag: "ThrottleError", reason })))
    for (const bad of [{}, { _tag: "ThrottleError" }, { _tag: "Other", reason }]) {
      assert.isTrue(Option.isNone(decode(bad)))
    }
    for (
      const bad of [{ _tag: "Nope" }, { cost: { permits: "1" } }, { queued: null }, { limit: "2" }, { parts: [1] }]
    ) {
      assert.isTrue(Option.isNone(decode({ _tag: "ThrottleError", reason: { ...reason, ...bad } })))
    }
  })

  it.effect("a policy's error passes through Effect.retry with its own delay", () =>
    Effect.gen(function*() {
      const limited = Throttle.rate({ limit: 1, maxQueue: 0 })
      yield* limited(Effect.void)
      let attempts = 0
      const patient: Effect.Effect<string, ThrottleError> = Effect.suspend(() => {
        attempts++
        return limited(Effect.succeed("ran"))
      }).pipe(
        Effect.catchTag("ThrottleError", (error) =>
          error.retryAfter === undefined ? Effect.fail(error) : Effect.delay(patient, error.retryAfter))
      )
      const call = yield* fork(patient)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual([yield* Fiber.join(call), attempts], ["ran", 2])
    }))
})

describe("retryAfter is whole milliseconds, rounded up", () => {
  const table: ReadonlyArray<
    readonly [policy: Throttle.Policy<ThrottleError>, spent: number, after: number, ms: number]
  > = [
    [Throttle.rate({ limit: 1, maxQueue: 0 }), 1, 0, 1_000],
    [Throttle.rate({ limit: 1, maxQueue: 0 }), 1, 999, 1],
    [Throttle.rate({ limit: 1, maxQueue: 0 }), 1, 999.5, 1],
    [Throttle.rate({ limit: 1, maxQueue: 0 }), 1, 0.001, 1_000],
    [Throttle.rate({ limit: 3, maxQueue: 0 }), 1, 0, 334],
    [Throttle.rate({ limit: 3, maxQueue: 0 }), 1, 333, 1],
    [Throttle.rate({ limit: 1_000, maxQueue: 0 }), 1, 0, 1],
    [Throttle.rate({ limit: 10_000, maxQueue: 0 }), 1, 0, 1],
    [Throttle.rate({ limit: 1, per: "1 day", burst: 1, maxQueue: 0 }), 2, 1, 86_399_999],
    [Throttle.tokenBucket({ capacity: 7, refill: 7, maxQueue: 0 }), 7, 0, 143],
    [Throttle.window({ limit: 2, per: 1.5, maxQueue: 0 }), 2, 0, 2],
    [Throttle.window({ limit: 2, per: 1_000, kind: "fixed", maxQueue: 0 }), 2, 250.5, 750],
    [Throttle.spacing({ interval: 0.1, maxQueue: 0 }), 1, 0, 1],
    [Throttle.spacing({ interval: 250, align: true, maxQueue: 0 }), 1, 100, 150]
  ]

  for (const [policy, spent, after, ms] of table) {
    it.effect(`${Throttle.describe(policy)}: ${after} ms after the last start it is ${ms} ms`, () =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(policy)
        const fixed = policy.data._tag === "Window" && policy.data.kind === "fixed"
        if (fixed) yield* TestClock.adjust(after)
        yield* throttle.wait(spent)
        if (!fixed) yield* TestClock.adjust(after)
        const { retryAfter } = yield* rejectionOf(throttle.wait())
        assert.strictEqual(Duration.toMillis(retryAfter!), ms)
      }))
  }
})

describe("a call that retries after exactly retryAfter starts", () => {
  const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
  const Timing = Schema.Union([
    Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(3, 90), burst: int(0, 4) }),
    Schema.Struct({ _tag: Schema.Literal("TokenBucket"), capacity: int(1, 6), refill: int(1, 7), per: int(3, 90) }),
    Schema.Struct({
      _tag: Schema.Literal("Window"),
      limit: int(1, 5),
      per: int(3, 90),
      kind: Schema.Literals(["sliding", "fixed"])
    }),
    Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 50), align: Schema.Boolean })
  ])

  // A start on the clock comes at no other time, so a call that needs one must arrive on a whole millisecond.
  const unitOf = (...parts: ReadonlyArray<typeof Timing.Type>) =>
    parts.some((data) => data._tag === "Spacing" && data.align) ? 1 : 0.25

  /** Earlier calls: quarters of a millisecond after the one before, and the cost. */
  const History = Schema.Array(Schema.Tuple([int(0, 120), int(0, 5)])).check(Schema.isMaxLength(8))

  const capacityOf = (data: typeof Timing.Type): number =>
    data._tag === "Rate"
      ? data.burst + 1
      : data._tag === "TokenBucket"
      ? data.capacity
      : data._tag === "Window"
      ? data.limit
      : 9

  const starts = (throttle: Throttle.Throttle, cost: Throttle.Cost) =>
    Effect.map(throttle.withPermitsIfAvailable(Effect.void, cost), Option.isSome)

  /** Waits until just before `retryAfter`, when a call must not start yet, and then until that instant. */
  const holds = (throttle: Throttle.Throttle, cost: Throttle.Cost, retryAfter: Duration.Duration | undefined) =>
    Effect.gen(function*() {
      assert.isDefined(retryAfter)
      const ms = Duration.toMillis(retryAfter!)
      assert.isTrue(Number.isInteger(ms) && ms > 0, `${ms} ms`)
      yield* TestClock.adjust(ms - 1)
      assert.isFalse(yield* starts(throttle, cost), "could have started a whole millisecond earlier")
      yield* TestClock.adjust(1)
      assert.isTrue(yield* starts(throttle, cost), "still refused after retryAfter")
    })

  const play = (throttle: Throttle.Throttle, data: typeof Timing.Type, history: typeof History.Type) =>
    Effect.gen(function*() {
      for (const [units, cost] of history) {
        yield* TestClock.adjust(units * unitOf(data))
        yield* fork(throttle.wait(Math.min(cost, capacityOf(data))))
      }
    })

  /** Makes calls of this cost until one is rejected. */
  const untilRefused = (throttle: Throttle.Throttle, cost: Throttle.Cost) =>
    Effect.gen(function*() {
      for (let i = 0; i < 500; i++) {
        const foreseen = yield* throttle.estimateWait(cost)
        const call = yield* fork(throttle.wait(cost))
        const exit = call.pollUnsafe()
        if (exit !== undefined && Exit.isFailure(exit)) return { error: throttleErrorOf(exit), foreseen }
      }
      return assert.fail("no call was rejected")
    })

  const arbitrary = { arbitrary: { runs: 150 } }

  it.effect.prop(
    "QueueFull",
    [Timing, History, int(0, 5), int(1, 5)],
    ([data, history, maxQueue, cost]) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.fromData({ ...data, maxQueue }))
        const asked = Math.min(cost, capacityOf(data))
        yield* play(throttle, data, history)
        const { error, foreseen } = yield* untilRefused(throttle, asked)
        assert.strictEqual(error.reason._tag, "QueueFull")
        assert.strictEqual(
          Math.ceil(Duration.toMillis(Option.getOrThrow(foreseen)) - 1e-3),
          Duration.toMillis(error.retryAfter!),
          "estimateWait says otherwise"
        )
        yield* holds(throttle, asked, error.retryAfter)
      }).pipe(Effect.scoped),
    arbitrary
  )

  it.effect.prop(
    "WaitTooLong",
    [Timing, History, int(1, 60), int(1, 5)],
    ([data, history, maxWait, cost]) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.fromData({ ...data, maxWait }))
        const asked = Math.min(cost, capacityOf(data))
        yield* play(throttle, data, history)
        const { error } = yield* untilRefused(throttle, asked)
        assert.strictEqual(error.reason._tag, "WaitTooLong")
        assert.isAbove(Duration.toMillis(error.retryAfter!), maxWait)
        yield* holds(throttle, asked, error.retryAfter)
      }).pipe(Effect.scoped),
    arbitrary
  )

  it.effect.prop(
    "TimedOut",
    [Timing, History, int(1, 60), int(1, 5)],
    ([data, history, timeout, cost]) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.fromData({ ...data, timeout }))
        const asked = Math.min(cost, capacityOf(data))
        yield* play(throttle, data, history)
        // Enough of them that the last one times out, and no call is left behind it.
        const calls = yield* Effect.forEach(Array.from({ length: 70 }), () => fork(throttle.wait(asked)))
        yield* TestClock.adjust(timeout)
        const exit = calls.at(-1)!.pollUnsafe()
        if (exit === undefined || Exit.isSuccess(exit)) return
        const { reason, retryAfter } = throttleErrorOf(exit)
        assert.deepStrictEqual([reason._tag, reason.queued], ["TimedOut", 0])
        yield* holds(throttle, asked, retryAfter)
      }).pipe(Effect.scoped),
    arbitrary
  )

  it.effect.prop(
    "estimateWait, too, to the microsecond",
    [Timing, History, int(1, 5)],
    ([data, history, cost]) =>
      Effect.gen(function*() {
        const throttle = yield* Throttle.make(Throttle.fromData(data))
        const asked = Math.min(cost, capacityOf(data))
        yield* play(throttle, data, history)
        const ms = Duration.toMillis(Option.getOrThrow(yield* throttle.estimateWait(asked)))
        if (unitOf(data) === 1) {
          yield* TestClock.adjust(ms)
        } else if (ms > 0.01) {
          yield* TestClock.adjust(ms - 0.01)
          assert.isFalse(yield* starts(throttle, asked), "could have started earlier")
          // And a microsecond, for the simulated clock adds fractions of milliseconds inexactly.
          yield* TestClock.adjust(0.011)
        }
        assert.isTrue(yield* starts(throttle, asked), "not yet")
      }).pipe(Effect.scoped),
    arbitrary
  )

  const Weighted = Schema.Array(Schema.Tuple([int(0, 60), int(0, 3), int(0, 3)])).check(Schema.isMaxLength(6))

  /** Two time-based parts with a unit each, their history, and the rejection of a call of this cost. */
  const severalParts = (
    data: readonly [typeof Timing.Type, typeof Timing.Type],
    history: typeof Weighted.Type,
    asked: readonly [permits: number, tokens: number],
    maxQueue: number
  ) =>
    Effect.gen(function*() {
      // On the clock a call must come at the very instant, which whole milliseconds need not hit.
      const [first, second] = data.map((part) => part._tag === "Spacing" ? { ...part, align: false } : part)
      const throttle = yield* Throttle.make(
        Throttle.fromData({ _tag: "All", policies: [first!, { ...second!, unit: "tokens" }], maxQueue })
      )
      const cost = (permits: number, tokens: number) => ({
        permits: Math.min(permits, capacityOf(first!)),
        tokens: Math.min(tokens, capacityOf(second!))
      })
      for (const [quarters, permits, tokens] of history) {
        yield* TestClock.adjust(quarters / 4)
        yield* fork(throttle.wait(cost(permits, tokens)))
      }
      const { error } = yield* untilRefused(throttle, cost(...asked))
      assert.isDefined(error.retryAfter)
      yield* TestClock.adjust(error.retryAfter!)
      assert.isTrue(yield* starts(throttle, cost(...asked)), "still refused after retryAfter")
    })

  it.effect.prop(
    "of several parts, each with its unit, where no call waits",
    [Timing, Timing, Weighted, int(0, 3), int(1, 3)],
    ([first, second, history, permits, tokens]) =>
      Effect.scoped(severalParts([first, second], history, [permits, tokens], 0)),
    arbitrary
  )

  it.effect.prop(
    "of several parts, each with its unit, behind others",
    [Timing, Timing, Weighted, int(0, 3), int(1, 3)],
    ([first, second, history, permits, tokens]) =>
      Effect.scoped(severalParts([first, second], history, [permits, tokens], 3)),
    arbitrary
  )

  it.effect("the head waits for tokens, and the rejected call needs none", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([
          Throttle.rate({ limit: 10, burst: 4 }),
          Throttle.tokenBucket({ capacity: 60, refill: 60, per: "1 minute", unit: "tokens" })
        ], { maxQueue: 1 })
      )
      yield* throttle.wait({ tokens: 60 })
      yield* fork(throttle.wait({ tokens: 30 }))
      assert.deepStrictEqual(yield* throttle.estimateWait(1), Option.some(Duration.seconds(30)))
      const { retryAfter } = yield* rejectionOf(throttle.wait())
      assert.deepStrictEqual(retryAfter, Duration.seconds(30))
      yield* TestClock.adjust(retryAfter!)
      assert.isTrue(yield* starts(throttle, 1))
    }))

  it.effect("a call of cost 0 waits for its place in the queue", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 2 }))
      yield* throttle.wait()
      yield* fork(throttle.wait())
      yield* fork(throttle.wait())
      assert.deepStrictEqual(yield* throttle.estimateWait(0), Option.some(Duration.seconds(2)))
      const { retryAfter } = yield* rejectionOf(throttle.wait(0))
      assert.deepStrictEqual(retryAfter, Duration.seconds(2))
    }))

  it.effect("undefined where only permits are missing", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 1_000, burst: 9 }), Throttle.concurrency({ limit: 1 })], { maxQueue: 0 })
      )
      yield* fork(throttle.withPermit(Effect.sleep("1 hour")))
      const { message, retryAfter } = yield* rejectionOf(throttle.withPermit(Effect.void))
      assert.deepStrictEqual(yield* throttle.estimateWait(), Option.none())
      assert.isUndefined(retryAfter, `told to ask again: ${message}`)
    }))

  it.effect("where permits are missing too, the estimate of the time-based parts is a lower bound", () =>
    Effect.gen(function*() {
      const policies = [
        Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })], { maxQueue: 0 }),
        Throttle.spacing({ interval: "1 second", from: "end", maxQueue: 0 })
      ]
      for (const policy of policies) {
        const throttle = yield* Throttle.make(policy)
        yield* fork(throttle.withPermit(Effect.sleep("1 hour")))
        const { retryAfter } = yield* rejectionOf(throttle.withPermit(Effect.void))
        assert.deepStrictEqual(yield* throttle.estimateWait(), Option.none())
        assert.deepStrictEqual(retryAfter, Duration.seconds(1))
      }
    }))

  it.effect("where a call holds permits but enough are free, the timing parts decide", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(
        Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 2 })], { maxQueue: 0 })
      )
      yield* fork(throttle.withPermit(Effect.never))
      const { retryAfter } = yield* rejectionOf(throttle.withPermit(Effect.void))
      assert.deepStrictEqual(retryAfter, Duration.seconds(1))
      yield* TestClock.adjust(retryAfter!)
      assert.isTrue(yield* starts(throttle, 1))
    }))

  it.effect("spacing from the end tells when the last call has ended", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "1 second", from: "end", maxQueue: 0 }))
      yield* fork(throttle.withPermit(Effect.sleep(300)))
      yield* TestClock.adjust(550)
      const { retryAfter } = yield* rejectionOf(throttle.withPermit(Effect.void))
      assert.deepStrictEqual(retryAfter, Duration.millis(750))
      yield* holds(throttle, 1, retryAfter)
    }))
})

describe("a rejected call changes nothing", () => {
  it.effect("the next one starts exactly when it would have", () =>
    Effect.gen(function*() {
      const policies = [
        Throttle.rate({ limit: 1, maxQueue: 0 }),
        Throttle.tokenBucket({ capacity: 1, refill: 1, maxQueue: 0 }),
        Throttle.window({ limit: 1, per: "1 second", maxQueue: 0 }),
        Throttle.window({ limit: 1, per: "1 second", kind: "fixed", maxQueue: 0 }),
        Throttle.spacing({ interval: "1 second", maxQueue: 0 }),
        Throttle.rate({ limit: 1, maxWait: 1 })
      ]
      for (const policy of policies) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.wait()
        for (let i = 0; i < 10; i++) {
          yield* rejectionOf(throttle.wait())
          yield* TestClock.adjust(100)
        }
        yield* throttle.wait()
        const { admitted, rejected } = yield* throttle.statistics
        assert.deepStrictEqual([admitted, rejected.QueueFull + rejected.WaitTooLong], [2, 10])
        yield* TestClock.adjust("1 second")
      }
    }))

  it.effect("a call that times out leaves its place to the calls behind it", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 3, refill: 1, timeout: 1_000 }))
      yield* throttle.wait(3)
      const heavy = yield* fork(throttle.wait(3))
      yield* TestClock.adjust(500)
      const light = yield* fork(throttle.wait())
      yield* TestClock.adjust(500)
      assert.strictEqual(throttleErrorOf(yield* Fiber.await(heavy)).reason._tag, "TimedOut")
      assert.isDefined(light.pollUnsafe(), "the permit of the first second is the next one's")
    }))

  it("WaitTooLong and TimedOut carry their bound as a Duration", () => {
    const reason = { throttle: "api", cost: { permits: 1 }, queued: 0, parts: [], limit: Duration.seconds(1) }
    assert.include(new WaitTooLong(reason).message, "maxWait, 1s")
    assert.include(new TimedOut(reason).message, "timeout, 1s")
  })
})

describe("parts", () => {
  it.effect("names the parts that the calls ahead wait for, too", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.rate({ limit: 1_000, burst: 99, name: "requests" }),
        Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens", name: "tokens" })
      ], { maxQueue: 1 }))
      yield* throttle.withPermits(Effect.void, { tokens: 10 })
      yield* Effect.forkChild(throttle.withPermits(Effect.void, { tokens: 10 }), { startImmediately: true })
      const error = yield* Effect.flip(throttle.withPermit(Effect.void))
      assert.deepStrictEqual(error.reason.parts, ["tokens"])
      assert.strictEqual(Duration.toMillis(error.retryAfter!), 1_000)
    }))
})
