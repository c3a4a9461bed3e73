/**
 * `npm run example:llm`: 24 prompts to a model server with a quota: without a throttle, with one that charges estimates,
 * and with one that settles them.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Duration, Effect } from "effect"
import { Throttle } from "effect-throttle"
import { FetchHttpClient } from "effect/http"
import { estimated, Model, mostTokens, sendAll, settled, unthrottled } from "./llm-client.ts"
import { ModelServer, quota } from "./model-server.ts"
import * as Terminal from "./terminal.ts"

const print = (...lines: ReadonlyArray<string>) => Effect.sync(() => Terminal.print(...lines))

const { head, row } = Terminal.rows(
  ["", "answered", "refused", "tokens", "time"],
  [18, 8, 7, 6, 6],
  Terminal.width()
)

const run = <E, R>(name: string, send: Parameters<typeof sendAll<E, R>>[0]) =>
  Effect.gen(function*() {
    const { answered, refused, tokens, took } = yield* sendAll(send)
    const seconds = (Duration.toMillis(took) / 1_000).toFixed(1)
    yield* print(...row([name, String(answered), String(refused), String(tokens), `${seconds} s`]))
    // Until the server's buckets are full again.
    yield* Effect.sleep("1300 millis")
    return refused
  })

const example = Effect.gen(function*() {
  yield* print(
    `A model server allows ${quota.requests} requests and ${quota.tokens} tokens a second, ${quota.atOnce} calls at once.`
  )
  yield* print(`The client: ${Throttle.describe(Model.policy)}.`)
  yield* print(`Each prompt is estimated at ${mostTokens} tokens; the answer says what it took.\n`)
  yield* print(...head)
  yield* run("without a throttle", unthrottled)
  const refused = [yield* run("estimates stand", estimated), yield* run("estimates settled", settled)]
  if (refused.some((count) => count > 0)) return yield* Effect.die("a throttled client was refused")
})

NodeRuntime.runMain(example.pipe(Effect.provide([Model.layer, ModelServer.layer, FetchHttpClient.layer])))
