/** What a throttled server answers, and when, on a clock that stands still. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer, Stream } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { waitUntilWaiting } from "effect-throttle/testing"
import { QueueFull, ThrottleError } from "effect-throttle/ThrottleError"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { type Answer, ask, hello } from "../utils/web.ts"

/** Two at once, then one a minute. */
const perMinute = Throttle.rate({ limit: 1, per: "1 minute", burst: 1 })

/** A server whose only route is throttled. */
const throttled = (options: HttpThrottle.Options, route: Layer.Layer<never, never, any> = hello) =>
  ask(Layer.mergeAll(route, HttpThrottle.middleware(options, { global: true })))

const statuses = (answers: ReadonlyArray<Answer>) => answers.map(({ status }) => status)

const times = <A, E, R>(n: number, effect: Effect.Effect<A, E, R>) =>
  Effect.all(Array.from({ length: n }, () => effect))

/** Answers after so long. */
const slow = (duration: Duration.Input) =>
  HttpRouter.add("GET", "/", Effect.as(Effect.sleep(duration), HttpServerResponse.text("slow")))

/** Reasons that limits do not have come from a store. */
const failingStore = (map: ThrottleMap.ThrottleMap<string>): ThrottleMap.ThrottleMap<string> => {
  const reason = new QueueFull({ throttle: "a", cost: {}, queued: 0, parts: [], limit: 0 })
  const failing = Effect.fail(new ThrottleError({ reason }))
  Object.assign(reason, { _tag: "StoreError" })
  return { ...map, withPermit: () => () => failing, takeScoped: () => failing }
}

describe("answers", () => {
  it.effect("within the limit: the handler's, and what is left", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute })
      const first = yield* request()
      assert.strictEqual(first.status, 200)
      assert.strictEqual(first.body, "hello")
      assert.strictEqual(first.headers["ratelimit-policy"], `"default";q=2;w=120`)
      assert.strictEqual(first.headers["ratelimit"], `"default";r=1;t=60`)
      assert.isUndefined(first.headers["retry-after"])
      assert.isUndefined(first.headers["cache-control"])
      assert.strictEqual((yield* request()).headers["ratelimit"], `"default";r=0;t=60`)
    }))

  it.effect("beyond it: 429, a problem, and when to try again", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute, name: "greetings" })
      yield* times(2, request())
      yield* TestClock.adjust("17500 millis")
      const { body, headers, status } = yield* request()
      assert.strictEqual(status, 429)
      assert.strictEqual(headers["content-type"], "application/problem+json")
      assert.deepStrictEqual(JSON.parse(body), {
        type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        status: 429,
        title: "Too Many Requests",
        detail: "Try again in 43 s.",
        retryAfter: 43,
        "violated-policies": ["greetings"]
      })
      assert.strictEqual(headers["retry-after"], "43")
      assert.strictEqual(headers["cache-control"], "no-store")
      assert.strictEqual(headers["ratelimit-policy"], `"greetings";q=2;w=120`)
      assert.strictEqual(headers["ratelimit"], `"greetings";r=0;t=43`)
    }))

  it.effect("Retry-After is a second at least, and enough", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: Throttle.rate({ limit: 10 }) })
      for (let i = 0; i < 5; i++) {
        assert.strictEqual((yield* request()).status, 200)
        const refused = yield* request()
        assert.strictEqual(refused.status, 429)
        assert.strictEqual(refused.headers["retry-after"], "1")
        yield* TestClock.adjust("1 second")
      }
    }))

  it.effect("Retry-After-Ms is finer, and enough; absent where nobody can know", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: Throttle.rate({ limit: 8 }) })
      yield* request()
      yield* TestClock.adjust("100.5 millis")
      const refused = yield* request()
      assert.deepStrictEqual([refused.headers["retry-after"], refused.headers["retry-after-ms"]], ["1", "25"])
      yield* TestClock.adjust(25)
      assert.strictEqual((yield* request()).status, 200)
      const busy = yield* throttled({ policy: Throttle.concurrency({ limit: 1 }) }, slow("1 second"))
      yield* Effect.forkChild(busy(), { startImmediately: true })
      const second = yield* busy()
      assert.deepStrictEqual([second.headers["retry-after"], second.headers["retry-after-ms"]], ["1", undefined])
      yield* TestClock.adjust("1 second")
    }))

  it.effect("the handler's own failures, and routes that do not exist, carry the fields too", () =>
    Effect.gen(function*() {
      const failing = HttpRouter.add("GET", "/", Effect.die("a mistake"))
      const request = yield* throttled({ policy: perMinute, onStoreError: "allow" }, failing)
      const failed = yield* request()
      assert.strictEqual(failed.status, 500)
      assert.strictEqual(failed.headers["ratelimit"], `"default";r=1;t=60`)
      const missing = yield* request({ path: "/missing" })
      assert.strictEqual(missing.status, 404)
      assert.strictEqual(missing.headers["ratelimit"], `"default";r=0;t=60`)
      assert.strictEqual((yield* request({ path: "/missing" })).status, 429)
    }))

  it.effect("a ThrottleError of the handler's own is no refusal", () =>
    Effect.gen(function*() {
      const upstream = Throttle.rate({ limit: 1, per: "1 minute", maxQueue: 0 })
      const route = HttpRouter.add("GET", "/", Effect.as(upstream(Effect.void), HttpServerResponse.text("hello")))
      for (const global of [undefined, Throttle.rate({ limit: 100, burst: 100 })]) {
        const request = yield* throttled({ policy: Throttle.rate({ limit: 100, burst: 100 }), global }, route)
        yield* request()
        const answer = yield* request()
        assert.strictEqual(answer.status, 500)
        assert.isUndefined(answer.headers["retry-after"])
      }
    }))

  it.effect("what is left is what is left when the answer is sent", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute }, slow("61 seconds"))
      const fiber = yield* Effect.forkChild(request())
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).headers["ratelimit"], `"default";r=2`)
    }))

  it.effect("of a throttle on a route inside one on all routes, both are told", () =>
    Effect.gen(function*() {
      const inner = HttpThrottle.middleware({ policy: Throttle.rate({ limit: 1, per: "1 hour" }), name: "route" })
      const request = yield* throttled(
        { policy: perMinute, name: "all" },
        Layer.merge(
          hello.pipe(Layer.provide(inner.layer)),
          HttpRouter.add("GET", "/other", HttpServerResponse.text("other"))
        )
      )
      const { headers } = yield* request()
      assert.strictEqual(headers["ratelimit-policy"], `"all";q=2;w=120, "route";q=1;w=3600`)
      assert.strictEqual(headers["ratelimit"], `"all";r=1;t=60, "route";r=0;t=3600`)
      // Not provided to it.
      assert.strictEqual((yield* request({ path: "/other" })).headers["ratelimit"], `"all";r=0;t=60`)
    }))

  it.effect("what a throttle further out has counted stays counted, and told", () =>
    Effect.gen(function*() {
      const inner = HttpThrottle.middleware({ policy: Throttle.rate({ limit: 1, per: "1 hour" }), name: "route" })
      const request = yield* throttled({ policy: perMinute, name: "all" }, hello.pipe(Layer.provide(inner.layer)))
      yield* request()
      const refused = yield* request()
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers["ratelimit"], `"all";r=0;t=60, "route";r=0;t=3600`)
    }))

  it.effect("what the answer says already is added to where it is a list of names, and replaced where it is not", () =>
    Effect.gen(function*() {
      const table = [
        [`"upstream";r=5;t=1`, `"upstream";q=10;w=1`, `"upstream";r=5;t=1, `, `"upstream";q=10;w=1, `],
        ["limit=10, remaining=4, reset=6", "10;w=60, 100;w=3600", "", ""],
        ["limit=10, remaining=4, reset=6", `"upstream";q=10;w=1`, "", `"upstream";q=10;w=1, `],
        [`"upstream`, "", "", ""]
      ] as const
      for (const [ratelimit, policy, kept, keptPolicy] of table) {
        const answer = HttpServerResponse.text("", { headers: { ratelimit, "ratelimit-policy": policy } })
        const request = yield* throttled({ policy: perMinute }, HttpRouter.add("GET", "/", answer))
        const { headers } = yield* request()
        assert.strictEqual(headers["ratelimit"], `${kept}"default";r=1;t=60`)
        assert.strictEqual(headers["ratelimit-policy"], `${keptPolicy}"default";q=2;w=120`)
      }
      const older = HttpThrottle.middleware({ policy: perMinute, fields: "draft-7" }, { global: true })
      const newer = HttpThrottle.middleware({ policy: perMinute })
      const request = yield* ask(Layer.merge(older, hello.pipe(Layer.provide(newer.layer))))
      assert.strictEqual((yield* request()).headers["ratelimit"], `"default";r=1;t=60`)
    }))

  it.effect("a refusal calls a policy as the fields do", () =>
    Effect.gen(function*() {
      const parts = [Throttle.rate({ limit: 1, name: "caf\u00e9" }), Throttle.concurrency({ limit: 9 })]
      for (const policy of [parts[0]!, Throttle.all(parts)]) {
        const request = yield* throttled({ policy })
        yield* request()
        const { body, headers } = yield* request()
        assert.deepStrictEqual(JSON.parse(body)["violated-policies"], ["caf?"])
        assert.isTrue(headers["ratelimit-policy"]!.startsWith(`"caf?";`))
      }
    }))

  it.effect("a route's layer is one throttle, however many routes it is provided to", () =>
    Effect.gen(function*() {
      const one = HttpThrottle.middleware({ policy: perMinute })
      const other = HttpRouter.add("GET", "/other", HttpServerResponse.text("other"))
      const request = yield* ask(Layer.provide(Layer.merge(hello, other), one.layer))
      yield* request()
      yield* request({ path: "/other" })
      assert.strictEqual((yield* request()).status, 429)
      assert.strictEqual((yield* request({ path: "/other" })).status, 429)
    }))

  it.effect("two middlewares of the same options are two throttles", () =>
    Effect.gen(function*() {
      const options = { policy: Throttle.rate({ limit: 1, per: "1 minute" }) }
      const other = HttpRouter.add("GET", "/other", HttpServerResponse.text("other"))
      const request = yield* ask(Layer.merge(
        hello.pipe(Layer.provide(HttpThrottle.middleware(options).layer)),
        other.pipe(Layer.provide(HttpThrottle.middleware(options).layer))
      ))
      assert.deepStrictEqual(statuses([yield* request(), yield* request({ path: "/other" })]), [200, 200])
    }))
})

describe("keys", () => {
  it.effect("each has its own budget", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute })
      yield* times(2, request({ from: "192.0.2.1" }))
      assert.strictEqual((yield* request({ from: "192.0.2.1" })).status, 429)
      assert.strictEqual((yield* request({ from: "192.0.2.2" })).status, 200)
    }))

  it.effect("each may have its own policy", () =>
    Effect.gen(function*() {
      const paid = Throttle.rate({ limit: 1, per: "1 minute", burst: 9, name: "paid" })
      const request = yield* throttled({
        key: HttpThrottle.header("x-plan"),
        lookup: (key) => (key === "x-plan:paid" ? paid : perMinute)
      })
      const asPaid = yield* request({ headers: { "x-plan": "paid" } })
      assert.strictEqual(asPaid.headers["ratelimit"], `"paid";r=9;t=60`)
      assert.strictEqual((yield* request()).headers["ratelimit"], `"default";r=1;t=60`)
    }))

  it.effect("may be a user whom another middleware has found out", () =>
    Effect.gen(function*() {
      class CurrentUser extends Context.Service<CurrentUser, { readonly id: string }>()("test/CurrentUser") {}
      const authenticated = HttpRouter.middleware<{ provides: CurrentUser }>()((handler) =>
        Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
          Effect.provideService(handler, CurrentUser, { id: headers["x-user"] ?? "nobody" }))
      )
      const perUser = HttpThrottle.middleware({
        policy: Throttle.rate({ limit: 1, per: "1 minute" }),
        key: Effect.map(CurrentUser, ({ id }) =>
          `user:${id}`)
      })
      const request = yield* ask(hello.pipe(Layer.provide(perUser.combine(authenticated).layer)))
      const as = (user: string) => Effect.map(request({ headers: { "x-user": user } }), ({ status }) => status)
      assert.deepStrictEqual([yield* as("ada"), yield* as("ada"), yield* as("grace")], [200, 429, 200])
    }))

  it.effect("the two ends of a long one count", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ key: HttpThrottle.header("authorization"), policy: perMinute })
      const token = (end: string) => request({ headers: { authorization: `Bearer ${"a".repeat(2_000)}${end}` } })
      yield* times(2, token("ada"))
      assert.deepStrictEqual(statuses([yield* token("ada"), yield* token("grace")]), [429, 200])
    }))

  it.effect("a full map forgets the key that was used longest ago, or refuses a new one", () =>
    Effect.gen(function*() {
      const evicting = yield* throttled({ policy: perMinute, maxKeys: 2 })
      yield* times(2, evicting({ from: "192.0.2.1" }))
      yield* evicting({ from: "192.0.2.2" })
      assert.strictEqual((yield* evicting({ from: "192.0.2.3" })).status, 200)
      assert.strictEqual((yield* evicting({ from: "192.0.2.1" })).headers["ratelimit"], `"default";r=1;t=60`)

      const refusing = yield* throttled({ policy: perMinute, maxKeys: 2, onFull: "refuse" })
      yield* refusing({ from: "192.0.2.1" })
      yield* refusing({ from: "192.0.2.2" })
      const refused = yield* refusing({ from: "192.0.2.3" })
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.headers["retry-after"], "1")
      assert.strictEqual(refused.headers["cache-control"], "no-store")
      assert.deepStrictEqual(JSON.parse(refused.body)["violated-policies"], [])
      assert.strictEqual((yield* refusing({ from: "192.0.2.1" })).status, 200)
    }))
})

describe("the limit of everybody", () => {
  const global = Throttle.rate({ limit: 1, per: "1 minute", burst: 2 })

  it.effect("answers 503, and costs the key nothing", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute, global })
      for (let i = 1; i <= 3; i++) {
        assert.strictEqual((yield* request({ from: `192.0.2.${i}` })).headers["ratelimit"], `"default";r=1;t=60`)
      }
      for (let i = 0; i < 5; i++) {
        const { body, headers, status } = yield* request({ from: "192.0.2.4" })
        assert.strictEqual(status, 503)
        assert.strictEqual(headers["retry-after"], "60")
        assert.strictEqual(headers["cache-control"], "no-store")
        // It is not this client's limit that it met.
        assert.isUndefined(headers["ratelimit"])
        assert.deepStrictEqual(JSON.parse(body), {
          type: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
          status: 503,
          title: "Service Unavailable",
          detail: "Try again in 60 s.",
          retryAfter: 60,
          "violated-policies": ["global"]
        })
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* request({ from: "192.0.2.4" })).headers["ratelimit"], `"default";r=1;t=60`)
    }))

  it.effect("is not charged for what a key's limit refuses", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute, global })
      assert.deepStrictEqual(statuses(yield* times(12, request())), [
        200,
        200,
        ...Array.from({ length: 10 }, () => 429)
      ])
      assert.strictEqual((yield* request({ from: "192.0.2.2" })).status, 200)
      assert.strictEqual((yield* request({ from: "192.0.2.3" })).status, 503)
    }))

  it.effect("counts one request each, whatever it costs its key", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 hour" })
      const request = yield* throttled({ policy, global, cost: 5 })
      assert.deepStrictEqual(
        statuses([yield* request(), yield* request(), yield* request({ from: "192.0.2.2" })]),
        [200, 200, 200]
      )
    }))

  it.effect("what it refuses leaves no key behind, of whatever policy, and pushes none out", () =>
    Effect.gen(function*() {
      const per = "1 day"
      const policies: Readonly<Record<string, Throttle.Policy<any>>> = {
        rate: Throttle.rate({ limit: 1, per, burst: 1 }),
        tokenBucket: Throttle.tokenBucket({ capacity: 2, refill: 1, per }),
        sliding: Throttle.window({ limit: 2, per }),
        fixed: Throttle.window({ limit: 1, per, kind: "fixed" }),
        spacing: Throttle.spacing({ interval: per }),
        "spacing from the end": Throttle.spacing({ interval: per, from: "end" }),
        concurrency: Throttle.concurrency({ limit: 1 }),
        all: Throttle.all([Throttle.window({ limit: 1, per, kind: "fixed" }), Throttle.concurrency({ limit: 1 })])
      }
      for (const [kind, policy] of Object.entries(policies)) {
        const map = yield* ThrottleMap.make({
          lookup: (_key: string) => Throttle.all([policy], { maxQueue: 0 }),
          maxKeys: 3,
          onFull: "evict"
        })
        const request = yield* ask(Layer.merge(
          hello,
          HttpThrottle.middleware({
            throttles: Effect.succeed(map),
            global: Throttle.rate({ limit: 1, per: "1 hour", burst: 1 })
          }, { global: true })
        ))
        const admitted = [yield* request({ from: "192.0.2.1" }), yield* request({ from: "192.0.2.2" })]
        assert.deepStrictEqual(statuses(admitted), [200, 200], kind)
        const { keys } = yield* map.statistics
        for (let i = 3; i < 40; i++) {
          assert.strictEqual((yield* request({ from: `192.0.2.${i}` })).status, 503, kind)
          const now = yield* map.statistics
          assert.deepStrictEqual([now.keys, now.keysEvicted], [keys, 0], kind)
        }
      }
    }).pipe(Effect.scoped))

  it.effect("those whom it refuses do not make a map forget a budget that is spent", () =>
    Effect.gen(function*() {
      const request = yield* throttled({
        policy: Throttle.window({ limit: 1, per: "1 day", kind: "fixed" }),
        maxKeys: 3,
        global: Throttle.rate({ limit: 1, per: "1 hour", burst: 1 })
      })
      const from = (i: number) => request({ from: `192.0.2.${i}` })
      assert.deepStrictEqual(statuses([yield* from(1), yield* from(2)]), [200, 200])
      for (let i = 3; i < 10; i++) assert.strictEqual((yield* from(i)).status, 503)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* from(1)).status, 429)
    }))

  it.effect("has a name of its own in events: the policy's, or global", () =>
    Effect.gen(function*() {
      for (
        const [given, name] of [
          [global, "global"],
          [Throttle.rate({ limit: 1, per: "1 minute", burst: 2, name: "everybody" }), "everybody"],
          [Throttle.all([global], { name: "everybody" }), "everybody"]
        ] as const
      ) {
        const throttles = new Set<string>()
        const observer = (event: Throttle.Event) => Effect.sync(() => throttles.add(event.throttle))
        const request = yield* throttled({ policy: Throttle.rate({ limit: 9, burst: 9 }), global: given })
          .pipe(Effect.provideService(Throttle.Observer, observer))
        const answers = yield* times(4, request()).pipe(Effect.provideService(Throttle.Observer, observer))
        assert.deepStrictEqual(statuses(answers), [200, 200, 200, 503])
        assert.deepStrictEqual([...throttles], [name])
        assert.deepStrictEqual(JSON.parse(answers[3]!.body)["violated-policies"], [name])
      }
    }))

  it.effect("of concurrency, is free again when the answer has been sent", () =>
    Effect.gen(function*() {
      const request = yield* throttled({
        policy: Throttle.rate({ limit: 100, burst: 100 }),
        global: Throttle.concurrency({ limit: 2, name: "workers" })
      }, slow("1 second"))
      const fibers = yield* times(2, Effect.forkChild(request()))
      yield* TestClock.adjust("500 millis")
      const refused = yield* request()
      assert.strictEqual(refused.status, 503)
      assert.deepStrictEqual(JSON.parse(refused.body)["violated-policies"], ["workers"])
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(statuses(yield* Fiber.joinAll(fibers)), [200, 200])
      const next = yield* Effect.forkChild(request())
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(next)).status, 200)
    }))
})

describe("concurrency", () => {
  const policy = Throttle.concurrency({ limit: 1 })

  it.effect("is told as such, and answered with 429 or 503", () =>
    Effect.gen(function*() {
      for (const concurrencyStatus of [undefined, 429, 503] as const) {
        const request = yield* throttled({ policy, concurrencyStatus }, slow("1 second"))
        const fiber = yield* Effect.forkChild(request())
        yield* TestClock.adjust("500 millis")
        const refused = yield* request()
        assert.strictEqual(refused.status, concurrencyStatus ?? 429)
        assert.strictEqual(refused.headers["retry-after"], "1")
        assert.deepStrictEqual(JSON.parse(refused.body)["violated-policies"], ["default"])
        if (refused.status === 429) {
          assert.strictEqual(refused.headers["ratelimit-policy"], `"default";q=1;qu="concurrent-requests"`)
          assert.strictEqual(refused.headers["ratelimit"], `"default";r=0`)
        }
        yield* TestClock.adjust("500 millis")
        assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
      }
    }))

  it.effect("beside a rate, 503 is for concurrency alone", () =>
    Effect.gen(function*() {
      const both = Throttle.all([policy, Throttle.rate({ limit: 1, per: "1 minute", burst: 2 })])
      const request = yield* throttled({ policy: both, concurrencyStatus: 503 }, slow("1 second"))
      const run = Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(request())
        yield* TestClock.adjust("1 second")
        return yield* Fiber.join(fiber)
      })
      const fiber = yield* Effect.forkChild(request())
      yield* TestClock.adjust("500 millis")
      assert.strictEqual((yield* request()).status, 503)
      yield* TestClock.adjust("500 millis")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(statuses([yield* run, yield* run, yield* run]), [200, 200, 429])
    }))

  it.effect("503 is not for a pause without an end", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.rate({ limit: 1, maxQueue: 0 }) })
      const throttle = HttpThrottle.middleware({ throttles: Effect.succeed(map), concurrencyStatus: 503 }, {
        global: true
      })
      const request = yield* ask(Layer.merge(hello, throttle))
      yield* map.pause("192.0.2.1", Infinity)
      const refused = yield* request()
      assert.strictEqual(refused.status, 429)
      assert.deepStrictEqual(JSON.parse(refused.body)["violated-policies"], ["pause"])
    }).pipe(Effect.scoped))

  it.effect("holds until the body has been sent", () =>
    Effect.gen(function*() {
      const stream = Stream.make(1, 2, 3).pipe(
        Stream.mapEffect((n) => Effect.as(Effect.sleep("1 second"), new TextEncoder().encode(`${n}`)))
      )
      const route = HttpRouter.add("GET", "/", Effect.sync(() => HttpServerResponse.stream(stream)))
      const request = yield* throttled({ policy }, route)
      const fiber = yield* Effect.forkChild(request())
      yield* TestClock.adjust("2900 millis")
      assert.strictEqual((yield* request()).status, 429)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* Fiber.join(fiber)).body, "123")
      const next = yield* Effect.forkChild(request())
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(next)).status, 200)
    }))

  it.effect("with 503 nothing is said of the client's limits; nor by a full map, nor by a store that fails", () =>
    Effect.gen(function*() {
      const says = ({ headers }: Answer) => Object.keys(headers).filter((name) => name.startsWith("ratelimit"))
      const answers: Array<Answer> = []
      const running = yield* throttled({ policy, concurrencyStatus: 503 }, slow("1 second"))
      yield* Effect.forkChild(running())
      yield* TestClock.adjust("500 millis")
      answers.push(yield* running())
      const full = yield* throttled({ policy: perMinute, maxKeys: 1, onFull: "refuse" })
      assert.lengthOf(says(yield* full({ from: "192.0.2.1" })), 2)
      answers.push(yield* full({ from: "192.0.2.2" }))
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => perMinute })
      const failing = failingStore(map)
      const store = HttpThrottle.middleware({ throttles: Effect.succeed(failing), onStoreError: "refuse" }, {
        global: true
      })
      answers.push(yield* (yield* ask(Layer.merge(hello, store)))())
      for (const answer of answers) assert.deepStrictEqual([answer.status, says(answer)], [503, []])
    }).pipe(Effect.scoped))
})

describe("maxWait", () => {
  it.effect("waits that long, in turn, and refuses at once who would wait longer", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: Throttle.rate({ limit: 1 }), maxWait: "2 seconds" })
      const answered: Array<number> = []
      const fibers = yield* Effect.forEach([0, 1, 2, 3], (n) =>
        request().pipe(
          Effect.tap(({ status }) => Effect.sync(() => status === 200 && answered.push(n))),
          Effect.forkChild({ startImmediately: true })
        ))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(answered, [0])
      const refused = yield* Fiber.join(fibers[3]!)
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.headers["retry-after"], "3")
      // Those who wait go first.
      assert.strictEqual(refused.headers["ratelimit"], `"default";r=0;t=3`)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(answered, [0, 1])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(answered, [0, 1, 2])
    }))

  it.effect("waits for concurrency until the time is up", () =>
    Effect.gen(function*() {
      const policy = Throttle.concurrency({ limit: 1 })
      const request = yield* throttled({ policy, maxWait: "2 seconds" }, slow("3 seconds"))
      const first = yield* Effect.forkChild(request())
      yield* TestClock.adjust("500 millis")
      const second = yield* Effect.forkChild(request())
      yield* TestClock.adjust("1 second")
      const third = yield* Effect.forkChild(request())
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(second)).status, 429)
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(statuses(yield* Fiber.joinAll([first, third])), [200, 200])
    }))

  it.effect("a client that hangs up leaves the line and has cost nothing, in front of all routes and on one", () =>
    Effect.gen(function*() {
      const options = { policy: Throttle.rate({ limit: 1 }), maxWait: "10 seconds" } as const
      const onRoute = hello.pipe(Layer.provide(HttpThrottle.middleware(options).layer))
      for (const request of [yield* throttled(options), yield* ask(onRoute)]) {
        yield* request()
        const gone = yield* times(3, Effect.forkChild(request(), { startImmediately: true }))
        yield* TestClock.adjust("100 millis")
        const last = yield* Effect.forkChild(request(), { startImmediately: true })
        yield* TestClock.adjust("100 millis")
        yield* Fiber.interruptAll(gone)
        yield* TestClock.adjust("799 millis")
        assert.isUndefined(last.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(last)).status, 200)
        yield* TestClock.adjust("10 seconds")
      }
    }))

  it.effect("hanging up while it waits for everybody's limit costs the key nothing either", () =>
    Effect.gen(function*() {
      const request = yield* throttled({
        policy: perMinute,
        global: Throttle.rate({ limit: 1 }),
        maxWait: "10 seconds"
      })
      yield* request({ from: "192.0.2.1" })
      const gone = yield* times(2, Effect.forkChild(request({ from: "192.0.2.2" }), { startImmediately: true }))
      yield* TestClock.adjust("100 millis")
      yield* Fiber.interruptAll(gone)
      yield* TestClock.adjust("900 millis")
      assert.strictEqual((yield* request({ from: "192.0.2.2" })).headers["ratelimit"], `"default";r=1;t=60`)
    }))

  it.effect("who gives up on everybody's limit has not been charged by the key's", () =>
    Effect.gen(function*() {
      const request = yield* throttled({
        policy: perMinute,
        global: Throttle.concurrency({ limit: 1 }),
        maxWait: "1 second"
      }, slow("5 seconds"))
      const first = yield* Effect.forkChild(request({ from: "192.0.2.1" }))
      yield* TestClock.adjust("1 second")
      const second = yield* Effect.forkChild(request({ from: "192.0.2.2" }))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(second)).status, 503)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
      const third = yield* Effect.forkChild(request({ from: "192.0.2.2" }))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(third)).headers["ratelimit"], `"default";r=1;t=55`)
    }))
})

describe("spacing on the clock", () => {
  const aligned = Throttle.spacing({ interval: "1 second", align: true })

  it.effect("needs a maxWait that reaches the next slot; then one request is let in for each", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: aligned, maxWait: "1 second" })
      yield* TestClock.adjust("300 millis")
      const first = yield* Effect.forkChild(request(), { startImmediately: true })
      yield* TestClock.adjust("100 millis")
      const refused = yield* request()
      // The next free slot is in 1.6 s; any time from 0.6 s on is early enough to wait for it.
      assert.deepStrictEqual([refused.status, refused.headers["retry-after"]], [429, "2"])
      yield* TestClock.adjust("600 millis")
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
      yield* TestClock.adjust("1400 millis")
      const again = yield* Effect.forkChild(request(), { startImmediately: true })
      yield* TestClock.adjust("600 millis")
      assert.strictEqual((yield* Fiber.join(again)).status, 200)
    }))

  it.effect("in a map, its policies decide", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => aligned })
      const throttle = HttpThrottle.middleware({ throttles: Effect.succeed(map) }, { global: true })
      const request = yield* ask(Layer.merge(hello, throttle))
      yield* TestClock.adjust("300 millis")
      const waiting = yield* Effect.forkChild(request(), { startImmediately: true })
      yield* TestClock.adjust("700 millis")
      assert.strictEqual((yield* Fiber.join(waiting)).status, 200)
    }).pipe(Effect.scoped))

  it.effect("a lookup that gives it without is a defect of the request", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ lookup: () => aligned })
      assert.strictEqual((yield* request()).status, 500)
    }))
})

describe("skip", () => {
  /** As documented. */
  const skip = ({ url }: HttpServerRequest.HttpServerRequest) => url.split("?", 1)[0] === "/health"

  it.effect("is neither counted nor told, with a query or without", () =>
    Effect.gen(function*() {
      const policy = Throttle.rate({ limit: 1, per: "1 minute" })
      const health = HttpRouter.add("GET", "/health", HttpServerResponse.text("well"))
      const request = yield* throttled({ policy, skip }, Layer.merge(hello, health))
      for (const path of ["/health", "/health?x=1", "/health?", "/health?x=/a?b"]) {
        const answers = yield* times(3, request({ path }))
        assert.deepStrictEqual(statuses(answers), [200, 200, 200], path)
        assert.isTrue(answers.every(({ headers }) => headers["ratelimit"] === undefined))
      }
      assert.deepStrictEqual(statuses([yield* request(), yield* request()]), [200, 429])
    }))

  it.effect("by its path is not for what only looks like it", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: Throttle.rate({ limit: 1, per: "1 minute" }), skip })
      for (const [i, path] of ["/healthy", "/health/x", "/x?/health", "//health", "/?/health"].entries()) {
        const asked = { path, from: `192.0.2.${10 + i}` }
        yield* request(asked)
        assert.strictEqual((yield* request(asked)).status, 429, path)
      }
    }))
})

describe("shadow", () => {
  it.effect("lets everybody in, says nothing, and counts", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const observer = (event: Throttle.Event) => Effect.sync(() => events.push(event._tag))
      const request = yield* throttled({
        policy: perMinute,
        global: perMinute,
        maxKeys: 1,
        onFull: "refuse",
        shadow: true
      })
        .pipe(Effect.provideService(Throttle.Observer, observer))
      const answers = yield* times(4, request()).pipe(Effect.provideService(Throttle.Observer, observer))
      // The map is full, and may not refuse either.
      const other = yield* request({ from: "192.0.2.2" })
      assert.deepStrictEqual(statuses([...answers, other]), [200, 200, 200, 200, 200])
      assert.isTrue(answers.every(({ headers }) => headers["ratelimit"] === undefined))
      assert.isTrue(events.includes("Rejected"))
    }))

  it.effect("what a key's limit would have refused does not count for everybody", () =>
    Effect.gen(function*() {
      const rejected: Array<string> = []
      const observer = (event: Throttle.Event) =>
        Effect.sync(() => event._tag === "Rejected" && rejected.push(event.throttle))
      const request = yield* throttled({
        policy: perMinute,
        global: Throttle.rate({ limit: 1, per: "1 hour", burst: 2 }),
        shadow: true
      })
        .pipe(Effect.provideService(Throttle.Observer, observer))
      const from = (i: number) =>
        request({ from: `192.0.2.${i}` }).pipe(Effect.provideService(Throttle.Observer, observer))
      for (const key of [1, 1, 1, 1, 1, 2, 3]) assert.strictEqual((yield* from(key)).status, 200)
      // In force: two of the first key, three refused by its own limit, one of the second, and the third by everybody's.
      assert.deepStrictEqual(rejected, ["default", "default", "default", "global"])
    }))

  it.effect("may be a matter of the key", () =>
    Effect.gen(function*() {
      const tried = Throttle.shadow(perMinute)
      const request = yield* throttled({ lookup: (key) => (key === "192.0.2.1" ? tried : perMinute) })
      assert.deepStrictEqual(statuses(yield* times(3, request({ from: "192.0.2.1" }))), [200, 200, 200])
      assert.deepStrictEqual(statuses(yield* times(3, request({ from: "192.0.2.2" }))), [200, 200, 429])
    }))
})

describe("throttles", () => {
  const perUser = Throttle.rate({ limit: 1, per: "1 minute", burst: 1, maxQueue: 1 })

  class Users extends ThrottleMap.Service<Users>()("test/Users", {
    lookup: (_user: string) => perUser
  }) {}

  it.effect("shares a map with everybody else who uses it, and waits as its policies say", () =>
    Effect.gen(function*() {
      const users = yield* Users
      const request = yield* ask(
        Layer.merge(hello, HttpThrottle.middleware({ throttles: Users }, { global: true })).pipe(
          Layer.provide(Layer.succeed(Users, users))
        )
      )
      yield* users.wait("192.0.2.1")
      assert.strictEqual((yield* request()).headers["ratelimit"], `"default";r=0;t=60`)
      const waiting = yield* Effect.forkChild(request(), { startImmediately: true })
      yield* waitUntilWaiting(users, 1)
      assert.strictEqual((yield* request()).status, 429)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(waiting)).status, 200)
    }).pipe(Effect.provide(Users.layer)))

  const broken = Effect.map(Users, failingStore)

  it.effect("a handler that asks for what its own request holds does not hang, but is a defect, or passes", () =>
    Effect.gen(function*() {
      for (const [onReentry, status] of [["die", 500], ["bypass", 200]] as const) {
        const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 1, onReentry }) })
        const route = HttpRouter.add(
          "GET",
          "/",
          map.withPermit("192.0.2.1")(Effect.succeed(HttpServerResponse.text("nested"))).pipe(Effect.orDie)
        )
        const throttle = HttpThrottle.middleware({ throttles: Effect.succeed(map) }, { global: true })
        const request = yield* ask(Layer.merge(route, throttle))
        const answers = yield* Effect.forkChild(times(2, request()), { startImmediately: true })
        yield* TestClock.adjust("1 minute")
        assert.isDefined(answers.pollUnsafe())
        assert.deepStrictEqual(statuses(yield* Fiber.join(answers)), [status, status])
        assert.strictEqual((yield* map.statistics).running, 0)
      }
    }).pipe(Effect.scoped))

  it.effect("others wait for what a request holds until its body has been sent", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => Throttle.concurrency({ limit: 1 }) })
      const stream = Stream.fromEffect(Effect.as(Effect.sleep("1 second"), new TextEncoder().encode("late")))
      const route = HttpRouter.add("GET", "/", Effect.sync(() => HttpServerResponse.stream(stream)))
      const throttle = HttpThrottle.middleware({ throttles: Effect.succeed(map) }, { global: true })
      const request = yield* ask(Layer.merge(route, throttle))
      const fibers = yield* times(3, Effect.forkChild(request(), { startImmediately: true }))
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* Fiber.joinAll(fibers)).map(({ body }) => body), ["late", "late", "late"])
    }).pipe(Effect.scoped))

  it.effect("a store that fails lets in, or refuses, as told", () =>
    Effect.gen(function*() {
      for (const global of [undefined, perMinute]) {
        const server = (onStoreError?: "allow" | "refuse") =>
          ask(
            Layer.merge(
              hello,
              HttpThrottle.middleware({ throttles: broken, onStoreError, global }, { global: true })
            ).pipe(Layer.provide(Users.layer))
          )
        const lenient = yield* server()
        // What the key's limit does not count, everybody's still does.
        assert.deepStrictEqual(
          statuses(yield* times(3, lenient())),
          global === undefined ? [200, 200, 200] : [200, 200, 503]
        )
        const strict = yield* server("refuse")
        const refused = yield* strict()
        assert.strictEqual(refused.status, 503)
        assert.strictEqual(refused.headers["retry-after"], "1")
      }
    }))
})

describe("cost", () => {
  it.effect("a number, or the request's own", () =>
    Effect.gen(function*() {
      const policy = Throttle.tokenBucket({ capacity: 10, refill: 1, per: "1 minute" })
      const fixed = yield* throttled({ policy, cost: 4 })
      assert.strictEqual((yield* fixed()).headers["ratelimit"], `"default";r=6;t=60`)
      const own = yield* throttled({ policy, cost: ({ method }) => (method === "HEAD" ? 0 : 7) })
      yield* own({ method: "HEAD" })
      assert.strictEqual((yield* own()).headers["ratelimit"], `"default";r=3;t=60`)
      // More than is left: what is missing takes four minutes.
      const refused = yield* own()
      assert.strictEqual(refused.headers["retry-after"], "240")
      assert.strictEqual(refused.headers["ratelimit"], `"default";r=3;t=60`)
    }))

  it.effect("more than there can ever be: 429 that says not to try again", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: perMinute, cost: 3 })
      const refused = yield* request()
      assert.strictEqual(refused.status, 429)
      assert.isUndefined(refused.headers["retry-after"])
      assert.isUndefined(JSON.parse(refused.body).retryAfter)
      assert.strictEqual(refused.headers["ratelimit"], `"default";r=2`)
    }))

  it.effect("in a unit of the policy's", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([
        Throttle.rate({ limit: 60, per: "1 minute", burst: 9, name: "requests" }),
        Throttle.tokenBucket({ capacity: 1_000, refill: 1_000, per: "1 minute", unit: "content-bytes" })
      ])
      const request = yield* throttled({
        policy,
        cost: ({ headers }) => ({ "content-bytes": Number(headers["content-length"] ?? 0) })
      })
      const { headers } = yield* request({ headers: { "content-length": "400" } })
      assert.strictEqual(
        headers["ratelimit-policy"],
        `"requests";q=60;w=60, "1000 content-bytes per minute, bucket of 1000";q=1000;w=60;qu="content-bytes"`
      )
      assert.strictEqual(
        headers["ratelimit"],
        `"requests";r=9;t=1, "1000 content-bytes per minute, bucket of 1000";r=600;t=1`
      )
    }))
})

describe("fields of other versions", () => {
  const policy = Throttle.all([
    Throttle.rate({ limit: 10, per: "1 minute", burst: 4 }),
    Throttle.window({ limit: 100, per: "1 hour" })
  ])

  it.effect("draft-7: the limit that is met first, and all policies", () =>
    Effect.gen(function*() {
      const { headers } = yield* (yield* throttled({ policy, fields: "draft-7" }))()
      assert.strictEqual(headers["ratelimit"], "limit=10, remaining=4, reset=6")
      assert.strictEqual(headers["ratelimit-policy"], "10;w=60, 100;w=3600")
    }))

  it.effect("draft-6: a field each", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy, fields: "draft-6" })
      const { headers } = yield* request()
      assert.strictEqual(headers["ratelimit-limit"], "10")
      assert.strictEqual(headers["ratelimit-remaining"], "4")
      assert.strictEqual(headers["ratelimit-reset"], "6")
      assert.strictEqual(headers["ratelimit-policy"], "10;w=60, 100;w=3600")
      assert.isUndefined(headers["ratelimit"])
      yield* TestClock.adjust("6 seconds")
      yield* TestClock.adjust("1 hour")
    }))

  it.effect("none", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy: Throttle.rate({ limit: 1 }), fields: "none" })
      const [{ headers }, refused] = [yield* request(), yield* request()]
      assert.isUndefined(headers["ratelimit"])
      assert.isUndefined(headers["ratelimit-policy"])
      assert.strictEqual(refused.headers["retry-after"], "1")
      assert.isUndefined(refused.headers["ratelimit"])
    }))
})

describe("bad options", () => {
  const policy = perMinute
  const tokens = Throttle.tokenBucket({ capacity: 9, refill: 9, unit: "tokens" })
  const aligned = Throttle.spacing({ interval: "1 second", align: true })
  const minutely = Throttle.spacing({ interval: "1 minute", align: true })
  const table: ReadonlyArray<readonly [unknown, string]> = [
    [{}, `HttpThrottle.middleware: exactly one of "policy", "lookup" and "throttles" must be given`],
    [
      { policy, throttles: Effect.void },
      `HttpThrottle.middleware: exactly one of "policy", "lookup" and "throttles" must be given`
    ],
    [
      { throttles: Effect.void, maxKeys: 1 },
      `HttpThrottle.middleware: "maxKeys" goes with "policy" and "lookup"; with "throttles" the map decides`
    ],
    [{ policy: 5 }, `HttpThrottle.middleware: "policy" must be a policy, received 5`],
    [
      { throttles: Effect.void, maxWait: "1 second" },
      `HttpThrottle.middleware: "maxWait" goes with "policy", "lookup" and "global"; with "throttles" alone the map decides`
    ],
    [
      { policy: tokens },
      `HttpThrottle.middleware: "policy" must count permits, since without "cost" a request is one permit; received ${
        String(tokens)
      }`
    ],
    [
      { policy, global: tokens, cost: 1 },
      `HttpThrottle.middleware: "global" must count permits, since a request is one permit; received ${String(tokens)}`
    ],
    [
      { policy, limit: 5 },
      `HttpThrottle.middleware: unknown option "limit"; the options are policy, lookup, throttles, key, cost, global, levels, setCaller, countIf, skip, onRejected, name, fields, concurrencyStatus, onStoreError, maxWait, maxKeys, onFull, shadow`
    ],
    [
      { lookup: policy },
      `HttpThrottle.middleware: "lookup" must be a function from a key to a policy, received Throttle(1 per minute, burst 1)`
    ],
    [{ policy, key: "a" }, `HttpThrottle.middleware: "key" must be an effect that returns a string, received "a"`],
    [{ policy, maxKeys: 0 }, `HttpThrottle.middleware: "maxKeys" must be an integer ≥ 1, received 0`],
    [{ policy, maxWait: -1 }, `HttpThrottle.middleware: "maxWait" must be a finite duration > 0, received -1`],
    [{ policy, maxWait: NaN }, `HttpThrottle.middleware: "maxWait" must be a finite duration > 0, received NaN`],
    [
      { policy, maxWait: "1 second!" },
      `HttpThrottle.middleware: "maxWait" must be a finite duration > 0, received "1 second!"`
    ],
    [
      { policy, maxWait: Infinity },
      `HttpThrottle.middleware: "maxWait" must be a finite duration > 0, received Infinity`
    ],
    [{ policy, onFull: "drop" }, `HttpThrottle.middleware: "onFull" must be "evict" or "refuse", received "drop"`],
    [
      { policy, name: "caf\u00e9" },
      `HttpThrottle.middleware: "name" must be a non-empty string of printable ASCII, received "caf\u00e9"`
    ],
    [
      { policy, fields: "draft-8" },
      `HttpThrottle.middleware: "fields" must be "draft-10" or "draft-7" or "draft-6" or "none", received "draft-8"`
    ],
    [
      { policy, concurrencyStatus: 500 },
      `HttpThrottle.middleware: "concurrencyStatus" must be 429 or 503, received 500`
    ],
    [
      { policy, onStoreError: "ignore" },
      `HttpThrottle.middleware: "onStoreError" must be "allow" or "refuse", received "ignore"`
    ],
    [
      { policy, skip: "/health" },
      `HttpThrottle.middleware: "skip" must be a function from a request to a boolean, received "/health"`
    ],
    [
      { policy, countIf: true },
      `HttpThrottle.middleware: "countIf" must be a function from a response and its request to a boolean, received true`
    ],
    [
      { policy, onRejected: HttpServerResponse.empty() },
      `HttpThrottle.middleware: "onRejected" must be a function from a rejection to a response, or to an effect that returns one, received `
    ],
    ...([["policy", {}], ["global", { policy }]] as const).flatMap(([option, others]) =>
      [
        [aligned, undefined, "1s"],
        [aligned, "999 millis", "1s"],
        [Throttle.all([policy, aligned]), undefined, "1s"],
        [Throttle.shadow(Throttle.all([aligned, Throttle.all([minutely])])), "5 seconds", "1m"],
        // The policy's own bounds are in force too.
        [Throttle.all([aligned], { maxQueue: 0 }), "1 second", "1s"],
        [Throttle.all([aligned], { timeout: "500 millis" }), "1 second", "1s"]
      ].map(([given, maxWait, interval]): readonly [unknown, string] => [
        { ...others, [option as string]: given, maxWait },
        `HttpThrottle.middleware: "${option}" must not align spacing to the clock unless requests may wait for its interval ` +
        `("maxWait" ≥ ${interval}); window({ limit: 1, per, kind: "fixed" }) counts by slots; received ${String(given)}`
      ])
    ),
    [
      { policy, global: 5 },
      `HttpThrottle.middleware: "global" must be a policy, a throttle, or an effect that returns a throttle, received 5`
    ],
    [
      { policy, cost: "a" },
      `HttpThrottle.middleware: "cost" must be a cost, or a function from a request to a cost, received "a"`
    ]
  ]

  for (const [options, message] of table) {
    it(message, () => {
      const wrong = options as HttpThrottle.Options
      assert.throws(() => HttpThrottle.middleware(wrong), RangeError, message)
      assert.throws(() => HttpThrottle.middleware(wrong, { global: true }), RangeError, message)
    })
  }

  it.effect("a lookup that gives no policy is a defect of the request", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ lookup: () => undefined as any })
      assert.strictEqual((yield* request()).status, 500)
    }))

  it.effect("so is a lookup that gives a policy which would limit nobody; one without limits is none", () =>
    Effect.gen(function*() {
      const lookup = (key: string) => key === "192.0.2.1" ? tokens : key === "192.0.2.2" ? Throttle.none : perMinute
      const request = yield* throttled({ lookup, global: Throttle.none })
      const answers = yield* Effect.forEach([1, 2, 3], (i) => request({ from: `192.0.2.${i}` }))
      assert.deepStrictEqual(statuses(answers), [500, 200, 200])
      const costly = yield* throttled({ lookup, cost: { tokens: 9 } })
      assert.deepStrictEqual(statuses(yield* times(2, costly())), [200, 429])
    }))

  it.effect("so is a cost that makes no sense; the next request is served", () =>
    Effect.gen(function*() {
      const request = yield* throttled({ policy, cost: ({ headers }) => Number(headers["x-cost"] ?? 1) })
      assert.strictEqual((yield* request({ headers: { "x-cost": "many" } })).status, 500)
      assert.strictEqual((yield* request({ headers: { "x-cost": "-1" } })).status, 500)
      assert.strictEqual((yield* request()).headers["ratelimit"], `"default";r=1;t=60`)
    }))
})
