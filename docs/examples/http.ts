/**
 * `npm run example:http`: 150 pages from a server with a limit that the client does not know: without a throttle, with
 * retries alone, and with a client that listens to what the server says.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Duration, Effect } from "effect"
import { FetchHttpClient, type HttpClient } from "effect/http"
import { atOnce, fetchAll, listening, pages, retrying, unthrottled } from "./http-client.ts"
import { LimitedServer, quota } from "./limited-server.ts"

const print = (line: string) => Effect.sync(() => console.log(line))

const run = (name: string, make: (client: HttpClient.HttpClient) => HttpClient.HttpClient) =>
  Effect.gen(function*() {
    const { answered, got, refused, took } = yield* fetchAll(make)
    const columns = [got, answered + refused, refused].map((n) => String(n).padStart(10)).join("")
    yield* print(`${name.padEnd(20)}${columns}${(Duration.toMillis(took) / 1_000).toFixed(1).padStart(8)} s`)
    // Until the server's window is over.
    yield* Effect.sleep("1100 millis")
    return got
  })

const example = Effect.gen(function*() {
  yield* print(`A server takes ${quota.requests} requests a second, and says in each answer how many are left.`)
  yield* print(`A client wants ${pages.length} pages. The one that listens has ${atOnce} under way at once, waits when`)
  yield* print("nothing is left, and sends again what was refused.\n")
  yield* print(
    `${"".padEnd(20)}${["pages", "requests", "refused"].map((s) => s.padStart(10)).join("")}${"time".padStart(10)}`
  )
  yield* run("without a throttle", unthrottled)
  yield* run("with retries", retrying)
  const got = yield* run("listening", listening)
  if (got < pages.length) return yield* Effect.die("the client that listens did not get all pages")
})

NodeRuntime.runMain(example.pipe(Effect.provide([LimitedServer.layer, FetchHttpClient.layer])))
