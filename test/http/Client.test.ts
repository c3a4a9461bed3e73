/**
 * The throttled client against a server in memory, to the millisecond.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, Option, Random, Schedule, Scope, Stream } from "effect"
import { Throttle, ThrottleError, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpBody, HttpClient, type HttpClientError, HttpClientRequest, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { collect } from "../utils/telemetry.ts"
import * as Memory from "./memory.ts"

const { ok, tooMany, unavailable } = Memory

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const settled = TestClock.adjust(0)

/** Without jitter, so that times are exact. */
const exact = { jitter: 0 }

/** And as the answers alone say. */
const plain = { ...exact, adapt: false }

const paced = Throttle.rate({ limit: 10 })

/** Sends so many requests at once, and gives their answers when they are all there. */
const getAll = <E>(client: HttpClient.HttpClient.With<E>, count: number, url = "http://a.example/") =>
  Effect.gen(function*() {
    const fibers: Array<Fiber.Fiber<HttpClientResponse.HttpClientResponse, E>> = []
    for (let i = 0; i < count; i++) fibers.push(yield* fork(client.get(`${url}${i}`)))
    return fibers
  })

const statusesOf = <E>(fibers: ReadonlyArray<Fiber.Fiber<HttpClientResponse.HttpClientResponse, E>>) =>
  Effect.map(Fiber.joinAll(fibers), (responses) => responses.map(({ status }) => status))

/** Sends one request, and lets a day go by. */
const day = <A, E>(request: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fiber = yield* fork(request)
    for (let i = 0; i < 24; i++) yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(fiber)
  })

describe("a request waits its turn", () => {
  it.effect("before it is sent", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const client = HttpThrottle.client(paced)(server.client)
      const fibers = yield* getAll(client, 4)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200, 200, 200])
      assert.deepStrictEqual(server.times(), [0, 100, 200, 300])
    }))

  it.effect("by origin: scheme, host and port", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const client = HttpThrottle.client(paced)(server.client)
      const urls = [
        "http://a.example/1",
        "http://a.example/2?page=1",
        "https://a.example/3",
        "http://a.example:81/4",
        "http://b.example/5",
        "http://A.EXAMPLE:80/6#top"
      ]
      for (const url of urls) yield* fork(client.get(url))
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(server.seen.map(({ at, url }) => [at, url.replace(/.*\/(\d).*/, "$1")]), [
        [0, "1"],
        [0, "3"],
        [0, "4"],
        [0, "5"],
        [100, "2"],
        [200, "6"]
      ])
    }))

  it.effect("by a key of the request, at its cost", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const tokens = Throttle.tokenBucket({ capacity: 10, refill: 10, unit: "tokens" })
      const client = HttpThrottle.client(tokens, {
        key: ({ headers }) => headers["x-tenant"] ?? "",
        cost: ({ body }) => ({ tokens: body._tag === "Uint8Array" ? body.contentLength : 0 })
      })(server.client)
      const post = (tenant: string, text: string) =>
        fork(client.post("http://a.example/", { headers: { "x-tenant": tenant }, body: HttpBody.text(text) }))
      yield* post("a", "12345678")
      yield* post("a", "12345")
      yield* post("b", "12345")
      const tooLong = yield* post("b", "12345678901")
      yield* TestClock.adjust(10_000)
      assert.deepStrictEqual(server.times(), [0, 0, 300])
      const error = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.await(tooLong)))
      assert.instanceOf(error, ThrottleError)
      assert.strictEqual((error as ThrottleError).reason._tag, "PermitsExceedCapacity")
    }))

  it.effect("again before each retry of retryTransient", () =>
    Effect.gen(function*() {
      const server = Memory.make([{ status: 500 }, { status: 500 }, ok])
      const client = HttpThrottle.client(Throttle.spacing({ interval: "1 second" }))(server.client).pipe(
        HttpClient.retryTransient({ times: 5, schedule: Schedule.spaced("10 millis") })
      )
      const fibers = yield* getAll(client, 2)
      yield* TestClock.adjust(20_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200])
      assert.deepStrictEqual(server.times(), [0, 1_000, 2_000, 3_000])
    }))

  it.effect("and so does each hop of followRedirects, at the origin it goes to", () =>
    Effect.gen(function*() {
      const server = Memory.make(({ url }) =>
        url.startsWith("http://a.") ? { status: 302, headers: { location: "http://b.example/" } } : ok
      )
      const client = HttpThrottle.client(Throttle.spacing({ interval: "1 second" }))(server.client).pipe(
        HttpClient.followRedirects()
      )
      const fibers = yield* getAll(client, 2)
      yield* TestClock.adjust(20_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200])
      assert.deepStrictEqual(server.seen.map(({ at, url }) => [at, url.slice(7, 8)]), [
        [0, "a"],
        [0, "b"],
        [1_000, "a"],
        [
          1_000,
          "b"
        ]
      ])
    }))

  it.effect("sees the request as it is sent, whatever was mapped before or after", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const keys: Array<string> = []
      const client = server.client.pipe(
        HttpClient.mapRequest(HttpClientRequest.setHeader("x-inner", "1")),
        HttpThrottle.client(paced, {
          key: ({ headers, url }) => {
            keys.push(`${url} ${headers["x-inner"]} ${headers["x-outer"]}`)
            return "one"
          }
        }),
        HttpClient.mapRequest(HttpClientRequest.setHeader("x-outer", "2"))
      )
      yield* client.get("http://a.example/")
      assert.deepStrictEqual(keys, ["http://a.example/ 1 2"])
    }))

  it.effect("a URL that is none is the client's to complain about", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const error = yield* Effect.flip(HttpThrottle.client(paced)(server.client).get("http://"))
      assert.strictEqual(error.reason._tag, "InvalidUrlError")
    }))

  it.effect("interrupted while it waits, it was never sent and has cost nothing", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const client = HttpThrottle.client(paced)(server.client)
      const [, second, third] = yield* getAll(client, 3)
      yield* Fiber.interrupt(second!)
      yield* TestClock.adjust(100)
      assert.deepStrictEqual((yield* Fiber.join(third!)).status, 200)
      assert.deepStrictEqual(server.seen.map(({ at, url }) => [at, url.at(-1)]), [[0, "0"], [100, "2"]])
    }))
})

describe("permits", () => {
  const two = Throttle.concurrency({ limit: 2 })

  it.effect("are held until the head of the answer is there", () =>
    Effect.gen(function*() {
      const server = Memory.make([{ ...ok, takes: 100 }])
      const fibers = yield* getAll(HttpThrottle.client(two)(server.client), 5)
      yield* TestClock.adjust(1_000)
      yield* statusesOf(fibers)
      assert.deepStrictEqual(server.times(), [0, 0, 100, 100, 200])
      assert.strictEqual(server.inside.most, 2)
    }))

  it.effect("come back from a failure, a defect and an interruption", () =>
    Effect.gen(function*() {
      const outcomes = [Effect.fail("no"), Effect.die("no"), Effect.never, Effect.never]
      const failing = HttpClient.transform(
        Memory.make([ok]).client,
        (effect: Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError>) =>
          Effect.suspend((): Effect.Effect<HttpClientResponse.HttpClientResponse, unknown> =>
            outcomes.shift() ?? effect
          )
      )
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 1 }))(failing)
      assert.strictEqual(yield* Effect.flip(client.get("http://a.example/")), "no")
      assert.isTrue(Exit.hasDies(yield* Effect.exit(client.get("http://a.example/"))))
      for (const _ of [1, 2]) {
        const hangs = yield* fork(client.get("http://a.example/"))
        yield* settled
        yield* Fiber.interrupt(hangs)
      }
      assert.strictEqual((yield* client.get("http://a.example/")).status, 200)
    }))

  it.effect("of clientScoped are held until the scope closes", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const client = HttpThrottle.clientScoped(two)(server.client)
      const slow = client.get("http://a.example/").pipe(
        Effect.tap((response) => Effect.delay(response.text, 100)),
        Effect.scoped
      )
      for (let i = 0; i < 5; i++) yield* fork(slow)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(server.times(), [0, 0, 100, 100, 200])
    }))

  it.effect("of clientScoped come back at once from an attempt that failed or was refused", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(1), { status: 404 }, ok])
      const one = Throttle.concurrency({ limit: 1 })
      const scoped = HttpThrottle.clientScoped(one, exact)(server.client).pipe(HttpClient.filterStatusOk)
      const whole = yield* fork(Effect.scoped(Effect.gen(function*() {
        assert.isTrue(Memory.isStatusError(yield* Effect.flip(scoped.get("http://a.example/"))))
        yield* Effect.sleep(1_000)
      })))
      yield* TestClock.adjust(1_000)
      // The 404 is an answer whose body may be read; filterStatusOk is outside of it.
      assert.deepStrictEqual(server.times(), [0, 1_000])
      const other = yield* fork(Effect.scoped(scoped.get("http://a.example/")))
      yield* TestClock.adjust(999)
      assert.strictEqual(server.seen.length, 2)
      yield* TestClock.adjust(1)
      yield* Fiber.join(whole)
      assert.strictEqual((yield* Fiber.join(other)).status, 200)
      assert.deepStrictEqual(server.times(), [0, 1_000, 2_000])

      const inside = HttpThrottle.clientScoped(one, exact)(
        HttpClient.filterStatusOk(Memory.make([{ status: 404 }, ok]).client)
      )
      yield* Effect.scoped(Effect.gen(function*() {
        assert.isTrue(Memory.isStatusError(yield* Effect.flip(inside.get("http://a.example/"))))
        assert.strictEqual((yield* inside.get("http://a.example/")).status, 200)
      }))
    }))
})

describe("clientScoped and followRedirects", () => {
  const orders: Record<string, (client: HttpClient.HttpClient) => HttpClient.HttpClient.With<any, Scope.Scope>> = {
    "outside": (client) =>
      HttpClient.followRedirects(HttpThrottle.clientScoped(Throttle.concurrency({ limit: 1 }))(client)),
    "inside": (client) =>
      HttpThrottle.clientScoped(Throttle.concurrency({ limit: 1 }))(HttpClient.followRedirects(client))
  }
  it.effect.each(Object.entries(orders))(
    "%s: a hop does not wait for the permit of the one before",
    ([, order]) =>
      Effect.gen(function*() {
        const server = Memory.make(({ url }) =>
          url.endsWith("/end") ? ok : { status: 302, headers: { location: url.endsWith("/hop") ? "/end" : "/hop" } }
        )
        const client = order(server.client)
        const get = client.get("http://a.example/").pipe(
          Effect.tap(Effect.sleep(100)),
          Effect.scoped
        )
        const fibers = [yield* fork(get), yield* fork(get)]
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200])
        assert.strictEqual(server.seen.length, 6)
        // The last hop of each keeps its permit while the body is read.
        const [first, second] = server.seen.filter(({ url }) => url.endsWith("/end"))
        assert.strictEqual(second!.at - first!.at, 100)
      })
  )
})

describe("a pause", () => {
  it.effect("that an answer asks for holds everybody back, those in line too", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(30), ok])
      const client = HttpThrottle.client(paced, exact)(server.client)
      const fibers = yield* getAll(client, 3)
      yield* TestClock.adjust(10_000)
      const late = yield* fork(client.get("http://a.example/late"))
      const elsewhere = yield* fork(client.get("http://b.example/"))
      yield* settled
      assert.strictEqual((yield* Fiber.join(elsewhere)).status, 200)
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(yield* statusesOf([...fibers, late]), [200, 200, 200, 200])
      assert.deepStrictEqual(
        server.seen.map(({ at, url }) => `${at} ${url.replace("http://", "")}`),
        [
          "0 a.example/0",
          "10000 b.example/",
          // Those who waited already come first, then the one that was refused, then whoever came later.
          "30000 a.example/1",
          "30100 a.example/2",
          "30200 a.example/0",
          "30300 a.example/late"
        ]
      )
    }))

  it.effect("lets nobody start between the answer and itself", () =>
    Effect.gen(function*() {
      // The permit that the refused request gives back is what the next one waits for.
      const server = Memory.make([{ ...tooMany(5), takes: 10 }, ok])
      const fibers = yield* getAll(HttpThrottle.client(Throttle.concurrency({ limit: 1 }), exact)(server.client), 2)
      yield* TestClock.adjust(60_000)
      yield* statusesOf(fibers)
      assert.deepStrictEqual(server.times(), [0, 5_010, 5_010])
    }))

  it.effect("several 429s of one burst count once", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => nth < 5 ? { ...tooMany(2), takes: 10 * nth + 1 } : ok)
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      const fibers = yield* getAll(client, 5)
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200, 200, 200, 200])
      // By the last of them, and for all: not 5 times 2 s.
      assert.deepStrictEqual(server.times().slice(5), [2_041, 2_041, 2_041, 2_041, 2_041])
    }))

  it.effect("without a time is one second for a whole burst, two for the next", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => nth < 8 ? { ...tooMany(), takes: 10 } : ok)
      const fibers = yield* getAll(HttpThrottle.client(Throttle.none, plain)(server.client), 4)
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200, 200, 200])
      assert.deepStrictEqual([...new Set(server.times())], [0, 1_010, 3_020])
    }))

  it.effect("comes from a 200 with nothing left", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({
        status: 200,
        headers: { "x-ratelimit-remaining": `${nth < 2 ? 1 - nth : 9}`, "x-ratelimit-reset-after": "7.5" }
      }))
      const fibers = yield* getAll(HttpThrottle.client(paced, plain)(server.client), 4)
      yield* TestClock.adjust(60_000)
      yield* statusesOf(fibers)
      assert.deepStrictEqual(server.times(), [0, 100, 7_600, 7_700])
    }))

  it.effect("never lasts longer than maxPause", () =>
    Effect.gen(function*() {
      for (const [maxPause, seconds] of [[undefined, 3_600], ["1 minute", 60]] as const) {
        for (const after of ["9".repeat(300), "Fri, 31 Dec 9999 23:59:59 GMT", "86400"]) {
          const server = Memory.make([tooMany(after), ok])
          const client = HttpThrottle.client(Throttle.none, { ...exact, maxPause })(server.client)
          const start = yield* Effect.clockWith((clock) => clock.monotonicTimeNanos)
          yield* day(client.get("http://a.example/"))
          const [first, second] = server.times()
          assert.strictEqual(first, Number(start) / 1e6)
          assert.strictEqual(second! - first!, seconds * 1_000)
        }
      }
    }))

  it.effect("never lasts longer than maxPause, jitter included", () =>
    Effect.gen(function*() {
      for (const seed of ["a", "b", "c"]) {
        const server = Memory.make([tooMany(59), ok])
        const client = HttpThrottle.client(Throttle.none, { jitter: 1, maxPause: "1 minute" })(server.client)
        yield* day(client.get("http://a.example/")).pipe(Random.withSeed(seed))
        const [first, second] = server.times()
        assert.isTrue(second! - first! > 59_000 && second! - first! <= 60_000, `${second! - first!}`)
      }
    }))

  it.effect("that somebody ends is over for all but the request that was refused, which holds up nobody", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.all([paced, Throttle.concurrency({ limit: 1 })]))
      const server = Memory.make([tooMany(30), ok])
      const client = HttpThrottle.client(throttle, exact)(server.client)
      const fibers = yield* getAll(client, 2)
      yield* TestClock.adjust(5_000)
      assert.strictEqual(server.seen.length, 1)
      yield* throttle.resume
      yield* TestClock.adjust(1_000)
      const { running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual([running, waiting], [0, 0])
      // The turn that came before its time has cost nothing.
      const late = yield* fork(client.get("http://a.example/late"))
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(yield* statusesOf([...fibers, late]), [200, 200, 200])
      assert.deepStrictEqual(server.seen.map(({ at, url }) => `${at} ${url.split("/").at(-1)}`), [
        "0 0",
        "5000 1",
        "6000 late",
        "30000 0"
      ])
    }))

  it.effect("of another server's clock is measured by that", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.parse("2026-11-26T10:00:00Z"))
      const date = "Thu, 26 Nov 2026 22:00:00 GMT"
      const server = Memory.make([
        { status: 503, headers: { date, "retry-after": "Thu, 26 Nov 2026 22:00:20 GMT" } },
        ok
      ])
      yield* day(HttpThrottle.client(Throttle.none, exact)(server.client).get("http://a.example/"))
      const [first, second] = server.times()
      assert.strictEqual(second! - first!, 20_000)
    }))

  it.effect("is held to the bounds of the policy, which is told of it", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(30), ok])
      const client = HttpThrottle.client(Throttle.rate({ limit: 10, maxWait: "5 seconds" }), { ...exact, retry: 0 })(
        server.client
      )
      assert.strictEqual((yield* client.get("http://a.example/")).status, 429)
      const error = yield* Effect.flip(client.get("http://a.example/"))
      assert.instanceOf(error, ThrottleError)
      const { reason } = error as ThrottleError
      assert.strictEqual(reason._tag, "WaitTooLong")
      assert.include(reason.parts, "pause")
      assert.deepStrictEqual((error as ThrottleError).retryAfter, Duration.seconds(30))
    }))
})

describe("jitter", () => {
  const waits = (jitter: number | undefined, retryAfter: number, seed: string) =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => nth % 2 === 0 ? tooMany(retryAfter) : ok)
      const client = HttpThrottle.client(Throttle.none, { jitter })(server.client)
      const found: Array<number> = []
      for (let i = 0; i < 3; i++) {
        yield* day(client.get("http://a.example/")).pipe(Random.withSeed(seed))
        const [first, second] = server.times().slice(-2)
        found.push(Math.round(second! - first!))
      }
      return found
    })

  it.effect("is at most a tenth, the same for each pause of a client, and by Effect's Random", () =>
    Effect.gen(function*() {
      const seeds = ["a", "b", "c", "d", "e", "f"]
      const all: Array<number> = []
      for (const seed of seeds) {
        const [one, two, three] = yield* waits(undefined, 10, seed)
        assert.deepStrictEqual([two, three], [one, one])
        assert.isTrue(one! >= 10_000 && one! < 11_000, `${one}`)
        assert.deepStrictEqual(yield* waits(undefined, 10, seed), [one, one, one])
        all.push(one!)
      }
      assert.strictEqual(new Set(all).size, seeds.length)
    }))

  it.effect("is at most 5 seconds, whatever the wait", () =>
    Effect.gen(function*() {
      for (const seed of ["a", "b", "c"]) {
        for (const wait of yield* waits(1, 3_000, seed)) assert.isTrue(wait > 3_000_000 && wait < 3_005_000, `${wait}`)
      }
    }))
})

describe("a retry", () => {
  it.effect("comes three times, then the answer is what the server gave", () =>
    Effect.gen(function*() {
      for (const refusal of [tooMany, unavailable]) {
        const server = Memory.make([refusal(1)])
        const response = yield* day(HttpThrottle.client(Throttle.none, exact)(server.client).get("http://a.example/"))
        assert.strictEqual(response.status, refusal(1).status)
        assert.strictEqual(yield* response.text, "too many")
        assert.deepStrictEqual(server.times().map((at) => at - server.times()[0]!), [0, 1_000, 2_000, 3_000])
      }
    }))

  it.effect("so often as it is told", () =>
    Effect.gen(function*() {
      for (const retry of [0, 1, 7]) {
        const server = Memory.make([tooMany(1)])
        yield* day(HttpThrottle.client(Throttle.none, { ...exact, retry })(server.client).get("http://a.example/"))
        assert.strictEqual(server.seen.length, 1 + retry)
      }
    }))

  it.effect("by a schedule, whose delays are for answers without a time", () =>
    Effect.gen(function*() {
      const asked: Array<number> = []
      const retry = Schedule.spaced("5 seconds").pipe(
        Schedule.upTo({ times: 3 }),
        Schedule.while(({ input }: { readonly input: HttpClientResponse.HttpClientResponse }) =>
          Effect.sync(() => {
            asked.push(input.status)
            return input.headers["x-stop"] === undefined
          })
        )
      )
      const server = Memory.make([
        tooMany(),
        tooMany(1),
        unavailable(),
        { status: 429, headers: { "x-stop": "1" } },
        ok
      ])
      const client = HttpThrottle.client(Throttle.none, { ...exact, retry })(server.client)
      assert.strictEqual((yield* day(client.get("http://a.example/"))).status, 429)
      assert.deepStrictEqual(server.times(), [0, 5_000, 6_000, 11_000])
      assert.deepStrictEqual(asked.slice(0, 3), [429, 429, 503])
    }))

  it.effect("after a 429 without a time waits with everybody, after such a 503 alone", () =>
    Effect.gen(function*() {
      for (const [refusal, others] of [[tooMany(), 1_000], [unavailable(), 0]] as const) {
        const server = Memory.make(({ url }, nth) => url.endsWith("/0") && nth === 0 ? refusal : ok)
        const client = HttpThrottle.client(Throttle.none, plain)(server.client)
        const first = yield* fork(client.get("http://a.example/0"))
        yield* settled
        const second = yield* fork(client.get("http://a.example/1"))
        yield* TestClock.adjust(10_000)
        yield* statusesOf([first, second])
        const start = server.times()[0]!
        assert.deepStrictEqual(
          server.seen.map(({ at, url }) => [at - start, url.at(-1)]),
          others === 0 ? [[0, "0"], [0, "1"], [1_000, "0"]] : [[0, "0"], [1_000, "0"], [1_000, "1"]]
        )
      }
    }))

  it.effect("stands in line like everybody, and is charged", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.window({ limit: 2, per: "1 minute" }))
      const server = Memory.make([{ ...tooMany(1), takes: 10 }, ok])
      const fibers = yield* getAll(HttpThrottle.client(throttle, exact)(server.client), 3)
      yield* TestClock.adjust("10 minutes")
      yield* statusesOf(fibers)
      assert.deepStrictEqual(server.seen.map(({ at, url }) => `${at} ${url.at(-1)}`), [
        "0 0",
        "0 1",
        "60000 2",
        "60000 0"
      ])
      assert.strictEqual((yield* throttle.statistics).admitted, 4)
    }))

  /** A client of one answer, whose body comes as a stream when it is asked for. */
  const streaming = (refusal: Memory.Answer) => {
    const read: Array<string> = []
    const client = HttpClient.make((request) =>
      Effect.sync(() => {
        const chunks = ["too ", "many"]
        const body = new ReadableStream<Uint8Array>({
          pull: (controller) => {
            const chunk = chunks.shift()
            if (chunk === undefined) return controller.close()
            read.push(chunk)
            controller.enqueue(new TextEncoder().encode(chunk))
          }
        }, { highWaterMark: 0 })
        return HttpClientResponse.fromWeb(request, new Response(body, refusal))
      })
    )
    return { client, read }
  }
  const refusing: Record<string, Throttle.Policy<unknown>> = {
    maxWait: Throttle.rate({ limit: 10, maxWait: "5 seconds" }),
    maxQueue: Throttle.rate({ limit: 10, maxQueue: 0 })
  }
  it.effect.each(Object.entries(refusing))(
    "that the policy refuses on arrival (%s) is none: the answer stands at once, its body untouched",
    ([, policy]) =>
      Effect.gen(function*() {
        const { client, read } = streaming(tooMany(30))
        const response = yield* HttpThrottle.client(policy, exact)(client).get("http://a.example/")
        assert.strictEqual(response.status, 429)
        yield* settled
        assert.deepStrictEqual(read, [])
        assert.strictEqual(yield* Stream.mkString(Stream.decodeText(response.stream)), "too many")
      })
  )

  it.effect("that the policy refuses later is none: the answer stands, and what was read of it is kept", () =>
    Effect.gen(function*() {
      const { client } = streaming(tooMany(30))
      const limited = HttpThrottle.client(Throttle.rate({ limit: 10, timeout: "5 seconds" }), exact)(client)
      const fiber = yield* fork(limited.get("http://a.example/"))
      yield* TestClock.adjust(4_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      const response = yield* Fiber.join(fiber)
      assert.strictEqual(response.status, 429)
      assert.strictEqual(yield* response.text, "too many")
    }))

  it.effect("stands in line before the answer that is given up is read", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const endless = HttpClient.make((request) =>
        Effect.sync(() => HttpClientResponse.fromWeb(request, new Response(new ReadableStream(), tooMany(30))))
      )
      const fiber = yield* fork(HttpThrottle.client(throttle, exact)(endless).get("http://a.example/"))
      yield* settled
      assert.strictEqual((yield* throttle.statistics).waiting, 1)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("after a 503 alone is refused as others are: the answer stands", () =>
    Effect.gen(function*() {
      const server = Memory.make([unavailable(), { ...ok, takes: 5_000 }])
      const policy = Throttle.concurrency({ limit: 1, maxQueue: 0 })
      const client = HttpThrottle.client(policy, exact)(server.client)
      const first = yield* fork(client.get("http://a.example/0"))
      yield* settled
      yield* fork(client.get("http://a.example/1"))
      yield* TestClock.adjust(1_000)
      const response = yield* Fiber.join(first)
      assert.deepStrictEqual([response.status, server.seen.length], [503, 2])
      assert.strictEqual(yield* response.text, "too many")
    }))

  /** A schedule that needs so long to say when. */
  const pondering = (millis: number) =>
    Schedule.spaced("1 second").pipe(
      Schedule.upTo({ times: 3 }),
      Schedule.while(() => Effect.as(Effect.sleep(millis), true))
    )

  it.effect("by a schedule that takes its time lets nobody slip in before the pause", () =>
    Effect.gen(function*() {
      for (const [refusal, others] of [[tooMany(5), 5_000], [tooMany(), 1_200]] as const) {
        const server = Memory.make([refusal, ok])
        const policy = Throttle.concurrency({ limit: 1 })
        const fibers = yield* getAll(
          HttpThrottle.client(policy, { ...plain, retry: pondering(200) })(server.client),
          2
        )
        yield* TestClock.adjust(60_000)
        yield* statusesOf(fibers)
        const [start, ...later] = server.times()
        assert.deepStrictEqual(later.map((at) => at - start!), [others, others])
      }
    }))

  it.effect("by a schedule that takes its time can be interrupted, and holds up nobody after an answer with a time", () =>
    Effect.gen(function*() {
      for (const refusal of [tooMany(5), tooMany(), unavailable(5), unavailable()]) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
        const server = Memory.make([refusal, ok])
        const client = HttpThrottle.client(throttle, { ...plain, retry: pondering(3_600_000) })(server.client)
        const fiber = yield* fork(client.get("http://a.example/"))
        yield* TestClock.adjust(10_000)
        const isHeld = refusal.status === 429 && refusal.headers === undefined
        assert.strictEqual((yield* throttle.statistics).running, isHeld ? 1 : 0)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual((yield* throttle.statistics).running, 0)
        assert.strictEqual((yield* client.get("http://a.example/")).status, 200)
      }
    }))

  const throwing: Record<string, HttpThrottle.ClientOptions> = {
    "a schedule that dies": { retry: Schedule.while(Schedule.spaced("1 second"), () => Effect.die("broken")) },
    "a rule that throws": {
      retryIf: () => {
        throw new Error("broken")
      }
    }
  }
  it.effect.each(Object.entries(throwing))("by %s is none, but the pause is", ([, options]) =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      const server = Memory.make([tooMany(5), ok])
      const client = HttpThrottle.client(throttle, { ...plain, ...options })(server.client)
      assert.isTrue(Exit.hasDies(yield* Effect.exit(client.get("http://a.example/"))))
      yield* day(client.get("http://a.example/"))
      assert.deepStrictEqual(server.times(), [0, 5_000])
      assert.strictEqual((yield* throttle.statistics).running, 0)
    }))

  it.effect("and a parser that throws costs no answer", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const parsers: ReadonlyArray<HttpThrottle.Parser> = [() => {
        throw new Error("broken")
      }]
      const response = yield* HttpThrottle.client(Throttle.none, { parsers })(server.client).get("http://a.example/")
      assert.strictEqual(response.status, 200)
    }))

  it.effect("is none where the program's own rule says so, whatever the server wants", () =>
    Effect.gen(function*() {
      const server = Memory.make([{ status: 503, headers: { "retry-after": "1", "x-should-retry": "true" } }, ok])
      const client = HttpThrottle.client(Throttle.none, { ...exact, retryIf: () => false })(server.client)
      assert.strictEqual((yield* day(client.post("http://a.example/"))).status, 503)
      assert.strictEqual(server.seen.length, 1)
    }))

  it.effect("sends what was mapped before the wait; what a client inside makes is fresh", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(5), ok])
      const stamps: Array<string | undefined> = []
      const stamp = (name: string) => (request: HttpClientRequest.HttpClientRequest) =>
        Effect.map(Clock.monotonicTimeNanos, (nanos) =>
          HttpClientRequest.setHeader(request, name, `${Number(nanos) / 1e6}`))
      const signed = HttpClient.make((request) =>
        Effect.flatMap(stamp("x-fresh")(request), (request) => {
          stamps.push(request.headers["x-mapped"], request.headers["x-fresh"])
          return server.client.execute(request)
        })
      )
      yield* day(
        signed.pipe(HttpClient.mapRequestEffect(stamp("x-mapped")), HttpThrottle.client(Throttle.none, exact)).get(
          "http://a.example/"
        )
      )
      assert.deepStrictEqual(stamps, ["0", "0", "0", "5000"])
    }))

  it.effect("is for refusals: no other status, no failure", () =>
    Effect.gen(function*() {
      for (const status of [200, 301, 400, 401, 403, 404, 408, 500, 502, 504]) {
        const server = Memory.make([{ status, headers: status === 403 ? {} : { "retry-after": "1" } }])
        const response = yield* HttpThrottle.client(Throttle.none)(server.client).get("http://a.example/")
        assert.deepStrictEqual([response.status, server.seen.length], [status, 1])
      }
    }))

  it.effect("is there where the client makes errors of statuses, and so is the last answer", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(2), tooMany(2), ok, tooMany(3)])
      const client = HttpThrottle.client(Throttle.none, exact)(HttpClient.filterStatusOk(server.client))
      assert.strictEqual((yield* day(client.get("http://a.example/"))).status, 200)
      assert.deepStrictEqual(server.times(), [0, 2_000, 4_000])
      const error = yield* Effect.flip(day(client.get("http://a.example/")))
      assert.isTrue(Memory.isStatusError(error))
      assert.strictEqual(yield* error.response!.text, "too many")
      assert.strictEqual(server.seen.length, 3 + 4)
    }))

  const body = HttpBody.text("order")
  const stream = HttpBody.stream(Stream.make(new Uint8Array([1])))
  const cases: ReadonlyArray<readonly [string, HttpClientRequest.HttpClientRequest, Memory.Answer, boolean]> = [
    ["GET after 503", HttpClientRequest.get("http://a.example"), unavailable(1), true],
    ["PUT after 503", HttpClientRequest.put("http://a.example", { body }), unavailable(1), true],
    ["DELETE after 503", HttpClientRequest.delete("http://a.example"), unavailable(1), true],
    [
      "POST after 503: it may have been done",
      HttpClientRequest.post("http://a.example", { body }),
      unavailable(1),
      false
    ],
    ["PATCH after 503", HttpClientRequest.patch("http://a.example", { body }), unavailable(1), false],
    [
      "POST after 503 with an Idempotency-Key",
      HttpClientRequest.post("http://a.example", { body, headers: { "Idempotency-Key": "1" } }),
      unavailable(1),
      true
    ],
    ["POST after 429: it was not done", HttpClientRequest.post("http://a.example", { body }), tooMany(1), true],
    ["POST after a 403 that speaks of limits", HttpClientRequest.post("http://a.example", { body }), {
      ...tooMany(1),
      status: 403
    }, true],
    [
      "a body that cannot be sent again",
      HttpClientRequest.put("http://a.example", { body: stream }),
      tooMany(1),
      false
    ],
    [
      "a raw body of who knows what",
      HttpClientRequest.put("http://a.example", { body: HttpBody.raw({}) }),
      tooMany(1),
      false
    ],
    [
      "a raw body that is a text",
      HttpClientRequest.put("http://a.example", { body: HttpBody.raw("a") }),
      tooMany(1),
      true
    ],
    [
      "a raw body that is bytes",
      HttpClientRequest.put("http://a.example", { body: HttpBody.raw(new Uint8Array()) }),
      tooMany(1),
      true
    ],
    [
      "a form",
      HttpClientRequest.post("http://a.example", { body: HttpBody.formData(new FormData()) }),
      tooMany(1),
      true
    ],
    ["the server does not want it", HttpClientRequest.get("http://a.example"), {
      status: 429,
      headers: { "retry-after": "1", "stripe-should-retry": "false" }
    }, false],
    ["the server wants it", HttpClientRequest.post("http://a.example", { body }), {
      status: 503,
      headers: { "retry-after": "1", "x-should-retry": "true" }
    }, true],
    ["the server wants what cannot be sent again", HttpClientRequest.post("http://a.example", { body: stream }), {
      status: 503,
      headers: { "retry-after": "1", "x-should-retry": "true" }
    }, false]
  ]
  it.effect.each(cases)(
    "only of what may be repeated: %s",
    ([, request, refusal, isRepeated]) =>
      Effect.gen(function*() {
        const server = Memory.make([refusal, ok])
        const response = yield* day(HttpThrottle.client(Throttle.none)(server.client).execute(request))
        assert.strictEqual(response.status, isRepeated ? 200 : refusal.status)
        assert.strictEqual(server.seen.length, isRepeated ? 2 : 1)
      })
  )

  it.effect("of what the program says may be repeated", () =>
    Effect.gen(function*() {
      const server = Memory.make(({ url }, nth) => url.endsWith("search") && nth > 0 ? ok : unavailable(1))
      const client = HttpThrottle.client(Throttle.none, { ...exact, retryIf: ({ url }) => url.endsWith("/search") })(
        server.client
      )
      assert.strictEqual((yield* day(client.post("http://a.example/search"))).status, 200)
      assert.strictEqual((yield* day(client.get("http://a.example/"))).status, 503)
    }))

  it.effect("a request that is not repeated holds back the others all the same", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(5), ok])
      const client = HttpThrottle.client(Throttle.none, { ...exact, retryIf: () => false })(server.client)
      assert.strictEqual((yield* client.get("http://a.example/")).status, 429)
      yield* day(client.get("http://a.example/"))
      assert.deepStrictEqual(server.times(), [0, 5_000])
    }))

  it.effect("waits for the server's time where the throttle lets in at once", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(5), ok])
      yield* day(HttpThrottle.client(Throttle.shadow(paced), exact)(server.client).get("http://a.example/"))
      assert.deepStrictEqual(server.times(), [0, 5_000])
    }))

  it.effect("interrupted while it waits, it is not sent", () =>
    Effect.gen(function*() {
      for (const refusal of [tooMany(5), unavailable()]) {
        const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
        const server = Memory.make([refusal, ok])
        const fiber = yield* fork(HttpThrottle.client(throttle, exact)(server.client).get("http://a.example/"))
        yield* TestClock.adjust(500)
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust(60_000)
        const { running, waiting } = yield* throttle.statistics
        assert.deepStrictEqual([server.seen.length, running, waiting], [1, 0, 0])
      }
    }))
})

describe("what throttles", () => {
  const program = <E, R>(client: HttpClient.HttpClient.With<E, R>) =>
    Effect.forEach(["http://a.example/", "http://b.example/", "http://a.example/"], (url) => fork(client.get(url)))

  it.effect("a policy: one state for a client and Clock, wherever it is applied", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const polite = HttpThrottle.client(paced)
      yield* program(polite(server.client))
      yield* program(polite(server.client))
      // Another client of the same policy has a state of its own, and so has the policy used inline.
      yield* program(HttpThrottle.client(paced)(server.client))
      yield* paced(Effect.void)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(server.times(), [0, 0, 0, 0, 100, 100, 100, 200, 300])
    }))

  it("a policy: each TestClock starts afresh", () => {
    const server = Memory.make([ok])
    const polite = HttpThrottle.client(Throttle.rate({ limit: 1, maxQueue: 0 }))(server.client)
    const test = () => Effect.runPromise(polite.get("http://a.example/").pipe(Effect.provide(TestClock.layer())))
    return test().then(test).then(({ status }) => assert.strictEqual(status, 200))
  })

  it.effect("a Service class: one throttle for all", () =>
    Effect.gen(function*() {
      class Api extends Throttle.Service<Api>()("Api", paced) {}
      const server = Memory.make([ok])
      const client = HttpThrottle.client(Api)(server.client)
      yield* Effect.gen(function*() {
        yield* program(client)
        yield* Effect.forkChild(Api.withPermit(Effect.void), { startImmediately: true })
        yield* program(client)
        yield* TestClock.adjust(1_000)
        assert.strictEqual((yield* Api.statistics).admitted, 7)
      }).pipe(Effect.provide(Api.layer))
      assert.deepStrictEqual(server.times(), [0, 100, 200, 400, 500, 600])
    }))

  it.effect("the service Throttle", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(1), ok])
      const client = HttpThrottle.client(Throttle.Throttle, exact)(server.client)
      yield* Effect.andThen(program(client), TestClock.adjust(10_000)).pipe(Effect.provide(paced))
      assert.deepStrictEqual(server.times(), [0, 1_000, 1_100, 1_200])
    }))

  it.effect("a ThrottleMap, its Service class, its options", () =>
    Effect.gen(function*() {
      const options: ThrottleMap.Options<string> = {
        lookup: (key) => key === "http://a.example" ? paced : Throttle.spacing({ interval: "1 second" })
      }
      class Hosts extends ThrottleMap.Service<Hosts>()("Hosts", options) {}
      const map = yield* ThrottleMap.make(options)
      for (const client of [HttpThrottle.client(map), HttpThrottle.client(Hosts), HttpThrottle.client(options)]) {
        const server = Memory.make([ok])
        yield* program(client(server.client)).pipe(
          Effect.andThen(program(client(server.client))),
          Effect.andThen(TestClock.adjust(2_000)),
          Effect.provide(Hosts.layer)
        )
        const start = server.times()[0]!
        assert.deepStrictEqual(server.times().map((at) => at - start), [0, 0, 100, 200, 300, 1_000])
      }
      assert.strictEqual((yield* map.statistics).admitted, 6)
    }))

  it.effect("a map that refuses keys says so; a policy never does", () =>
    Effect.gen(function*() {
      const server = Memory.make([{ ...ok, takes: 10 }])
      const one = HttpThrottle.client({ lookup: () => paced, maxKeys: 1 })(server.client)
      const [first, second] = [yield* fork(one.get("http://a.example/")), yield* fork(one.get("http://b.example/"))]
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
      const error = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.await(second)))
      assert.strictEqual((error as ThrottleError).reason._tag, "KeysExhausted")
    }))

  it.effect("a policy remembers 10,000 keys in use; what is beyond shares one throttle", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      // Of the least that a client can be, for there are many.
      const never = HttpClient.makeWith<never, never, never, never>(
        Effect.flatMap(() =>
          Clock.currentTimeMillis.pipe(Effect.map((now) => times.push(now)), Effect.andThen(Effect.never))
        ),
        Effect.succeed
      )
      const client = HttpThrottle.client(Throttle.rate({ limit: 1 }))(never)
      for (let i = 0; i < 10_003; i++) yield* fork(client.get(`http://${i}.example/`))
      yield* settled
      assert.strictEqual(times.length, 10_001)
      yield* TestClock.adjust(2_000)
      assert.deepStrictEqual(times.slice(10_000), [0, 1_000, 2_000])
    }), 20_000)

  it.effect(
    "a policy forgets the key that was used longest ago, and none has to wait for that",
    () =>
      Effect.gen(function*() {
        const urls: Array<string> = []
        // Of the least that a client can be, for there are many.
        const server = HttpClient.makeWith<never, never, never, never>(
          Effect.map((request) => {
            urls.push(request.url)
            return Memory.atOnce(request, ok)
          }),
          Effect.succeed
        )
        const client = HttpThrottle.client(Throttle.rate({ limit: 1, per: "1 hour" }))(server)
        for (let i = 0; i < 12_000; i++) yield* fork(client.get(`http://${i}.example/`))
        yield* fork(client.get("http://11999.example/again"))
        yield* fork(client.get("http://0.example/again"))
        yield* settled
        assert.strictEqual(urls.length, 12_001)
        assert.strictEqual(urls.at(-1), "http://0.example/again")
      }),
    20_000
  )

  it.effect("a policy does not forget a key that is paused", () =>
    Effect.gen(function*() {
      const server = Memory.make(({ url }, nth) => url.endsWith("paused") && nth === 0 ? tooMany(3_600) : ok)
      const client = HttpThrottle.client(Throttle.rate({ limit: 1, per: "1 day" }), { ...exact, retry: 0 })(
        server.client
      )
      yield* client.get("http://a.example/paused")
      for (let i = 0; i < 10_500; i++) yield* fork(client.get(`http://${i}.example/`))
      yield* settled
      assert.strictEqual(server.seen.length, 10_501)
      const late = yield* fork(client.get("http://a.example/late"))
      yield* TestClock.adjust(3_599_999)
      assert.strictEqual(server.seen.length, 10_501)
      yield* Fiber.interrupt(late)
    }), 20_000)

  it.effect(
    "a policy's keys without room are held back by what one of them hears, though room has come since",
    () =>
      Effect.gen(function*() {
        const times: Array<readonly [string, number]> = []
        // Of the least that a client can be, for there are many.
        const server = HttpClient.makeWith<never, never, never, never>(
          Effect.flatMap((request) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => {
              const name = request.url.slice("http://".length)
              times.push([name, now])
              if (name === "0") return Effect.as(Effect.sleep(5), Memory.atOnce(request, ok))
              if (name === "one") return Effect.as(Effect.sleep(10), Memory.atOnce(request, tooMany(7)))
              return name === "two" ? Effect.succeed(Memory.atOnce(request, ok)) : Effect.never
            })
          ),
          Effect.succeed
        )
        const client = HttpThrottle.client(Throttle.concurrency({ limit: 1 }), { ...exact, retry: 0 })(server)
        const start = yield* Clock.currentTimeMillis
        for (let i = 0; i < 10_000; i++) yield* fork(client.get(`http://${i}`))
        const [one, two] = [yield* fork(client.get("http://one")), yield* fork(client.get("http://two"))]
        yield* TestClock.adjust(20_000)
        assert.deepStrictEqual(yield* statusesOf([one, two]), [429, 200])
        assert.deepStrictEqual(times.slice(10_000), [["one", start], ["two", start + 7_010]])
      }),
    20_000
  )

  it.effect("a map that has no room to pause: the answer is an answer", () =>
    Effect.gen(function*() {
      const map = yield* ThrottleMap.make({ lookup: () => paced, maxKeys: 1 })
      const full = yield* ThrottleMap.make({ lookup: () => Throttle.concurrency({ limit: 1 }), maxKeys: 1 })
      const server = Memory.make([tooMany(5)])
      yield* full.pause("taken", "1 hour")
      assert.strictEqual((yield* Effect.flip(full.pause("other", 1))).reason._tag, "KeysExhausted")
      const telemetry = collect()
      const client = HttpThrottle.client({ ...map, pause: full.pause }, { ...exact, retry: 0 })(server.client)
      const response = yield* client.get("http://a.example/").pipe(
        Effect.provideService(Throttle.WaitLogLevel, "Info"),
        telemetry.in
      )
      assert.strictEqual(response.status, 429)
      assert.notInclude(telemetry.lines.map(({ message }) => message), "throttle.paused")
    }))

  it.effect("a map whose scope closes: who waits is interrupted, who is under way gets the answer", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const map = yield* Scope.provide(ThrottleMap.make({ lookup: () => Throttle.concurrency({ limit: 1 }) }), scope)
      const server = Memory.make([{ ...tooMany(1), takes: 100 }])
      const client = HttpThrottle.client(map, { ...exact, retry: 0 })(server.client)
      const [running, waiting] = yield* getAll(client, 2)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* Fiber.join(running!)).status, 429)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(waiting!)))
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(client.get("http://a.example/"))))
    }))

  it.effect("the app's client, provided once", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const Polite = Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpThrottle.client(paced)))
        .pipe(
          Layer.provide(Layer.succeed(HttpClient.HttpClient, server.client))
        )
      yield* Effect.gen(function*() {
        yield* fork(HttpClient.get("http://a.example/1"))
        yield* fork(HttpClient.get("http://a.example/2"))
        yield* TestClock.adjust(1_000)
      }).pipe(Effect.provide(Polite))
      assert.deepStrictEqual(server.times(), [0, 100])
    }))

  it.effect("a throttle of somebody else", () =>
    Effect.gen(function*() {
      const calls: Array<string> = []
      const server = Memory.make([tooMany(4), ok])
      const mine = {
        ...(yield* Throttle.make(Throttle.none)),
        pause: (duration: Duration.Input) => Effect.sync(() => void calls.push(`pause ${duration}`))
      }
      yield* day(HttpThrottle.client(mine, exact)(server.client).get("http://a.example/"))
      assert.deepStrictEqual(calls, ["pause 4000"])
      assert.deepStrictEqual(server.times(), [0, 4_000])
    }))
})

describe("rejectAs: \"HttpClientError\"", () => {
  const rejectAs = "HttpClientError"
  const two = Throttle.rate({ limit: 1, burst: 1, maxQueue: 0, name: "api" })

  it.effect("makes a rejection a TransportError of the request, with the ThrottleError as its cause", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const Polite = Layer.effect(
        HttpClient.HttpClient,
        Effect.map(HttpClient.HttpClient, HttpThrottle.client(two, { rejectAs }))
      ).pipe(Layer.provide(Layer.succeed(HttpClient.HttpClient, server.client)))
      const error = yield* Effect.gen(function*() {
        yield* HttpClient.get("http://a.example/1")
        yield* HttpClient.get("http://a.example/2")
        return yield* Effect.flip(HttpClient.get("http://a.example/3"))
      }).pipe(Effect.provide(Polite))
      assert.strictEqual(error._tag, "HttpClientError")
      assert.strictEqual(error.reason._tag, "TransportError")
      assert.strictEqual(error.request.url, "http://a.example/3")
      assert.instanceOf(error.cause, ThrottleError)
      assert.strictEqual((error.cause as ThrottleError).reason._tag, "QueueFull")
      assert.include(error.message, (error.cause as ThrottleError).message)
      assert.strictEqual(server.seen.length, 2)
    }))

  it.effect("leaves what the client itself fails with, and an answer that the policy lets no retry wait for", () =>
    Effect.gen(function*() {
      const server = Memory.make([{ status: 404 }, tooMany(1)])
      const client = HttpThrottle.client(two, { ...exact, rejectAs, cost: () => ({ permits: 1 }) })(
        HttpClient.filterStatusOk(server.client)
      )
      assert.isTrue(Memory.isStatusError(yield* Effect.flip(client.get("http://a.example/"))))
      const error = yield* Effect.flip(client.get("http://a.example/"))
      assert.strictEqual(error.response?.status, 429)
    }))

  it.effect("is repeated by retryTransient, like an error of the connection", () =>
    Effect.gen(function*() {
      const server = Memory.make([ok])
      const client = HttpThrottle.client(Throttle.rate({ limit: 1, maxQueue: 0 }), { rejectAs })(server.client).pipe(
        HttpClient.retryTransient({ schedule: Schedule.spaced("300 millis"), times: 5 })
      )
      const fibers = yield* getAll(client, 2)
      yield* TestClock.adjust(5_000)
      assert.deepStrictEqual(yield* statusesOf(fibers), [200, 200])
      assert.deepStrictEqual(server.times(), [0, 1_200])
    }))

  it("neither of the two throws", () =>
    assert.throws(
      () => HttpThrottle.client(two, { rejectAs: "Error" as any }),
      RangeError,
      "HttpThrottle.client: \"rejectAs\" must be \"ThrottleError\" or \"HttpClientError\", received \"Error\""
    ))
})

describe("bad options throw at once", () => {
  const bad = (options: any) => () => HttpThrottle.client(paced, options)
  it.each<[unknown, string]>([
    [{ retires: 3 }, "unknown option \"retires\""],
    [{ retry: -1 }, `"retry" must be an integer ≥ 0 or a schedule, received -1`],
    [{ retry: 1.5 }, `"retry" must be`],
    [{ retry: Infinity }, `"retry" must be`],
    [{ retry: "often" }, `"retry" must be`],
    [{ jitter: -0.1 }, `"jitter" must be a number from 0 to 1, received -0.1`],
    [{ jitter: 2 }, `"jitter" must be`],
    [{ jitter: NaN }, `"jitter" must be`],
    [{ maxPause: 0 }, `"maxPause" must be a finite duration > 0, received 0`],
    [{ maxPause: "soon" }, `"maxPause" must be`],
    [{ maxPause: Infinity }, `"maxPause" must be`],
    [{ maxPause: -1 }, `"maxPause" must be`],
    [{ key: "host" }, `"key" must be a function`],
    [
      { cost: -1 },
      `"cost" must be an integer ≥ 0, such an amount for each unit, or a function from a request to a cost, received -1`
    ],
    [{ cost: 0.5 }, `"cost" must be`],
    [{ cost: "2" }, `"cost" must be`],
    [{ cost: { tokens: NaN } }, `"cost" must be`],
    [{ cost: [1] }, `"cost" must be`],
    [{ cost: null }, `"cost" must be`],
    [{ retryIf: true }, `"retryIf" must be a function`],
    [{ parsers: HttpThrottle.retryAfter }, `"parsers" must be an array of functions`],
    [{ parsers: [1] }, `"parsers" must be`]
  ])("%j", (options, message) => {
    assert.throws(bad(options), RangeError)
    assert.throws(bad(options), `HttpThrottle.client: ${message}`)
    assert.throws(() => HttpThrottle.clientScoped(paced, options as any), `HttpThrottle.clientScoped: ${message}`)
  })

  it.each([undefined, null, 5, "api", {}, () => {}])("no throttle: %s", (source: any) => {
    assert.throws(() => HttpThrottle.client(source), RangeError)
    assert.throws(() => HttpThrottle.client(source), `HttpThrottle.client: "source" must be a policy, `)
  })

  it("bad options of a map", () => {
    assert.throws(() => HttpThrottle.client({ lookup: () => paced, maxKeys: 0 }), `ThrottleMap: "maxKeys" must be`)
  })
})

describe("logs and spans say why a request waited", () => {
  it.effect("own limits, a server's pause, or both", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const server = Memory.make([ok, tooMany(2), ok])
      const client = HttpThrottle.client(Throttle.rate({ limit: 10, name: "api" }), plain)(server.client)
      yield* Effect.gen(function*() {
        const fibers = yield* getAll(client, 3)
        yield* TestClock.adjust(60_000)
        yield* statusesOf(fibers)
      }).pipe(telemetry.in, Effect.provideService(Throttle.WaitLogLevel, "Info"))
      const lines = telemetry.lines.map(({ annotations, level, message }) => [level, message, annotations])
      const common = { throttle: "api", policy: "10 per second", cost: 1 }
      assert.deepStrictEqual(lines, [
        ["Info", "throttle.waiting", { ...common, queued: 1, expected: 100 }],
        ["Info", "throttle.waiting", { ...common, queued: 2, expected: 200 }],
        // By its own limit.
        ["Info", "throttle.admitted", { ...common, waited: 100 }],
        ["Info", "throttle.paused", {
          throttle: "api",
          policy: "10 per second",
          server: "http://a.example",
          status: 429,
          from: "retry-after",
          wait: 2_000
        }],
        ["Info", "throttle.waiting", { ...common, queued: 2, expected: 2_100, paused: 2_000 }],
        // By its own limit until 100, by the pause from then on.
        ["Info", "throttle.admitted", { ...common, waited: 2_100, paused: 2_000 }],
        ["Info", "throttle.admitted", { ...common, waited: 2_100, paused: 2_000 }]
      ])
      const spans = telemetry.spans.filter(({ name }) => name === "throttle.wait")
      assert.deepStrictEqual(spans.map(({ attributes }) => [attributes.get("waited"), attributes.get("paused")]), [
        [100, undefined],
        [2_100, 2_000],
        [2_100, 2_000]
      ])
    }))

  it.effect("the wait for a retry that no throttle is paused for", () =>
    Effect.gen(function*() {
      for (
        const [policy, refusal, wait] of [
          [Throttle.none, unavailable(), 1_000],
          [Throttle.shadow(paced), tooMany(3), 3_000]
        ] as const
      ) {
        const telemetry = collect()
        const server = Memory.make([refusal, ok])
        yield* day(HttpThrottle.client(policy, exact)(server.client).get("http://a.example/")).pipe(
          telemetry.in,
          Effect.provideService(Throttle.WaitLogLevel, "Info")
        )
        const about = { server: "http://a.example", status: refusal.status, wait }
        // The shadow tells of the wait that it simulates.
        const lines = telemetry.lines.filter(({ message }) => message === "throttle.retrying")
        assert.deepStrictEqual(lines, [{ level: "Info", message: "throttle.retrying", annotations: about }])
        const spans = telemetry.spans.filter(({ name }) => name === "throttle.wait")
        assert.deepStrictEqual(spans.map(({ attributes }) => Object.fromEntries(attributes)), [
          { reason: "retry", ...about }
        ])
        const [{ startTime, status }] = spans as [(typeof spans)[number]]
        assert.strictEqual(status._tag, "Ended")
        assert.strictEqual(status._tag === "Ended" ? Number(status.endTime - startTime) / 1e6 : 0, wait)
      }
    }))

  it.effect("a burst's pause once, and again only as it gets longer", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const server = Memory.make((_, nth) => nth < 6 ? { ...tooMany(nth === 5 ? 3 : 2), takes: 1 } : ok)
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      yield* day(Effect.forEach([1, 2, 3, 4, 5, 6], (i) => client.get(`http://a.example/${i}`), {
        concurrency: "unbounded"
      })).pipe(telemetry.in, Effect.provideService(Throttle.WaitLogLevel, "Info"))
      const paused = telemetry.lines.filter(({ message }) => message === "throttle.paused")
      assert.deepStrictEqual(paused.map(({ annotations }) => annotations["wait"]), [2_000, 3_000])
    }))

  it.effect("and nobody is told who does not listen", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const server = Memory.make([tooMany(2), ok])
      yield* day(HttpThrottle.client(paced, exact)(server.client).get("http://a.example/")).pipe(telemetry.in)
      assert.deepStrictEqual(telemetry.lines, [])
    }))
})

describe("composition", () => {
  it.effect("Context.Reference and services of the caller reach the request", () =>
    Effect.gen(function*() {
      const Who = Context.Reference<string>("Who", { defaultValue: () => "nobody" })
      const seen: Array<string> = []
      const server = Memory.make([ok])
      const client = HttpClient.tapRequest(server.client, () => Effect.map(Who, (who) => void seen.push(who)))
      yield* HttpThrottle.client(paced)(client).get("http://a.example/").pipe(Effect.provideService(Who, "ada"))
      assert.deepStrictEqual(seen, ["ada"])
    }))
})
