/** A server whose routes and api are built where the Layers of policies and Service classes are provided. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Throttle } from "effect-throttle"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { ask } from "../utils/web.ts"

const policy = Throttle.rate({ limit: 1, per: "1 minute" })

class GitHub extends Throttle.Service<GitHub>()("app/GitHub", policy) {}

const Api = HttpApi.make("api").add(
  HttpApiGroup.make("greetings").add(HttpApiEndpoint.get("hello", "/hello", { success: Schema.String }))
)

const Routes = Layer.mergeAll(
  HttpRouter.add("GET", "/", Effect.as(Effect.succeed(""), HttpServerResponse.text("found")).pipe(policy)),
  HttpApiBuilder.layer(Api).pipe(
    Layer.provide(HttpApiBuilder.group(
      Api,
      "greetings",
      (handlers) => handlers.handle("hello", () => Effect.succeed("hello"))
    ))
  )
).pipe(Layer.provide(HttpServer.layerServices))

const layers: Readonly<Record<string, Layer.Layer<any>>> = { "a policy": policy, "a Service class": GitHub.layer }

describe("the Layers of policies", () => {
  for (const [name, layer] of Object.entries(layers)) {
    it.effect(`${name}: provided around routes and an api`, () =>
      Effect.gen(function*() {
        const request = yield* ask(Layer.provide(Routes, layer))
        assert.strictEqual((yield* request()).body, "found")
        assert.strictEqual((yield* request({ path: "/hello" })).body, `"hello"`)
      }).pipe(Effect.scoped))

    it.effect(`${name}: provided to the whole program`, () =>
      Effect.gen(function*() {
        const request = yield* ask(Routes)
        assert.strictEqual((yield* request()).body, "found")
        assert.strictEqual((yield* request({ path: "/hello" })).body, `"hello"`)
      }).pipe(Effect.scoped, Effect.provide(layer)))
  }
})
