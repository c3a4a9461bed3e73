/**
 * `npm run example:shutdown`: a server that loses no request when it is told to end. While requests are under way, press
 * Ctrl+C: they are answered, newcomers get 503, and then the process ends.
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Runtime } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"

/** With concurrency the throttles know which requests are under way. */
const perClient = Throttle.all([
  Throttle.rate({ limit: 100, burst: 100 }),
  Throttle.concurrency({ limit: 50 })
])

class Clients extends ThrottleMap.Service<Clients>()("app/Clients", {
  lookup: (_address: string) => perClient,
  maxKeys: 10_000,
  onFull: "evict"
}) {}

const routes = HttpRouter.add(
  "GET",
  "/report",
  Effect.as(Effect.sleep("1 second"), HttpServerResponse.text("the report"))
).pipe(Layer.provide(HttpThrottle.middleware({ throttles: Clients }).layer))

const ServerLive = HttpRouter.serve(routes).pipe(
  Layer.provide(NodeHttpServer.layerConfig(createServer, {
    host: Config.succeed("127.0.0.1"),
    port: Config.Int("PORT").pipe(Config.withDefault(3_000)),
    gracefulShutdownTimeout: Config.succeed("1 second")
  }))
)

/** Finalizers run in reverse order, so this one runs before the server closes. */
const DrainLive = Layer.effectDiscard(
  Effect.addFinalizer(() =>
    Effect.gen(function*() {
      yield* Effect.log("draining")
      const interrupted = yield* Clients.drain("5 seconds")
      yield* Effect.log(`drained, ${interrupted} requests interrupted`)
    })
  )
)

const AppLive = DrainLive.pipe(Layer.provide(ServerLive), Layer.provide(Clients.layer))

// SIGTERM and SIGINT interrupt the program, which closes its Layers. The exit code is then 0 instead of 130.
NodeRuntime.runMain(Layer.launch(AppLive), {
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})
