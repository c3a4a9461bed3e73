/**
 * A server with a limit that it tells: 40 requests a second, in windows from the first request on. It counts for itself,
 * with nothing of effect-throttle.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import { performance } from "node:perf_hooks"

export const quota = { requests: 40, per: 1_000 }

/** How many requests the server has seen. */
export interface Counts {
  readonly answered: number
  readonly refused: number
}

export class LimitedServer extends Context.Service<LimitedServer, {
  readonly url: string
  /** What came since this was last asked. */
  readonly takeCounts: Effect.Effect<Counts>
}>()("effect-throttle/examples/LimitedServer") {
  static readonly layer = Layer.effect(
    LimitedServer,
    Effect.gen(function*() {
      const limit = makeLimit()
      yield* HttpServer.serveEffect(answer(limit))
      const { address } = yield* HttpServer.HttpServer
      return { url: HttpServer.formatAddress(address), takeCounts: Effect.sync(limit.takeCounts) }
    })
  ).pipe(Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })))
}

type Limit = ReturnType<typeof makeLimit>

const makeLimit = () => {
  let began = -Infinity
  let counts = { answered: 0, refused: 0 }
  let remaining = 0
  return {
    /** Whether there was one left, how many there are now, and milliseconds until there are more. */
    take: () => {
      const now = performance.now()
      if (now - began >= quota.per) {
        began = now
        remaining = quota.requests
      }
      const isLeft = remaining > 0
      if (isLeft) remaining--
      counts[isLeft ? "answered" : "refused"]++
      return { isLeft, remaining, reset: began + quota.per - now }
    },
    takeCounts: (): Counts => {
      const taken = counts
      counts = { answered: 0, refused: 0 }
      return taken
    }
  }
}

const answer = (limit: Limit) =>
  Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    const { isLeft, remaining, reset } = limit.take()
    const seconds = Math.ceil(reset / 1_000)
    const headers = {
      "ratelimit": `"second";r=${remaining};t=${seconds}`,
      "ratelimit-policy": `"second";q=${quota.requests};w=${quota.per / 1_000}`
    }
    if (!isLeft) {
      return HttpServerResponse.text("over the limit", {
        status: 429,
        headers: { ...headers, "retry-after": `${seconds}` }
      })
    }
    yield* Effect.sleep("20 millis")
    return HttpServerResponse.text(`this is ${url}`, { headers })
  })
