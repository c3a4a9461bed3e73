/** A throttle behind effect's own CORS: preflights are free, and a page of another origin can read a refusal. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpMiddleware, HttpRouter, HttpServerResponse } from "effect/http"
import * as Browser from "../utils/browser.ts"
import { serve } from "../utils/serve.ts"
import { ask, type Asked, hello } from "../utils/web.ts"

const perMinute = Throttle.rate({ limit: 1, per: "1 minute" })

const cors = {
  allowedOrigins: ["https://app.example"],
  exposedHeaders: HttpThrottle.exposedHeaders
}

const origin = { origin: "https://app.example" }

const preflight: Asked = {
  method: "OPTIONS",
  headers: { ...origin, "access-control-request-method": "GET", "access-control-request-headers": "x-own" }
}

const inFront = HttpThrottle.middleware({ policy: perMinute }, { global: true })
const onRoute = hello.pipe(Layer.provide(HttpThrottle.middleware({ policy: perMinute }).layer))

/** The documented combinations. */
const apps: Readonly<Record<string, Layer.Layer<never, never, HttpRouter.HttpRouter>>> = {
  "HttpRouter.cors provided to a throttle in front of all routes": Layer.merge(
    hello,
    inFront.pipe(Layer.provideMerge(HttpRouter.cors(cors)))
  ),
  "HttpRouter.cors beside a throttle on a route": Layer.merge(onRoute, HttpRouter.cors(cors))
}

/** A preflight is answered and free, answers and refusals can be read. */
const behaves = (
  asked: (
    asked?: Asked
  ) => Effect.Effect<{ readonly status: number; readonly headers: Readonly<Record<string, string>> }>
) =>
  Effect.gen(function*() {
    for (let i = 0; i < 5; i++) {
      const { headers, status } = yield* asked(preflight)
      assert.strictEqual(status, 204)
      assert.strictEqual(headers["access-control-allow-origin"], "https://app.example")
      assert.isUndefined(headers["ratelimit"])
    }
    for (const status of [200, 429, 429]) {
      const answer = yield* asked({ headers: origin })
      assert.strictEqual(answer.status, status)
      assert.strictEqual(answer.headers["access-control-allow-origin"], "https://app.example")
      const exposed = answer.headers["access-control-expose-headers"]!.toLowerCase().split(",")
      for (const field of ["ratelimit", "ratelimit-policy", ...(status === 429 ? ["retry-after"] : [])]) {
        assert.isDefined(answer.headers[field], field)
        assert.include(exposed, field)
      }
    }
    assert.strictEqual((yield* asked(preflight)).status, 204)
  })

describe("preflights are free and refusals readable with", () => {
  for (const [name, app] of Object.entries(apps)) {
    it.effect(name, () => Effect.flatMap(ask(app), behaves))
  }

  it.live("HttpMiddleware.cors around the app", () =>
    Effect.gen(function*() {
      const { dispose, handler } = HttpRouter.toWebHandler(Layer.merge(hello, inFront), {
        disableLogger: true,
        middleware: HttpMiddleware.cors(cors)
      })
      yield* behaves(({ headers = {}, method = "GET" } = {}) =>
        Effect.promise(async () => {
          const response = await handler(new Request("http://localhost/", { method, headers }))
          return { status: response.status, headers: Object.fromEntries(response.headers) }
        })
      )
      yield* Effect.promise(dispose)
    }))

  it.effect.each(
    [
      ["a 503 of the global policy", { policy: Throttle.none, global: perMinute }, 503, "60"],
      [
        "a response of onRejected",
        {
          policy: perMinute,
          onRejected: () => HttpServerResponse.text("no", { status: 420 })
        },
        420,
        "60"
      ],
      ["the 500 of an onRejected that dies", { policy: perMinute, onRejected: () => Effect.die("broken") }, 500, "60"]
    ] as const
  )("%s can be read as well", ([, options, status, retryAfter]) =>
    Effect.gen(function*() {
      const inFront = HttpThrottle.middleware(options, { global: true })
      const request = yield* ask(Layer.merge(hello, inFront.pipe(Layer.provideMerge(HttpRouter.cors(cors)))))
      yield* request({ headers: origin })
      const answer = yield* request({ headers: origin })
      assert.strictEqual(answer.status, status)
      assert.strictEqual(answer.headers["access-control-allow-origin"], "https://app.example")
      assert.strictEqual(answer.headers["retry-after"], retryAfter)
    }))

  it.effect("every field that the middleware may send is exposed", () =>
    Effect.gen(function*() {
      const exposed = new Set(HttpThrottle.exposedHeaders.map((name) => name.toLowerCase()))
      for (const fields of ["draft-10", "draft-7", "draft-6"] as const) {
        const asked = yield* ask(
          Layer.merge(hello, HttpThrottle.middleware({ policy: perMinute, fields }, { global: true }))
        )
        for (let i = 0; i < 2; i++) {
          const { headers } = yield* asked()
          for (const name of Object.keys(headers)) {
            if (/^(ratelimit|retry-after|x-ratelimit)/.test(name)) assert.isTrue(exposed.has(name), name)
          }
        }
      }
    }))
})

describe.skipIf(Browser.isMissing)("in Chromium", () => {
  it.live("a page of another origin reads status, fields and problem of a refusal", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1, per: "1 hour", burst: 1 })
      const site = yield* serve(HttpRouter.add("GET", "/", HttpServerResponse.html("<title>a page</title>")))
      const api = yield* serve(
        Layer.merge(hello, HttpThrottle.middleware({ policy }, { global: true })).pipe(
          Layer.provideMerge(HttpRouter.cors({ ...cors, allowedOrigins: [`http://127.0.0.1:${site}`] }))
        )
      )
      const browser = yield* Effect.acquireRelease(
        Effect.promise(Browser.launch),
        (browser) => Effect.promise(() => browser.close())
      )
      const seen = yield* Effect.promise(async () => {
        const page = await browser.newPage()
        await page.goto(`http://127.0.0.1:${site}/`)
        return page.evaluate(async (url) => {
          const ask = async () => {
            // With a header of its own a request needs a preflight.
            const response = await fetch(url, { headers: { "x-own": "yes" }, cache: "no-store" })
            return {
              status: response.status,
              ratelimit: response.headers.get("ratelimit"),
              retryAfter: response.headers.get("retry-after"),
              text: await response.text()
            }
          }
          return [await ask(), await ask(), await ask()] as const
        }, `http://127.0.0.1:${api}/`)
      })
      assert.deepStrictEqual(seen.map(({ status }) => status), [200, 200, 429])
      assert.match(seen[0].ratelimit!, /^"default";r=1;t=\d+$/)
      assert.match(seen[2].ratelimit!, /^"default";r=0;t=\d+$/)
      assert.isAtLeast(Number(seen[2].retryAfter), 3_500)
      assert.strictEqual(JSON.parse(seen[2].text).title, "Too Many Requests")
    }).pipe(Effect.scoped), 60_000)
})
