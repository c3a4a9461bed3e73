/** What a request is charged: once, whatever its method, and not at all where a function of the app breaks. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpApiMiddleware } from "effect/http-api"
import { exchange, request, serve, statusOf } from "../utils/serve.ts"
import { type Answer, ask, hello } from "../utils/web.ts"

/** Ten at once, one of them back in an hour: what is left says what was charged. */
const tenAnHour = Throttle.rate({ limit: 1, per: "1 hour", burst: 9 })

/** What a middleware says is left of the ten. */
const left = ({ headers }: Answer, name = "default"): number | undefined => {
  const found = new RegExp(`"${name}";r=(\\d+)`).exec(headers["ratelimit"] ?? "")
  return found === null ? undefined : Number(found[1])
}

describe("a request is charged once", () => {
  const other = HttpRouter.add("GET", "/other", HttpServerResponse.text("other"))

  it.effect("by a middleware provided to a route and to the routes around it", () =>
    Effect.gen(function*() {
      const { layer } = HttpThrottle.middleware({ policy: tenAnHour })
      const group = Layer.merge(hello.pipe(Layer.provide(layer)), other)
      const asked = yield* ask(group.pipe(Layer.provide(layer)))
      const answers = [yield* asked(), yield* asked({ path: "/other" }), yield* asked()]
      assert.deepStrictEqual(answers.map((answer) => left(answer)), [9, 8, 7])
    }))

  it.effect("by a middleware that is combined with another one, in both places", () =>
    Effect.gen(function*() {
      const throttle = HttpThrottle.middleware({ policy: tenAnHour })
      const plain = HttpRouter.middleware((handler) => handler)
      const combined = throttle.combine(plain)
      const asked = yield* ask(hello.pipe(Layer.provide(combined.layer), Layer.provide(throttle.layer)))
      assert.deepStrictEqual([left(yield* asked()), left(yield* asked())], [9, 8])
    }))

  it.effect("by a global layer that is merged twice", () =>
    Effect.gen(function*() {
      const layer = HttpThrottle.middleware({ policy: tenAnHour }, { global: true })
      const asked = yield* ask(Layer.mergeAll(layer, hello.pipe(Layer.provideMerge(layer)), layer))
      assert.deepStrictEqual([left(yield* asked()), left(yield* asked())], [9, 8])
    }))

  it.effect("by each of two middlewares, also where they share a map", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => tenAnHour })
      const throttles = Effect.succeed(map)
      const onRoute = HttpThrottle.middleware({ throttles, name: "route" })
      const asked = yield* ask(Layer.merge(
        hello.pipe(Layer.provide(onRoute.layer)),
        HttpThrottle.middleware({ throttles, name: "all" }, { global: true })
      ))
      const first = yield* asked()
      assert.deepStrictEqual([left(first, "all"), left(first, "route")], [8, 8])
    }).pipe(Effect.scoped))

  it.effect("by a middleware that an api, its group and its endpoint all declare", () =>
    Effect.gen(function*() {
      class PerClient extends HttpApiMiddleware.Service<PerClient>()("test/Charges/PerClient", {
        error: HttpThrottle.errors
      }) {}
      const Api = HttpApi.make("api").add(
        HttpApiGroup.make("greetings")
          .add(HttpApiEndpoint.get("hello", "/", { success: Schema.String }).middleware(PerClient))
          .middleware(PerClient)
      ).middleware(PerClient)
      const app = HttpApiBuilder.layer(Api).pipe(
        Layer.provide(HttpApiBuilder.group(
          Api,
          "greetings",
          (handlers) => handlers.handle("hello", () => Effect.succeed("hello"))
        )),
        Layer.provide(HttpThrottle.layerApi(PerClient, { policy: tenAnHour }))
      )
      const asked = yield* ask(app as any)
      assert.deepStrictEqual([left(yield* asked()), left(yield* asked())], [9, 8])
    }))
})

describe("HEAD costs what GET costs", () => {
  const layers: Readonly<Record<string, () => Layer.Layer<never, never, any>>> = {
    "in front of all routes": () =>
      Layer.merge(hello, HttpThrottle.middleware({ policy: tenAnHour }, { global: true })),
    "on a route": () => hello.pipe(Layer.provide(HttpThrottle.middleware({ policy: tenAnHour }).layer))
  }

  for (const [where, layer] of Object.entries(layers)) {
    it.effect(where, () =>
      Effect.gen(function*() {
        const asked = yield* ask(layer())
        const methods = ["GET", "HEAD", "HEAD", "GET"]
        const answers = yield* Effect.forEach(methods, (method) => asked({ method }))
        assert.deepStrictEqual(answers.map((answer) => [answer.status, left(answer)]), [
          [200, 9],
          [200, 8],
          [200, 7],
          [200, 6]
        ])
        for (let i = 0; i < 6; i++) yield* asked({ method: "HEAD" })
        const refused = yield* asked({ method: "HEAD" })
        assert.deepStrictEqual([refused.status, refused.body, refused.headers["retry-after"]], [429, "", "3600"])
      }))
  }

  it.live("on a real socket, where a refusal of HEAD has no body", () =>
    Effect.gen(function*() {
      const port = yield* serve(
        Layer.merge(
          hello,
          HttpThrottle.middleware({ policy: Throttle.rate({ limit: 1, per: "1 hour" }) }, { global: true })
        )
      )
      const head = request().toString("latin1").replace("GET", "HEAD")
      const [first, second] = yield* Effect.promise(
        async () => [await exchange(port, head), await exchange(port, head)]
      )
      assert.deepStrictEqual([statusOf(first!), statusOf(second!)], [200, 429])
      assert.isTrue(second!.endsWith("\r\n\r\n"))
    }).pipe(Effect.scoped))
})

describe("a function of the app that breaks", () => {
  const broken = () => {
    throw new Error("broken")
  }
  const always = <A>(value: unknown) => value as A
  type Broken = Partial<HttpThrottle.PolicyOptions> & { readonly global?: Throttle.Policy<any> }

  /** Each breaks only for a request with this header. */
  const breaks = ({ headers }: { readonly headers: Readonly<Record<string, string>> }) =>
    headers["x-break"] !== undefined
  const key = (what: Effect.Effect<string>) =>
    Effect.flatMap(
      HttpThrottle.header("x-break", Effect.succeed("")),
      (value) => value === "" ? HttpThrottle.clientAddress() : what
    )

  const cases: Readonly<Record<string, Broken>> = {
    "a key that dies": { key: key(Effect.die("broken")) },
    "a key that throws": { key: key(Effect.sync(broken)) },
    "a key that fails, against its type": { key: key(always(Effect.fail("broken"))) },
    "a key that is no string": { key: key(always(Effect.succeed(undefined))) },
    "a skip that throws": { skip: (request) => breaks(request) && broken() },
    "a skip that gives a promise": { skip: (request) => breaks(request) ? always(Promise.resolve(true)) : false },
    "a cost that throws": { cost: (request) => breaks(request) ? broken() : 1 },
    "a cost that makes no sense": { cost: (request) => breaks(request) ? -1 : 1 },
    "a cost that gives a promise": { cost: (request) => breaks(request) ? always(Promise.resolve(1)) : 1 }
  }

  for (const [what, options] of Object.entries(cases)) {
    for (const global of [undefined, tenAnHour]) {
      it.effect(`${what}: 500, nothing charged${global ? ", with a global policy" : ""}; the next request is served`, () =>
        Effect.gen(function*() {
          const asked = yield* ask(
            Layer.merge(hello, HttpThrottle.middleware({ policy: tenAnHour, ...options, global }, { global: true }))
          )
          for (let i = 0; i < 12; i++) {
            const answer = yield* asked({ headers: { "x-break": "yes" } })
            assert.strictEqual(answer.status, 500)
            assert.isUndefined(left(answer))
          }
          const next = yield* asked()
          assert.deepStrictEqual([next.status, left(next)], [200, 9])
        }))
    }
  }

  it.effect("in an HttpApi: the same", () =>
    Effect.gen(function*() {
      class PerClient extends HttpApiMiddleware.Service<PerClient>()("test/Charges/Broken", {
        error: HttpThrottle.errors
      }) {}
      const Api = HttpApi.make("api").add(
        HttpApiGroup.make("greetings")
          .add(HttpApiEndpoint.get("hello", "/", { success: Schema.String }))
          .middleware(PerClient)
      )
      const app = HttpApiBuilder.layer(Api).pipe(
        Layer.provide(HttpApiBuilder.group(
          Api,
          "greetings",
          (handlers) => handlers.handle("hello", () => Effect.succeed("hello"))
        )),
        Layer.provide(HttpThrottle.layerApi(PerClient, { policy: tenAnHour, key: key(Effect.die("broken")) }))
      )
      const asked = yield* ask(app as any)
      assert.strictEqual((yield* asked({ headers: { "x-break": "yes" } })).status, 500)
      assert.strictEqual(left(yield* asked()), 9)
    }))
})
