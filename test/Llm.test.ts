/**
 * The headline example against its model server, over loopback and in real time: ratios, and counts that allow no slack.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { estimated, Model, sendAll, settled, unthrottled } from "../docs/examples/llm-client.ts"
import { ModelServer } from "../docs/examples/model-server.ts"

describe("a client of a language model", () => {
  // Each with a server and a throttle of its own.
  const against = <A, E>(
    self: Effect.Effect<A, E, Model | ModelServer | Layer.Success<typeof FetchHttpClient.layer>>
  ) => Effect.provide(self, [Model.layer, Layer.fresh(ModelServer.layer), FetchHttpClient.layer], { local: true })

  it.live(
    "is refused without a throttle, never with one, and is done sooner where estimates are settled",
    () =>
      Effect.gen(function*() {
        const [without, standing, settling] = yield* Effect.all(
          [against(sendAll(unthrottled)), against(sendAll(estimated)), against(sendAll(settled))],
          { concurrency: "unbounded" }
        )
        // A busy machine sends more slowly, so fewer of its requests are rejected.
        assert.isAbove(without.refused, 0)
        for (const { answered, refused } of [standing, settling]) assert.deepStrictEqual([answered, refused], [24, 0])
        // 24 estimates of 1,000 tokens at 3,700 a second take 5.5 s, what they really cost less than 1.5.
        const faster = Duration.toMillis(standing.took) / Duration.toMillis(settling.took)
        assert.isAbove(faster, 2)
      }),
    20_000
  )
})
