/** A server with a fair throttle, on a real socket: a light tenant beside one that asks a hundred times as much. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { statisticsOf } from "../utils/kit.ts"
import { exchange, request, serve, statusOf } from "../utils/serve.ts"

/** 100 requests a second. */
const perSecond = 100

const policies = {
  arrival: Throttle.rate({ limit: perSecond }),
  fair: Throttle.rate({ limit: perSecond, order: "fair" })
}

const server = (policy: Throttle.Policy<any>) =>
  Effect.gen(function*() {
    const throttle = yield* Throttle.make(policy)
    const route = HttpRouter.add(
      "GET",
      "/",
      Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
        throttle.withPermit(Effect.succeed(HttpServerResponse.text("hello"))).pipe(
          Throttle.withCaller({ key: headers["x-tenant"] ?? "" }),
          Effect.orDie
        ))
    )
    return { port: yield* serve(route as Layer.Layer<never, never, any>), throttle }
  })

/** The milliseconds that each of these requests of a tenant took, one every `every` milliseconds. */
const requests = (port: number, tenant: string, count: number, every: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, i) => i * every),
    (after) =>
      Effect.delay(
        Effect.gen(function*() {
          const began = performance.now()
          const response = yield* Effect.promise(() => exchange(port, request(`x-tenant: ${tenant}`), 20_000))
          assert.strictEqual(statusOf(response), 200)
          return performance.now() - began
        }),
        after
      ),
    { concurrency: "unbounded" }
  )

const percentile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))]!

/** The light tenant's times in milliseconds, alone or beside a flood of requests that come at once. */
const measure = (policy: Throttle.Policy<any>, flood: number) =>
  Effect.gen(function*() {
    const { port, throttle } = yield* server(policy)
    yield* requests(port, "light", 1, 0)
    const flooding = yield* Effect.forkChild(requests(port, "flood", flood, 0))
    // Until all have arrived, since it takes the processor half a second to open so many connections.
    while (statisticsOf(throttle).admitted + statisticsOf(throttle).waiting <= flood) yield* Effect.sleep("10 millis")
    const times = yield* requests(port, "light", 15, 60)
    yield* Fiber.interrupt(flooding)
    return times
  }).pipe(Effect.scoped)

describe("a light tenant beside a flood", () => {
  it.live("waits in the fair order about as long as alone", () =>
    Effect.gen(function*() {
      const alone = percentile(yield* measure(policies.fair, 0), 0.99)
      const fair = percentile(yield* measure(policies.fair, 300), 0.99)
      const arrival = percentile(yield* measure(policies.arrival, 300), 0.5)
      // Twice as long as alone, and slack for a machine that does other things, too.
      assert.isAtMost(fair, 2 * alone + 250, `alone ${alone}, fair ${fair}, by arrival ${arrival}`)
      assert.isAtLeast(arrival, 1_000, `alone ${alone}, fair ${fair}, by arrival ${arrival}`)
    }), 30_000)
})
