/**
 * `npm run demo`: one client fetches 100 pages twice from a server with a quota, first without a throttle, then with one.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Data, Effect } from "effect"
import { Throttle } from "effect-throttle"
import { FetchHttpClient, HttpClient } from "effect/http"
import { quota, QuotaServer } from "./quota-server.ts"
import * as Report from "./report.ts"
import * as Terminal from "./terminal.ts"

const pages = Array.from({ length: 100 }, (_, i) => i + 1)

// A little below the quota. At exactly 20 per second, request 21 starts one second after request 1. If request 1 is
// a millisecond slower, the server sees 21 in one second.
const polite = Throttle.all([
  Throttle.rate({ limit: 18, per: "1 second" }),
  Throttle.concurrency({ limit: 5 })
], { name: "pages" })

/** Fetches all pages under a policy, each as soon as it is admitted. */
const fetchAll = Effect.fnUntraced(function*(name: string, policy: Throttle.Policy<never>) {
  const server = yield* QuotaServer
  const throttle = yield* Throttle.inline(policy)
  const statuses: Array<number> = []
  const waits: Array<number> = []

  const fetchPage = Effect.fnUntraced(function*(page: number) {
    const response = yield* HttpClient.get(`${server.url}/pages/${page}`)
    yield* response.text
    return response.status
  })

  const [took] = yield* Terminal.withLine((show) =>
    Effect.forEach(
      pages,
      Effect.fnUntraced(function*(page) {
        statuses.push(yield* fetchPage(page).pipe(policy))
        show(Report.progress(name, pages.length, statuses, yield* throttle.statistics))
      }),
      { concurrency: "unbounded", discard: true }
    )
  ).pipe(
    // Calls that waited have an event when they are admitted. Other calls have none.
    Effect.provideService(Throttle.Observer, (event) =>
      Effect.sync(() => {
        if (event._tag === "Admitted") waits.push(event.waited)
      })),
    Effect.timed
  )

  while (waits.length < pages.length) waits.push(0)
  return Report.run({ name, statuses, took, waits, arrivals: yield* server.takeArrivals })
})

class QuotaExceeded extends Data.TaggedError("QuotaExceeded")<{ readonly message: string }> {}

const demo = Effect.gen(function*() {
  Terminal.print(
    `A server allows ${quota.requests} requests in any second, ${quota.atOnce} at once, and answers 429 beyond.`,
    `A client fetches ${pages.length} pages from it: all at once, then through Throttle.all, ` +
      `${Throttle.describe(polite)}.`,
    "",
    `Why not ${quota.requests} per second? A client at exactly the server's limit is refused by a millisecond of jitter. ` +
      "Why 5 at once? Pages 41 to 55 are slow.",
    ""
  )
  const unthrottled = yield* fetchAll("unthrottled", Throttle.none)
  Terminal.print("pause         1.2 s, until the server's last second is empty again")
  yield* Effect.sleep("1200 millis")
  const throttled = yield* fetchAll("throttled", polite)
  const runs = [unthrottled, throttled]
  const width = Terminal.width()
  console.log(["", ...Report.table(runs, width), "", ...Report.timelines(runs, width)].join("\n"))

  if (throttled.answers < pages.length) {
    return yield* new QuotaExceeded({
      message: `the throttled client got ${throttled.answers} answers and ${throttled.refused} times a 429`
    })
  }
})

// The exit code is 0, or 1 after a failure.
NodeRuntime.runMain(demo.pipe(Effect.provide([QuotaServer.layer, FetchHttpClient.layer])))
