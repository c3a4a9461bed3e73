/**
 * A server with a quota. It counts with a log and a counter of its own, without effect-throttle, so it checks the client
 * independently.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import { performance } from "node:perf_hooks"

/** At most 20 requests in any second, at most 5 at once. Times are milliseconds. */
export const quota = { requests: 20, per: 1_000, atOnce: 5 }

/** A request that reached the server. */
export interface Arrival {
  readonly at: number
  readonly accepted: boolean
  /** The number of requests being served then, this one included if it was accepted. */
  readonly serving: number
}

export class QuotaServer extends Context.Service<QuotaServer, {
  readonly url: string
  /** The requests since the last call. */
  readonly takeArrivals: Effect.Effect<ReadonlyArray<Arrival>>
}>()("effect-throttle/demo/QuotaServer") {
  static readonly layer = Layer.effect(
    QuotaServer,
    Effect.gen(function*() {
      const gate = makeGate()
      yield* HttpServer.serveEffect(answer(gate))
      const { address } = yield* HttpServer.HttpServer
      return {
        url: HttpServer.formatAddress(address),
        takeArrivals: Effect.sync(() => gate.arrivals.splice(0))
      }
    })
  ).pipe(
    // Port 0: any free port.
    Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))
  )
}

type Gate = ReturnType<typeof makeGate>

const makeGate = () => {
  let accepted: Array<number> = []
  let serving = 0
  const arrivals: Array<Arrival> = []
  return {
    arrivals,
    enter: (): boolean => {
      const at = performance.now()
      accepted = accepted.filter((earlier) => at - earlier < quota.per)
      const ok = accepted.length < quota.requests && serving < quota.atOnce
      if (ok) {
        accepted.push(at)
        serving++
      }
      arrivals.push({ at, accepted: ok, serving })
      return ok
    },
    leave: (): void => {
      serving--
    }
  }
}

const answer = (gate: Gate) =>
  Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    if (!gate.enter()) {
      return HttpServerResponse.text("over the quota", { status: 429, headers: { "retry-after": "1" } })
    }
    // The place is free before the answer is sent, so a client that waits for the answer never exceeds the limit.
    yield* Effect.sleep(workOf(Number(url.split("/").at(-1)))).pipe(Effect.ensuring(Effect.sync(gate.leave)))
    return HttpServerResponse.text(`this is ${url}`)
  })

/** 40 to 120 ms a page. Pages 41 to 55 take 400 ms longer: there the limit of 5 at once decides. */
const workOf = (page: number): number => 40 + (page * 37) % 81 + (page > 40 && page <= 55 ? 400 : 0)
