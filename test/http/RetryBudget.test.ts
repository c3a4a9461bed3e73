/**
 * How many requests a client sends again while a server refuses, against servers in memory on a TestClock.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { TestClock } from "effect/testing"
import * as RetryBudget from "../../src/http/internal/retryBudget.ts"
import * as Memory from "./memory.ts"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Sends so many requests a second for so long, one key a request as `key` says; gives how many were sent in all. */
const send = (
  perSecond: number,
  seconds: number,
  options: HttpThrottle.ClientOptions,
  answer: (nth: number) => Memory.Answer = () => Memory.unavailable()
) =>
  Effect.gen(function*() {
    const server = Memory.make((_, nth) => answer(nth))
    const client = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false, ...options })(server.client)
    const fibers: Array<Fiber.Fiber<number, unknown>> = []
    for (let i = 0; i < perSecond * seconds; i++) {
      fibers.push(yield* fork(Effect.map(client.get("http://a.example/"), ({ status }) => status)))
      yield* TestClock.adjust(1_000 / perSecond)
    }
    yield* TestClock.adjust("1 minute")
    const statuses = yield* Fiber.joinAll(fibers)
    return { requests: perSecond * seconds, sent: server.seen.length, statuses, times: server.times() }
  })

describe("retries", () => {
  it.effect("add a tenth to the load of a key, beyond 10 a second", () =>
    Effect.gen(function*() {
      const { requests, sent, statuses } = yield* send(200, 20, {})
      const retries = sent - requests
      assert.isAtMost(retries, requests * 0.1 + 10 * 20 + 10 * 10)
      assert.isAtLeast(retries, requests * 0.1 + 10 * 20 - 50)
      assert.deepStrictEqual([...new Set(statuses)], [503])
    }), 30_000)

  it.effect("are what is given: ratio and min", () =>
    Effect.gen(function*() {
      const none = yield* send(50, 4, { retryBudget: { ratio: 0, min: 0 } })
      assert.strictEqual(none.sent, none.requests)
      const half = yield* send(50, 4, { retryBudget: { ratio: 0.5, min: 0 } })
      assert.isAtMost(half.sent - half.requests, half.requests / 2)
      assert.isAtLeast(half.sent - half.requests, half.requests / 2 - 5)
      const few = yield* send(50, 4, { retryBudget: { ratio: 0, min: 1 } })
      assert.isAtMost(few.sent - few.requests, 10 + 4)
      assert.isAtLeast(few.sent - few.requests, 10)
    }))

  it.effect("have no bound without a budget", () =>
    Effect.gen(function*() {
      const { requests, sent } = yield* send(100, 3, { retryBudget: false })
      assert.strictEqual(sent, 4 * requests)
    }))

  it.effect("of a client with little to send are all allowed", () =>
    Effect.gen(function*() {
      const { requests, sent } = yield* send(2, 10, {})
      assert.strictEqual(sent, 4 * requests)
    }))

  it.effect("are counted for each key", () =>
    Effect.gen(function*() {
      const server = Memory.make(() => Memory.unavailable())
      const client = HttpThrottle.client(Throttle.none, {
        jitter: 0,
        retryBudget: { ratio: 0, min: 0.1 }
      })(server.client)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (const host of ["a", "a", "b", "b"]) fibers.push(yield* fork(client.get(`http://${host}.example/`)))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.joinAll(fibers)
      const seen = server.seen.map(({ url }) => url.slice(7, 8)).join("")
      assert.strictEqual(seen, "aabbab")
    }))

  it.effect("beyond the budget are none: the answer is given as it came, at once, and holds back the others all the same", () =>
    Effect.gen(function*() {
      for (const adapt of [true, false]) {
        const server = Memory.make((_, nth) => nth === 0 ? Memory.tooMany(5) : Memory.ok)
        const client = HttpThrottle.client(Throttle.none, {
          jitter: 0,
          adapt,
          retryBudget: { ratio: 0.5, min: 0 }
        })(server.client)
        const start = yield* Effect.clockWith((clock) => clock.monotonicTimeNanos)
        const response = yield* client.get("http://a.example/0")
        assert.deepStrictEqual([response.status, yield* response.text], [429, "too many"])
        const second = yield* fork(client.get("http://a.example/1"))
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(second)
        assert.deepStrictEqual(server.times().map((at) => at - Number(start) / 1e6), [0, 5_000])
      }
    }))

  it.effect("of refusals that tell nothing new count for nothing", () =>
    Effect.gen(function*() {
      // 30 at once, of which the first is heard first; the others are repeated without a retry of the budget.
      const server = Memory.make((_, nth) => ({ ...(nth < 30 ? Memory.tooMany(1) : Memory.ok), takes: 10 }))
      const client = HttpThrottle.client(Throttle.none, { jitter: 0, retryBudget: { ratio: 0, min: 0.1 } })(
        server.client
      )
      const fibers: Array<Fiber.Fiber<number, unknown>> = []
      for (let i = 0; i < 30; i++) {
        fibers.push(yield* fork(Effect.map(client.get("http://a.example/"), ({ status }) => status)))
      }
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([...new Set(yield* Fiber.joinAll(fibers))], [200])
      assert.strictEqual(server.seen.length, 60)
    }))

  it.each<[unknown, string]>([
    [true, ": \"retryBudget\" must be false or an object of ratio and min, received true"],
    [null, ": \"retryBudget\" must be false or"],
    [{ ratio: -1 }, ", retryBudget: \"ratio\" must be a finite number ≥ 0, received -1"],
    [{ min: NaN }, ", retryBudget: \"min\" must be a finite number ≥ 0, received NaN"],
    [{ min: Infinity }, ", retryBudget: \"min\" must be"],
    [{ rate: 1 }, ", retryBudget: unknown option \"rate\""]
  ])("a budget that makes no sense throws: %j", (retryBudget: any, message) => {
    assert.throws(() => HttpThrottle.client(Throttle.none, { retryBudget }), RangeError)
    assert.throws(() => HttpThrottle.client(Throttle.none, { retryBudget }), `HttpThrottle.client${message}`)
  })
})

describe("the bucket", () => {
  const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
  const Step = Schema.Struct({ wait: int(0, 4_000), isRetry: Schema.Boolean })

  it.prop(
    "never allows more in 10 seconds than their requests and the reserve, and never refuses below that",
    [Schema.Array(Step).check(Schema.isMaxLength(200)), int(0, 3), int(0, 10)],
    ([steps, min, tenths]) => {
      const options = { ratio: tenths / 10, min: min / 10 }
      const budget = RetryBudget.make()
      const events: Array<{ readonly second: number; readonly amount: number }> = []
      let now = 0
      for (const { isRetry, wait } of steps) {
        now += wait * 1e6
        const second = Math.floor(now / 1e9)
        const balance = events.filter((event) => event.second > second - 10).reduce(
          (sum, { amount }) => sum + amount,
          0
        )
        if (isRetry) {
          const isAllowed = RetryBudget.withdraw(budget, options, now)
          assert.strictEqual(isAllowed, balance + options.min * 10 >= 1 - 1e-6)
          if (isAllowed) events.push({ second, amount: -1 })
        } else {
          RetryBudget.deposit(budget, options, now)
          events.push({ second, amount: options.ratio })
        }
      }
    },
    { arbitrary: { runs: 300 } }
  )
})
