/**
 * `npm run example:http`: 150 pages from a server with a limit that the client does not know: without a throttle, with
 * retries alone, and with a client that learns the limit from the responses.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Duration, Effect } from "effect"
import { FetchHttpClient, type HttpClient } from "effect/http"
import { atOnce, fetchAll, listening, pages, retrying, unthrottled } from "./http-client.ts"
import { LimitedServer, quota } from "./limited-server.ts"
import * as Terminal from "./terminal.ts"

const print = (...lines: ReadonlyArray<string>) => Effect.sync(() => Terminal.print(...lines))

const { head, row } = Terminal.rows(["", "pages", "requests", "refused", "time"], [18, 5, 8, 7, 6], Terminal.width())

const run = (name: string, make: (client: HttpClient.HttpClient) => HttpClient.HttpClient) =>
  Effect.gen(function*() {
    const { answered, got, refused, took } = yield* fetchAll(make)
    const seconds = `${(Duration.toMillis(took) / 1_000).toFixed(1)} s`
    yield* print(...row([name, String(got), String(answered + refused), String(refused), seconds]))
    // Until the server's window has ended.
    yield* Effect.sleep("1100 millis")
    return got
  })

const example = Effect.gen(function*() {
  yield* print(`A server takes ${quota.requests} requests a second, and says in each answer how many are left.`)
  yield* print(
    `A client wants ${pages.length} pages. The one that listens has ${atOnce} under way at once, waits when nothing is ` +
      "left, and sends again what was refused.\n"
  )
  yield* print(...head)
  yield* run("without a throttle", unthrottled)
  yield* run("with retries", retrying)
  const got = yield* run("listening", listening)
  if (got < pages.length) return yield* Effect.die("the client that listens did not get all pages")
})

NodeRuntime.runMain(example.pipe(Effect.provide([LimitedServer.layer, FetchHttpClient.layer])))
