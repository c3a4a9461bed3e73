import { Effect, Layer, type Scope } from "effect"
import { Throttle, type ThrottleError, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, type HttpClientError, type HttpClientResponse } from "effect/http"
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
