/**
 * Which answers are refusals, how long they hold back whom, and what is repeated: the client against a server in memory, to
 * the millisecond.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClientRequest } from "effect/http"
import { TestClock } from "effect/testing"
import * as Memory from "./memory.ts"

const { ok } = Memory

/** Exact times, and as the answers alone say. */
const exact = { jitter: 0, adapt: false }

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Lets promises settle, such as those of bodies, and with them the fibers that wait for them. */
const settle = Effect.repeat(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), { times: 4 })

/** Sends "first", and "second" as soon as the first was answered; gives what the server saw, and the statuses. */
const pair = (
  answer: Memory.Answer,
  options: HttpThrottle.ClientOptions = {},
  request = HttpClientRequest.get("http://a.example/first")
) =>
  Effect.gen(function*() {
    const server = Memory.make((_, nth) => nth === 0 ? answer : ok)
    const client = HttpThrottle.client(Throttle.none, { ...exact, ...options })(server.client)
    const start = yield* Effect.clockWith((clock) => clock.monotonicTimeNanos)
    const first = yield* fork(client.execute(request))
    yield* TestClock.adjust(0)
    yield* settle
    const second = yield* fork(client.get("http://a.example/second"))
    for (let i = 0; i < 140; i++) {
      yield* TestClock.adjust(i < 100 ? 100 : "1 minute")
      yield* settle
    }
    const statuses = [(yield* Fiber.join(first)).status, (yield* Fiber.join(second)).status]
    const seen = server.seen.map(({ at, url }) => [url.split("/").at(-1), at - Number(start) / 1e6] as const)
    return { statuses, seen }
  })

const epoch = (millis: number) => `${millis / 1_000}`

const wall = Date.parse("2026-11-26T10:00:00Z")

describe("a 403 with nothing left, or with Retry-After, is a refusal whatever time it names", () => {
  const table: Record<string, Record<string, string>> = {
    "a reset that is now": { "x-ratelimit-remaining": "0", "x-ratelimit-reset": epoch(wall) },
    "a reset that was a second ago": { "x-ratelimit-remaining": "0", "x-ratelimit-reset": epoch(wall - 1_000) },
    "a reset in 0 s": { "ratelimit-remaining": "0", "ratelimit-reset": "0" },
    "Retry-After: 0": { "retry-after": "0" },
    "Retry-After-Ms: 0": { "retry-after-ms": "0" },
    "Retry-After with a date that is now": { "retry-after": "Thu, 26 Nov 2026 10:00:00 GMT" }
  }
  it.effect.each(Object.entries(table))(
    "%s: repeated like a 429 without a time",
    ([, headers]) =>
      Effect.gen(function*() {
        for (const status of [429, 403]) {
          yield* TestClock.setTime(wall)
          const { seen, statuses } = yield* pair({ status, headers })
          assert.deepStrictEqual(statuses, [200, 200])
          assert.deepStrictEqual(seen, [["first", 0], ["first", 1_000], ["second", 1_000]], `${status}`)
        }
      })
  )
})

describe("a field with several values, as several hops leave it, counts by the most restrictive of them", () => {
  const wait = (headers: Record<string, string>) =>
    Effect.map(pair({ status: 429, headers }), ({ seen }) => seen.at(1)![1])
  it.effect.each<[Record<string, string>, number]>([
    [{ "retry-after": "5, 30" }, 30_000],
    [{ "retry-after": "30,5" }, 30_000],
    [{ "retry-after": "soon, 7" }, 7_000],
    [{ "retry-after": "5, Thu, 26 Nov 2026 10:00:20 GMT" }, 20_000],
    [{ "retry-after": "Thu, 26 Nov 2026 10:00:20 GMT, Thu, 26 Nov 2026 10:00:08 GMT" }, 20_000],
    [{ "retry-after-ms": "5, 300" }, 300],
    [{ "x-ratelimit-remaining": "99, 0", "x-ratelimit-reset": "1800, 12" }, 12_000],
    [{ "x-ratelimit-remaining": "0, 99", "x-ratelimit-reset": "12, 1800" }, 12_000],
    [{ "x-ratelimit-remaining": "0, 0", "x-ratelimit-reset": "1800, 12" }, 1_800_000],
    [{ "x-ratelimit-remaining": "99, 0", "x-ratelimit-reset": "12" }, 12_000],
    [{ "anthropic-ratelimit-a-remaining": "3, 0", "anthropic-ratelimit-a-reset": "60, 9" }, 9_000],
    [{ "ratelimit": "limit=100, remaining=0, reset=12, limit=1000, remaining=99, reset=1800" }, 12_000],
    [{ "ratelimit": "limit=1000, remaining=99, reset=1800, limit=100, remaining=0, reset=12" }, 12_000],
    [{ "x-shopify-shop-api-call-limit": "40/40, 1/40" }, 500]
  ])("%j", ([headers, expected]) =>
    Effect.gen(function*() {
      yield* TestClock.setTime(wall)
      assert.strictEqual(yield* wait(headers), expected)
    }))
})

describe("a reset that makes no sense says nothing, whatever its unit", () => {
  const used = { "x-ratelimit-remaining": "0" }
  it.effect.each<[string, string, number]>([
    ["seconds since 1970", `${wall / 1_000 + 7}`, 7_000],
    ["milliseconds since 1970", `${wall + 7_000}`, 7_000],
    ["microseconds since 1970", `${wall + 7_000}000`, 7_000],
    ["nanoseconds since 1970", `${wall + 7_000}000000`, 7_000],
    ["seconds since 1970, in four years", `${wall / 1_000 + 4 * 365 * 86_400}`, 1_000],
    ["more than a year", "40000000", 1_000],
    ["a span of more than a year", "9999h", 1_000],
    ["a date in the next century", "Fri, 26 Nov 2100 10:00:00 GMT", 1_000],
    ["picoseconds since 1970", `${wall}000000000`, 1_000]
  ])("%s", ([, value, expected]) =>
    Effect.gen(function*() {
      yield* TestClock.setTime(wall)
      const { seen } = yield* pair({ status: 429, headers: { ...used, "x-ratelimit-reset": value } })
      assert.isBelow(Math.abs(seen[1]![1] - expected), 1, `${seen[1]![1]}`)
    }))
})

describe("a time that is beyond all numbers is a long time", () => {
  it.effect("with jitter or without", () =>
    Effect.gen(function*() {
      for (const jitter of [0, 1]) {
        for (const digits of [300, 400, 4_000]) {
          const { seen } = yield* pair({ status: 429, headers: { "retry-after": "9".repeat(digits) } }, {
            jitter,
            maxPause: "20 seconds"
          })
          assert.deepStrictEqual(seen, [["first", 0], ["first", 20_000], ["second", 20_000]])
        }
      }
    }))

  it.effect("also where a parser of the program's own says so", () =>
    Effect.gen(function*() {
      const { seen } = yield* pair({ status: 429 }, {
        maxPause: "20 seconds",
        parsers: [() => [{ from: "mine", retryAfter: Infinity }]]
      })
      assert.deepStrictEqual(seen, [["first", 0], ["first", 20_000], ["second", 20_000]])
    }))
})

describe("a refusal is known by its status", () => {
  const post = HttpClientRequest.post("http://a.example/first")
  const json = { body: "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}" }

  it.effect.each<[status: number, headers: Record<string, string>, first: number, second: number]>([
    [429, {}, 1_000, 1_000],
    [429, { "retry-after": "7" }, 7_000, 7_000],
    [420, {}, 1_000, 1_000],
    [420, { "retry-after": "7" }, 7_000, 7_000],
    [509, {}, 1_000, 1_000],
    [529, {}, 1_000, 0],
    [529, { "retry-after": "7" }, 7_000, 7_000],
    [529, { "x-should-retry": "true" }, 1_000, 0]
  ])(
    "%d with %j: a POST is repeated at %d ms, others wait until %d ms",
    ([status, headers, first, second]) =>
      Effect.gen(function*() {
        const { seen, statuses } = yield* pair({ status, headers, ...json }, {}, post)
        assert.deepStrictEqual(statuses, [200, 200])
        assert.sameDeepMembers(seen.slice(1), [["first", first], ["second", second]])
      })
  )

  it.effect("503: alone, and only what does no harm twice", () =>
    Effect.gen(function*() {
      const { seen } = yield* pair({ status: 503 })
      assert.deepStrictEqual(seen, [["first", 0], ["second", 0], ["first", 1_000]])
      assert.deepStrictEqual((yield* pair({ status: 503 }, {}, post)).statuses, [503, 200])
    }))

  it.effect("or by those that the program names", () =>
    Effect.gen(function*() {
      const statuses = { ...HttpThrottle.statuses, 502: "unavailable", 430: "limit", 599: "overload" } as const
      assert.deepStrictEqual((yield* pair({ status: 502 }, { statuses })).seen, [
        ["first", 0],
        ["second", 0],
        ["first", 1_000]
      ])
      assert.deepStrictEqual((yield* pair({ status: 502 }, { statuses }, post)).statuses, [502, 200])
      assert.deepStrictEqual((yield* pair({ status: 430 }, { statuses }, post)).seen.slice(1), [
        ["first", 1_000],
        ["second", 1_000]
      ])
      assert.deepStrictEqual((yield* pair({ status: 599 }, { statuses }, post)).statuses, [200, 200])
      // Instead of the default.
      const none = yield* pair({ status: 429, headers: { "retry-after": "9" } }, { statuses: {} })
      assert.deepStrictEqual([none.statuses, none.seen], [[429, 200], [["first", 0], ["second", 0]]])
    }))

  it.each<any>([null, [["429"]], 429, { 429: "no" }, { 200: "limit" }, { x: "limit" }, { 4290: "limit" }])(
    "statuses that make no sense throw: %j",
    (statuses) =>
      assert.throws(
        () => HttpThrottle.client(Throttle.none, { statuses }),
        RangeError,
        "HttpThrottle.client: \"statuses\" must be an object from statuses from 400 to 599 to \"limit\", \"overload\" or \"unavailable\""
      )
  )

  it.effect("an error that asks to be repeated is one, whatever its status", () =>
    Effect.gen(function*() {
      // What a parser says of AWS, who answers 400 where it means 429.
      const aws: HttpThrottle.Parser = (headers) =>
        headers["x-amzn-errortype"] === "ThrottlingException" ? [{ from: "x-amzn-errortype", retry: true }] : []
      const parsers = [HttpThrottle.retryAfter, aws]
      const throttled = { status: 400, headers: { "x-amzn-errortype": "ThrottlingException" } }
      assert.deepStrictEqual((yield* pair(throttled, { parsers }, post)).seen, [
        ["first", 0],
        ["second", 0],
        ["first", 1_000]
      ])
      // With a time it is everybody's.
      const timed = { ...throttled, headers: { ...throttled.headers, "retry-after": "3" } }
      assert.deepStrictEqual((yield* pair(timed, { parsers }, post)).seen.slice(1), [["first", 3_000], [
        "second",
        3_000
      ]])
      assert.deepStrictEqual((yield* pair({ status: 500, headers: { "x-should-retry": "true" } })).statuses, [200, 200])
      assert.deepStrictEqual((yield* pair({ status: 200, headers: { "x-should-retry": "true" } })).seen.length, 2)
      assert.deepStrictEqual((yield* pair({ status: 400 }, { parsers }, post)).statuses, [400, 200])
      // Or refused, which is everybody's in any case.
      const refused: HttpThrottle.Parser = (_, __, answer) => [{ from: "status", refused: answer!.status === 418 }]
      assert.deepStrictEqual((yield* pair({ status: 418 }, { parsers: [refused] }, post)).seen.slice(1), [
        ["first", 1_000],
        ["second", 1_000]
      ])
    }))
})

describe("a 429 that names no time, with something left of each limit", () => {
  const requests = { "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999" }
  it.effect("waits for the tokens, of which it needed more: one repetition", () =>
    Effect.gen(function*() {
      const headers = {
        ...requests,
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "150",
        "x-ratelimit-reset-tokens": "6.5s"
      }
      const { seen, statuses } = yield* pair({ status: 429, headers })
      assert.deepStrictEqual(statuses, [200, 200])
      assert.deepStrictEqual(seen, [["first", 0], ["first", 6_500], ["second", 6_500]])
    }))

  it.effect("of several kinds of tokens for that of which least is left", () =>
    Effect.gen(function*() {
      const headers = {
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-input-tokens-reset": "60",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "300",
        "anthropic-ratelimit-output-tokens-reset": "20"
      }
      const { seen } = yield* pair({ status: 429, headers })
      assert.deepStrictEqual(seen.slice(1), [["first", 20_000], ["second", 20_000]])
    }))

  it.effect("waits for no limit that counts requests (GitHub)", () =>
    Effect.gen(function*() {
      for (const name of ["", "-requests"]) {
        const headers = { [`x-ratelimit-remaining${name}`]: "4987", [`x-ratelimit-reset${name}`]: "3000" }
        const { seen } = yield* pair({ status: 429, headers })
        assert.deepStrictEqual(seen.slice(1), [["first", 1_000], ["second", 1_000]])
      }
    }))

  it.effect("nor for a bucket that is full again at once", () =>
    Effect.gen(function*() {
      const headers = { ...requests, "x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6ms" }
      const { seen } = yield* pair({ status: 429, headers })
      assert.deepStrictEqual(seen.slice(1), [["first", 1_000], ["second", 1_000]])
    }))
})

describe("an answer that a cache gives without saying so", () => {
  const http = (millis: number) => new Date(millis).toUTCString()
  /** What was true half an hour before the reset, and that was an hour ago. */
  const old = (now: number) => ({
    status: 200,
    headers: {
      date: http(now - 3_600_000),
      "x-ratelimit-remaining": "0",
      "x-ratelimit-reset": epoch(now - 1_800_000)
    }
  })

  it.effect("holds nobody back for a limit that is over, whether it comes first or after others", () =>
    Effect.gen(function*() {
      for (const others of [0, 1, 3]) {
        yield* TestClock.setTime(wall)
        const server = Memory.make((_, nth) =>
          nth === others ? old(wall) : { status: 200, headers: { date: http(wall) } }
        )
        const client = HttpThrottle.client(Throttle.none, exact)(server.client)
        const fiber = yield* fork(Effect.forEach([1, 2, 3, 4, 5, 6], (i) => client.get(`http://a.example/${i}`)))
        yield* TestClock.adjust(1_000)
        assert.strictEqual(server.seen.length, 6)
        yield* Fiber.join(fiber)
      }
    }))

  it.effect("says nothing in any other way either, once the server's clock is known", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(wall)
      const relative = {
        status: 200,
        headers: { date: http(wall - 3_600_000), "ratelimit": "\"a\";r=0;t=1800" }
      }
      const server = Memory.make((_, nth) => nth === 1 ? relative : { status: 200, headers: { date: http(wall) } })
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      const fiber = yield* fork(Effect.forEach([1, 2, 3], (i) => client.get(`http://a.example/${i}`)))
      yield* TestClock.adjust(1_000)
      assert.strictEqual(server.seen.length, 3)
      yield* Fiber.join(fiber)
    }))
})

describe("a server whose clock is wrong", () => {
  const http = (millis: number) => new Date(Math.floor(millis / 1_000) * 1_000).toUTCString()

  it.effect.each([-12, -1, 1, 12])(
    "by %d hours is heard: refusals from the first on",
    (hours) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(wall)
        const its = wall + hours * 3_600_000
        for (
          const headers of [
            { "retry-after": http(its + 20_000) },
            { "x-ratelimit-remaining": "0", "x-ratelimit-reset": epoch(its + 20_000) },
            { "x-ratelimit-remaining": "0", "x-ratelimit-reset": "20" }
          ]
        ) {
          const { seen } = yield* pair({ status: 429, headers: { date: http(its), ...headers } })
          assert.deepStrictEqual(seen.slice(1), [["first", 20_000], ["second", 20_000]])
          yield* TestClock.setTime(wall)
        }
      })
  )

  it.effect.each([-12, -1, 1, 12])(
    "by %d hours is heard: other answers once its clock is seen to go",
    (hours) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(wall)
        const start = yield* Effect.clockWith((clock) => clock.monotonicTimeNanos)
        const at = Effect.clockWith((clock) =>
          Effect.map(clock.monotonicTimeNanos, (nanos) => Number(nanos - start) / 1e6)
        )
        const sent: Array<number> = []
        const client = HttpThrottle.client(Throttle.spacing({ interval: "1 second" }), exact)(
          Memory.clocked((millis) => {
            sent.push(millis)
            const its = wall + hours * 3_600_000 + millis
            // The third answer is the last of its window, which ends 20 s later.
            return {
              status: 200,
              headers: {
                date: http(its),
                "x-ratelimit-remaining": `${2 - (sent.length - 1) % 3}`,
                "x-ratelimit-reset": epoch(its + 20_000)
              }
            }
          }, at)
        )
        const fiber = yield* fork(
          Effect.forEach([1, 2, 3, 4], (i) => client.get(`http://a.example/${i}`), { discard: true })
        )
        yield* TestClock.adjust("2 minutes")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(sent.map(Math.round), [0, 1_000, 2_000, 22_000])
      })
  )
})
