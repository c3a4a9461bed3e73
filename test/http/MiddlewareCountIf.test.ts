/** Limits that count only some outcomes, such as failed logins: a permit is charged at the start and given back by the answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { HttpRouter, HttpServerRequest, HttpServerRespondable, HttpServerResponse } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema
} from "effect/http-api"
import { TestClock } from "effect/testing"
import * as Telemetry from "../utils/telemetry.ts"
import { type Answer, ask, type Asked } from "../utils/web.ts"

/** Three at once, one of them back in an hour. */
const three = Throttle.rate({ limit: 1, per: "1 hour", burst: 2 })

const isFailedLogin = ({ status }: HttpServerResponse.HttpServerResponse) => status === 401

/** 200 with the right password, 401 with any other, after as many milliseconds as the request says. */
const login = HttpRouter.add(
  "POST",
  "/login",
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
    Effect.as(
      Effect.sleep(Number(headers["takes"] ?? 0)),
      HttpServerResponse.empty({ status: headers["password"] === "right" ? 200 : 401 })
    ))
)

const wrong: Asked = { method: "POST", path: "/login" }
const right: Asked = { ...wrong, headers: { password: "right" } }
const slowly = (asked: Asked, millis: number): Asked => ({
  ...asked,
  headers: { ...asked.headers, takes: `${millis}` }
})

const limited = (options: Partial<HttpThrottle.PolicyOptions> = {}, routes: Layer.Layer<never, never, any> = login) =>
  ask(Layer.merge(
    routes,
    HttpThrottle.middleware({ policy: three, countIf: isFailedLogin, ...options }, { global: true })
  ))

const seen = ({ headers, status }: Answer) => [status, headers["ratelimit"]]

describe("countIf", () => {
  it.effect("charges failed logins and gives the permits of the others back", () =>
    Effect.gen(function*() {
      const request = yield* limited()
      for (let i = 0; i < 10; i++) assert.deepStrictEqual(seen(yield* request(right)), [200, `"default";r=3`])
      assert.deepStrictEqual(seen(yield* request(wrong)), [401, `"default";r=2;t=3600`])
      assert.deepStrictEqual(seen(yield* request(right)), [200, `"default";r=2;t=3600`])
      yield* request(wrong)
      assert.deepStrictEqual(seen(yield* request(wrong)), [401, `"default";r=0;t=3600`])
      // Over the limit the right password is refused as well: nobody can tell it from a guess before it is checked.
      const refused = yield* request(right)
      assert.deepStrictEqual([refused.status, refused.headers["retry-after"]], [429, "3600"])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(seen(yield* request(right)), [200, `"default";r=1;t=3600`])
    }))

  it.effect("no more are under way at once than could all be counted", () =>
    Effect.gen(function*() {
      const request = yield* limited()
      const guesses = yield* Effect.forEach(Array.from({ length: 9 }), () =>
        Effect.forkChild(request(slowly(wrong, 1_000)), { startImmediately: true }))
      yield* TestClock.adjust("1 second")
      const statuses = (yield* Fiber.joinAll(guesses)).map(({ status }) =>
        status
      )
      assert.deepStrictEqual(statuses, [401, 401, 401, 429, 429, 429, 429, 429, 429])
    }))

  it.effect("those who wait for a permit get the one that is given back", () =>
    Effect.gen(function*() {
      const request = yield* limited({
        policy: Throttle.rate({ limit: 1, per: "1 minute" }),
        maxWait: "1 minute"
      })
      const first = yield* Effect.forkChild(request(slowly(right, 5_000)), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      const second = yield* Effect.forkChild(request(wrong), { startImmediately: true })
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(second)).status, 401)
    }))

  it.effect("is given the answer that is sent, whatever it was made of, and the request", () =>
    Effect.gen(function*() {
      class Denied extends Error {
        [HttpServerRespondable.symbol]() {
          return Effect.succeed(HttpServerResponse.empty({ status: 401 }))
        }
      }
      const told: Array<readonly [string, number]> = []
      const routes = Layer.mergeAll(
        HttpRouter.add("GET", "/responds", Effect.die(new Denied())),
        HttpRouter.add("GET", "/dies", Effect.die("broken"))
      )
      const request = yield* limited({
        countIf: (response, { url }) => {
          told.push([url, response.status])
          return response.status === 401
        }
      }, routes)
      assert.deepStrictEqual(seen(yield* request({ path: "/responds" })), [401, `"default";r=2;t=3600`])
      assert.deepStrictEqual(seen(yield* request({ path: "/dies" })), [500, `"default";r=2;t=3600`])
      assert.deepStrictEqual(seen(yield* request({ path: "/missing?a" })), [404, `"default";r=2;t=3600`])
      assert.deepStrictEqual(told, [["/responds", 401], ["/dies", 500], ["/missing?a", 404]])
    }))

  it.effect("a request whose client hangs up is an answer of 499", () =>
    Effect.gen(function*() {
      const told: Array<number> = []
      const request = yield* limited({
        countIf: ({ status }) => {
          told.push(status)
          return status === 401
        }
      })
      for (let i = 0; i < 5; i++) {
        const gone = yield* Effect.forkChild(request(slowly(wrong, 1_000)), { startImmediately: true })
        yield* TestClock.adjust("500 millis")
        yield* Fiber.interrupt(gone)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(told, [499, 499, 499, 499, 499])
      assert.deepStrictEqual(seen(yield* request(right)), [200, `"default";r=3`])
    }))

  it.effect("an error of an HttpApi counts by its status", () =>
    Effect.gen(function*() {
      class Unknown extends Schema.TaggedError<Unknown>()("Unknown", {}, { httpApiStatus: 401 }) {}
      class Logins extends HttpApiMiddleware.Service<Logins>()("test/CountIf/Logins", { error: HttpThrottle.errors }) {}
      const Api = HttpApi.make("api").add(
        HttpApiGroup.make("users").add(
          HttpApiEndpoint.get("login", "/login", {
            query: { password: Schema.String },
            success: HttpApiSchema.NoContent,
            error: Unknown
          })
        ).middleware(Logins)
      )
      const app = HttpApiBuilder.layer(Api).pipe(
        Layer.provide(HttpApiBuilder.group(Api, "users", (handlers) =>
          handlers.handle("login", ({ query }) =>
            query.password === "right" ? Effect.void : Effect.fail(new Unknown())))),
        Layer.provide(HttpThrottle.layerApi(Logins, { policy: three, countIf: isFailedLogin }))
      )
      const request = yield* ask(app as any)
      const as = (password: string) =>
        Effect.map(request({ path: `/login?password=${password}` }), seen)
      assert.deepStrictEqual(yield* as("right"), [204, `"default";r=3`])
      assert.deepStrictEqual(yield* as("wrong"), [401, `"default";r=2;t=3600`])
      assert.deepStrictEqual(yield* as("right"), [204, `"default";r=2;t=3600`])
    }))

  it.effect("an error that a middleware outside turns into another status counts by the status that is sent", () =>
    Effect.gen(function*() {
      const hide = HttpRouter.middleware(
        (app) =>
          Effect.map(
            app,
            (response) => response.status === 401 ? HttpServerResponse.setStatus(response, 404) : response
          ),
        { global: true }
      )
      const countIf = ({ status }: HttpServerResponse.HttpServerResponse) => status === 404
      const request = yield* ask(Layer.merge(
        login,
        HttpThrottle.middleware({ policy: three, countIf }, { global: true }).pipe(Layer.provideMerge(hide))
      ))
      const answers = yield* Effect.forEach([1, 2, 3, 4], () => request(wrong))
      assert.deepStrictEqual(answers.map(({ status }) => status), [404, 404, 404, 429])
    }))

  it.effect("the global policy counts every request that was let in", () =>
    Effect.gen(function*() {
      const request = yield* limited({ global: Throttle.rate({ limit: 1, per: "1 hour", burst: 3 }) })
      const statuses = yield* Effect.forEach([1, 2, 3, 4, 5], () => Effect.map(request(right), ({ status }) => status))
      assert.deepStrictEqual(statuses, [200, 200, 200, 200, 503])
    }))

  it.effect("permits of concurrency are held until a body that streams has been sent, counted or not", () =>
    Effect.gen(function*() {
      const stream = Stream.fromEffect(Effect.as(Effect.sleep("1 second"), new TextEncoder().encode("late")))
      const request = yield* limited(
        { policy: Throttle.all([three, Throttle.concurrency({ limit: 1 })]) },
        HttpRouter.add("GET", "/", Effect.sync(() => HttpServerResponse.stream(stream)))
      )
      for (let i = 0; i < 5; i++) {
        const first = yield* Effect.forkChild(request(), { startImmediately: true })
        yield* TestClock.adjust("500 millis")
        assert.strictEqual((yield* request()).status, 429)
        yield* TestClock.adjust("500 millis")
        const { body, status } = yield* Fiber.join(first)
        assert.deepStrictEqual([status, body], [200, "late"])
      }
    }))

  it.effect("costs in units are given back too", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 hour", name: "requests" }),
        Throttle.tokenBucket({ capacity: 100, refill: 1, per: "1 hour", unit: "bytes", name: "bytes" })
      ])
      const request = yield* limited({ policy, cost: { permits: 2, bytes: 40 } })
      assert.strictEqual((yield* request(right)).headers["ratelimit"], `"requests";r=3, "bytes";r=100`)
      assert.strictEqual((yield* request(wrong)).headers["ratelimit"], `"requests";r=1;t=3600, "bytes";r=60;t=3600`)
    }))

  for (
    const policy of [
      Throttle.window({ limit: 3, per: "1 hour" }),
      Throttle.window({ limit: 3, per: "1 hour", kind: "fixed" }),
      Throttle.tokenBucket({ capacity: 3, refill: 1, per: "1 hour" })
    ]
  ) {
    it.effect(`of ${Throttle.describe(policy)}`, () =>
      Effect.gen(function*() {
        const request = yield* limited({ policy })
        for (let i = 0; i < 5; i++) assert.strictEqual((yield* request(right)).status, 200)
        const statuses = yield* Effect.forEach([1, 2, 3, 4], () => Effect.map(request(wrong), ({ status }) => status))
        assert.deepStrictEqual(statuses, [401, 401, 401, 429])
      }))
  }

  it.effect("of spacing: what was not counted spaces nothing", () =>
    Effect.gen(function*() {
      const request = yield* limited({ policy: Throttle.spacing({ interval: "1 hour" }) })
      for (let i = 0; i < 5; i++) assert.strictEqual((yield* request(right)).status, 200)
      assert.deepStrictEqual([(yield* request(wrong)).status, (yield* request(right)).status], [401, 429])
    }))

  it.effect("in shadow everything passes", () =>
    Effect.gen(function*() {
      const request = yield* limited({ shadow: true, global: three })
      for (let i = 0; i < 9; i++) {
        assert.strictEqual((yield* request(i % 2 === 0 ? right : wrong)).status, i % 2 === 0 ? 200 : 401)
      }
    }))

  it.effect("of a map of another make: the map is told", () =>
    Effect.gen(function*() {
      const cancelled: Array<string> = []
      const own = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.all([three], { maxQueue: 0 }) })
      const map: ThrottleMap.ThrottleMap<string> = {
        ...own,
        takeScoped: (key, cost) =>
          Effect.map(own.takeScoped(key, cost), (permit) => ({
            ...permit,
            cancel: Effect.andThen(Effect.sync(() => cancelled.push(key)), permit.cancel)
          }))
      }
      const request = yield* ask(Layer.merge(
        login,
        HttpThrottle.middleware({ throttles: Effect.succeed(map), countIf: isFailedLogin }, { global: true })
      ))
      const statuses = yield* Effect.forEach([right, right, wrong, wrong, wrong, right], (asked) =>
        Effect.map(request(asked), ({ status }) => status))
      assert.deepStrictEqual(statuses, [200, 200, 401, 401, 401, 429])
      assert.deepStrictEqual(cancelled, ["192.0.2.1", "192.0.2.1"])
    }).pipe(Effect.scoped))

  it.effect("of a map on a store", () =>
    Effect.gen(function*() {
      const map = yield* RedisThrottle.makeMap({
        name: "login",
        lookup: (_key: string) => Throttle.all([three], { maxQueue: 0 })
      })
      const request = yield* ask(Layer.merge(
        login,
        HttpThrottle.middleware({ throttles: Effect.succeed(map), countIf: isFailedLogin }, { global: true })
      ))
      const statuses: Array<number> = []
      for (const asked of [right, right, wrong, wrong, right, wrong, right]) {
        const fiber = yield* Effect.forkChild(request(asked), { startImmediately: true })
        yield* TestClock.adjust("100 millis")
        statuses.push((yield* Fiber.join(fiber)).status)
      }
      assert.deepStrictEqual(statuses, [200, 200, 401, 401, 200, 401, 429])
    }).pipe(Effect.scoped, Effect.provide(MemoryStore.layer)))

  for (
    const [what, countIf] of [
      ["throws", () => {
        throw new Error("broken")
      }],
      ["gives no boolean", () => Promise.resolve(false) as never]
    ] as const
  ) {
    it.effect(`that ${what}: the request is answered and counted, and the defect is logged`, () =>
      Effect.gen(function*() {
        const told = Telemetry.collect()
        const request = yield* told.in(limited({ countIf }))
        const answers = yield* told.in(Effect.forEach([1, 2, 3, 4], () => request(right)))
        assert.deepStrictEqual(answers.map(({ status }) => status), [200, 200, 200, 429])
        assert.lengthOf(told.lines.filter(({ level }) => level === "Error"), 3)
      }))
  }
})
