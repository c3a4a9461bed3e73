/** What readers that nobody here wrote make of the fields, over the loopback interface. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { FetchHttpClient, HttpClient, HttpRouter, HttpServerResponse } from "effect/http"
import { RateLimiter } from "effect/persistence"
import { parseRateLimit } from "ratelimit-header-parser"
import { parseItem, parseList } from "structured-headers"
import { serve } from "../utils/serve.ts"

const hello = HttpRouter.add("GET", "/", HttpServerResponse.text("hello"))

const start = (options: HttpThrottle.Options) =>
  Effect.map(
    serve(Layer.merge(hello, HttpThrottle.middleware(options, { global: true }))),
    (port) => `http://127.0.0.1:${port}/`
  )

const live = (name: string, effect: () => Effect.Effect<void, unknown, any>) =>
  it.live(name, () => Effect.scoped(effect()) as Effect.Effect<void, unknown>, 20_000)

const get = (url: string) => Effect.promise(() => fetch(url))

describe("ratelimit-header-parser, which reads the earlier versions", () => {
  for (const fields of ["draft-6", "draft-7"] as const) {
    live(fields, () =>
      Effect.gen(function*() {
        const url = yield* start({ policy: Throttle.window({ limit: 5, per: "1 hour" }), fields })
        for (let used = 1; used <= 7; used++) {
          const before = Date.now()
          const response = yield* get(url)
          assert.strictEqual(response.status, used <= 5 ? 200 : 429)
          const { reset, ...rest } = parseRateLimit(response)!
          assert.deepStrictEqual(rest, { limit: 5, used: Math.min(5, used), remaining: Math.max(0, 5 - used) })
          assert.closeTo(reset!.getTime() - before, 3_600_000, 30_000)
        }
      }))
  }
})

describe("structured-headers, a parser of RFC 9651", () => {
  live("draft-10", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 5, refill: 1, per: "1 minute", name: "a \"quoted\" name" }),
        Throttle.window({ limit: 100, per: "1 hour" }),
        Throttle.concurrency({ limit: 3, name: "at once" })
      ])
      const url = yield* start({ policy })
      const { headers } = yield* get(url)
      const list = (name: string) =>
        parseList(headers.get(name)!).map(([item, parameters]) => [item, Object.fromEntries(parameters)])
      assert.deepStrictEqual(list("ratelimit-policy"), [
        ["a \"quoted\" name", { q: 5, w: 300 }],
        ["at most 100 in any hour", { q: 100, w: 3_600 }],
        ["at once", { q: 3, qu: "concurrent-requests" }]
      ])
      const [bucket, window, concurrency] = list("ratelimit") as Array<[string, Record<string, number>]>
      assert.deepStrictEqual([bucket![0], bucket![1]["r"]], ["a \"quoted\" name", 4])
      assert.closeTo(bucket![1]["t"]!, 60, 20)
      assert.deepStrictEqual([window![0], window![1]["r"]], ["at most 100 in any hour", 99])
      // The request itself holds one until its answer has been sent.
      assert.deepStrictEqual(concurrency, ["at once", { r: 2 }])
    }))

  live("Retry-After is an integer too, and not before t", () =>
    Effect.gen(function*() {
      const url = yield* start({ policy: Throttle.rate({ limit: 1, per: "2500 millis" }) })
      yield* get(url)
      const { headers } = yield* get(url)
      const [retryAfter] = parseItem(headers.get("retry-after")!)
      const [[, parameters]] = parseList(headers.get("ratelimit")!) as any
      assert.isTrue(Number.isInteger(retryAfter))
      assert.isAtLeast(retryAfter as number, parameters.get("t"))
    }))
})

describe("effect's own client", () => {
  live("tries again after Retry-After, and is let in", () =>
    Effect.gen(function*() {
      const url = yield* start({ policy: Throttle.rate({ limit: 1, per: "1 second" }) })
      const limited = (yield* HttpClient.HttpClient).pipe(HttpClient.retryTransient({ times: 3 }))
      const statuses = yield* Effect.forEach([1, 2, 3], () => Effect.map(limited.get(url), ({ status }) => status))
      assert.deepStrictEqual(statuses, [200, 200, 200])
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  live("with its rate limiter reads the fields of draft-6, and meets no limit twice", () =>
    Effect.gen(function*() {
      const url = yield* start({ policy: Throttle.window({ limit: 3, per: "2 seconds" }), fields: "draft-6" })
      const refused: Array<number> = []
      const client = (yield* HttpClient.HttpClient).pipe(
        HttpClient.tap(({ status }) => Effect.sync(() => status === 429 && refused.push(status))),
        HttpClient.withRateLimiter({
          limiter: yield* RateLimiter.RateLimiter,
          key: "server",
          limit: 100,
          window: "1 second"
        })
      )
      const statuses = yield* Effect.forEach(Array.from({ length: 8 }), () =>
        Effect.map(client.get(url), ({ status }) => status))
      assert.deepStrictEqual(
        statuses,
        Array.from({ length: 8 }, () =>
          200)
      )
      assert.isAtMost(refused.length, 2)
    }).pipe(
      Effect.provide([FetchHttpClient.layer, Layer.provide(RateLimiter.layer, RateLimiter.layerStoreMemory)])
    ))
})
