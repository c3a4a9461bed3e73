/**
 * A client of a language model that keeps to requests per time, tokens per time and calls at once, all in one throttle.
 * The cost of a prompt is estimated before the call and settled after it.
 */
import { Effect, Schema } from "effect"
import { Throttle } from "effect-throttle"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { ModelServer, quota } from "./model-server.ts"

/** A little below the server's limits: a millisecond of jitter must not make one call too many. */
export class Model extends Throttle.Service<Model>()(
  "example/Model",
  Throttle.all([
    Throttle.tokenBucket({ capacity: quota.requests - 2, refill: quota.requests - 2 }),
    Throttle.tokenBucket({ capacity: quota.tokens - 300, refill: quota.tokens - 300, unit: "tokens" }),
    Throttle.concurrency({ limit: quota.atOnce })
  ])
) {}

const Answer = Schema.Struct({ text: Schema.String, usage: Schema.Struct({ total_tokens: Schema.Number }) })

/** An upper bound of the cost of an answer. */
export const mostTokens = 1_000

/** One call: its status and its cost. */
const call = Effect.fnUntraced(function*(prompt: string) {
  const { url } = yield* ModelServer
  const response = yield* HttpClient.execute(HttpClientRequest.bodyText(HttpClientRequest.post(url), prompt))
  if (response.status !== 200) {
    yield* response.text
    return { status: response.status, tokens: 0 }
  }
  const { usage } = yield* HttpClientResponse.schemaBodyJson(Answer)(response)
  return { status: 200, tokens: usage.total_tokens }
})

/** Without a throttle: the server refuses what exceeds its limits. */
export const unthrottled = call

/** The estimate is not settled. */
export const estimated = (prompt: string) => call(prompt).pipe(Model.withPermits({ tokens: mostTokens }))

/** The estimate is settled for the answer's cost: the difference is available to the next calls at once. */
export const settled = (prompt: string) =>
  Model.usePermits({ tokens: mostTokens })((permit) =>
    Effect.tap(call(prompt), ({ tokens }) => permit.settle({ tokens }))
  )

const prompts = Array.from({ length: 24 }, (_, i) => `prompt ${i}`)

/** Sends all prompts at once and counts what came back. */
export const sendAll = <E, R>(
  send: (prompt: string) => Effect.Effect<{ readonly status: number; readonly tokens: number }, E, R>
) =>
  Effect.forEach(prompts, send, { concurrency: "unbounded" }).pipe(
    Effect.timed,
    Effect.map(([took, answers]) => ({
      answered: answers.filter(({ status }) => status === 200).length,
      refused: answers.filter(({ status }) => status === 429).length,
      tokens: answers.reduce((sum, { tokens }) => sum + tokens, 0),
      took
    }))
  )
