/** A server whose throttles are drained. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { fork } from "../utils/kit.ts"
import { ask } from "../utils/web.ts"

const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 second"), HttpServerResponse.text("done")))

const policies: Record<string, Throttle.Policy<any>> = {
  concurrency: Throttle.concurrency({ limit: 5 }),
  "rate and concurrency": Throttle.all([Throttle.rate({ limit: 10, burst: 10 }), Throttle.concurrency({ limit: 5 })]),
  rate: Throttle.rate({ limit: 10, burst: 10 }),
  "in shadow": Throttle.shadow(Throttle.concurrency({ limit: 1 }))
}

describe("while the throttles of a middleware are drained", () => {
  for (const [name, policy] of Object.entries(policies)) {
    for (const global of [undefined, Throttle.rate({ limit: 100, burst: 100 })]) {
      it.effect(`${name}${global ? " and a global limit" : ""}: newcomers get 503, requests under way are answered`, () =>
        Effect.gen(function*() {
          const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
          const middleware = HttpThrottle.middleware({
            throttles: Effect.succeed(map),
            ...(global === undefined ? undefined : { global })
          }, { global: true })
          const request = yield* ask(Layer.merge(slow, middleware))
          const underWay = [yield* fork(request()), yield* fork(request({ from: "192.0.2.2" }))]
          yield* TestClock.adjust("500 millis")
          const drain = yield* fork(map.drain("1 minute"))
          for (const from of ["192.0.2.1", "192.0.2.3"]) {
            const { body, headers, status } = yield* request({ from })
            assert.deepStrictEqual([status, headers["retry-after"], headers["ratelimit"]], [503, "1", undefined])
            assert.include(body, "temporary-reduced-capacity")
          }
          yield* TestClock.adjust("500 millis")
          for (const answer of underWay) {
            const exit = answer.pollUnsafe()!
            assert.isTrue(Exit.isSuccess(exit))
            if (Exit.isSuccess(exit)) assert.strictEqual(exit.value.status, 200)
          }
          assert.deepStrictEqual(drain.pollUnsafe(), Exit.succeed(0))
        }))
    }
  }

  it.effect("onRejected answers in the app's own words", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policies["rate"]! })
      const request = yield* ask(Layer.merge(
        slow,
        HttpThrottle.middleware({
          throttles: Effect.succeed(map),
          onRejected: ({ response, status, violatedPolicies }) =>
            HttpServerResponse.setHeader(response, "x-own", `${status} ${violatedPolicies.length}`)
        }, { global: true })
      ))
      yield* map.drain()
      const { headers, status } = yield* request()
      assert.deepStrictEqual([status, headers["x-own"]], [503, "503 0"])
    }))
})
