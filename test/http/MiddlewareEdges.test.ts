/** A server whose throttles close, drain, or change while requests are under way, and callbacks that break. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { fork, settled } from "../utils/kit.ts"
import { type Answer, ask, hello } from "../utils/web.ts"

const user = HttpThrottle.header("x-user")
const org = HttpThrottle.header("x-org")
const from = (user: string, org: string) => ({ headers: { "x-user": user, "x-org": org } })
const budget = (limit: number, options: Partial<Throttle.RateOptions> = {}) =>
  Throttle.rate({ limit: 1, per: "1 hour", burst: limit - 1, ...options })
describe("a global limit that is a throttle", () => {
  it.effect("whose queue lets requests wait: no request is refused by a key that has permits left", () =>
    Effect.gen(function*() {
      const global = yield* Throttle.make(Throttle.rate({ limit: 1, maxQueue: 100 }))
      const request = yield* ask(
        Layer.merge(hello, HttpThrottle.middleware({ key: user, policy: budget(50), global }, { global: true }))
      )
      const fibers = yield* Effect.forEach([1, 2, 3], () => fork(request(from("ada", ""))))
      yield* TestClock.adjust("5 seconds")
      const answers = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(answers.map(({ status }) => status), [200, 200, 200])
    }))

  class Everybody extends Throttle.Service<Everybody>()("test/Everybody", Throttle.rate({ limit: 1 })) {}

  for (const what of ["drained", "closed"] as const) {
    it.effect(`${what} while a request waits for its key's limit: 503`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Everybody.layer, scope)
        const global = Context.get(context, Everybody) as Throttle.Throttle
        const request = yield* ask(
          Layer.merge(
            hello,
            HttpThrottle.middleware({
              key: user,
              policy: Throttle.rate({ limit: 1 }),
              levels: [{ key: org, policy: budget(50) }],
              global,
              maxWait: "10 seconds"
            }, { global: true })
          )
        )
        yield* request(from("ada", "acme"))
        const waiting = yield* fork(request(from("ada", "acme")))
        yield* TestClock.adjust("500 millis")
        if (what === "drained") yield* fork(global.drain())
        else yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust("10 seconds")
        const answer = (yield* Fiber.join(waiting)) as Answer
        assert.strictEqual(answer.status, 503)
        const grace = yield* request(from("grace", "acme"))
        assert.strictEqual(grace.status, 503)
        assert.strictEqual(grace.headers["content-type"], "application/problem+json")
        assert.strictEqual(answer.headers["content-type"], "application/problem+json")
        assert.deepStrictEqual([grace, answer].map(({ headers }) => headers["retry-after"]), ["1", "1"])
      }))
  }

  for (const levels of [0, 1]) {
    it.effect(`a map of a ${levels === 0 ? "single limit" : "level"} that is closed: 503`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const map = yield* Scope.provide(ThrottleMap.make({ lookup: (_key: string) => budget(5) }), scope)
        const request = yield* ask(
          Layer.merge(
            hello,
            HttpThrottle.middleware(
              levels === 0
                ? { key: user, throttles: Effect.succeed(map) }
                : { key: user, policy: budget(9), levels: [{ key: org, throttles: Effect.succeed(map) }] },
              { global: true }
            )
          )
        )
        yield* Scope.close(scope, Exit.void)
        const { headers, status } = yield* request(from("ada", "acme"))
        assert.strictEqual(status, 503)
        assert.strictEqual(headers["content-type"], "application/problem+json")
      }))
  }

  it.effect("cannot be that of a map's key; the error says what it may be", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: (_key: string) => budget(5) })
      const built = yield* Effect.exit(ask(
        Layer.merge(
          hello,
          HttpThrottle.middleware({ policy: budget(5), global: map.get("all") }, { global: true })
        )
      ))
      assert.include(
        String(built),
        `"global" must be a policy, a Service class, or a throttle of Throttle.make in this process`
      )
    }))

  it.effect("an update of it to other units does not let all requests pass", () =>
    Effect.gen(function*() {
      const global = yield* Throttle.make(budget(1))
      const request = yield* ask(
        Layer.merge(hello, HttpThrottle.middleware({ key: user, policy: budget(50), global }, { global: true }))
      )
      yield* global.update(Throttle.rate({ limit: 1, per: "1 hour", unit: "bytes" }))
      const statuses = yield* Effect.forEach([1, 2, 3], () => Effect.map(request(from("ada", "")), (a) => a.status))
      assert.notDeepEqual(statuses, [200, 200, 200])
    }))
})

describe("maxWait", () => {
  it.effect("is kept by a request behind an urgent one that waits for the global limit", () =>
    Effect.gen(function*() {
      const app = HttpThrottle.middleware({
        key: org,
        policy: Throttle.rate({ limit: 10, burst: 90, order: "priority", ageing: "1 minute" }),
        levels: [{ key: user, policy: Throttle.rate({ limit: 10, burst: 90 }) }],
        global: Throttle.concurrency({ limit: 1 }),
        maxWait: "1 second",
        setCaller: (_org, [user]) => ({ key: user!, priority: user === "x-user:urgent" ? 1 : 0 })
      }, { global: true })
      const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 minute"), HttpServerResponse.text("slow")))
      const request = yield* ask(Layer.merge(slow, app))
      yield* fork(request(from("first", "acme")))
      yield* settled
      const a = yield* fork(request(from("a", "acme")))
      const b = yield* fork(request(from("b", "acme")))
      yield* TestClock.adjust("900 millis")
      yield* fork(request(from("urgent", "acme")))
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual([a.pollUnsafe() !== undefined, b.pollUnsafe() !== undefined], [true, true])
    }))
})

describe("lookups", () => {
  it.effect("a lookup that throws when the answer is sent does not lose the answer", () =>
    Effect.gen(function*() {
      let broken = false
      const app = HttpThrottle.middleware({
        key: user,
        policy: budget(9),
        levels: [{
          key: org,
          lookup: () => {
            if (broken) throw new Error("broken")
            return Throttle.concurrency({ limit: 5 })
          }
        }]
      }, { global: true })
      const route = HttpRouter.add(
        "GET",
        "/",
        Effect.sync(() => {
          broken = true
          return HttpServerResponse.stream(Stream.succeed(new Uint8Array(1)))
        })
      )
      const request = yield* ask(Layer.merge(route, app))
      assert.strictEqual((yield* request(from("ada", "acme"))).status, 200)
    }))

  it.effect("a lookup of a rate that throws when the answer is sent does not lose the answer", () =>
    Effect.gen(function*() {
      let broken = false
      const app = HttpThrottle.middleware({
        key: user,
        lookup: () => {
          if (broken) throw new Error("broken")
          return Throttle.rate({ limit: 5 })
        }
      }, { global: true })
      const route = HttpRouter.add(
        "GET",
        "/",
        Effect.gen(function*() {
          yield* Effect.sleep("10 seconds")
          broken = true
          return HttpServerResponse.text("ok")
        })
      )
      const request = yield* ask(Layer.merge(route, app))
      const fiber = yield* fork(request(from("ada", "acme")))
      yield* TestClock.adjust("20 seconds")
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
      assert.isDefined(fiber.pollUnsafe(), "answered")
    }))
})

describe("a lookup that breaks while a request is answered", () => {
  it.effect("leaks no permit of a request whose body streams", () =>
    Effect.gen(function*() {
      let isBroken = false
      const policy = Throttle.concurrency({ limit: 1 })
      const app = HttpThrottle.middleware({
        key: user,
        lookup: () => {
          if (isBroken) throw new Error("broken")
          return policy
        },
        countIf: () => false
      }, { global: true })
      const route = HttpRouter.add(
        "GET",
        "/",
        Effect.sync(() => {
          isBroken = true
          return HttpServerResponse.stream(Stream.succeed(new Uint8Array(1)))
        })
      )
      const request = yield* ask(Layer.merge(route, app))
      yield* fork(request(from("ada", "")))
      yield* TestClock.adjust("10 seconds")
      isBroken = false
      const second = yield* fork(request(from("ada", "")))
      yield* TestClock.adjust("10 seconds")
      const exit = second.pollUnsafe()
      assert.strictEqual(exit && Exit.isSuccess(exit) ? exit.value.status : exit, 200)
    }))
})

describe("setCaller", () => {
  for (
    const [what, setCaller] of [
      ["a bad weight", () => ({ weight: -1 })],
      ["nothing", () => undefined as any],
      ["a promise", () => Promise.resolve({ key: "ada" }) as any]
    ] as const
  ) {
    it.effect(`a function that gives ${what} instead of a caller: the error names the option`, () =>
      Effect.gen(function*() {
        const defects: Array<string> = []
        const app = HttpThrottle.middleware({
          key: user,
          policy: budget(9),
          setCaller
        }, { global: true })
        const spy = HttpRouter.middleware(
          (handler) => Effect.tapCause(handler, (cause) => Effect.sync(() => void defects.push(String(cause)))),
          { global: true }
        )
        const request = yield* ask(Layer.merge(hello, app.pipe(Layer.provideMerge(spy))))
        yield* request(from("ada", ""))
        assert.include(defects.join(), "setCaller")
      }))
  }
})

describe("a full map that evicts", () => {
  for (const isObserved of [false, true]) {
    it.effect(`keeps its keys when the global limit refuses a request${isObserved ? ", with an observer" : ""}`, () =>
      Effect.gen(function*() {
        const users = yield* ThrottleMap.make({ lookup: (_key: string) => budget(5), maxKeys: 1, onFull: "evict" })
        const global = yield* Throttle.make(Throttle.rate({ limit: 1, per: "1 hour", maxQueue: 0 }))
        const app = HttpThrottle.middleware({ key: user, throttles: Effect.succeed(users), global }, { global: true })
        const made = ask(Layer.merge(hello, app))
        const events: Array<string> = []
        const observer = ({ _tag }: Throttle.Event) => Effect.sync(() => void events.push(_tag))
        const request = yield* (isObserved ? Effect.provideService(made, Throttle.Observer, observer) : made)
        yield* request(from("ada", ""))
        assert.strictEqual((yield* request(from("eve", ""))).status, 503)
        assert.strictEqual((yield* users.remaining("x-user:ada"))[0]!.remaining, 4)
        assert.deepStrictEqual(events.filter((tag) => tag === "Rejected").length, isObserved ? 1 : 0)
      }))
  }
})
