/**
 * A client that learns a server's limit, against servers of all kinds on a TestClock: how many requests are sent, refused and
 * given up, and how long it all takes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Metric, Option, Schedule } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, HttpClientError, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as Servers from "../utils/limited-servers.ts"
import { collect } from "../utils/telemetry.ts"
import * as Memory from "./memory.ts"

const { ok, tooMany } = Memory

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

const exact = { jitter: 0 }

const url = "http://a.example/"

/** So many requests at once, or at these instants, in milliseconds. */
type Workload = number | ReadonlyArray<number>

const every = (perSecond: number, seconds: number): Workload =>
  Array.from({ length: perSecond * seconds }, (_, i) => i * 1_000 / perSecond)

export const play = (
  limit: Servers.Limit,
  workload: Workload,
  options: { readonly atOnce?: number; readonly adapt?: boolean; readonly roundTrip?: number } = {}
) =>
  Effect.gen(function*() {
    const { adapt = true, atOnce = 10, roundTrip = 50 } = options
    const server = yield* Servers.serve(limit, roundTrip)
    const polite = HttpThrottle.client(Throttle.concurrency({ limit: atOnce }), { jitter: 0, adapt })
    const client = polite(server.client)
    const start = yield* Clock.monotonicTimeNanos
    const statuses: Array<number> = []
    let end = 0
    const get = (i: number) =>
      Effect.flatMap(client.get(`http://a.example/${i}`), ({ status }) =>
        Effect.map(Clock.monotonicTimeNanos, (nanos) => {
          statuses.push(status)
          end = Number(nanos - start) / 1e9
        }))
    const instants = typeof workload === "number"
      ? Array.from({ length: workload }, () =>
        0)
      : workload
    const all = yield* Effect.forkChild(
      Effect.forEach(instants, (at, i) =>
        at === 0 ? get(i) : Effect.delay(get(i), at), { concurrency: "unbounded" })
    )
    let denied = 0
    for (let minute = 0; minute < 10; minute++) {
      yield* TestClock.adjust("1 minute")
      denied = Math.max(denied, (yield* polite.statistics).get("http://a.example")?.denied ?? 0)
    }
    yield* Fiber.join(all)
    return {
      denied,
      sent: server.starts.length,
      refused: server.refusals.length,
      firstFlight: server.firstFlight(),
      givenUp: statuses.filter((status) => status !== 200).length,
      seconds: end,
      starts: server.starts
    }
  })

interface Scenario {
  readonly limit: () => Servers.Limit
  readonly workload: Workload
  readonly atOnce?: number
  readonly mostRefused: number
  readonly mostSeconds: number
}

const own = (rate: number, size: number, quota: number, window: number, withMillis = false) => () =>
  Servers.bucket({ rate, size, answer: Servers.draft10(quota, window, withMillis) })

const scenarios: Record<string, Scenario> = {
  "1. own middleware, 10/s without burst": {
    limit: own(10, 1, 10, 1),
    workload: 60,
    atOnce: 8,
    mostRefused: 10,
    mostSeconds: 9
  },
  "1. with Retry-After-Ms": {
    limit: own(10, 1, 10, 1, true),
    workload: 60,
    atOnce: 8,
    mostRefused: 10,
    mostSeconds: 6.6
  },
  "2. own middleware, 2/s with a burst of 39": {
    limit: own(2, 40, 40, 20),
    workload: 120,
    mostRefused: 3,
    mostSeconds: 42
  },
  "3. Shopify, 40 at 2/s": {
    limit: () => Servers.bucket({ rate: 2, size: 40, answer: Servers.shopify(40) }),
    workload: 200,
    mostRefused: 2,
    mostSeconds: 83
  },
  "4. OpenAI, 60 a minute": {
    limit: () => Servers.bucket({ rate: 1, size: 60, answer: Servers.openai(60) }),
    workload: 200,
    mostRefused: 3,
    mostSeconds: 144
  },
  "5. GitHub, 60 a minute": {
    limit: () => Servers.fixedWindow({ limit: 60, seconds: 60, answer: Servers.github(60), status: 403 }),
    workload: 200,
    mostRefused: 2,
    mostSeconds: 185
  },
  "6. Retry-After: 1, 5/s with a burst of 10": {
    limit: () =>
      Servers.bucket({
        rate: 5,
        size: 10,
        answer: ({ isRefused }): Record<string, string> => isRefused ? { "retry-after": "1" } : {}
      }),
    workload: 200,
    mostRefused: 28,
    mostSeconds: 41
  },
  "7. silent, 25/s with a burst of 25": {
    limit: () => Servers.bucket({ rate: 25, size: 25 }),
    workload: 1_000,
    mostRefused: 40,
    mostSeconds: 42
  },
  "8. silent, 10/s, from 30 s on 2/s, from 60 s on 20/s": {
    limit: () => Servers.bucket({ rate: (at) => at < 30 ? 10 : at < 60 ? 2 : 20, size: 10 }),
    workload: 900,
    mostRefused: 45,
    mostSeconds: 115
  },
  "9. refuses everything from 2 s to 32 s": {
    limit: () => (at) => ({ isRefused: at >= 2 && at < 32 }),
    workload: every(20, 60),
    mostRefused: 15,
    mostSeconds: 62
  }
}

describe("a server's limit is learned: none given up, few refused, no time lost", () => {
  for (const [name, { atOnce = 10, limit, mostRefused, mostSeconds, workload }] of Object.entries(scenarios)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const { denied, givenUp, refused, seconds, firstFlight, sent } = yield* play(limit(), workload, { atOnce })
        const figures = `${sent}/${refused} (${firstFlight}), ${seconds} s`
        if (process.env["FIGURES"]) process.stderr.write(`${name}: ${figures}\n`)
        assert.deepStrictEqual([givenUp, denied], [0, 0], figures)
        assert.isAtMost(refused, mostRefused, figures)
        assert.isAtMost(seconds, mostSeconds, figures)
      }), 60_000)
  }

  it.effect("10. no limit: starts are what they are without adaptation", () =>
    Effect.gen(function*() {
      const limit: Servers.Limit = () => ({ isRefused: false })
      const learning = yield* play(limit, 1_000)
      const plain = yield* play(limit, 1_000, { adapt: false })
      assert.deepStrictEqual(learning.starts, plain.starts)
      assert.deepStrictEqual([learning.refused, learning.seconds], [0, 5])
    }))
})

describe("what was learned", () => {
  /** Ten a second without a burst, told by nothing but refusals that name 100 ms. */
  const tenPerSecond = () =>
    Servers.bucket({
      rate: 10,
      size: 1,
      answer: ({ isRefused }): Record<string, string> => isRefused ? { "retry-after-ms": "100" } : {}
    })

  /** Sends requests until a rate is learned. */
  const learned = (options: HttpThrottle.ClientOptions = {}, policy: Throttle.Policy<any> = Throttle.none) =>
    Effect.gen(function*() {
      const server = yield* Servers.serve(tenPerSecond(), 10)
      const polite = HttpThrottle.client(policy, { ...exact, ...options })
      const client = polite(server.client)
      yield* fork(Effect.forEach(Array.from({ length: 40 }), () => client.get(url), { concurrency: 2, discard: true }))
      yield* TestClock.adjust("30 seconds")
      return { client, polite, server }
    })

  it.effect("is in the statistics, for each key", () =>
    Effect.gen(function*() {
      const { client, polite } = yield* learned()
      const before = (yield* polite.statistics).get("http://a.example")!
      assert.closeTo(before.rate, 10, 1.5)
      assert.isAbove(before.refused, 0)
      assert.isAtMost(before.refused, before.repeated)
      assert.deepInclude(before, { limit: "unknown", remaining: Infinity, waiting: 0, running: 0, denied: 0 })
      for (let i = 0; i < 5; i++) yield* fork(client.get(url))
      assert.deepInclude((yield* polite.statistics).get("http://a.example")!, { waiting: 4, running: 1 })
      assert.deepStrictEqual([...(yield* polite.statistics).keys()], ["http://a.example"])
      // Each Clock has its own.
      assert.strictEqual((yield* TestClock.withLive(polite.statistics)).size, 0)
    }))

  it.effect("by fields is in the statistics as well", () =>
    Effect.gen(function*() {
      const limits: Record<string, Servers.Limit> = {
        bucket: Servers.bucket({ rate: 1, size: 5, answer: Servers.openai(5) }),
        window: Servers.fixedWindow({ limit: 5, seconds: 10, answer: Servers.github(5) })
      }
      for (const [limit, server] of Object.entries(limits)) {
        const { client } = yield* Servers.serve(server, 10)
        const polite = HttpThrottle.client(Throttle.none, exact)
        yield* fork(Effect.forEach(Array.from({ length: 7 }), () => polite(client).get(url), { discard: true }))
        yield* TestClock.adjust(55)
        assert.deepInclude((yield* polite.statistics).get("http://a.example")!, { limit: "unknown", remaining: 0 })
        yield* TestClock.adjust(5_000)
        assert.strictEqual((yield* polite.statistics).get("http://a.example")!.limit, limit)
        yield* TestClock.adjust("1 minute")
      }
    }))

  it.effect("has a line, and a metric", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const series = { throttle: "api", key: "http://a.example" }
      yield* learned({}, Throttle.concurrency({ limit: 20, name: "api" })).pipe(
        telemetry.in,
        Effect.provideService(Throttle.WaitLogLevel, "Info")
      )
      const lines = telemetry.lines.filter(({ message }) => message === "throttle.learned")
      assert.isAbove(lines.length, 0)
      for (const { annotations, level } of lines) {
        assert.deepInclude(annotations, { key: "http://a.example", why: "refusals" })
        assert.strictEqual(level, "Info")
      }
      assert.closeTo(lines.at(-1)!.annotations["rate"] as number, 10, 2)
      const gauge = Metric.withAttributes(HttpThrottle.metrics.learnedRate, series)
      assert.strictEqual((yield* Metric.value(gauge)).value, lines.at(-1)!.annotations["rate"])
      const refused = Metric.withAttributes(HttpThrottle.metrics.refused, { throttle: "api", status: "429" })
      assert.isAbove(Number((yield* Metric.value(refused)).count), 1)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("by fields has a line that says so", () =>
    Effect.gen(function*() {
      const telemetry = collect()
      const { client } = yield* Servers.serve(Servers.bucket({ rate: 2, size: 4, answer: Servers.shopify(4) }))
      yield* Effect.forEach(
        Array.from({ length: 4 }),
        () => HttpThrottle.client(Throttle.none, exact)(client).get(url),
        {
          discard: true
        }
      ).pipe(fork, telemetry.in, Effect.provideService(Throttle.WaitLogLevel, "Info"))
      yield* TestClock.adjust("1 second")
      const lines = telemetry.lines.filter(({ message }) => message === "throttle.learned")
      assert.deepStrictEqual(lines.map(({ annotations }) => annotations), [
        { key: "http://a.example", rate: 0.2, why: "fields" }
      ])
    }))

  it.effect("tells of the waits that it causes like any throttle", () =>
    Effect.gen(function*() {
      const { client } = yield* learned()
      const telemetry = collect()
      yield* Effect.gen(function*() {
        for (let i = 0; i < 3; i++) yield* fork(client.get(url))
        const given = yield* fork(client.get(url))
        yield* Fiber.interrupt(given)
        yield* TestClock.adjust("1 second")
      }).pipe(telemetry.in, Effect.provideService(Throttle.WaitLogLevel, "Info"))
      const lines = telemetry.lines.filter(({ message }) => message !== "throttle.learned")
      assert.deepStrictEqual(lines.map(({ message }) => `${message}`.replace("throttle.", "")), [
        "waiting",
        "waiting",
        "waiting",
        "admitted",
        "admitted"
      ])
      for (const { annotations } of lines) assert.match(`${annotations["policy"]}`, /^learned: [\d.]+ per second$/)
      assert.deepStrictEqual(lines.slice(0, 3).map(({ annotations }) => annotations["queued"]), [1, 2, 3])
      const spans = telemetry.spans.filter(({ name }) => name === "throttle.wait")
      assert.strictEqual(spans.length, 3)
      const failed = spans.flatMap(({ status }) =>
        status._tag === "Ended" && Exit.isFailure(status.exit) ? [status.exit] : []
      )
      assert.deepStrictEqual(failed.map(Exit.hasInterrupts), [true])
    }))

  it.effect("is forgotten a minute after the last use, and not before the server's window is over", () =>
    Effect.gen(function*() {
      const { polite, server } = yield* learned()
      assert.strictEqual((yield* polite.statistics).size, 1)
      yield* TestClock.adjust("20 seconds")
      yield* fork(polite(server.client).get("http://b.example/"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([...(yield* polite.statistics).keys()], ["http://a.example", "http://b.example"])
      yield* TestClock.adjust("30 seconds")
      yield* fork(polite(server.client).get("http://b.example/"))
      assert.deepStrictEqual([...(yield* polite.statistics).keys()], ["http://b.example"])

      const hourly = Servers.fixedWindow({
        limit: 60,
        seconds: 3_600,
        answer: (level) => ({
          ...Servers.github(60)(level),
          "ratelimit-policy": "60;w=3600",
          ratelimit: `limit=60, remaining=${level.left}, reset=${Math.ceil(level.ends)}`
        })
      })
      const slow = yield* Servers.serve(hourly)
      const client = HttpThrottle.client(Throttle.none, exact)
      yield* fork(client(slow.client).get(url))
      yield* TestClock.adjust("20 minutes")
      yield* fork(client(slow.client).get("http://b.example/"))
      assert.strictEqual((yield* client.statistics).size, 2)
    }))

  it.effect("of a limit that counts some requests only holds back no others", () =>
    Effect.gen(function*() {
      const fields = { "x-ratelimit-limit": "3", "x-ratelimit-remaining": "2", "x-ratelimit-reset": "3600" }
      const server = Memory.make(({ url }) => ({
        ...ok,
        takes: 10,
        ...(url.endsWith("/api") ? { headers: fields } : {})
      }))
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      yield* fork(client.get(`${url}api`))
      yield* TestClock.adjust(10)
      yield* fork(Effect.forEach(Array.from({ length: 20 }), () => client.get(`${url}page`), { concurrency: 2 }))
      yield* TestClock.adjust(1_000)
      assert.strictEqual(server.seen.length, 21)
      assert.strictEqual(server.times().at(-1), 10 + 9 * 10)
    }))

  it.effect("is not learned from a cache", () =>
    Effect.gen(function*() {
      const server = Memory.make([
        { status: 200, headers: { age: "30", ratelimit: "\"a\";r=0;t=600", "ratelimit-policy": "\"a\";q=10;w=600" } },
        ok
      ])
      const polite = HttpThrottle.client(Throttle.none, exact)
      for (let i = 0; i < 3; i++) yield* polite(server.client).get(url)
      assert.strictEqual((yield* polite.statistics).get("http://a.example")!.remaining, Infinity)
    }))

  it.effect("of a limit that counts tokens is a pause, as nobody knows how many the next request needs", () =>
    Effect.gen(function*() {
      const headers = {
        "x-ratelimit-remaining-requests": "90",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6s"
      }
      const server = Memory.make([{ status: 200, headers }, ok])
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      yield* client.get(url)
      const second = yield* fork(client.get(url))
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(second)
      assert.deepStrictEqual(server.times(), [0, 6_000])
    }))
})

describe("adapt: false", () => {
  it.effect("pauses as answers say, and learns nothing", () =>
    Effect.gen(function*() {
      const server = yield* Servers.serve(Servers.bucket({ rate: 10, size: 1, answer: Servers.draft10(10, 1) }), 10)
      const polite = HttpThrottle.client(Throttle.none, { ...exact, adapt: false })
      const client = polite(server.client)
      const fibers = yield* fork(Effect.forEach([1, 2, 3], () => client.get(url), { discard: true }))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(fibers)
      assert.deepStrictEqual(server.starts, [0, 1_010, 2_020])
      assert.deepInclude((yield* polite.statistics).get("http://a.example")!, { rate: Infinity, remaining: Infinity })
    }))

  it.each<any>([1, null, "yes"])("neither true nor false throws: %s", (adapt) =>
    assert.throws(
      () => HttpThrottle.client(Throttle.none, { adapt }),
      RangeError,
      "HttpThrottle.client: \"adapt\" must be true or false, received"
    ))
})

describe("the policy stays the ceiling", () => {
  /** A server with one request a second, which the client knows of after two requests. */
  const oncePerSecond = (policy: Throttle.Policy<any>, options: HttpThrottle.ClientOptions = {}) =>
    Effect.gen(function*() {
      const server = yield* Servers.serve(Servers.bucket({ rate: 1, size: 1, answer: Servers.openai(1) }), 10)
      const throttle = yield* Throttle.make(policy)
      const client = HttpThrottle.client(throttle, { ...exact, ...options })(server.client)
      const first = yield* fork(client.get(url))
      yield* TestClock.adjust(10)
      yield* Fiber.join(first)
      return { client, server, throttle }
    })

  it.effect("nothing is charged or held while a request waits for what was learned", () =>
    Effect.gen(function*() {
      const { client, server, throttle } = yield* oncePerSecond(Throttle.concurrency({ limit: 2 }))
      const fibers = [yield* fork(client.get(url)), yield* fork(client.get(url))]
      yield* TestClock.adjust(100)
      assert.strictEqual(server.starts.length, 1)
      const { admitted, running, waiting } = yield* throttle.statistics
      assert.deepStrictEqual([admitted, running, waiting], [1, 0, 0])
      for (const fiber of fibers) yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust(10_000)
      assert.strictEqual((yield* throttle.statistics).admitted, 1)
      // Those that left are in nobody's way.
      const next = yield* fork(client.get(url))
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* Fiber.join(next)).status, 200)
    }))

  const reasonOf = <E>(fiber: Fiber.Fiber<unknown, E>) =>
    Effect.map(Fiber.await(fiber), (exit) => (Option.getOrThrow(Exit.findErrorOption(exit)) as ThrottleError).reason)

  it.effect("maxQueue counts those that wait for it", () =>
    Effect.gen(function*() {
      for (const maxQueue of [0, 2]) {
        const { client, server } = yield* oncePerSecond(Throttle.concurrency({ limit: 9, maxQueue }))
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (let i = 0; i < 4; i++) fibers.push(yield* fork(client.get(url)))
        yield* TestClock.adjust(1)
        for (const fiber of fibers.slice(maxQueue)) {
          const reason = yield* reasonOf(fiber)
          assert.strictEqual(reason._tag, "QueueFull")
          assert.deepStrictEqual([reason.parts, (reason as { readonly limit: number }).limit], [["server"], maxQueue])
          assert.isDefined((reason as { readonly retryAfter?: unknown }).retryAfter)
        }
        yield* TestClock.adjust(60_000)
        yield* Fiber.joinAll(fibers.slice(0, maxQueue))
        assert.strictEqual(server.starts.length, 1 + maxQueue)
      }
    }))

  it.effect("maxWait counts the time for those before, and what the policy itself would have it wait", () =>
    Effect.gen(function*() {
      const { client, throttle } = yield* oncePerSecond(Throttle.rate({ limit: 100, maxWait: "2500 millis" }))
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 4; i++) fibers.push(yield* fork(client.get(url)))
      yield* TestClock.adjust(1)
      const reason = yield* reasonOf(fibers[3]!)
      assert.strictEqual(reason._tag, "WaitTooLong")
      assert.deepStrictEqual(reason.parts, ["server"])
      yield* TestClock.adjust(60_000)
      yield* Fiber.joinAll(fibers.slice(0, 2))
      yield* throttle.pause("2 seconds")
      const paused = [yield* fork(client.get(url)), yield* fork(client.get(url))]
      yield* TestClock.adjust(1)
      assert.isUndefined(paused[0]!.pollUnsafe())
      assert.strictEqual((yield* reasonOf(paused[1]!))._tag, "WaitTooLong")
      yield* Fiber.interrupt(paused[0]!)
    }))

  it.effect("maxWait is held against a reset, too, as long as the kind of the limit is unknown", () =>
    Effect.gen(function*() {
      const { client } = yield* Servers.serve(
        Servers.fixedWindow({ limit: 2, seconds: 60, answer: Servers.github(2) }),
        10
      )
      const polite = HttpThrottle.client(Throttle.rate({ limit: 100, burst: 9, maxWait: "40 seconds" }), exact)(client)
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 5; i++) {
        fibers.push(yield* fork(polite.get(url)))
        yield* TestClock.adjust(20)
      }
      // Of a bucket the next is there after 30 s, and one more after 60.
      assert.strictEqual((yield* reasonOf(fibers[3]!))._tag, "WaitTooLong")
      assert.isUndefined(fibers[2]!.pollUnsafe())
      yield* Fiber.interruptAll(fibers)
    }))

  it.effect("a request that has permits and may not start after all has cost nothing", () =>
    Effect.gen(function*() {
      const policies: Record<string, Throttle.Policy<never>> = {
        bucket: Throttle.tokenBucket({ capacity: 12, refill: 1, per: "1 day" }),
        window: Throttle.window({ limit: 12, per: "1 day" }),
        "window and concurrency": Throttle.all([
          Throttle.window({ limit: 12, per: "1 day", kind: "fixed" }),
          Throttle.concurrency({ limit: 4 })
        ])
      }
      for (const [name, policy] of Object.entries(policies)) {
        const throttle = yield* Throttle.make(policy)
        const server = Memory.make((_, nth) => ({ ...(nth === 0 ? tooMany() : ok), takes: 10 }))
        const client = HttpThrottle.client(throttle, exact)(server.client)
        for (let i = 0; i < 9; i++) yield* fork(client.get(`${url}${i}`))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(server.seen.length, 10, name)
        // Twelve, less ten.
        const left = yield* Effect.forEach([1, 2, 3], () => throttle.withPermitsIfAvailable(Effect.void, 1))
        assert.deepStrictEqual(left.map(Option.isSome), [true, true, false], name)
      }
    }))

  it.effect("timeout counts the wait for it, and what is left of it is for the policy", () =>
    Effect.gen(function*() {
      const { client, server, throttle } = yield* oncePerSecond(Throttle.rate({ limit: 100, timeout: "1500 millis" }))
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 3; i++) fibers.push(yield* fork(client.get(url)))
      yield* TestClock.adjust(1_499)
      assert.isUndefined(fibers[2]!.pollUnsafe())
      yield* TestClock.adjust(1)
      const reason = yield* reasonOf(fibers[2]!)
      assert.deepStrictEqual([reason._tag, reason.parts], ["TimedOut", ["server"]])
      yield* TestClock.adjust(10_000)
      assert.strictEqual(server.starts.length, 2)
      // Held back for nearly a second, and then by the policy.
      yield* fork(client.get(url))
      yield* TestClock.adjust(15)
      const late = yield* fork(client.get(url))
      yield* throttle.pause("1 minute")
      yield* TestClock.adjust(1_499)
      assert.isUndefined(late.pollUnsafe())
      yield* TestClock.adjust(2)
      assert.strictEqual((yield* reasonOf(late))._tag, "TimedOut")
    }))

  it.effect("a retry that it does not let wait is none: the answer stands", () =>
    Effect.gen(function*() {
      const server = Memory.make([tooMany(5), ok])
      const client = HttpThrottle.client(Throttle.rate({ limit: 10, maxQueue: 0 }), exact)(server.client)
      const response = yield* client.get(url)
      assert.deepStrictEqual([response.status, yield* response.text, server.seen.length], [429, "too many", 1])
    }))

  it.effect("in shadow holds nobody back, and nothing is learned", () =>
    Effect.gen(function*() {
      const server = yield* Servers.serve(Servers.bucket({ rate: 1, size: 2, answer: Servers.openai(2) }), 10)
      const polite = HttpThrottle.client(Throttle.shadow(Throttle.rate({ limit: 1 })), { ...exact, retry: 0 })
      const client = polite(server.client)
      const fiber = yield* fork(Effect.forEach([1, 2, 3, 4], () => client.get(url), { discard: true }))
      yield* TestClock.adjust(1_000)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(server.starts, [0, 10, 20, 30])
      assert.deepInclude((yield* polite.statistics).get("http://a.example")!, { rate: Infinity, remaining: Infinity })
    }))

  it.effect("put in shadow later lets all go", () =>
    Effect.gen(function*() {
      const { client, server, throttle } = yield* oncePerSecond(Throttle.rate({ limit: 100 }))
      yield* throttle.update(Throttle.shadow(Throttle.rate({ limit: 100 })))
      const fibers = [yield* fork(client.get(url)), yield* fork(client.get(url))]
      yield* TestClock.adjust(10)
      assert.strictEqual(server.starts.length, 3)
      for (const fiber of fibers) yield* Fiber.interrupt(fiber)
    }))
})

describe("who goes again, and when", () => {
  it.effect("a refusal that tells nothing new costs no attempt, and its request keeps its place", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({ ...(nth < 4 ? tooMany(1) : ok), takes: 10 }))
      const client = HttpThrottle.client(Throttle.concurrency({ limit: 4 }), { ...exact, retry: 1 })(server.client)
      const fibers: Array<Fiber.Fiber<number, unknown>> = []
      for (let i = 0; i < 6; i++) fibers.push(yield* fork(Effect.map(client.get(`${url}${i}`), ({ status }) => status)))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), [200, 200, 200, 200, 200, 200])
      // 4 was next in line for the policy; the one that was heard first goes to the end.
      assert.strictEqual(server.seen.slice(4).map(({ url }) => url.at(-1)).join(""), "412350")
    }))

  it.effect("a request that is never repeated is not, whatever its refusal tells", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({ ...(nth < 3 ? tooMany(1) : ok), takes: 10 }))
      const client = HttpThrottle.client(Throttle.none, { ...exact, retry: 0 })(server.client)
      const fiber = yield* fork(Effect.forEach([1, 2, 3], () => client.get(url), { concurrency: "unbounded" }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* Fiber.join(fiber)).map(({ status }) => status), [429, 429, 429])
      assert.strictEqual(server.seen.length, 3)
    }))

  it.effect("what may not be repeated is not, also where its refusal tells nothing new", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({ ...(nth < 3 ? tooMany(1) : ok), takes: 10 }))
      const client = HttpThrottle.client(Throttle.none, { ...exact, retryIf: ({ url }) => !url.endsWith("2") })(
        server.client
      )
      const fiber = yield* fork(
        Effect.forEach([1, 2, 3], (i) => client.get(`${url}${i}`), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* Fiber.join(fiber)).map(({ status }) => status), [200, 429, 200])
    }))

  it.effect("without a time the refused request waits as its schedule says, and others pass it", () =>
    Effect.gen(function*() {
      const server = Memory.make((_, nth) => ({ ...(nth === 0 ? tooMany() : ok), takes: 10 }))
      const client = HttpThrottle.client(Throttle.none, { ...exact, retry: Schedule.spaced("3 seconds") })(
        server.client
      )
      const first = yield* fork(client.get(`${url}0`))
      yield* TestClock.adjust(10)
      const second = yield* fork(client.get(`${url}1`))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.joinAll([first, second])
      assert.deepStrictEqual(server.seen.map(({ at, url }) => `${at} ${url.at(-1)}`), ["0 0", "110 1", "3010 0"])
    }))

  it.effect("whoever resumes the throttle lets in all but the request that was refused", () =>
    Effect.gen(function*() {
      const throttle = yield* Throttle.make(Throttle.none)
      const server = Memory.make((_, nth) => ({ ...(nth === 0 ? tooMany(30) : ok), takes: 10 }))
      const client = HttpThrottle.client(throttle, exact)(server.client)
      const first = yield* fork(client.get(`${url}0`))
      yield* TestClock.adjust(10)
      const second = yield* fork(client.get(`${url}1`))
      yield* TestClock.adjust(1_000)
      yield* throttle.resume
      yield* TestClock.adjust("1 minute")
      yield* Fiber.joinAll([first, second])
      assert.deepStrictEqual(server.seen.map(({ at, url }) => `${at} ${url.at(-1)}`), ["0 0", "1010 1", "30010 0"])
    }))

  it.effect("a probe that fails, or is interrupted, is followed by another", () =>
    Effect.gen(function*() {
      for (const how of ["fails", "is interrupted"]) {
        const starts: Array<number> = []
        const began = yield* Clock.currentTimeMillis
        const server = HttpClient.make((request) =>
          Effect.gen(function*() {
            const nth = starts.push((yield* Clock.currentTimeMillis) - began)
            yield* Effect.sleep(10)
            if (nth === 2) {
              if (how === "is interrupted") return yield* Effect.never
              return yield* new HttpClientError.HttpClientError({
                reason: new HttpClientError.TransportError({ request })
              })
            }
            const headers = { "x-ratelimit-limit": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60" }
            return HttpClientResponse.fromWeb(request, new Response(null, { headers }))
          })
        )
        const client = HttpThrottle.client(Throttle.none, exact)(server)
        yield* fork(client.get(url))
        yield* TestClock.adjust(10)
        const probe = yield* fork(client.get(url))
        const next = yield* fork(client.get(url))
        yield* TestClock.adjust(30_020)
        if (how === "is interrupted") yield* Fiber.interrupt(probe)
        yield* TestClock.adjust(1_000)
        assert.strictEqual((yield* Fiber.join(next)).status, 200)
        assert.deepStrictEqual(starts, [0, 30_010, how === "fails" ? 30_020 : 30_030])
      }
    }))

  it.effect("several origins learn each for itself", () =>
    Effect.gen(function*() {
      const server = Memory.make(({ url }) => url.startsWith("http://a.") ? tooMany(60) : ok)
      const client = HttpThrottle.client(Throttle.none, exact)(server.client)
      yield* fork(client.get("http://a.example/"))
      const others = yield* fork(
        Effect.forEach([1, 2, 3], (i) => client.get(`http://b.example/${i}`), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(others)).length, 3)
    }))
})
