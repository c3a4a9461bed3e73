/**
 * The example against its server, over loopback and in real time: ratios, and counts with slack.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { FetchHttpClient, type HttpClient } from "effect/http"
import { atOnce, fetchAll, listening, pages, retrying, unthrottled } from "../../docs/examples/http-client.ts"
import { LimitedServer, quota } from "../../docs/examples/limited-server.ts"

describe("150 pages from a server with a limit that the client does not know", () => {
  // Each with a server of its own.
  const against = (make: (client: HttpClient.HttpClient) => HttpClient.HttpClient) =>
    Effect.provide(fetchAll(make), [Layer.fresh(LimitedServer.layer), FetchHttpClient.layer], { local: true })

  it.live(
    "come without a throttle in part, with retries at the price of many requests, and listening of few",
    () =>
      Effect.gen(function*() {
        const without = yield* against(unthrottled)
        assert.strictEqual(without.answered + without.refused, pages.length)
        assert.strictEqual(without.got, without.answered)
        // Those of the windows that they took: one or two, unless the machine is slow.
        const windows = 1 + Math.ceil(Duration.toMillis(without.took) / quota.per)
        assert.isAtMost(without.got, windows * quota.requests)
        const [retried, listened] = yield* Effect.all([against(retrying), against(listening)], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual([listened.got, listened.answered], [pages.length, pages.length])
        // 150 pages at 40 a window end three windows: at each, those under way.
        assert.isAtMost(listened.refused, 4 * atOnce)
        assert.isAbove(retried.refused / listened.refused, 2)
      }),
    30_000
  )
})
