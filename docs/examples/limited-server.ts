/**
 * A server with a limit that it states in its responses: 40 requests in any second.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"

export const quota = { requests: 40, per: 1_000 }

/** The number of requests that the server has received. */
export interface Counts {
  readonly answered: number
  readonly refused: number
}

const page = HttpRouter.add(
  "GET",
  "/pages/:page",
  Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    yield* Effect.sleep("20 millis")
    return HttpServerResponse.text(`this is ${url}`)
  })
)

/** A budget for each client address; each response states what is left of it. */
const perClient = HttpThrottle.middleware({
  policy: Throttle.window({ limit: quota.requests, per: quota.per }),
  name: "second"
})

const app = page.pipe(Layer.provide(perClient.layer))

export class LimitedServer extends Context.Service<LimitedServer, {
  readonly url: string
  /** The counts since the last call. */
  readonly takeCounts: Effect.Effect<Counts>
}>()("effect-throttle/examples/LimitedServer") {
  static readonly layer = Layer.effect(
    LimitedServer,
    Effect.gen(function*() {
      let counts: Counts = { answered: 0, refused: 0 }
      const answer = yield* HttpRouter.toHttpEffect(app)
      yield* HttpServer.serveEffect(Effect.tap(answer, ({ status }) =>
        Effect.sync(() => {
          counts = status === 429
            ? { ...counts, refused: counts.refused + 1 }
            : { ...counts, answered: counts.answered + 1 }
        })))
      const { address } = yield* HttpServer.HttpServer
      return {
        url: HttpServer.formatAddress(address),
        takeCounts: Effect.sync(() => {
          const taken = counts
          counts = { answered: 0, refused: 0 }
          return taken
        })
      }
    })
  ).pipe(Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })))
}
