/**
 * Nothing holds a client up for longer than a server asked for: no answer that takes long, no field, no pause; and no request is
 * repeated for ever.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Metric, Stream } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, HttpClientError, type HttpClientRequest, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Memory from "../http/memory.ts"

const { ok, tooMany } = Memory
const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
const exact = { jitter: 0 }
const url = "http://a.example/"

const path = (request: HttpClientRequest.HttpClientRequest) => new URL(request.url).pathname

describe("an answer that takes minutes does not hold back other requests", () => {
  for (const adapt of [true, false]) {
    it.effect(`beyond the reset of a limit of which nothing is left, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        const empty = { "x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "2" }
        const server = Memory.make((request) =>
          path(request) === "/poll"
            ? { ...ok, takes: 300_000 }
            : path(request) === "/last"
            ? { ...ok, headers: empty }
            : ok
        )
        const client = HttpThrottle.client(Throttle.none, { ...exact, adapt })(server.client)
        yield* fork(client.get(`${url}poll`))
        yield* fork(client.get(`${url}last`))
        yield* fork(client.get(`${url}next`))
        yield* TestClock.adjust("10 minutes")
        const next = server.seen.find(({ url }) => url.endsWith("/next"))
        assert.isAtMost(next!.at, 2_000)
      }))

    it.effect(`beyond the reset, where it is that of a probe, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        const empty = { "x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60" }
        const server = Memory.make((request) =>
          path(request) === "/poll"
            ? { ...ok, takes: 3_600_000 }
            : path(request) === "/last"
            ? { ...ok, headers: empty }
            : ok
        )
        const client = HttpThrottle.client(Throttle.none, { ...exact, adapt })(server.client)
        yield* fork(client.get(`${url}last`))
        yield* fork(client.get(`${url}poll`))
        yield* fork(client.get(`${url}next`))
        yield* TestClock.adjust("2 hours")
        const next = server.seen.find(({ url }) => url.endsWith("/next"))
        assert.isAtMost(next!.at, 60_000)
      }))

    it.effect(`for longer than 8 s after a refusal without a time, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        let refusals = 0
        const server = Memory.make((request) =>
          path(request) === "/poll" ? { ...ok, takes: 300_000 } : refusals++ === 0 ? tooMany() : ok
        )
        const client = HttpThrottle.client(Throttle.none, { ...exact, adapt })(server.client)
        yield* fork(client.get(`${url}poll`))
        yield* fork(client.get(`${url}refused`))
        yield* fork(client.get(`${url}next`))
        yield* TestClock.adjust("10 minutes")
        const again = server.seen.filter(({ url }) => !url.endsWith("/poll")).at(-1)
        assert.isAtMost(again!.at, 8_000)
      }))
  }
})

describe("maxPause", () => {
  it.effect("is the longest wait, also for a bucket whose rate the fields state", () =>
    Effect.gen(function*() {
      const server = Memory.make([
        { ...ok, headers: { "ratelimit-policy": "\"d\";q=1;w=86400", ratelimit: "\"d\";r=0;t=86400" } },
        ok
      ])
      const client = HttpThrottle.client(Throttle.none, { ...exact, maxPause: "1 minute" })(server.client)
      yield* fork(client.get(url))
      yield* fork(client.get(url))
      yield* TestClock.adjust("2 days")
      assert.strictEqual(server.seen.length, 2)
      assert.isAtMost(server.times()[1]!, 60_000)
    }))

  it.effect("is the longest wait, also with adapt: false", () =>
    Effect.gen(function*() {
      const server = Memory.make([
        { ...ok, headers: { "ratelimit-policy": "\"d\";q=1;w=86400", ratelimit: "\"d\";r=0;t=86400" } },
        ok
      ])
      const client = HttpThrottle.client(Throttle.none, { ...exact, maxPause: "1 minute", adapt: false })(server.client)
      yield* fork(client.get(url))
      yield* fork(client.get(url))
      yield* TestClock.adjust("2 days")
      assert.isAtMost(server.times()[1]!, 60_000)
    }))
})

describe("retry bounds how often a request is turned away", () => {
  const attempts = (headersAt: (nth: number) => Record<string, string>, status = 429) =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({ status, headers: headersAt(nth) }))
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      const answer = yield* fork(client.get(url))
      yield* TestClock.adjust("10 minutes")
      return { sent: server.seen.length, isOver: answer.pollUnsafe() !== undefined }
    })

  it.effect("by a server that always states the same limit", () =>
    Effect.gen(function*() {
      const { isOver, sent } = yield* attempts(() => ({
        "x-ratelimit-limit": "100",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1"
      }))
      assert.isTrue(isOver)
      assert.isAtMost(sent, 5)
    }))

  it.effect("by a server whose stated limit changes from answer to answer", () =>
    Effect.gen(function*() {
      const { isOver, sent } = yield* attempts((nth) => ({
        "x-ratelimit-limit": `${100 + nth}`,
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1"
      }))
      assert.deepStrictEqual([isOver, sent <= 5], [true, true], `${sent} sent, over: ${isOver}`)
    }))

  it.effect("by a server with two limits of which now the one and now the other ends last", () =>
    Effect.gen(function*() {
      const { isOver, sent } = yield* attempts((nth) => ({
        "ratelimit-policy": "\"burst\";q=10;w=10, \"steady\";q=60;w=60",
        ratelimit: `"burst";r=0;t=${nth % 2 === 0 ? 5 : 1}, "steady";r=0;t=3`
      }))
      assert.deepStrictEqual([isOver, sent <= 5], [true, true], `${sent} sent, over: ${isOver}`)
    }))
})

describe("the bounds of the policy", () => {
  it.effect("a request that was let wait is not rejected later for want of room in the queue", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => nth < 3 ? { ...tooMany(), takes: 10 } : { ...ok, takes: 10 })
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 3, maxQueue: 2 }), exact)(server.client)
      const results: Array<string> = []
      for (let i = 1; i <= 5; i++) {
        yield* fork(
          client.get(`${url}${i}`).pipe(
            Effect.match({
              onFailure: (error) =>
                void results.push(`${i}: ${error._tag === "ThrottleError" ? error.reason._tag : error._tag}`),
              onSuccess: ({ status }) => void results.push(`${i}: ${status}`)
            })
          )
        )
      }
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(results.filter((result) => result.includes("QueueFull")), [])
    }))

  it.effect("a request that may start exactly when its timeout ends starts", () =>
    Effect.gen(function*() {
      for (const adapt of [false, true]) {
        const server = Memory.make([{ ...ok, headers: { "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1" } }, ok])
        const client = HttpThrottle.client(Throttle.concurrency({ limit: 3, timeout: "1 second" }), {
          ...exact,
          adapt
        })(server.client)
        yield* fork(client.get(url))
        const second = yield* fork(Effect.exit(client.get(url)))
        yield* TestClock.adjust("1 minute")
        const exit = yield* Fiber.join(second)
        assert.strictEqual(exit._tag, "Success", `adapt: ${adapt}`)
      }
    }))
})

describe("what is remembered", () => {
  it.effect("is kept of a key until a minute after its last request, whatever other keys do", () =>
    Effect.gen(function*() {
      const server = Memory.make((request) => path(request) === "/hang" ? { ...ok, takes: 3_600_000 } : ok)
      const polite = HttpThrottle.client(Throttle.none, exact)
      const client = polite(server.client)
      for (let i = 0; i < 16; i++) yield* fork(client.get(`http://hang${i}.example/hang`))
      yield* fork(client.get(url))
      yield* TestClock.adjust("10 minutes")
      for (let i = 0; i < 20; i++) yield* fork(client.get("http://other.example/"))
      assert.isFalse((yield* polite.statistics).has("http://a.example"))
    }))

  it.effect("has no more than 1,000 series of the learned rate", () =>
    Effect.gen(function*() {
      const registry = new Map<string, any>()
      const server = Memory.make(() => ({ ...ok, headers: { "x-shopify-shop-api-call-limit": "4/4" } }))
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      yield* Effect.forEach(Array.from({ length: 3_000 }, (_, i) => i), (i) =>
        Effect.andThen(
          client.get(`http://h${i}.example/`),
          i % 100 === 99 ? TestClock.adjust("2 minutes") : Effect.void
        )).pipe(Effect.provideService(Metric.MetricRegistry, registry))
      const rates = [...registry.values()].filter(({ id }) => id === "throttle_learned_rate")
      assert.strictEqual(rates.length, 1_000)
    }))
})

describe("fields that contradict each other", () => {
  it.effect("a count that goes up and down at random stops nobody for longer than the longest reset", () =>
    Effect.gen(function*() {
      let seed = 1
      const next = () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 4_294_967_296
      const server = Memory.make(() => ({
        ...ok,
        takes: 20,
        headers: {
          "x-ratelimit-limit": "50",
          "x-ratelimit-remaining": `${Math.floor(next() * 50)}`,
          "x-ratelimit-reset": `${Math.floor(next() * 10)}`
        }
      }))
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 10 }), exact)(server.client)
      const fiber = yield* fork(
        Effect.forEach(Array.from({ length: 300 }), () => client.get(url), { concurrency: "unbounded", discard: true })
      )
      yield* TestClock.adjust("30 minutes")
      assert.isDefined(fiber.pollUnsafe())
      const gaps = server.times().slice(1).map((at, i) => at - server.times()[i]!)
      assert.isAtMost(Math.max(...gaps), 10_000)
    }))

  it.effect("a count of 0 on every answer that is accepted: the limit is none", () =>
    Effect.gen(function*() {
      for (const adapt of [true, false]) {
        const server = Memory.make(() => ({
          ...ok,
          takes: 20,
          headers: { "x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60" }
        }))
        const client = HttpThrottle.client(Throttle.concurrency({ limit: 10 }), { ...exact, adapt })(server.client)
        const fiber = yield* fork(
          Effect.forEach(Array.from({ length: 60 }), () => client.get(url), { concurrency: "unbounded", discard: true })
        )
        yield* TestClock.adjust("65 minutes")
        assert.isDefined(fiber.pollUnsafe(), `adapt: ${adapt}, ${server.times().length}`)
      }
    }))

  it.effect("a limit of 0 in a window of 0 stops nobody", () =>
    Effect.gen(function*() {
      const server = Memory.make(() => ({
        ...ok,
        takes: 20,
        headers: { "ratelimit-policy": "\"a\";q=0;w=0", ratelimit: "\"a\";r=0;t=0" }
      }))
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 10 }), exact)(server.client)
      const fiber = yield* fork(
        Effect.forEach(Array.from({ length: 100 }), () => client.get(url), { concurrency: "unbounded", discard: true })
      )
      yield* TestClock.adjust("1 minute")
      assert.isDefined(fiber.pollUnsafe(), `${server.times().length}`)
    }))
})

const random = (seed: number) => () => {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
  return seed / 4_294_967_296
}

const seeds = 20

const run = (seed: number) =>
  Effect.gen(function*() {
    const next = random(seed * 7919 + 1)
    const pick = <A>(...all: ReadonlyArray<A>): A => all[Math.floor(next() * all.length)]!
    const hostileFor = pick(5_000, 30_000, 120_000)
    const sentOf = new Map<string, number>()
    const headersOf = (): Record<string, string> => {
      const n = () => pick("0", "1", "3", "10", "100", "-1", "0, 5", "1e3", "NaN", "999999999999999")
      const t = () => pick("0", "1", "2", "20", "0.5", "6m0s", "3600", "garbage", "1, 30", "1700000000")
      return {
        ...(next() < 0.3 ? { "retry-after": t() } : {}),
        ...(next() < 0.1 ? { "retry-after-ms": pick("0", "15", "700", "x") } : {}),
        ...(next() < 0.3 ? { "x-ratelimit-remaining": n() } : {}),
        ...(next() < 0.3 ? { "x-ratelimit-limit": n() } : {}),
        ...(next() < 0.3 ? { "x-ratelimit-reset": t() } : {}),
        ...(next() < 0.2
          ? {
            ratelimit: pick(
              `"a";r=0;t=1`,
              `"a";r=3;t=1, "b";r=0;t=7`,
              `"b";r=1`,
              `limit=3, remaining=0, reset=4`,
              `"a";r=0;t=100000`
            ),
            "ratelimit-policy": pick(`"a";q=10;w=1, "b";q=1;w=60`, `"a";q=1;w=1`, `3;w=10`, `"a";q=0;w=0`)
          }
          : {}),
        ...(next() < 0.1 ? { "x-shopify-shop-api-call-limit": pick("40/40", "39/40", "0/0", "41/40") } : {}),
        ...(next() < 0.05 ? { age: "30" } : {}),
        ...(next() < 0.05 ? { "x-should-retry": pick("true", "false") } : {})
      }
    }
    const server = HttpClient.make((request) =>
      Effect.gen(function*() {
        const start = Number(yield* Clock.monotonicTimeNanos) / 1e6
        sentOf.set(request.url, (sentOf.get(request.url) ?? 0) + 1)
        const isHostile = start < hostileFor
        const takes = isHostile ? pick(0, 1, 10, 50, 500, 5_000) : 20
        if (takes > 0) yield* Effect.sleep(takes)
        if (!isHostile) return HttpClientResponse.fromWeb(request, new Response("fine"))
        if (next() < 0.15) {
          return yield* Effect.fail(
            new HttpClientError.HttpClientError({
              reason: new HttpClientError.TransportError({ request, description: "cut" })
            })
          )
        }
        const status = pick(200, 200, 200, 204, 304, 302, 400, 403, 404, 429, 429, 429, 503, 529, 500)
        const response = HttpClientResponse.fromWeb(
          request,
          new Response(null, { status: status === 302 ? 307 : status, headers: headersOf() })
        )
        const body = pick<Stream.Stream<Uint8Array, any>>(
          Stream.succeed(new Uint8Array(10)),
          Stream.never,
          Stream.fail("broken"),
          Stream.empty,
          Stream.fromEffect(Effect.delay(Effect.succeed(new Uint8Array(300_000)), 400)),
          Stream.succeed(new TextEncoder().encode(`{"message":"You have exceeded a secondary rate limit"}`))
        )
        return Object.defineProperty(response, "stream", { value: body, configurable: true })
      })
    )
    const policy = pick<Throttle.Policy<any>>(
      Throttle.none,
      Throttle.concurrency({ limit: pick(1, 2, 5) }),
      Throttle.rate({ limit: 10, burst: 3 }),
      Throttle.all([Throttle.rate({ limit: 20 }), Throttle.concurrency({ limit: 3 })], { maxQueue: 10 }),
      Throttle.all([Throttle.rate({ limit: 20 }), Throttle.concurrency({ limit: 3 })], { timeout: "20 seconds" }),
      Throttle.all([Throttle.rate({ limit: 20 })], { maxWait: "5 seconds" }),
      Throttle.spacing({ interval: "100 millis", from: "end" })
    )
    const throttle = yield* Throttle.make(policy)
    const byInstance = next() < 0.5
    const make = next() < 0.3 ? HttpThrottle.clientScoped : HttpThrottle.client
    const polite = (make as typeof HttpThrottle.client)(byInstance ? throttle : policy, {
      jitter: pick(0, 0.1),
      retry: pick(0, 1, 3),
      adapt: next() < 0.85,
      maxPause: pick("10 seconds", "1 minute", "1 hour"),
      retryBudget: pick<false | { ratio: number; min: number }>(
        false,
        { ratio: 0.1, min: 10 },
        { ratio: 0.1, min: 0.2 }
      )
    })
    const client = polite(server)
    const fibers: Array<Fiber.Fiber<any, any>> = []
    for (let i = 0; i < 40; i++) {
      const fiber = yield* Effect.forkChild(
        Effect.delay(
          Effect.exit(Effect.scoped(client.get(`http://a.example/${i}`) as Effect.Effect<unknown>)),
          Math.floor(next() * hostileFor)
        )
      )
      fibers.push(fiber)
      if (next() < 0.25) {
        yield* Effect.forkChild(Effect.delay(Fiber.interrupt(fiber), Math.floor(next() * hostileFor * 1.2)))
      }
    }
    for (let step = 0; step < 200; step++) {
      yield* TestClock.adjust(hostileFor / 200 + 1)
      if (next() > 0.1 || !byInstance) continue
      yield* pick<Effect.Effect<void>>(
        throttle.pause(pick("1 second", "10 seconds")),
        throttle.resume,
        throttle.update(
          pick<Throttle.Policy<never>>(Throttle.none, Throttle.concurrency({ limit: 2 }), Throttle.rate({ limit: 10 }))
        ),
        throttle.update(Throttle.shadow(Throttle.rate({ limit: 10 })))
      )
    }
    // Any pause that was asked for is over, and all that is left has had time.
    for (let step = 0; step < 240; step++) yield* TestClock.adjust("1 minute")
    const stuck = fibers.filter((fiber) => fiber.pollUnsafe() === undefined).length
    const found = (yield* polite.statistics).get("http://a.example")
    const most = Math.max(0, ...sentOf.values())
    const { running, waiting } = yield* throttle.statistics
    return {
      seed,
      stuck: stuck + running + waiting,
      waiting: found?.waiting,
      running: found?.running,
      rate: found?.rate,
      limit: found?.limit,
      left: found?.remaining,
      most
    }
  })

describe("after a server has answered at random for a while", () => {
  it.effect("every request is answered, and none more often than its retries allow", () =>
    Effect.gen(function*() {
      const bad: Array<object> = []
      for (let seed = 0; seed < seeds; seed++) {
        const result = yield* Effect.scoped(run(seed)).pipe(Effect.provide(TestClock.layer()))
        if (result.stuck > 0 || (result.waiting ?? 0) > 0 || (result.running ?? 0) > 0 || result.most > 12) {
          bad.push(result)
        }
      }
      assert.deepStrictEqual(bad, [])
    }), 60_000)
})
