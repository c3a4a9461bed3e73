/** A throttled server on a real socket: clients that hang up, and clients that mean harm. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Schedule, Stream } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { Headers, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { connect, type Socket } from "node:net"
import { heapUsed } from "../utils/heap.ts"
import { exchange, request, serve, statusOf } from "../utils/serve.ts"
import { hello } from "../utils/web.ts"

/** Looks again until it holds, for 5 s. */
const until = <E, R>(what: string, holds: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    for (let i = 0; i < 500; i++) {
      if (yield* holds) return
      yield* Effect.sleep("10 millis")
    }
    assert.fail(`never: ${what}`)
  })

/** A server with this throttle in front, and the throttle to look at. */
const start = (
  policy: Throttle.Policy<any>,
  options: HttpThrottle.CommonOptions & { readonly maxKeys?: number } = {},
  route: Layer.Layer<never, never, any> = hello
) =>
  Effect.gen(function*() {
    const { maxKeys = 1_000, ...common } = options
    const map = yield* ThrottleMap.make({ lookup: (_key: string) => policy, maxKeys, onFull: "evict" })
    const throttle = HttpThrottle.middleware({ throttles: Effect.succeed(map), ...common }, { global: true })
    return { map, port: yield* serve(Layer.merge(route, throttle)) }
  })

const hangUp = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(port, "127.0.0.1", () => {
        socket.write(request())
        resume(Effect.succeed(socket))
      })
      socket.on("error", () => {})
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** One request of this method, and what comes back until the server closes the connection. */
const sendAs = (port: number, method: string, ...headers: ReadonlyArray<string>) =>
  Effect.promise(() => exchange(port, request(...headers).toString("latin1").replace("GET", method)))

const send = (port: number, ...headers: ReadonlyArray<string>) =>
  Effect.promise(() => exchange(port, request(...headers)))

const live = (name: string, effect: () => Effect.Effect<void, unknown, any>) =>
  it.live(name, () => Effect.scoped(effect()) as Effect.Effect<void, unknown>, 20_000)

describe("clients that hang up", () => {
  live("while they wait, leave the line and have cost nothing", () =>
    Effect.gen(function*() {
      const { map, port } = yield* start(Throttle.rate({ limit: 1, per: "600 millis" }))
      assert.strictEqual(statusOf(yield* send(port)), 200)
      const sockets = yield* Effect.all(Array.from({ length: 5 }, () => hangUp(port)))
      yield* until("five wait", Effect.map(map.statistics, ({ waiting }) => waiting === 5))
      for (const socket of sockets) socket.destroy()
      yield* until("they are gone", Effect.map(map.statistics, ({ interrupted }) => interrupted === 5))
      const { admitted, waiting } = yield* map.statistics
      assert.deepStrictEqual([admitted, waiting], [1, 0])
      // Behind five who were charged it would be 3.6 s.
      const [took, answer] = yield* Effect.timed(send(port))
      assert.strictEqual(statusOf(answer), 200)
      assert.isBelow(Duration.toMillis(took), 2_000)
    }))

  live("while they are served, give their permits back", () =>
    Effect.gen(function*() {
      const slow = HttpRouter.add("GET", "/", Effect.as(Effect.sleep("1 minute"), HttpServerResponse.text("slow")))
      const { map, port } = yield* start(Throttle.concurrency({ limit: 1, maxQueue: 0 }), {}, slow)
      const socket = yield* hangUp(port)
      yield* until("it runs", Effect.map(map.statistics, ({ running }) => running === 1))
      assert.strictEqual(statusOf(yield* send(port)), 429)
      socket.destroy()
      yield* until("its permit is back", Effect.map(map.statistics, ({ running }) => running === 0))
    }))
})

describe("answers with a body that streams", () => {
  const policy = Throttle.all([
    Throttle.rate({ limit: 1, per: "1 hour", burst: 99 }),
    Throttle.concurrency({ limit: 1 })
  ], {
    maxQueue: 0
  })
  const bytes = (text: string) => new TextEncoder().encode(text)
  const streaming = (stream: Stream.Stream<Uint8Array, unknown>) =>
    HttpRouter.add("GET", "/", Effect.sync(() => HttpServerResponse.stream(stream)))
  const endless = Stream.fromEffectSchedule(Effect.succeed(bytes("more")), Schedule.spaced("10 millis"))

  const runs = (map: ThrottleMap.ThrottleMap<string>, n: number) =>
    until(`${n} run`, Effect.map(map.statistics, ({ running }) => running === n))

  live(
    "hold a permit while they are sent, and give it back when the client goes away, again and again",
    () =>
      Effect.gen(function*() {
        const { map, port } = yield* start(policy, {}, streaming(endless))
        for (let i = 0; i < 5; i++) {
          const socket = yield* hangUp(port)
          yield* Effect.callback<void>((resume) => void socket.once("data", () => resume(Effect.void)))
          yield* runs(map, 1)
          assert.strictEqual(statusOf(yield* send(port)), 429)
          socket.destroy()
          yield* runs(map, 0)
        }
        // What was let in has been charged, and what was refused has not.
        assert.strictEqual((yield* map.statistics).admitted, 5)
      })
  )

  live("give it back where the body fails, before its first bytes or after", () =>
    Effect.gen(function*() {
      for (const stream of [Stream.fail("broken"), Stream.concat(Stream.make(bytes("some")), Stream.die("broken"))]) {
        const { map, port } = yield* start(policy, {}, streaming(stream))
        for (let i = 0; i < 3; i++) {
          yield* send(port)
          yield* runs(map, 0)
        }
        assert.strictEqual((yield* map.statistics).admitted, 3)
      }
    }))

  live("give it back where there is no body to send: HEAD, 304 and 204", () =>
    Effect.gen(function*() {
      const none = (status: number) => HttpRouter.add("GET", "/", HttpServerResponse.empty({ status }))
      for (
        const [method, route, status] of [
          ["HEAD", hello, 200],
          ["HEAD", streaming(Stream.make(bytes("some"))), 200],
          ["HEAD", streaming(endless), 200],
          ["GET", none(304), 304],
          ["GET", none(204), 204]
        ] as const
      ) {
        const { map, port } = yield* start(policy, {}, route)
        for (let i = 0; i < 3; i++) {
          const answer = yield* sendAs(port, method)
          assert.strictEqual(statusOf(answer), status)
          assert.include(answer.toLowerCase(), "ratelimit:")
          yield* runs(map, 0)
        }
        assert.strictEqual((yield* map.statistics).admitted, 3)
      }
    }))

  live("wait their turn on one connection that is kept", () =>
    Effect.gen(function*() {
      const soon = streaming(Stream.fromEffect(Effect.as(Effect.sleep("20 millis"), bytes("soon"))))
      const { map, port } = yield* start(Throttle.concurrency({ limit: 1 }), {}, soon)
      const one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
      const answers = yield* Effect.promise(() =>
        exchange(port, Buffer.concat([Buffer.from(one.repeat(4)), request()]))
      )
      assert.lengthOf(answers.match(/HTTP\/1\.1 200/g)!, 5)
      yield* runs(map, 0)
    }))
})

describe("clients that mean harm", () => {
  const rate = Throttle.rate({ limit: 1, per: "1 hour", burst: 4, maxQueue: 0 })

  live("spoof X-Forwarded-For, and remain one client", () =>
    Effect.gen(function*() {
      for (const trustedProxies of [0, 1]) {
        const key = HttpThrottle.clientAddress({ trustedProxies })
        const { map, port } = yield* start(rate, { key })
        const statuses = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, i) => i),
          // The last address is the one that a trusted proxy would have added.
          (i) => Effect.map(send(port, `X-Forwarded-For: 10.0.${i}.1, 2001:db8:${i}::1, 192.0.2.1`), statusOf),
          { concurrency: 8 }
        )
        assert.strictEqual(statuses.filter((status) => status === 200).length, 5)
        assert.strictEqual(statuses.filter((status) => status === 429).length, 35)
        assert.strictEqual((yield* map.statistics).keys, 1)
      }
    }))

  live("invent keys, and get no further than everybody's limit, nor beyond maxKeys", () =>
    Effect.gen(function*() {
      const global = Throttle.rate({ limit: 1, per: "1 hour", burst: 99 })
      const { map, port } = yield* start(rate, { key: HttpThrottle.header("x-tenant"), global, maxKeys: 50 })
      const statuses = yield* Effect.forEach(
        Array.from({ length: 400 }, (_, i) => i),
        (i) => Effect.map(send(port, `X-Tenant: ${i} ${Math.random()}`), statusOf),
        { concurrency: 16 }
      )
      assert.strictEqual(statuses.filter((status) => status === 200).length, 100)
      assert.strictEqual(statuses.filter((status) => status === 503).length, 300)
      assert.isAtMost((yield* map.statistics).keys, 50)
    }))

  live("fill the map, and lock nobody out", () =>
    Effect.gen(function*() {
      const { map, port } = yield* start(rate, { key: HttpThrottle.header("x-tenant"), maxKeys: 20 })
      yield* Effect.forEach(Array.from({ length: 100 }, (_, i) => i), (i) => send(port, `X-Tenant: ${i}`), {
        concurrency: 8
      })
      assert.strictEqual((yield* map.statistics).keys, 20)
      assert.strictEqual(statusOf(yield* send(port)), 200)
    }))

  const nasty: Readonly<Record<string, ReadonlyArray<string>>> = {
    "nothing but commas": [`X-Forwarded-For: ${",".repeat(8_000)}`],
    "an address of 8 kB": [`X-Forwarded-For: ${"1".repeat(8_000)}`],
    "a header larger than the server reads": [`X-Forwarded-For: ${"1".repeat(80_000)}`],
    "bytes beyond ASCII": ["X-Forwarded-For: \u00ff\u00fe\u00e9", "X-Tenant: \u00ff\u00fe\u00e9"],
    "a NUL": ["X-Forwarded-For: 1.1.1.1\u0000", "X-Tenant: a\u0000b"],
    "names of an object's own": ["X-Tenant: __proto__", "X-Forwarded-For: constructor", "__proto__: a"],
    "many headers of one name": Array.from({ length: 200 }, (_, i) => `X-Forwarded-For: ${i}.1.1.1`),
    "brackets and ports": ["X-Forwarded-For: [[[::1]:::99999", "X-Tenant: ]"],
    "a header without a value": ["X-Forwarded-For:", "X-Tenant:"],
    "a header without a name": [": 1.1.1.1"],
    "a line that goes on": ["X-Forwarded-For: 1.1.1.1,", " 2.2.2.2"],
    "another answer within": ["X-Tenant: a%0d%0aRetry-After: 0\"\\"]
  }

  live("send what is malformed, and the server goes on", () =>
    Effect.gen(function*() {
      const wide = Throttle.rate({ limit: 1, per: "1 hour", burst: 999, maxQueue: 0 })
      for (
        const key of [
          HttpThrottle.clientAddress({ trustedProxies: 1 }),
          HttpThrottle.clientAddress({ trustedProxies: 3 }),
          HttpThrottle.header("x-tenant", HttpThrottle.clientAddress({ trustedProxies: 1 })),
          HttpThrottle.header("__proto__")
        ]
      ) {
        const { map, port } = yield* start(wide, { key })
        for (const [what, headers] of Object.entries(nasty)) {
          const status = statusOf(yield* send(port, ...headers))
          assert.include([200, 400, 431], status, what)
          assert.strictEqual(statusOf(yield* send(port)), 200, `after ${what}`)
        }
        assert.isAtMost((yield* map.statistics).keys, Object.keys(nasty).length + 1)
      }
    }))

  it.live(
    "send long values in a header that is the key: memory is bounded",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const atFirst = yield* heapUsed
        const app = yield* HttpRouter.toHttpEffect(Layer.merge(
          hello,
          HttpThrottle.middleware({ policy: rate, key: HttpThrottle.header("x-tenant"), maxKeys: 1_000 }, {
            global: true
          })
        ))
        const asked = HttpServerRequest.fromWeb(new Request("http://localhost/"))
        const flood = (from: number) =>
          Effect.forEach(Array.from({ length: 4_000 }, (_, i) => from + i), (i) => {
            // Copied, as from a socket: a string that is put together keeps its parts.
            const value = Buffer.from(`${i}${"a".repeat(8_000)}${i}`).toString("latin1")
            const request = asked.modify({ headers: Headers.fromInput({ "x-tenant": value }) })
            return Effect.provideService(app, HttpServerRequest.HttpServerRequest, request)
          }, { discard: true })
        yield* flood(0)
        const before = yield* heapUsed
        yield* flood(4_000)
        // 4,000 values of 8 kB are 32 MB, and those of 1,000 keys 8 MB; 1,000 keys of 256 characters a quarter of one.
        const between = yield* heapUsed
        assert.isBelow(between - before, 2e6)
        assert.isBelow(between - atFirst, 4e6)
      })),
    60_000
  )
})
