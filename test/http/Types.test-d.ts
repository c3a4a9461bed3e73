import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { Throttle, type ThrottleError, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import {
  HttpClient,
  type HttpClientError,
  type HttpClientResponse,
  HttpRouter,
  type HttpServerRequest,
  HttpServerResponse
} from "effect/http"
import { HttpApiMiddleware } from "effect/http-api"
import { describe, expectTypeOf, test } from "vitest"

declare const http: HttpClient.HttpClient
declare const other: HttpClient.HttpClient.With<"mine", "needs">

const unbounded = Throttle.rate({ limit: 1 })
const bounded = Throttle.rate({ limit: 1, maxQueue: 1 })

class Api extends Throttle.Service<Api>()("Api", unbounded) {}
class Busy extends Throttle.Service<Busy>()("Busy", bounded) {}
class Hosts extends ThrottleMap.Service<Hosts>()("Hosts", { lookup: (_host: string) => unbounded }) {}

type Client<E, R = never> = HttpClient.HttpClient.With<E, R>
type HttpError = HttpClientError.HttpClientError

describe("a throttled client", () => {
  test("of a policy adds the policy's errors, and keeps its own", () => {
    expectTypeOf(HttpThrottle.client(unbounded)(http)).toEqualTypeOf<Client<HttpError>>()
    expectTypeOf(http.pipe(HttpThrottle.client(unbounded, { retry: 1 }))).toEqualTypeOf<Client<HttpError>>()
    expectTypeOf(HttpThrottle.client(bounded)(http)).toEqualTypeOf<Client<HttpError | ThrottleError>>()
    expectTypeOf(HttpThrottle.client(unbounded)(other)).toEqualTypeOf<Client<"mine", "needs">>()
    expectTypeOf(HttpThrottle.client(bounded)(other)).toEqualTypeOf<Client<"mine" | ThrottleError, "needs">>()
  })

  test("with a cost may always fail", () => {
    expectTypeOf(HttpThrottle.client(unbounded, { cost: 2 })(http)).toEqualTypeOf<Client<HttpError | ThrottleError>>()
    expectTypeOf(HttpThrottle.client(Api, { cost: () => ({ permits: 2 }) })(http))
      .toEqualTypeOf<Client<HttpError | ThrottleError, Api>>()
  })

  test("of a service needs it", () => {
    expectTypeOf(HttpThrottle.client(Api)(http)).toEqualTypeOf<Client<HttpError, Api>>()
    expectTypeOf(HttpThrottle.client(Busy)(http)).toEqualTypeOf<Client<HttpError | ThrottleError, Busy>>()
    expectTypeOf(HttpThrottle.client(Hosts)(http)).toEqualTypeOf<Client<HttpError | ThrottleError, Hosts>>()
    expectTypeOf(HttpThrottle.client(Throttle.Throttle)(http))
      .toEqualTypeOf<Client<HttpError | ThrottleError, Throttle.Throttle>>()
  })

  test("of what was made needs nothing", () => {
    const throttle = {} as Throttle.Throttle
    const map = {} as ThrottleMap.ThrottleMap<string>
    expectTypeOf(HttpThrottle.client(throttle)(http)).toEqualTypeOf<Client<HttpError | ThrottleError>>()
    expectTypeOf(HttpThrottle.client(map)(http)).toEqualTypeOf<Client<HttpError | ThrottleError>>()
    expectTypeOf(HttpThrottle.client({ lookup: () => unbounded, maxKeys: 5 })(http))
      .toEqualTypeOf<Client<HttpError | ThrottleError>>()
  })

  test("scoped needs a scope", () => {
    expectTypeOf(HttpThrottle.clientScoped(unbounded)(http)).toEqualTypeOf<Client<HttpError, Scope.Scope>>()
    expectTypeOf(HttpThrottle.clientScoped(Api)(http)).toEqualTypeOf<Client<HttpError, Api | Scope.Scope>>()
    expectTypeOf(Effect.scoped(HttpThrottle.clientScoped(bounded)(http).get("/")))
      .toEqualTypeOf<Effect.Effect<HttpClientResponse.HttpClientResponse, HttpError | ThrottleError>>()
  })

  test("of an unbounded policy is an app's HttpClient; of a bounded one it is not", () => {
    const layer = Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpThrottle.client(unbounded)))
    expectTypeOf(layer).toEqualTypeOf<Layer.Layer<HttpClient.HttpClient, never, HttpClient.HttpClient>>()
    // @ts-expect-error its requests may fail with a ThrottleError
    Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpThrottle.client(bounded)))
  })

  test("that rejects as HttpClient does is an app's HttpClient, whatever throttles it", () => {
    const rejectAs = "HttpClientError"
    for (
      const layer of [
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpThrottle.client(bounded, { rejectAs }))
        ),
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpThrottle.client(unbounded, { rejectAs, cost: 2 }))
        ),
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpThrottle.client({ lookup: () => bounded }, { rejectAs }))
        ),
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(HttpClient.HttpClient, HttpThrottle.client({} as Throttle.Throttle, { rejectAs }))
        )
      ]
    ) expectTypeOf(layer).toEqualTypeOf<Layer.Layer<HttpClient.HttpClient, never, HttpClient.HttpClient>>()
    expectTypeOf(HttpThrottle.client(Busy, { rejectAs })(http)).toEqualTypeOf<Client<HttpError, Busy>>()
    expectTypeOf(HttpThrottle.client(Hosts, { rejectAs })(http)).toEqualTypeOf<Client<HttpError, Hosts>>()
    expectTypeOf(HttpThrottle.client(bounded, { rejectAs })(other)).toEqualTypeOf<Client<"mine" | HttpError, "needs">>()
    expectTypeOf(HttpThrottle.clientScoped(bounded, { rejectAs })(http)).toEqualTypeOf<Client<HttpError, Scope.Scope>>()
    expectTypeOf(HttpThrottle.client(bounded, { rejectAs: "ThrottleError" })(http))
      .toEqualTypeOf<Client<HttpError | ThrottleError>>()
    // @ts-expect-error neither
    HttpThrottle.client(bounded, { rejectAs: "Error" })
  })

  test("takes no option that it does not know, and no map of other keys", () => {
    // @ts-expect-error misspelt
    HttpThrottle.client(unbounded, { retires: 3 })
    // @ts-expect-error keys are texts
    HttpThrottle.client({} as ThrottleMap.ThrottleMap<number>)
    // @ts-expect-error no throttle
    HttpThrottle.client("api")
  })
})

class User extends Context.Service<User, { readonly id: string }>()("types/User") {}
class Words extends Context.Service<Words, { readonly sorry: string }>()("types/Words") {}
class Overloaded
  extends Schema.TaggedError<Overloaded>()("Overloaded", { seconds: Schema.Number }, { httpApiStatus: 420 })
{}
class Default extends HttpApiMiddleware.Service<Default>()("types/Default", { error: HttpThrottle.errors }) {}
class Own extends HttpApiMiddleware.Service<Own, { requires: User }>()("types/Own", { error: Overloaded }) {}
class Both extends HttpApiMiddleware.Service<Both>()("types/Both", { error: [...HttpThrottle.errors, Overloaded] }) {}

describe("a throttled server", () => {
  const key = Effect.map(User, ({ id }) => id)
  const sorry = Effect.map(Words, ({ sorry }) => HttpServerResponse.text(sorry))
  const response = HttpServerResponse.empty()

  const requires = <M>(middleware: M) =>
    middleware as M extends HttpRouter.Middleware<infer C> ? C["requires"] : "no middleware"

  test("needs what its key and its answers need", () => {
    expectTypeOf(requires(HttpThrottle.middleware({ policy: unbounded }))).toEqualTypeOf<never>()
    expectTypeOf(requires(HttpThrottle.middleware({ policy: unbounded, key }))).toEqualTypeOf<User>()
    expectTypeOf(requires(HttpThrottle.middleware({ policy: unbounded, onRejected: () => response })))
      .toEqualTypeOf<never>()
    expectTypeOf(requires(HttpThrottle.middleware({ policy: unbounded, onRejected: () => sorry })))
      .toEqualTypeOf<Words>()
    expectTypeOf(requires(HttpThrottle.middleware({ policy: unbounded, key, onRejected: () => sorry })))
      .toEqualTypeOf<User | Words>()
    expectTypeOf(HttpThrottle.middleware({ policy: unbounded, key, onRejected: () => sorry }, { global: true }))
      .toEqualTypeOf<
        Layer.Layer<never, never, HttpRouter.HttpRouter | HttpRouter.Request.From<"GlobalRequires", User | Words>>
      >()
    expectTypeOf(HttpThrottle.middleware({ throttles: Hosts }, { global: true }))
      .toEqualTypeOf<Layer.Layer<never, never, HttpRouter.HttpRouter | Hosts>>()
  })

  test("needs what the keys and maps of its levels need, and the throttle of all", () => {
    class Organisation extends Context.Service<Organisation, string>()("test/Organisation") {}
    class Region extends Context.Service<Region, string>()("test/Region") {}
    class Everybody extends Throttle.Service<Everybody>()("test/Everybody", unbounded) {}
    const middleware = HttpThrottle.middleware({
      policy: unbounded,
      key,
      levels: [
        {
          key: Organisation,
          policy: Throttle.tokenBucket({ capacity: 9, refill: 9, unit: "bytes" }),
          cost: (request) => {
            expectTypeOf(request).toEqualTypeOf<HttpServerRequest.HttpServerRequest>()
            return { bytes: 1 }
          }
        },
        {
          key: HttpThrottle.header("x-team"),
          lookup: (team) => team === "a" ? unbounded : Throttle.rate({ limit: 9 })
        },
        { key: Region, throttles: Hosts }
      ],
      global: Everybody
    })
    expectTypeOf(requires(middleware)).toEqualTypeOf<User | Organisation | Region>()
    expectTypeOf(
      HttpThrottle.middleware({ policy: unbounded, levels: [{ key: Region, throttles: Hosts }], global: Everybody }, {
        global: true
      })
    ).toEqualTypeOf<
      Layer.Layer<
        never,
        never,
        HttpRouter.HttpRouter | Hosts | Everybody | HttpRouter.Request.From<"GlobalRequires", Region>
      >
    >()
    expectTypeOf(
      HttpThrottle.layerApi(Default, {
        policy: unbounded,
        levels: [{ key: HttpThrottle.header("x-org"), throttles: Hosts }]
      })
    )
      .toEqualTypeOf<Layer.Layer<Default, never, Hosts>>()
    // @ts-expect-error its api does not provide this service
    HttpThrottle.layerApi(Default, { policy: unbounded, levels: [{ key: Region, policy: unbounded }] })
    // @ts-expect-error a level has a key
    HttpThrottle.middleware({ policy: unbounded, levels: [{ policy: unbounded }] })
  })

  test("answers a refusal with a response, or an effect that gives one and cannot fail", () => {
    HttpThrottle.middleware({
      policy: unbounded,
      onRejected: (rejection) => {
        expectTypeOf(rejection).toEqualTypeOf<HttpThrottle.Rejection>()
        return rejection.response
      },
      countIf: (response, request) => {
        expectTypeOf(response).toEqualTypeOf<HttpServerResponse.HttpServerResponse>()
        expectTypeOf(request).toEqualTypeOf<HttpServerRequest.HttpServerRequest>()
        return true
      }
    })
    // @ts-expect-error no response
    HttpThrottle.middleware({ policy: unbounded, onRejected: () => "no" })
    // @ts-expect-error it may fail
    HttpThrottle.middleware({ policy: unbounded, onRejected: () => Effect.fail(new Overloaded({ seconds: 1 })) })
    // @ts-expect-error no boolean
    HttpThrottle.middleware({ policy: unbounded, countIf: () => Promise.resolve(true) })
    // @ts-expect-error misspelt
    HttpThrottle.middleware({ policy: unbounded, onReject: () => response })
  })

  test("of an api fails with the errors that its middleware declares", () => {
    expectTypeOf(HttpThrottle.layerApi(Default, { policy: unbounded })).toEqualTypeOf<Layer.Layer<Default>>()
    expectTypeOf(HttpThrottle.layerApi(Default, { throttles: Hosts }))
      .toEqualTypeOf<Layer.Layer<Default, never, Hosts>>()
    HttpThrottle.layerApi(Default, { policy: unbounded, onRejected: ({ response }) => response })
    HttpThrottle.layerApi(Default, {
      policy: unbounded,
      onRejected: ({ violatedPolicies }) =>
        Effect.fail(new HttpThrottle.TooManyRequests({ "violated-policies": violatedPolicies }))
    })
    expectTypeOf(HttpThrottle.layerApi(Own, {
      policy: unbounded,
      key,
      onRejected: ({ retryAfter = 1 }) => Effect.fail(new Overloaded({ seconds: retryAfter }))
    })).toEqualTypeOf<Layer.Layer<Own>>()
    expectTypeOf(HttpThrottle.layerApi(Both, { policy: unbounded })).toEqualTypeOf<Layer.Layer<Both>>()
    HttpThrottle.layerApi(Both, { policy: unbounded, onRejected: () => Effect.fail(new Overloaded({ seconds: 1 })) })
    // @ts-expect-error it declares none of the errors that are the default
    HttpThrottle.layerApi(Own, { policy: unbounded })
    // @ts-expect-error it does not declare this error
    HttpThrottle.layerApi(Default, { policy: unbounded, onRejected: () => Effect.fail(new Overloaded({ seconds: 1 })) })
    // @ts-expect-error its api does not provide this service
    HttpThrottle.layerApi(Default, { policy: unbounded, onRejected: () => sorry })
  })
})
