/**
 * `npm run example:http`: 150 pages from a server with a limit that the client does not know: without a throttle, with
 * retries alone, and with a client that listens to what the server says.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Duration, Effect, Schedule } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { FetchHttpClient, HttpClient } from "effect/http"
import { LimitedServer, quota } from "./limited-server.ts"

const pages = Array.from({ length: 150 }, (_, i) => i + 1)

const print = (line: string) => Effect.sync(() => console.log(line))

const atOnce = Throttle.concurrency({ limit: 10 })

type Client = HttpClient.HttpClient

const clients: Record<string, (client: Client) => Client> = {
  "without a throttle": (client) => client,
  "with retries": HttpClient.retryTransient({ times: 10, schedule: Schedule.exponential("100 millis") }),
  "listening": HttpThrottle.client(atOnce)
}

const run = (name: string, make: (client: Client) => Client) =>
  Effect.gen(function*() {
    const server = yield* LimitedServer
    const client = make(yield* HttpClient.HttpClient)
    const fetchPage = (page: number) =>
      Effect.flatMap(client.get(`${server.url}/pages/${page}`), ({ status, text }) => Effect.as(text, status))
    const [took, statuses] = yield* Effect.timed(Effect.forEach(pages, fetchPage, { concurrency: "unbounded" }))
    const got = statuses.filter((status) => status === 200).length
    const { answered, refused } = yield* server.takeCounts
    const columns = [got, answered + refused, refused].map((n) => String(n).padStart(10)).join("")
    yield* print(`${name.padEnd(20)}${columns}${(Duration.toMillis(took) / 1_000).toFixed(1).padStart(8)} s`)
    // Until the server's window is over.
    yield* Effect.sleep("1100 millis")
    return { got, refused }
  })

const example = Effect.gen(function*() {
  yield* print(`A server takes ${quota.requests} requests a second, and says in each answer how many are left.`)
  yield* print(
    `A client wants ${pages.length} pages. The one that listens sends ${Throttle.describe(atOnce)}, waits when`
  )
  yield* print("nothing is left, and sends again what was refused.\n")
  yield* print(
    `${"".padEnd(20)}${["pages", "requests", "refused"].map((s) => s.padStart(10)).join("")}${"time".padStart(10)}`
  )
  const [, , listening] = yield* Effect.forEach(Object.entries(clients), ([name, make]) => run(name, make))
  if (listening!.got < pages.length) return yield* Effect.die("the client that listens did not get all pages")
})

NodeRuntime.runMain(example.pipe(Effect.provide([LimitedServer.layer, FetchHttpClient.layer])))
