/** A throttled HttpApi, served and asked over the loopback interface by the client that its declaration gives. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSecurity,
  OpenApi
} from "effect/http-api"
import { serve } from "../utils/serve.ts"

class CurrentUser extends Context.Service<CurrentUser, { readonly id: string }>()("test/CurrentUser") {}

class Authorization
  extends HttpApiMiddleware.Service<Authorization, { provides: CurrentUser }>()("test/Authorization", {
    security: { bearer: HttpApiSecurity.bearer }
  })
{}

class PerClient extends HttpApiMiddleware.Service<PerClient>()("test/PerClient", { error: HttpThrottle.errors }) {}

class PerUser extends HttpApiMiddleware.Service<PerUser, { requires: CurrentUser }>()("test/PerUser", {
  error: HttpThrottle.errors
}) {}

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("open")
    .add(
      HttpApiEndpoint.get("hello", "/hello", { success: Schema.String }),
      HttpApiEndpoint.get("broken", "/broken", { success: Schema.String }),
      HttpApiEndpoint.get("slow", "/slow", { success: Schema.String })
    )
    .middleware(PerClient),
  HttpApiGroup.make("own")
    .add(HttpApiEndpoint.get("me", "/me", { success: Schema.String }))
    .middleware(PerUser)
    .middleware(Authorization)
)

const Handlers = Layer.mergeAll(
  HttpApiBuilder.group(
    Api,
    "open",
    (handlers) =>
      handlers
        .handle("hello", () => Effect.succeed("hello"))
        .handle("broken", () => Effect.die("broken"))
        .handle("slow", () => Effect.as(Effect.sleep("1 minute"), "slow"))
  ),
  HttpApiBuilder.group(Api, "own", (handlers) => handlers.handle("me", () => Effect.map(CurrentUser, ({ id }) => id)))
)

const AuthorizationLive = Layer.succeed(Authorization, {
  bearer: (handler, { credential }) => Effect.provideService(handler, CurrentUser, { id: Redacted.value(credential) })
})

const perMinute = Throttle.rate({ limit: 1, per: "1 minute", burst: 1 })

/** The api, served, and a client of it that authenticates as somebody. */
const start = (options: Partial<HttpThrottle.PolicyOptions> | HttpThrottle.ThrottlesOptions = {}) =>
  Effect.gen(function*() {
    const port = yield* serve(
      HttpApiBuilder.layer(Api).pipe(
        Layer.provide(Handlers),
        Layer.provide([
          AuthorizationLive,
          HttpThrottle.layerApi(
            PerClient,
            options.throttles === undefined ? { policy: perMinute, ...options } : options
          ),
          HttpThrottle.layerApi(PerUser, {
            policy: perMinute,
            key: Effect.map(CurrentUser, ({ id }) => `user:${id}`),
            name: "user"
          })
        ])
      )
    )
    return (user = "nobody") =>
      HttpApiClient.make(Api, {
        transformClient: HttpClient.mapRequest((request) =>
          request.pipe(HttpClientRequest.prependUrl(`http://127.0.0.1:${port}`), HttpClientRequest.bearerToken(user))
        )
      })
  })

const live = (name: string, effect: () => Effect.Effect<void, unknown, any>) =>
  it.live(
    name,
    () => Effect.scoped(effect()).pipe(Effect.provide(FetchHttpClient.layer)) as Effect.Effect<void, unknown>
  )

describe("a client of the api", () => {
  live("catches the refusal by its tag, and is told when to try again", () =>
    Effect.gen(function*() {
      const client = yield* (yield* start())()
      assert.strictEqual(yield* client.open.hello(), "hello")
      yield* client.open.hello()
      const told = yield* client.open.hello().pipe(
        Effect.catchTag("TooManyRequests", (error) => Effect.succeed([error.retryAfter, error["violated-policies"]]))
      )
      assert.deepStrictEqual(told, [60, ["default"]])
      const error = yield* Effect.flip(client.open.hello())
      assert.instanceOf(error, HttpThrottle.TooManyRequests)
      assert.strictEqual(error.message, "Try again in 60 s.")
    }))

  live("is refused for everybody's sake by another tag", () =>
    Effect.gen(function*() {
      const client = yield* (yield* start({ global: Throttle.rate({ limit: 1, per: "1 minute" }) }))()
      yield* client.open.hello()
      const error = yield* Effect.flip(client.open.hello())
      assert.instanceOf(error, HttpThrottle.ServiceUnavailable)
      assert.deepStrictEqual(error["violated-policies"], ["global"])
    }))

  live("has a budget for each user that another middleware finds out", () =>
    Effect.gen(function*() {
      const as = yield* start()
      const [ada, grace] = [yield* as("ada"), yield* as("grace")]
      assert.deepStrictEqual([yield* ada.own.me(), yield* ada.own.me()], ["ada", "ada"])
      assert.instanceOf(yield* Effect.flip(ada.own.me()), HttpThrottle.TooManyRequests)
      assert.strictEqual(yield* grace.own.me(), "grace")
    }))

  live(
    "that hangs up while it is served gives its permit back, and while it waits leaves the line",
    () =>
      Effect.gen(function*() {
        const map = yield* ThrottleMap.make({
          lookup: (_key: string) => Throttle.concurrency({ limit: 1, maxQueue: 1 })
        })
        const client = yield* (yield* start({ throttles: Effect.succeed(map) }))()
        const counts = (n: { readonly running: number; readonly waiting: number }) =>
          Effect.repeat(Effect.andThen(Effect.sleep("10 millis"), map.statistics), {
            until: ({ running, waiting }) => running === n.running && waiting === n.waiting
          }).pipe(Effect.timeout("5 seconds"))
        for (let i = 0; i < 3; i++) {
          const served = yield* Effect.forkChild(client.open.slow())
          yield* counts({ running: 1, waiting: 0 })
          const waiting = yield* Effect.forkChild(client.open.hello())
          yield* counts({ running: 1, waiting: 1 })
          assert.instanceOf(yield* Effect.flip(client.open.hello()), HttpThrottle.TooManyRequests)
          yield* Fiber.interrupt(waiting)
          yield* counts({ running: 1, waiting: 0 })
          yield* Fiber.interrupt(served)
          yield* counts({ running: 0, waiting: 0 })
          assert.strictEqual(yield* client.open.hello(), "hello")
        }
      })
  )

  live("gets the fields with every answer, and the same problem as from a router", () =>
    Effect.gen(function*() {
      const client = yield* (yield* start())()
      const [, first] = yield* client.open.hello({ responseMode: "decoded-and-response" })
      assert.strictEqual(first.headers["ratelimit-policy"], `"default";q=2;w=120`)
      assert.strictEqual(first.headers["ratelimit"], `"default";r=1;t=60`)
      const failed = yield* client.open.broken({ responseMode: "response-only" })
      assert.strictEqual(failed.status, 500)
      assert.strictEqual(failed.headers["ratelimit"], `"default";r=0;t=60`)
      const refused = yield* client.open.hello({ responseMode: "response-only" })
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers["content-type"], "application/problem+json")
      assert.strictEqual(refused.headers["retry-after"], "60")
      assert.strictEqual(refused.headers["cache-control"], "no-store")
      assert.strictEqual(refused.headers["ratelimit"], `"default";r=0;t=60`)
      assert.deepStrictEqual(yield* refused.json, {
        type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        status: 429,
        title: "Too Many Requests",
        detail: "Try again in 60 s.",
        retryAfter: 60,
        "violated-policies": ["default"]
      })
    }))
})

it("the refusals are documented in OpenAPI", () => {
  const { responses } = OpenApi.fromApi(Api).paths["/hello"]!.get!
  for (const status of ["429", "503"]) {
    assert.deepStrictEqual(Object.keys((responses as any)[status].content), ["application/problem+json"])
  }
})

it("bad options throw where the layer is made", () => {
  assert.throws(
    () => HttpThrottle.layerApi(PerClient, { policy: perMinute, maxKeys: 0 }),
    RangeError,
    `HttpThrottle.layerApi: "maxKeys" must be an integer ≥ 1, received 0`
  )
})
