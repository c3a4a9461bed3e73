/**
 * `remaining`: what each part has left, when more is left, and when all is.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, Schema, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import { fork } from "./utils/kit.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const millisOf = (duration: Duration.Duration | undefined) => duration && Duration.toMillis(duration)

/** With each time in milliseconds. */
const plain = (parts: ReadonlyArray<Throttle.Remaining>) =>
  parts.map(({ untilFull, untilMore, ...rest }) => ({
    ...rest,
    untilMore: millisOf(untilMore),
    untilFull: millisOf(untilFull)
  }))

const short = (parts: ReadonlyArray<Throttle.Remaining>) =>
  parts.map(({ remaining, untilFull, untilMore }) => [remaining, millisOf(untilMore), millisOf(untilFull)])

const leftOf = (throttle: Throttle.Throttle) => Effect.map(throttle.remaining, short)

describe("what is left", () => {
  it.effect("names each part, its unit, its kind and its limit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([
        Throttle.tokenBucket({ capacity: 100, refill: 10, unit: "tokens" }),
        Throttle.window({ limit: 5, per: "1 minute", name: "plan" }),
        Throttle.window({ limit: 8, per: "1 minute", kind: "fixed" }),
        Throttle.spacing({ interval: "1 second" }),
        Throttle.spacing({ interval: "2 seconds", from: "end" }),
        Throttle.concurrency({ limit: 3 })
      ]))
      yield* throttle.withPermits({ permits: 1, tokens: 30 })(Effect.void)
      const common = { unit: "permits", untilMore: undefined, untilFull: 0 }
      assert.deepStrictEqual(plain(yield* throttle.remaining), [
        {
          name: "10 tokens per second, bucket of 100",
          unit: "tokens",
          kind: "rate",
          limit: 100,
          remaining: 70,
          untilMore: 100,
          untilFull: 3_000
        },
        { ...common, name: "plan", kind: "sliding", limit: 5, remaining: 4, untilMore: 60_000, untilFull: 60_000 },
        {
          ...common,
          name: "at most 8 in each minute of the clock",
          kind: "fixed",
          limit: 8,
          remaining: 7,
          untilMore: 60_000,
          untilFull: 60_000
        },
        {
          ...common,
          name: "1 second between starts",
          kind: "spacing",
          limit: 1,
          remaining: 0,
          untilMore: 1_000,
          untilFull: 1_000
        },
        {
          ...common,
          name: "2 seconds from an end to the next start",
          kind: "spacing",
          limit: 1,
          remaining: 0,
          untilMore: 2_000,
          untilFull: 2_000
        },
        { ...common, name: "at most 3 at once", kind: "concurrency", limit: 3, remaining: 3 }
      ])
    }))

  it.effect("is empty without a limit", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.none)
      assert.deepStrictEqual(yield* throttle.remaining, [])
    }))

  it.effect("of permits that are held it is unknown when they are free", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 3 }))
      yield* throttle.withPermits(2)(Effect.gen(function*() {
        assert.deepStrictEqual(yield* leftOf(throttle), [[1, undefined, undefined]])
      }))
      assert.deepStrictEqual(yield* leftOf(throttle), [[3, undefined, 0]])
    }))

  it.effect("of spacing from the end nothing is left while a call runs", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.spacing({ interval: "2 seconds", from: "end" }))
      yield* throttle.withPermit(Effect.gen(function*() {
        assert.deepStrictEqual(yield* leftOf(throttle), [[0, undefined, undefined]])
      }))
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 2_000, 2_000]])
    }))

  it.effect("is nothing in a pause, which has to end before all is left; nothing is known of one without an end", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1 }))
      yield* throttle.allow(4)
      yield* throttle.pause("2 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 2_000, 4_000]])
      yield* throttle.pause("20 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 20_000, 20_000]])
      yield* throttle.pause("Infinity")
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, undefined, undefined]])
      yield* throttle.resume
      assert.deepStrictEqual(yield* leftOf(throttle), [[6, 1_000, 4_000]])
    }))

  it.effect("is nothing while calls wait; all is left once they have started and their charges are gone", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 2, refill: 1 }))
      for (let i = 0; i < 5; i++) yield* fork(throttle.wait())
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 4_000, 5_000]])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 1_000, 2_000]])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [[2, undefined, 0]])
    }))

  it.effect("is nothing while calls wait for permits, and it is unknown until when", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([Throttle.rate({ limit: 10, burst: 9 }), Throttle.concurrency({ limit: 1 })])
      const throttle = yield* Throttle.make(policy)
      yield* fork(throttle.withPermit(Effect.never))
      const waiting = yield* fork(throttle.withPermit(Effect.never))
      const parts = yield* throttle.remaining
      assert.deepStrictEqual(parts.map(({ remaining, untilFull }) => [remaining, untilFull]), [
        [0, undefined],
        [0, undefined]
      ])
      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(yield* leftOf(throttle), [[9, 100, 100], [0, undefined, undefined]])
    }))

  it.effect("in shadow is what would be left in force", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.shadow(Throttle.tokenBucket({ capacity: 3, refill: 1 })))
      yield* throttle.wait(2)
      assert.deepStrictEqual(yield* leftOf(throttle), [[1, 1_000, 2_000]])
      // In the simulation this one waits.
      yield* throttle.wait(3)
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 3_000, 5_000]])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* leftOf(throttle), [[1, 1_000, 2_000]])
    }))

  it.effect("is nothing once the scope has closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const throttle = yield* Scope.provide(Throttle.make(Throttle.rate({ limit: 1 })), scope)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, undefined, undefined]])
    }))

  it.effect("is nothing while it drains, and no time is known, since newcomers are refused until its scope closes", () =>
    Effect.gen(function*() {
      const bucket = Throttle.tokenBucket({ capacity: 5, refill: 1 })
      for (
        const policy of [bucket, Throttle.all([bucket, Throttle.concurrency({ limit: 2 })]), Throttle.shadow(bucket)]
      ) {
        const throttle = yield* Throttle.make(policy)
        yield* throttle.withPermit(Effect.void)
        yield* throttle.drain()
        assert.deepStrictEqual(yield* throttle.estimateWait(), Option.none())
        for (const part of yield* leftOf(throttle)) assert.deepStrictEqual(part, [0, undefined, undefined])
      }
    }))

  it.effect("is nothing while calls finish in a drain", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
      yield* fork(throttle.withPermit(Effect.never))
      yield* fork(throttle.drain())
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, undefined, undefined]])
    }))

  it.effect("is nothing while a throttle drains whose policy has no bounds", () =>
    Effect.gen(function*() {
      yield* Throttle.drain()
      assert.deepStrictEqual(yield* Effect.map(Throttle.remaining, short), [[0, undefined, undefined]])
    }).pipe(Effect.provide(Throttle.rate({ limit: 10 }))))

  it.effect("follows what is settled above the capacity", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.tokenBucket({ capacity: 10, refill: 1 }))
      yield* throttle.usePermits((permit) => permit.settle(15), 5)
      assert.deepStrictEqual(yield* leftOf(throttle), [[0, 6_000, 15_000]])
    }))
})

/** Policies of one part that decides by time. */
const policies: ReadonlyArray<Throttle.Policy<never>> = [
  Throttle.rate({ limit: 7, per: "1 second" }),
  Throttle.rate({ limit: 30, per: "1 second", burst: 4 }),
  Throttle.tokenBucket({ capacity: 6, refill: 3, initial: 2 }),
  Throttle.window({ limit: 5, per: "700 millis" }),
  Throttle.window({ limit: 5, per: "700 millis", kind: "fixed" }),
  Throttle.spacing({ interval: "300 millis" }),
  Throttle.spacing({ interval: "300 millis", align: true })
]

describe("whatever has been spent", () => {
  const History = Schema.Array(Schema.Struct({
    gap: int(0, 500),
    cost: int(1, 5),
    settled: int(0, 9),
    ends: Schema.Literals(["at once", "settled", "cancelled"])
  })).check(Schema.isMaxLength(10))

  /** Starts calls that need no wait, after each gap. */
  const spend = (throttle: Throttle.Throttle, history: typeof History.Type) =>
    Effect.forEach(history, ({ cost, ends, gap, settled }) =>
      Effect.andThen(
        TestClock.adjust(gap),
        Effect.scoped(Effect.gen(function*() {
          const wait = yield* throttle.estimateWait(cost)
          if (wait._tag === "None" || Duration.toMillis(wait.value) > 0) return
          const permit = yield* throttle.takeScoped(cost)
          if (ends === "settled") yield* permit.settle(settled)
          if (ends === "cancelled") yield* permit.cancel
        }))
      ))

  for (const policy of policies) {
    it.effect.prop(
      `${Throttle.describe(policy)}: so much starts at once, and no more`,
      { history: History },
      ({ history }) =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          yield* spend(throttle, history)
          const [{ limit, remaining }] = (yield* throttle.remaining) as [Throttle.Remaining]
          // A call is a start for spacing, whatever it costs.
          if (remaining < limit) assert.isFalse(yield* throttle.allow(remaining + 1))
          if (remaining > 0) assert.isTrue(yield* throttle.allow(remaining))
        }).pipe(Effect.scoped),
      { arbitrary: { runs: 60 } }
    )

    it.effect.prop(
      `${Throttle.describe(policy)}: all is left at the end of untilFull, and not a millisecond sooner`,
      { history: History },
      ({ history }) =>
        Effect.gen(function*() {
          const throttle = yield* Throttle.make(policy)
          yield* spend(throttle, history)
          const look = Effect.map(throttle.remaining, ([part]) => part!)
          const { untilFull, untilMore } = yield* look
          if (untilFull === undefined) return assert.fail("it is known")
          const isFull = Duration.toMillis(untilFull) === 0
          assert.strictEqual(untilMore === undefined, isFull)
          if (!isFull) {
            assert.isAtMost(Duration.toMillis(untilMore!), Duration.toMillis(untilFull))
            const millis = Duration.toMillis(untilFull)
            if (millis > 1) {
              yield* TestClock.adjust(Duration.millis(millis - 1))
              assert.isBelow((yield* look).remaining, (yield* look).limit)
              yield* TestClock.adjust(1)
            } else yield* TestClock.adjust(Duration.millis(millis))
          }
          const { limit, remaining, untilFull: left } = yield* look
          assert.strictEqual(remaining, limit)
          assert.strictEqual(millisOf(left), 0)
          assert.isTrue(yield* throttle.allow(limit))
        }).pipe(Effect.scoped),
      { arbitrary: { runs: 60 } }
    )
  }
})

describe("of a key", () => {
  const policy = Throttle.tokenBucket({ capacity: 10, refill: 1 })
  const both = Throttle.all([policy, Throttle.concurrency({ limit: 2 })])

  it.effect("is what its throttle has left, by the map and by its handle", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (key: string) => key === "held" ? both : policy })
      yield* map.allow("a", 4)
      const expected = [[6, 1_000, 4_000]]
      assert.deepStrictEqual(short(yield* map.remaining("a")), expected)
      assert.deepStrictEqual(short(yield* map.get("a").remaining), expected)
      assert.deepStrictEqual(short(yield* map.remaining("b")), [[10, undefined, 0]])
      yield* map.withPermit("held")(Effect.gen(function*() {
        assert.deepStrictEqual(short(yield* map.remaining("held")), [[9, 1_000, 1_000], [1, undefined, undefined]])
      }))
    }))

  it.effect("makes the map remember no key, and changes nothing of one", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => both, maxKeys: 1 })
      for (let i = 0; i < 100; i++) yield* map.remaining(`key ${i}`)
      const { keys, keysRefused } = yield* map.statistics
      assert.deepStrictEqual([keys, keysRefused], [0, 0])
      yield* map.withPermits("a", 2)(Effect.void)
      const before = short(yield* map.remaining("a"))
      for (let i = 0; i < 100; i++) assert.deepStrictEqual(short(yield* map.remaining("a")), before)
      assert.deepStrictEqual(short(yield* map.remaining("b")), [[10, undefined, 0], [2, undefined, 0]])
    }))

  it.effect("is nothing in its pause, while its calls wait, and once the map has closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const map = yield* Scope.provide(ThrottleMap.make({ lookup: (_key: string) => policy }), scope)
      yield* map.pause("a", "3 seconds")
      assert.deepStrictEqual(short(yield* map.remaining("a")), [[0, 3_000, 3_000]])
      yield* map.wait("b", 10)
      yield* fork(map.wait("b", 2))
      assert.deepStrictEqual(short(yield* map.remaining("b")), [[0, 3_000, 12_000]])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(short(yield* map.remaining("c")), [[0, undefined, undefined]])
    }))

  it.effect("is nothing while the map drains, idle keys and unknown ones included", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (key: string) => key === "held" ? both : policy })
      yield* fork(map.withPermit("held")(Effect.never))
      yield* map.allow("idle", 4)
      yield* fork(map.drain())
      const nothing = [0, undefined, undefined]
      assert.deepStrictEqual(short(yield* map.remaining("held")), [nothing, nothing])
      for (const key of ["idle", "unknown"]) {
        assert.deepStrictEqual(short(yield* map.remaining(key)), [nothing], key)
        assert.deepStrictEqual(short(yield* map.get(key).remaining), [nothing], key)
      }
    }))

  it.effect("is nothing while the key drains", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => both })
      const running = yield* fork(map.withPermit("a")(Effect.never))
      yield* fork(map.drainOf("a"))
      assert.deepStrictEqual(short(yield* map.remaining("a")), [[0, undefined, undefined], [0, undefined, undefined]])
      assert.deepStrictEqual(short(yield* map.remaining("b")), [[10, undefined, 0], [2, undefined, 0]])
      yield* Fiber.interrupt(running)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(short(yield* map.remaining("a")), [[9, 1_000, 1_000], [2, undefined, 0]])
    }))
})

it.effect("the function of the module and the static of a class ask the provided throttle", () =>
  Effect.gen(function*() {
    class Api extends Throttle.Service<Api>()("app/Api", Throttle.tokenBucket({ capacity: 5, refill: 1 })) {}
    class Users extends ThrottleMap.Service<Users>()("app/Users", {
      lookup: (_user: string) => Throttle.rate({ limit: 1 })
    }) {}
    const program = Effect.gen(function*() {
      yield* Api.allow(2)
      yield* Users.allow("ada")
      return [short(yield* Api.remaining), short(yield* Users.remaining("ada"))]
    })
    assert.deepStrictEqual(yield* program.pipe(Effect.provide(Api.layer), Effect.provide(Users.layer)), [
      [[3, 1_000, 2_000]],
      [[0, 1_000, 1_000]]
    ])
    const generic = Effect.andThen(Throttle.allow(), Effect.map(Throttle.remaining, short))
    assert.deepStrictEqual(yield* generic.pipe(Effect.provide(Throttle.rate({ limit: 10 }))), [[0, 100, 100]])
  }))
