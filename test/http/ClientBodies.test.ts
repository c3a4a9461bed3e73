/**
 * What the client reads of bodies: a piece, to tell a refusal from an error, and of an answer that it gives up no more than
 * fits; whoever gets the answer gets all of its body.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Memory from "./memory.ts"

const { ok } = Memory

/** Exact times, and as the answers alone say. */
const exact = { jitter: 0, adapt: false }

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Lets promises settle, such as those of bodies, and with them the fibers that wait for them. */
const settle = Effect.repeat(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), { times: 4 })

/** Lets time pass, with promises in between. */
const pass = (millis: number, step = 100) =>
  Effect.gen(function*() {
    for (let at = 0; at < millis; at += step) {
      yield* settle
      yield* TestClock.adjust(step)
    }
    yield* settle
  })

const github = {
  secondary:
    "{\"message\":\"You have exceeded a secondary rate limit. Please wait a few minutes before you try again.\"}",
  abuse: "{\"message\":\"You have triggered an abuse detection mechanism. Please retry your request again later.\"}",
  forbidden: "{\"message\":\"Resource not accessible by integration\"}"
}

const google = (reason: string) =>
  JSON.stringify({ error: { code: 403, message: "…", errors: [{ domain: "usageLimits", reason, message: "…" }] } })

const aws = (type: string) =>
  JSON.stringify({ __type: `com.amazonaws.dynamodb.v20120810#${type}`, message: "Rate exceeded" })

const some = { "x-ratelimit-remaining": "14", "x-ratelimit-reset": "31" }

/** When the first is sent, when again, and when another that came at once after the answer. */
const run = (answer: Memory.Answer, request = HttpClientRequest.post("http://a.example/first")) =>
  Effect.gen(function*() {
    const server = Memory.make((_, nth) => nth === 0 ? answer : ok)
    const client = HttpThrottle.client(Throttle.none, exact)(server.client)
    const first = yield* fork(client.execute(request))
    yield* settle
    yield* settle
    yield* settle
    const second = yield* fork(client.get("http://a.example/second"))
    yield* pass(70_000, 1_000)
    const start = server.times()[0]!
    const { body, status } = yield* Effect.flatMap(
      Fiber.join(first),
      ({ status, text }) => Effect.map(text, (body) => ({ status, body }))
    )
    yield* Fiber.join(second)
    return { status, body, seen: server.seen.map(({ at, url }) => `${at - start} ${url.split("/").at(-1)}`) }
  })

describe("a refusal that only the body tells", () => {
  it.effect.each<[string, Memory.Answer, number]>([
    ["GitHub's secondary limit", { status: 403, headers: some, body: github.secondary }, 60_000],
    ["in its older words", { status: 403, headers: some, body: github.abuse }, 60_000],
    [
      "with a time of its own",
      { status: 403, headers: { ...some, "retry-after": "9" }, body: github.secondary },
      9_000
    ],
    ["Google, the project's limit", { status: 403, body: google("rateLimitExceeded") }, 1_000],
    ["Google, the user's limit", { status: 403, body: google("userRateLimitExceeded") }, 1_000],
    ["AWS in JSON", { status: 400, body: aws("ThrottlingException") }, 1_000],
    ["AWS, a table", { status: 400, body: aws("ProvisionedThroughputExceededException") }, 1_000],
    [
      "AWS in XML",
      { status: 400, body: "<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>" },
      1_000
    ],
    [
      "AWS by its field",
      { status: 400, headers: { "x-amzn-errortype": "ThrottlingException:http://x" }, body: "{}" },
      1_000
    ],
    [
      "anywhere in the first 8 KiB",
      { status: 403, body: `${" ".repeat(7_000)}${google("rateLimitExceeded")}${" ".repeat(20_000)}` },
      1_000
    ]
  ])("%s: everybody waits, and it is repeated", ([, answer, wait]) =>
    Effect.gen(function*() {
      const { seen, status } = yield* run(answer)
      assert.strictEqual(status, 200)
      assert.deepStrictEqual(seen, ["0 first", `${wait} first`, `${wait} second`])
    }))

  it.effect.each<[string, Memory.Answer]>([
    ["a permission that is missing, with the same fields", { status: 403, headers: some, body: github.forbidden }],
    ["Google, another reason", { status: 403, body: google("forbidden") }],
    ["Google, a quota for the day", { status: 403, body: google("dailyLimitExceeded") }],
    ["AWS, another error", { status: 400, body: aws("ValidationException") }],
    ["a text that speaks of throttling", { status: 400, body: "ThrottlingException" }],
    ["no body", { status: 403, headers: some, body: "" }],
    ["beyond the first 8 KiB", { status: 403, body: `${" ".repeat(9_000)}${google("rateLimitExceeded")}` }],
    ["a status that says otherwise", { status: 404, body: google("rateLimitExceeded") }],
    ["an answer that is none of errors", { status: 200, body: google("rateLimitExceeded") }]
  ])("%s: it is an answer, and whole", ([, answer]) =>
    Effect.gen(function*() {
      const { body, seen, status } = yield* run(answer)
      assert.deepStrictEqual([status, body], [answer.status, answer.body])
      assert.deepStrictEqual(seen, ["0 first", "0 second"])
    }))
})

/** Answers once by so many chunks of 64 KiB, one for each that is asked for; after that it is well. */
const chunked = (status: number, count: number, headers: Record<string, string> = {}) => {
  const told = { chunks: 0, isCancelled: false }
  let requests = 0
  const client = HttpClient.make((request) =>
    Effect.sync(() => {
      if (requests++ > 0) return HttpClientResponse.fromWeb(request, new Response("well"))
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          if (told.chunks === count) return controller.close()
          controller.enqueue(new Uint8Array(65_536).fill(97 + told.chunks++ % 26))
        },
        cancel: () => void (told.isCancelled = true)
      }, { highWaterMark: 0 })
      return HttpClientResponse.fromWeb(request, new Response(body, { status, headers }))
    })
  )
  return { client, told }
}

const forms: Record<string, (response: HttpClientResponse.HttpClientResponse) => Effect.Effect<number, unknown>> = {
  text: ({ text }) => Effect.map(text, (text) => text.length),
  arrayBuffer: ({ arrayBuffer }) => Effect.map(arrayBuffer, (bytes) => bytes.byteLength),
  stream: ({ stream }) =>
    Effect.map(Stream.runCollect(stream), (chunks) => chunks.reduce((sum, { length }) => sum + length, 0)),
  "text, twice": ({ text }) => Effect.flatMap(text, () => Effect.map(text, (text) => text.length))
}

describe("an answer whose body was looked at", () => {
  it.effect.each(Object.keys(forms))("is whole for whoever gets it: %s", (form) =>
    Effect.gen(function*() {
      const { client, told } = chunked(403, 40)
      const fiber = yield* fork(HttpThrottle.client(Throttle.none, exact)(client).get("http://a.example/"))
      yield* pass(0)
      const response = yield* Fiber.join(fiber)
      assert.strictEqual(response.status, 403)
      // No more than was needed to look at it.
      assert.isAtMost(told.chunks, 2)
      assert.strictEqual(yield* forms[form]!(response), 40 * 65_536)
    }))

  it.effect("is whole also where it came too slowly to be looked at", () =>
    Effect.gen(function*() {
      let send = (_text: string) => {}
      const client = HttpClient.make((request) =>
        Effect.sync(() => {
          const body = new ReadableStream<Uint8Array>({
            start: (controller) => {
              send = (text) => text === "" ? controller.close() : controller.enqueue(new TextEncoder().encode(text))
            }
          })
          return HttpClientResponse.fromWeb(request, new Response(body, { status: 403, headers: { "x-id": "7" } }))
        })
      )
      const fiber = yield* fork(HttpThrottle.client(Throttle.none, exact)(client).get("http://a.example/"))
      yield* settle
      send("one ")
      yield* settle
      yield* TestClock.adjust(999)
      yield* settle
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      yield* settle
      const response = yield* Fiber.join(fiber)
      assert.deepStrictEqual([response.status, response.headers["x-id"]], [403, "7"])
      send("two ")
      send("three")
      send("")
      assert.strictEqual(yield* response.text, "one two three")
    }))

  it.effect("is not looked at where the fields say it, or no parser wants to", () =>
    Effect.gen(function*() {
      for (
        const [headers, parsers] of [[{ "retry-after": "5" }, undefined], [{}, [HttpThrottle.retryAfter]]] as const
      ) {
        const { client, told } = chunked(403, 3, headers)
        const limited = HttpThrottle.client(Throttle.none, { ...exact, parsers, retry: 0 })(client)
        const fiber = yield* fork(limited.get("http://a.example/"))
        yield* settle
        assert.strictEqual((yield* Fiber.join(fiber)).status, 403)
        assert.strictEqual(told.chunks, 0)
      }
    }))

  it.effect("is given to parsers of the program's own, and only if they ask for it", () =>
    Effect.gen(function*() {
      const seen: Array<string | undefined> = []
      const inBody: HttpThrottle.Parser = (_headers, _now, answer) => {
        if (answer?.status !== 429) return []
        seen.push(answer.body)
        const [, seconds] = /try again in ([\d.]+)s/.exec(answer.body ?? "") ?? []
        return seconds === undefined ? [] : [{ from: "body", retryAfter: Number(seconds) * 1_000 }]
      }
      const server = Memory.make([{ status: 429, body: "Rate limit reached, try again in 6.5s" }, ok])
      const client = HttpThrottle.client(Throttle.none, { ...exact, parsers: [inBody] })(server.client)
      const fiber = yield* fork(client.get("http://a.example/"))
      yield* pass(10_000)
      assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
      assert.deepStrictEqual(server.times(), [0, 6_500])
      assert.deepStrictEqual(seen, [undefined, "Rate limit reached, try again in 6.5s"])
    }))

  it.effect("interrupted meanwhile, it leaves no permit behind", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 1 }))
      let isCancelled = false
      const endless = HttpClient.make((request) =>
        Effect.sync(() =>
          HttpClientResponse.fromWeb(
            request,
            new Response(new ReadableStream({ cancel: () => void (isCancelled = true) }), { status: 403 })
          )
        )
      )
      const fiber = yield* fork(HttpThrottle.client(throttle, exact)(endless).get("http://a.example/"))
      yield* settle
      assert.strictEqual((yield* throttle.statistics).running, 1)
      yield* Fiber.interrupt(fiber)
      yield* settle
      assert.strictEqual((yield* throttle.statistics).running, 0)
      assert.isTrue(isCancelled)
    }))
})

describe("of an answer that is given up", () => {
  it.effect("no more is read than fits", () =>
    Effect.gen(function*() {
      const { client, told } = chunked(429, 1_000, { "retry-after": "30" })
      const fiber = yield* fork(HttpThrottle.client(Throttle.none, exact)(client).get("http://a.example/"))
      yield* pass(20_000, 1_000)
      assert.isAtMost(told.chunks, 4)
      assert.isTrue(told.isCancelled)
      yield* pass(20_000, 1_000)
      assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
    }))

  it.effect("all is read where it fits, so that its connection is free", () =>
    Effect.gen(function*() {
      const { client, told } = chunked(429, 1, { "retry-after": "30" })
      const fiber = yield* fork(HttpThrottle.client(Throttle.none, exact)(client).get("http://a.example/"))
      yield* pass(20_000, 1_000)
      assert.deepStrictEqual(told, { chunks: 1, isCancelled: false })
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("what was read is there for whoever gets it after all, and where it was cut the reader hears of it", () =>
    Effect.gen(function*() {
      for (const count of [1, 40]) {
        for (const form of Object.keys(forms)) {
          const { client } = chunked(429, count, { "retry-after": "30" })
          const policy = Throttle.rate({ limit: 10, timeout: "5 seconds" })
          const fiber = yield* fork(HttpThrottle.client(policy, exact)(client).get("http://a.example/"))
          yield* pass(6_000, 1_000)
          const response = yield* Fiber.join(fiber)
          assert.strictEqual(response.status, 429)
          const read = yield* Effect.exit(forms[form]!(response))
          if (count === 1) assert.deepStrictEqual(read, yield* Effect.exit(Effect.succeed(65_536)))
          else assert.strictEqual(read._tag, "Failure")
        }
      }
    }))
})

/** Answers in turn, and by the last one from then on, with bodies that are streams. */
const withBody = (
  answers: ReadonlyArray<{ status: number; headers?: Record<string, string>; body?: Stream.Stream<Uint8Array, any> }>
) => {
  const times: Array<number> = []
  const client = HttpClient.make((request) =>
    Effect.map(Clock.monotonicTimeNanos, (nanos) => {
      const nth = times.push(Number(nanos) / 1e6) - 1
      const { body, headers = {}, status } = answers[Math.min(nth, answers.length - 1)]!
      const response = HttpClientResponse.fromWeb(request, new Response(null, { status, headers }))
      return body === undefined
        ? response
        : Object.defineProperty(response, "stream", { value: body, configurable: true })
    })
  )
  return { client, times }
}

describe("a refused answer whose body never ends", () => {
  for (const adapt of [true, false]) {
    it.effect(`is closed, and the retry is not late, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        let closed = 0
        const endless = Stream.fromEffectRepeat(Effect.delay(Effect.succeed(new Uint8Array(10)), 50)).pipe(
          Stream.ensuring(Effect.sync(() => closed++))
        )
        const server = withBody([{ status: 429, headers: { "retry-after": "2" }, body: endless }, { status: 200 }])
        const client = HttpThrottle.client(Throttle.none, { jitter: 0, adapt })(server.client)
        const fiber = yield* fork(client.get("http://a.example/"))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
        assert.deepStrictEqual(server.times, [0, 2_000])
        assert.strictEqual(closed, 1)
      }))

    it.effect(`and cannot be closed does not hold up the retry, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        const stubborn = Stream.concat(Stream.succeed(new Uint8Array(200_000)), Stream.never).pipe(
          Stream.ensuring(Effect.never)
        )
        const server = withBody([{ status: 429, headers: { "retry-after": "2" }, body: stubborn }, { status: 200 }])
        const client = HttpThrottle.client(Throttle.none, { jitter: 0, adapt })(server.client)
        const fiber = yield* fork(client.get("http://a.example/"))
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(server.times, [0, 2_000])
        assert.isDefined(fiber.pollUnsafe())
      }))

    it.effect(`is closed where the request is interrupted, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        let closed = 0
        const endless = Stream.fromEffectRepeat(Effect.delay(Effect.succeed(new Uint8Array(10)), 50)).pipe(
          Stream.ensuring(Effect.sync(() => closed++))
        )
        const server = withBody([{ status: 429, headers: { "retry-after": "20" }, body: endless }, { status: 200 }])
        const client = HttpThrottle.client(Throttle.none, { jitter: 0, adapt })(server.client)
        const fiber = yield* fork(client.get("http://a.example/"))
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(closed, 1)
      }))

    it.effect(`is given untouched where the policy does not let the retry wait, adapt: ${adapt}`, () =>
      Effect.gen(function*() {
        for (
          const policy of [
            Throttle.rate({ limit: 10, maxWait: "1 second" }),
            Throttle.all([Throttle.rate({ limit: 10 }), Throttle.concurrency({ limit: 3 })], {
              maxWait: "1 second",
              maxQueue: 5
            })
          ]
        ) {
          const chunks = Array.from({ length: 300 }, () => new Uint8Array(1_000).fill(65))
          const server = withBody([{
            status: 429,
            headers: { "retry-after": "20" },
            body: Stream.fromIterable(chunks)
          }])
          const client = HttpThrottle.client(policy, { jitter: 0, adapt })(server.client)
          const fiber = yield* fork(
            Effect.flatMap(
              client.get("http://a.example/"),
              ({ stream }) => Stream.runFold(stream, () => 0, (n, chunk) => n + chunk.byteLength)
            )
          )
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(300_000))
          assert.strictEqual(server.times.length, 1)
        }
      }))
  }
})

describe("an answer whose body was looked at in part", () => {
  it.effect("holds permits for a second at most, and its reader gets the rest", () =>
    Effect.gen(function*() {
      const slow = Stream.concat(
        Stream.succeed(new TextEncoder().encode("one ")),
        Stream.fromEffect(Effect.delay(Effect.succeed(new TextEncoder().encode("two")), 5_000))
      )
      const server = withBody([{ status: 403, body: slow }, { status: 200 }])
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 1 }), { jitter: 0 })(server.client)
      const first = yield* fork(
        Effect.flatMap(
          client.get("http://a.example/"),
          (response) => Stream.mkString(Stream.decodeText(response.stream))
        )
      )
      yield* fork(client.get("http://a.example/"))
      yield* TestClock.adjust("1001 millis")
      assert.strictEqual(server.times.length, 2)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(first.pollUnsafe(), Exit.succeed("one two"))
    }))

  it.effect("is closed with the scope of clientScoped, also where it was not read", () =>
    Effect.gen(function*() {
      let closed = 0
      const endless = Stream.concat(Stream.succeed(new TextEncoder().encode("no")), Stream.never).pipe(
        Stream.ensuring(Effect.sync(() => closed++))
      )
      const server = withBody([{ status: 403, body: endless }])
      const client = HttpThrottle.clientScoped(Throttle.concurrency({ limit: 1 }), { jitter: 0 })(server.client)
      const scope = yield* Scope.make()
      const fiber = yield* fork(Scope.provide(client.get("http://a.example/"), scope))
      yield* TestClock.adjust("2 seconds")
      assert.isDefined(fiber.pollUnsafe())
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(closed, 1)
    }))
})
