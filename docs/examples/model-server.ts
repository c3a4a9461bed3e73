/**
 * A server of a language model with the usual limits: requests per time, tokens per time, and calls at once. It counts
 * them without effect-throttle. Minutes are seconds here, so that the example is short.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import { performance } from "node:perf_hooks"

/** Buckets that start full: 30 requests, refilled by 30 a second; 4,000 tokens, by 4,000 a second. 8 calls at once. */
export const quota = { requests: 30, tokens: 4_000, atOnce: 8 }

export interface Answer {
  readonly text: string
  readonly usage: { readonly total_tokens: number }
}

export class ModelServer extends Context.Service<ModelServer, {
  readonly url: string
}>()("effect-throttle/examples/ModelServer") {
  static readonly layer = Layer.effect(
    ModelServer,
    Effect.gen(function*() {
      const requests = makeBucket(quota.requests)
      const tokens = makeBucket(quota.tokens)
      const calls = { running: 0 }
      yield* HttpServer.serveEffect(answer(requests, tokens, calls))
      const { address } = yield* HttpServer.HttpServer
      return { url: HttpServer.formatAddress(address) }
    })
  ).pipe(Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })))
}

interface Bucket {
  readonly has: (amount: number) => boolean
  readonly take: (amount: number) => void
}

/** Holds `capacity`, refilled by as much every second. */
const makeBucket = (capacity: number): Bucket => {
  let level = capacity
  let at = performance.now()
  const refill = () => {
    const now = performance.now()
    level = Math.min(capacity, level + (now - at) / 1_000 * capacity)
    at = now
  }
  return {
    has: (amount) => {
      refill()
      return level >= amount
    },
    take: (amount) => {
      level -= amount
    }
  }
}

const answer = (requests: Bucket, tokens: Bucket, calls: { running: number }) =>
  Effect.gen(function*() {
    const { text } = yield* HttpServerRequest.HttpServerRequest
    const prompt = yield* text
    const used = tokensOf(prompt)
    if (!requests.has(1) || !tokens.has(used) || calls.running >= quota.atOnce) {
      return HttpServerResponse.text("over the quota", { status: 429 })
    }
    requests.take(1)
    tokens.take(used)
    calls.running++
    // The place is free before the answer is sent, so a client that waits for the answer never exceeds the limit.
    yield* Effect.sleep(20 + used / 10).pipe(Effect.ensuring(Effect.sync(() => calls.running--)))
    return HttpServerResponse.jsonUnsafe({ text: prompt.toUpperCase(), usage: { total_tokens: used } })
  })

/** The actual cost of a prompt: 50 to 450 tokens, known only to the model. */
const tokensOf = (prompt: string): number => 50 + (Number(prompt.replace(/\D/g, "")) * 137) % 401
