/**
 * The throttled client against servers and limiters that nobody here wrote, over loopback and in real time: ratios and
 * counts, with slack.
 */
import { NodeHttpClient, NodeHttpServer, NodeHttpServerRequest } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Stream } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { FetchHttpClient, HttpBody, HttpClient, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import { servers } from "../utils/limiting-servers.ts"

const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** So many in each window that the server keeps: long enough for a slow machine to use it up. */
const limit = 100
const windowMs = 2_000

// ---------------------------------------------------------------------------------------------------------------------
// Interoperation
// ---------------------------------------------------------------------------------------------------------------------

const requests = 200

/** At once, no more than these: so many 429s one burst can cause. */
const atOnce = 20

describe("200 requests to a server of somebody else are all answered, with no more 429s than one burst can cause", () => {
  for (const [name, server] of Object.entries(servers({ limit, windowMs }))) {
    const heldBack: Array<number> = []
    it.live(name, () =>
      Effect.gen(function*() {
        const { statuses, url } = yield* server
        const client = HttpThrottle.client(Throttle.concurrency({ limit: atOnce }), { adapt: false })(
          yield* HttpClient.HttpClient
        )
        const start = yield* now
        const answers = yield* Effect.forEach(
          Array.from({ length: requests }, (_, i) => i),
          (i) =>
            Effect.flatMap(client.get(`${url}/${i}`), ({ status, text }) => Effect.map(text, (text) => [status, text])),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(answers, Array.from({ length: requests }, (_, i) => [200, `this is ${i}`]))
        assert.strictEqual(statuses.filter((status) => status === 200).length, requests)
        // What was under way when nothing was left of the first window.
        assert.isAtMost(statuses.filter((status) => status === 429).length, atOnce)
        // Nobody got an answer of the second window in the first: many were held back until then.
        assert.isAbove((yield* now) - start, windowMs - 50)
        assert.isAtLeast(heldBack.length, 50)
      }).pipe(
        Effect.provideService(Throttle.Observer, (event) =>
          Effect.sync(() => {
            if (event._tag === "Admitted" && event.paused !== undefined) heldBack.push(event.paused)
          })),
        Effect.scoped,
        Effect.provide(FetchHttpClient.layer)
      ), 60_000)
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// A server that counts for itself
// ---------------------------------------------------------------------------------------------------------------------

interface Arrival {
  readonly at: number
  readonly status: number
}

/** So many a window of 300 ms from the first request on, told by `retry-after-ms`; a POST that it takes is echoed. */
const inEffect = (perWindow: number) =>
  Effect.gen(function*() {
    const arrivals: Array<Arrival> = []
    let began = -Infinity
    let taken = 0
    const connections = new Set<number>()
    yield* HttpServer.serveEffect(Effect.gen(function*() {
      const request = yield* HttpServerRequest.HttpServerRequest
      connections.add(NodeHttpServerRequest.toIncomingMessage(request).socket.remotePort!)
      const at = yield* now
      if (at - began >= 300) {
        began = at
        taken = 0
      }
      const status = taken < perWindow ? 200 : 429
      if (status === 200) taken++
      arrivals.push({ at, status })
      return status === 200
        ? HttpServerResponse.text(`${request.method} ${yield* request.text}`)
        : HttpServerResponse.text("too many ".repeat(10_000), {
          status,
          headers: { "retry-after-ms": `${Math.ceil(began + 300 - at)}`, "retry-after": "9" }
        })
    }))
    const { address } = yield* HttpServer.HttpServer
    return { url: HttpServer.formatAddress(address), arrivals, connections }
  })

const layerServer = NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })

const clients = {
  fetch: FetchHttpClient.layer,
  "node:http": NodeHttpClient.layerNodeHttpOptions({ keepAlive: true, maxSockets: 5 })
}

describe("over loopback", () => {
  for (const [name, layer] of Object.entries(clients)) {
    it.live(`${name}: bodies are sent again, and everybody waits for the server's time`, () =>
      Effect.gen(function*() {
        const { arrivals, connections, url } = yield* inEffect(5)
        const client = HttpThrottle.client(Throttle.concurrency({ limit: 5 }))(yield* HttpClient.HttpClient)
        const answers = yield* Effect.forEach(
          Array.from({ length: 15 }, (_, i) => i),
          (i) => Effect.flatMap(client.post(url, { body: HttpBody.text(`${i}`) }), ({ text }) => text),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(answers, Array.from({ length: 15 }, (_, i) => `POST ${i}`))
        const refused = arrivals.filter(({ status }) => status === 429)
        assert.isAbove(refused.length, 0)
        assert.isAtMost(refused.length, 5 * 2)
        // A client with so few connections as that hangs if refused answers, of 90 kB each, are not read.
        if (name === "node:http") assert.isAtMost(connections.size, 5)
      }).pipe(Effect.scoped, Effect.provide([layer, layerServer])))

    it.live(
      `${name}: a refusal that stands, as the policy lets no retry wait, is as it came, though its body is slow`,
      () =>
        Effect.gen(function*() {
          yield* HttpServer.serveEffect(Effect.sync(() => {
            const body = Stream.fromIterable(["{\"error\":", "1}"]).pipe(
              Stream.mapEffect((text) => Effect.delay(Effect.succeed(text), text === "1}" ? 1_500 : 0)),
              Stream.encodeText
            )
            return HttpServerResponse.stream(body, { status: 429, headers: { "retry-after": "30" } })
          }))
          const { address } = yield* HttpServer.HttpServer
          // One client each, since a paused one refuses before it sends.
          const get = Effect.suspend(() =>
            HttpThrottle.client(Throttle.rate({ limit: 10, maxWait: "5 seconds" }))(http).get(
              HttpServer.formatAddress(address)
            )
          )
          const http = yield* HttpClient.HttpClient
          const [json, text] = yield* Effect.all([
            Effect.flatMap(get, ({ json }) => json),
            Effect.flatMap(get, ({ stream }) => Stream.mkString(Stream.decodeText(stream)))
          ], { concurrency: 2 })
          assert.deepStrictEqual([json, text], [{ error: 1 }, "{\"error\":1}"])
        }).pipe(Effect.scoped, Effect.provide([layer, layerServer])),
      20_000
    )

    it.live(`${name}: permits of clientScoped are held while the body is read`, () =>
      Effect.gen(function*() {
        const open = { now: 0, most: 0 }
        yield* HttpServer.serveEffect(Effect.sync(() => {
          open.most = Math.max(open.most, ++open.now)
          const drops = Stream.fromIterable(["a", "b", "c"]).pipe(
            Stream.mapEffect((text) => Effect.delay(Effect.succeed(text), 20)),
            Stream.ensuring(Effect.sync(() => open.now--)),
            Stream.encodeText
          )
          return HttpServerResponse.stream(drops)
        }))
        const { address } = yield* HttpServer.HttpServer
        const http = yield* HttpClient.HttpClient
        const two = Throttle.concurrency({ limit: 2 })
        const fetchAll = <E, R>(client: HttpClient.HttpClient.With<E, R>) =>
          Effect.forEach(
            [1, 2, 3, 4, 5, 6],
            () => client.get(HttpServer.formatAddress(address)).pipe(Effect.flatMap(({ text }) => text), Effect.scoped),
            { concurrency: "unbounded" }
          )
        assert.deepStrictEqual(yield* fetchAll(HttpThrottle.clientScoped(two)(http)), Array(6).fill("abc"))
        assert.strictEqual(open.most, 2)
        // Until the head of the answer only: more bodies than that are under way.
        open.most = 0
        yield* fetchAll(HttpThrottle.client(two)(http))
        assert.isAbove(open.most, 2)
      }).pipe(
        Effect.scoped,
        Effect.provide([layer, layerServer])
      ))
  }
})
