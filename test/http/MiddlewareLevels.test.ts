/** A server whose requests several limits must admit, all or none: of the user, of the organisation, of all. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { fork, now } from "../utils/kit.ts"
import { exchange, request as bytes, serve, statusOf } from "../utils/serve.ts"
import { type Answer, ask, hello } from "../utils/web.ts"

const user = HttpThrottle.header("x-user")
const org = HttpThrottle.header("x-org")

/** So many at once, one of them back in an hour: what is left says what was charged. */
const budget = (limit: number, options: Partial<Throttle.RateOptions> = {}) =>
  Throttle.rate({ limit: 1, per: "1 hour", burst: limit - 1, ...options })

const from = (user: string, org: string) => ({ headers: { "x-user": user, "x-org": org } })

const statuses = (answers: ReadonlyArray<Answer>) => answers.map(({ status }) => status)

/** What is left of a limit, as the fields say. */
const left = ({ headers }: Answer, name: string): number | undefined => {
  const found = new RegExp(`"${name}";r=(\\d+)`).exec(headers["ratelimit"] ?? "")
  return found === null ? undefined : Number(found[1])
}

const repeat = (n: number, one: Effect.Effect<Answer>) => Effect.all(Array.from({ length: n }, () => one))

interface Budgets {
  readonly user?: Throttle.Policy<any>
  readonly org?: Throttle.Policy<any>
  readonly global?: Throttle.Policy<any>
}

const threeLevels = (budgets: Budgets = {}, options: Partial<HttpThrottle.PolicyOptions> = {}) =>
  HttpThrottle.middleware({
    key: user,
    policy: budgets.user ?? budget(3),
    name: "user",
    levels: [{ key: org, policy: budgets.org ?? budget(4), name: "organisation" }],
    global: budgets.global ?? budget(6),
    ...options
  }, { global: true })

const asked = (budgets?: Budgets, options?: Partial<HttpThrottle.PolicyOptions>, route = hello) =>
  ask(Layer.merge(route, threeLevels(budgets, options)))

/** The ways to the same decision: in one step, in one step with an observer, and with permits that are held. */
const ways: Readonly<Record<string, { readonly isObserved: boolean; readonly isHeld: boolean }>> = {
  "at once": { isObserved: false, isHeld: false },
  "observed": { isObserved: true, isHeld: false },
  "holding permits": { isObserved: false, isHeld: true }
}

describe("levels", () => {
  for (const [way, { isHeld, isObserved }] of Object.entries(ways)) {
    it.effect(`${way}: the narrowest that refuses decides the status, and nothing is charged`, () =>
      Effect.gen(function*() {
        const held = (policy: Throttle.Policy<any>) =>
          isHeld ? Throttle.all([policy, Throttle.concurrency({ limit: 9, name: "at once" })]) : policy
        const name = (of: string) => (policy: Throttle.Policy<any>) => Throttle.all([policy], { name: of })
        const events: Array<string> = []
        const app = asked({
          user: held(budget(3, { name: "user" })),
          org: held(budget(4, { name: "organisation" })),
          global: name("everybody")(held(budget(6)))
        })
        const observer = ({ _tag }: Throttle.Event) => Effect.sync(() => void events.push(_tag))
        const request = yield* (isObserved ? Effect.provideService(app, Throttle.Observer, observer) : app)
        const send = (who: string, of: string) => request(from(who, of))
        const violated = ({ body }: Answer) => JSON.parse(body)["violated-policies"]

        // Four of ada: the last by her own limit, which charges neither her organisation nor the server.
        const own = yield* repeat(4, send("ada", "acme"))
        assert.deepStrictEqual(statuses(own), [200, 200, 200, 429])
        assert.deepStrictEqual(violated(own[3]!), ["user"])
        assert.deepStrictEqual([left(own[3]!, "user"), left(own[3]!, "organisation")], [0, 1])
        // Two of grace: the last by the organisation's, which charges neither her nor the server.
        const ofOrg = yield* repeat(2, send("grace", "acme"))
        assert.deepStrictEqual(statuses(ofOrg), [200, 429])
        assert.deepStrictEqual(violated(ofOrg[1]!), ["organisation"])
        assert.deepStrictEqual([left(ofOrg[1]!, "user"), left(ofOrg[1]!, "organisation")], [2, 0])
        // Three of another organisation: the last by the server's, which charges neither the user nor the organisation.
        const ofAll = yield* repeat(3, send("alan", "other"))
        assert.deepStrictEqual(statuses(ofAll), [200, 200, 503])
        assert.deepStrictEqual(violated(ofAll[2]!), ["everybody"])
        assert.isUndefined(ofAll[2]!.headers["ratelimit"])
        const again = yield* send("alan", "third")
        assert.strictEqual(again.status, 503)
        if (isObserved) assert.strictEqual(events.filter((tag) => tag === "Rejected").length, 4)
        // An hour later each limit has one more: what was refused has been charged nowhere.
        yield* TestClock.adjust("1 hour")
        const later = yield* send("alan", "other")
        assert.deepStrictEqual([later.status, left(later, "user"), left(later, "organisation")], [200, 1, 2])
      }))
  }

  it.effect("fields tell of each level by its name; earlier versions of the one that is met first", () =>
    Effect.gen(function*() {
      const answers = yield* Effect.forEach(
        ["draft-10", "draft-7", "draft-6", "none"] as const,
        (fields) =>
          Effect.gen(function*() {
            const app = HttpThrottle.middleware({
              key: user,
              policy: budget(3),
              levels: [{ key: org, policy: budget(2) }, {
                key: Effect.succeed("eu"),
                policy: Throttle.concurrency({ limit: 9 }),
                name: "region"
              }],
              global: budget(6),
              fields
            }, { global: true })
            const request = yield* ask(Layer.merge(hello, app))
            return (yield* request(from("ada", "acme"))).headers
          })
      )
      const fields = answers.map((headers) =>
        Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith("ratelimit")))
      )
      assert.deepStrictEqual(fields, [
        {
          "ratelimit-policy": `"default";q=3;w=10800, "level 2";q=2;w=7200, "region";q=9;qu="concurrent-requests"`,
          ratelimit: `"default";r=2;t=3600, "level 2";r=1;t=3600, "region";r=8`
        },
        { "ratelimit-policy": "3;w=10800, 2;w=7200", ratelimit: "limit=2, remaining=1, reset=3600" },
        {
          "ratelimit-policy": "3;w=10800, 2;w=7200",
          "ratelimit-limit": "2",
          "ratelimit-remaining": "1",
          "ratelimit-reset": "3600"
        },
        {}
      ])
    }))

  it.effect("each has a cost of its own, by default one permit", () =>
    Effect.gen(function*() {
      const app = HttpThrottle.middleware({
        key: user,
        policy: budget(10),
        cost: ({ headers }) => Number(headers["x-rows"]),
        levels: [
          { key: org, policy: budget(10), name: "requests" },
          {
            key: org,
            policy: Throttle.tokenBucket({ capacity: 100, refill: 1, unit: "bytes" }),
            cost: ({ headers }) => ({ bytes: Number(headers["x-bytes"]) }),
            name: "bytes"
          }
        ]
      }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      const send = (rows: number, bytes: number) =>
        request({ headers: { "x-user": "ada", "x-org": "acme", "x-rows": `${rows}`, "x-bytes": `${bytes}` } })
      const first = yield* send(4, 60)
      assert.deepStrictEqual(["default", "requests", "bytes"].map((name) => left(first, name)), [6, 9, 40])
      const second = yield* send(4, 60)
      assert.strictEqual(second.status, 429)
      assert.deepStrictEqual(["default", "requests", "bytes"].map((name) => left(second, name)), [6, 9, 40])
      // More than there can ever be
      const third = yield* send(4, 101)
      assert.deepStrictEqual([third.status, third.headers["retry-after"]], [429, undefined])
      assert.strictEqual((yield* send(4, -1)).status, 500)
      assert.deepStrictEqual(left(yield* send(4, 40), "default"), 2)
    }))

  it.effect("requests wait at one level at a time, in turn, and are charged by all when they start", () =>
    Effect.gen(function*() {
      const started: Array<readonly [string, number]> = []
      const route = HttpRouter.add(
        "GET",
        "/",
        Effect.gen(function*() {
          const { headers } = yield* HttpServerRequest.HttpServerRequest
          started.push([headers["x-user"]!, Math.round(yield* now)])
          return HttpServerResponse.text("hello")
        })
      )
      const request = yield* asked(
        {
          user: Throttle.rate({ limit: 1 }),
          org: Throttle.rate({ limit: 10 }),
          global: Throttle.rate({ limit: 10 })
        },
        { maxWait: "10 seconds" },
        route
      )
      const fibers = yield* Effect.forEach(
        [["ada", "acme"], ["ada", "acme"], ["grace", "acme"], ["alan", "other"]] as const,
        ([user, org]) => fork(request(from(user, org)))
      )
      yield* TestClock.adjust("5 seconds")
      const answers = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(statuses(answers), [200, 200, 200, 200])
      // ada's second request waits at her own limit alone, and holds back no one. grace waits for her organisation, and enters
      // the queue of the server after alan, whose organisation lets him.
      assert.deepStrictEqual(started, [["ada", 0], ["alan", 100], ["grace", 200], ["ada", 1_000]])
    }))

  it.effect("a request waits no longer than maxWait for all of them together; then the one that it waits for answers", () =>
    Effect.gen(function*() {
      const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 minute"), HttpServerResponse.text("slow")))
      const request = yield* asked(
        {
          user: Throttle.concurrency({ limit: 9 }),
          org: Throttle.concurrency({ limit: 2, name: "organisation" }),
          global: Throttle.concurrency({ limit: 1, name: "everybody" })
        },
        { maxWait: "10 seconds" },
        slow
      )
      const first = yield* fork(request(from("ada", "acme")))
      const second = yield* fork(request(from("grace", "acme")))
      yield* TestClock.adjust("9999 millis")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(second)).status, 503)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
    }))

  it.effect("a client that hangs up while it waits has left every queue, and was charged nothing", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => budget(3) })
      const orgs = yield* ThrottleMap.make({ lookup: (_key: string) => budget(4) })
      const app = HttpThrottle.middleware({
        key: user,
        throttles: Effect.succeed(map),
        levels: [{ key: org, throttles: Effect.succeed(orgs) }],
        global: Throttle.rate({ limit: 1, per: "1 minute" }),
        maxWait: "1 hour"
      }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      yield* request(from("ada", "acme"))
      const waiting = yield* fork(request(from("ada", "acme")))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(waiting)
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* map.statistics, { waiting: 0, admitted: 1 })
      assert.deepInclude(yield* orgs.statistics, { waiting: 0, admitted: 1 })
      assert.strictEqual((yield* map.remaining("x-user:ada"))[0]!.remaining, 2)
      assert.strictEqual((yield* orgs.remaining("x-org:acme"))[0]!.remaining, 3)
    }))

  it.effect("permits are held at every level until the body has been sent", () =>
    Effect.gen(function*() {
      const users = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 1 }) })
      const orgs = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 2 }) })
      const route = HttpRouter.add(
        "GET",
        "/",
        Effect.succeed(HttpServerResponse.stream(Stream.fromEffect(Effect.as(Effect.sleep(100), new Uint8Array(1)))))
      )
      const app = HttpThrottle.middleware({
        key: user,
        throttles: Effect.succeed(users),
        levels: [{ key: org, throttles: Effect.succeed(orgs) }],
        global: Throttle.concurrency({ limit: 5 })
      }, { global: true })
      const request = yield* ask(Layer.merge(route, app))
      const fibers = yield* Effect.forEach(["ada", "grace"], (name) => fork(request(from(name, "acme"))))
      yield* TestClock.adjust("99 millis")
      assert.strictEqual((yield* orgs.statisticsOf("x-org:acme")).running, 2)
      assert.strictEqual((yield* users.statistics).running, 2)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(statuses(yield* Effect.forEach(fibers, Fiber.join)), [200, 200])
      assert.strictEqual((yield* orgs.statistics).running, 0)
      assert.strictEqual((yield* users.statistics).running, 0)
    }))

  for (const holds of [false, true]) {
    it.effect(`countIf cancels what each key was charged, but not the global limit${holds ? ", with permits held" : ""}`, () =>
      Effect.gen(function*() {
        const held = (policy: Throttle.Policy<any>) =>
          holds ? Throttle.all([policy, Throttle.concurrency({ limit: 5, name: "at once" })]) : policy
        const request = yield* asked({
          user: held(budget(3, { name: "user" })),
          org: held(budget(4, { name: "organisation" })),
          global: held(budget(6))
        }, { countIf: ({ status }) => status === 404 })
        const good = yield* repeat(2, request(from("ada", "acme")))
        assert.deepStrictEqual([left(good[1]!, "user"), left(good[1]!, "organisation")], [3, 4])
        const bad = yield* request({ ...from("ada", "acme"), path: "/unknown" })
        assert.deepStrictEqual([bad.status, left(bad, "user"), left(bad, "organisation")], [404, 2, 3])
        const rest = yield* repeat(4, request(from("ada", "acme")))
        assert.deepStrictEqual(statuses(rest), [200, 200, 200, 503])
      }))
  }

  it.effect("in shadow all are admitted, and what a level would have refused does not count for wider ones", () =>
    Effect.gen(function*() {
      const rejected: Array<string> = []
      const observer = (event: Throttle.Event) =>
        Effect.sync(() => event._tag === "Rejected" && rejected.push(event.throttle))
      const request = yield* asked({ user: budget(2), org: budget(3), global: budget(4) }, { shadow: true }).pipe(
        Effect.provideService(Throttle.Observer, observer)
      )
      const send = (user: string, org: string) =>
        Effect.provideService(request(from(user, org)), Throttle.Observer, observer)
      const answers = [
        ...(yield* repeat(4, send("ada", "acme"))),
        ...(yield* repeat(2, send("grace", "acme"))),
        ...(yield* repeat(2, send("alan", "other")))
      ]
      assert.deepStrictEqual(statuses(answers), Array.from({ length: 8 }, () => 200))
      assert.deepStrictEqual(rejected, ["user", "user", "organisation", "global"])
      assert.isTrue(answers.every(({ headers }) => headers["ratelimit"] === undefined))
    }))

  it.effect("a level in shadow refuses none and has no fields; the others are in force", () =>
    Effect.gen(function*() {
      const request = yield* asked({ org: Throttle.shadow(budget(1)) })
      const answers = yield* repeat(4, request(from("ada", "acme")))
      assert.deepStrictEqual(statuses(answers), [200, 200, 200, 429])
      assert.deepStrictEqual([left(answers[0]!, "user"), left(answers[0]!, "organisation")], [2, undefined])
    }))

  it.effect("while a level is drained: 503, charged nowhere, and requests under way are answered", () =>
    Effect.gen(function*() {
      const orgs = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 5 }) })
      const app = HttpThrottle.middleware({
        key: user,
        policy: budget(3),
        levels: [{ key: org, throttles: Effect.succeed(orgs) }],
        global: budget(6)
      }, { global: true })
      const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 second"), HttpServerResponse.text("done")))
      const request = yield* ask(Layer.merge(slow, app))
      const underWay = yield* fork(request(from("ada", "acme")))
      yield* TestClock.adjust("500 millis")
      const drain = yield* fork(orgs.drain("1 minute"))
      for (const name of ["acme", "other"]) {
        const { headers, status } = yield* request(from("ada", name))
        assert.deepStrictEqual([status, headers["retry-after"], headers["ratelimit"]], [503, "1", undefined])
      }
      yield* TestClock.adjust("500 millis")
      const answer = yield* Fiber.join(underWay)
      assert.deepStrictEqual([answer.status, left(answer, "default")], [200, 2])
      assert.strictEqual(yield* Fiber.join(drain), 0)
    }))

  it.effect("a full map of a level: 503, charged nowhere", () =>
    Effect.gen(function*() {
      const app = HttpThrottle.middleware({
        key: user,
        policy: budget(3),
        levels: [{ key: org, lookup: () => budget(4), maxKeys: 1, onFull: "refuse" }]
      }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      assert.deepStrictEqual(
        statuses([yield* request(from("ada", "acme")), yield* request(from("ada", "other"))]),
        [200, 503]
      )
      assert.strictEqual(left(yield* request(from("ada", "acme")), "default"), 1)
    }))

  it.effect("a key, cost or lookup of a level that breaks is a 500 and charges nothing", () =>
    Effect.gen(function*() {
      const broken = () => {
        throw new Error("broken")
      }
      const levels: ReadonlyArray<HttpThrottle.Level> = [
        { key: Effect.die("broken"), policy: budget(3) },
        { key: Effect.succeed(5 as any), policy: budget(3) },
        { key: org, policy: budget(3), cost: broken },
        { key: org, lookup: broken },
        { key: org, lookup: () => 5 as any }
      ]
      for (const level of levels) {
        const users = yield* ThrottleMap.make({ lookup: (_key: string) => budget(3) })
        const app = HttpThrottle.middleware({ key: user, throttles: Effect.succeed(users), levels: [level] }, {
          global: true
        })
        const request = yield* ask(Layer.merge(hello, app))
        assert.strictEqual((yield* request(from("ada", "acme"))).status, 500)
        assert.strictEqual((yield* users.remaining("x-user:ada"))[0]!.remaining, 3)
      }
    }))

  it.live("three levels on a real server", () =>
    Effect.gen(function*() {
      const port = yield* serve(Layer.merge(hello, threeLevels()))
      const send = (user: string, org: string) =>
        Effect.promise(() => exchange(port, bytes(`X-User: ${user}`, `X-Org: ${org}`)))
      const who = [
        ...Array.from({ length: 4 }, () => ["ada", "acme"] as const),
        ...Array.from({ length: 2 }, () => ["grace", "acme"] as const),
        ...Array.from({ length: 3 }, () => ["alan", "other"] as const)
      ]
      const answers = yield* Effect.forEach(who, ([user, org]) => send(user, org))
      assert.deepStrictEqual(answers.map(statusOf), [200, 200, 200, 429, 200, 429, 200, 200, 503])
      assert.include(answers[0]!.toLowerCase(), `ratelimit: "user";r=2;t=3600, "organisation";r=3;t=3600`)
    }).pipe(Effect.scoped))
})

describe("a global limit that is a throttle", () => {
  class Everybody extends Throttle.Service<Everybody>()("test/Everybody", budget(2)) {}

  it.effect("is shared with other code, and drained with it", () =>
    Effect.gen(function*() {
      const everybody = yield* Everybody
      for (const global of [everybody, Everybody] as const) {
        yield* everybody.reset
        const app = HttpThrottle.middleware({ key: user, policy: budget(9), global }, { global: true }).pipe(
          Layer.provide(Layer.succeed(Everybody, everybody))
        )
        const request = yield* ask(Layer.merge(hello, app))
        assert.strictEqual((yield* request(from("ada", ""))).status, 200)
        assert.strictEqual((yield* everybody.remaining)[0]!.remaining, 1)
      }
      yield* everybody.drain()
      const app = HttpThrottle.middleware({ key: user, policy: budget(9), global: everybody }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      const { headers, status } = yield* request(from("ada", ""))
      assert.deepStrictEqual([status, headers["retry-after"]], [503, "1"])
    }).pipe(Effect.provide(Everybody.layer)))
})

describe("setCaller", () => {
  const key = HttpRouter.add(
    "GET",
    "/",
    Effect.map(Throttle.Caller, ({ key, weight }) => HttpServerResponse.text(`${key} ${weight}`))
  )

  it.effect("the handler runs as the client's caller; by default as no one's", () =>
    Effect.gen(function*() {
      const bodies = yield* Effect.forEach(
        [
          undefined,
          false,
          true,
          (user: string, [org]: ReadonlyArray<string>) => ({ key: org!, weight: user === "x-user:ada" ? 2 : 1 })
        ],
        (setCaller) =>
          Effect.gen(function*() {
            const request = yield* asked({}, { setCaller }, key)
            return (yield* request(from("ada", "acme"))).body
          })
      )
      assert.deepStrictEqual(bodies, [" 1", " 1", "x-user:ada 1", "x-org:acme 2"])
    }))

  it.effect("a fair throttle inside the handler is shared by client", () =>
    Effect.gen(function*() {
      const database = yield* Throttle.make(Throttle.concurrency({ limit: 1, order: "fair" }))
      const started: Array<string> = []
      const query = HttpRouter.add(
        "GET",
        "/",
        Effect.gen(function*() {
          const { headers } = yield* HttpServerRequest.HttpServerRequest
          const run = Effect.andThen(Effect.sync(() => started.push(headers["x-user"]!)), Effect.sleep(100))
          yield* Effect.orDie(database.withPermit(run))
          return HttpServerResponse.text("found")
        })
      )
      const app = HttpThrottle.middleware({ key: user, policy: budget(99), setCaller: true }, { global: true })
      const request = yield* ask(Layer.merge(query, app))
      for (const name of ["flooder", "flooder", "flooder", "flooder", "ada"]) yield* fork(request(from(name, "")))
      yield* TestClock.adjust("1 second")
      assert.isAtMost(started.indexOf("ada"), 2)
    }))

  it.effect("so is the wait for a fair global limit", () =>
    Effect.gen(function*() {
      const answered: Array<string> = []
      const app = HttpThrottle.middleware({
        key: user,
        policy: budget(99),
        global: Throttle.rate({ limit: 10, order: "fair" }),
        maxWait: "10 seconds",
        setCaller: true
      }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      for (const name of ["flooder", "flooder", "flooder", "flooder", "ada"]) {
        yield* fork(Effect.tap(request(from(name, "")), () => Effect.sync(() => answered.push(name))))
      }
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(answered, ["flooder", "flooder", "ada", "flooder", "flooder"])
    }))

  it.effect("a priority limit of a key that requests wait for is ordered by the function's priority", () =>
    Effect.gen(function*() {
      const answered: Array<string> = []
      const app = HttpThrottle.middleware({
        key: org,
        policy: Throttle.concurrency({ limit: 1, order: "priority", ageing: "1 minute" }),
        levels: [{ key: user, policy: budget(99) }],
        maxWait: "10 seconds",
        setCaller: (_org, [user]) => ({ key: user!, priority: user === "x-user:urgent" ? 1 : 0 })
      }, { global: true })
      const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 second"), HttpServerResponse.text("slow")))
      const request = yield* ask(Layer.merge(slow, app))
      for (const name of ["a", "b", "c", "urgent"]) {
        yield* fork(Effect.tap(request(from(name, "acme")), () => Effect.sync(() => answered.push(name))))
      }
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(answered, ["a", "urgent", "b", "c"])
    }))

  it.effect("a function that gives no caller is a defect of the request, which is charged nothing", () =>
    Effect.gen(function*() {
      const users = yield* ThrottleMap.make({ lookup: (_key: string) => budget(3) })
      const app = HttpThrottle.middleware({
        key: user,
        throttles: Effect.succeed(users),
        setCaller: () => ({ weight: -1 })
      }, { global: true })
      const request = yield* ask(Layer.merge(hello, app))
      assert.strictEqual((yield* request(from("ada", ""))).status, 500)
      assert.strictEqual((yield* users.remaining("x-user:ada"))[0]!.remaining, 3)
    }))
})

describe("bad options of levels", () => {
  const policy = budget(3)
  const tokens = Throttle.tokenBucket({ capacity: 9, refill: 9, unit: "tokens" })
  const table: ReadonlyArray<readonly [unknown, string]> = [
    [{ policy, levels: {} }, `HttpThrottle.middleware: "levels" must be an array, received {}`],
    [
      { policy, levels: [{ policy }] },
      `HttpThrottle.middleware, levels[0]: "key" must be an effect that returns a string, received undefined`
    ],
    [
      { policy, levels: [{ key: org }] },
      `HttpThrottle.middleware, levels[0]: exactly one of "policy", "lookup" and "throttles" must be given`
    ],
    [
      { policy, levels: [{ key: org, policy }, { key: org, policy: tokens }] },
      `HttpThrottle.middleware, levels[1]: "policy" must count permits, since without "cost" a request is one permit; received ${
        String(tokens)
      }`
    ],
    [
      { policy, levels: [{ key: org, throttles: Effect.void, maxKeys: 5 }] },
      `HttpThrottle.middleware, levels[0]: "maxKeys" goes with "policy" and "lookup"; with "throttles" the map decides`
    ],
    [
      { policy, levels: [{ key: org, policy, limit: 5 }] },
      `HttpThrottle.middleware, levels[0]: unknown option "limit"; the options are key, policy, lookup, throttles, cost, name, maxKeys, onFull`
    ],
    [
      { policy, name: "level 2", levels: [{ key: org, policy }] },
      `HttpThrottle.middleware: each limit must have another "name", received "level 2" twice`
    ],
    [
      { policy, shadow: true, levels: [{ key: org, throttles: Effect.void }] },
      `HttpThrottle.middleware: "shadow" needs "policy" or "lookup" at each level; a map of "throttles" decides itself`
    ],
    [
      { policy, setCaller: "ada" },
      `HttpThrottle.middleware: "setCaller" must be a boolean, or a function from a key to a caller, received "ada"`
    ]
  ]
  for (const [options, message] of table) {
    it(message, () => {
      assert.throws(() => HttpThrottle.middleware(options as HttpThrottle.Options), RangeError, message)
    })
  }

  const built = (options: HttpThrottle.Options) =>
    Effect.flip(Effect.catchDefect(
      Effect.as(ask(Layer.merge(hello, HttpThrottle.middleware(options, { global: true }))), undefined),
      (defect) => Effect.fail(String(defect))
    ))

  it.effect("maps that are not of this process, and one map for two levels, fail when the layer is built", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      const levels = [{ key: org, throttles: Effect.succeed(map) }]
      assert.include(
        yield* built({ throttles: Effect.succeed(map), levels }),
        `RangeError: HttpThrottle.middleware: each of the "levels" must have another map`
      )
      assert.include(
        yield* built({ throttles: Effect.succeed({ ...map }), levels }),
        `with "levels" each "throttles" must be a map of this process`
      )
      const shared = yield* RedisThrottle.make(policy, { key: "all" }).pipe(Effect.provide(MemoryStore.layer))
      assert.include(
        yield* built({ policy, global: shared as Throttle.Throttle }),
        `"global" must be a policy, a Service class, or a throttle of Throttle.make in this process`
      )
    }))
})
