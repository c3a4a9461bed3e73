/** Servers that are web handlers, as on Workers, Deno and Bun: they are given no address of the client. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Option } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServerRequest } from "effect/http"
import * as Telemetry from "../utils/telemetry.ts"
import { ask, hello } from "../utils/web.ts"

const perMinute = Throttle.rate({ limit: 1, per: "1 minute" })

const inFront = (options: Partial<HttpThrottle.PolicyOptions> = {}) =>
  Layer.merge(hello, HttpThrottle.middleware({ policy: perMinute, ...options }, { global: true }))

/** The lines that say that requests have no address. */
const warnings = (lines: ReadonlyArray<Telemetry.Line>) =>
  lines.filter(({ level, message }) => level === "Warn" && String(message).includes("no client address"))

describe("a request without a client address", () => {
  it.effect("shares a budget with all others, and a warning says so once for each middleware", () =>
    Effect.gen(function*() {
      const told = Telemetry.collect()
      const request = yield* told.in(ask(inFront({ name: "all routes" })))
      const other = yield* told.in(ask(inFront({ name: "others" })))
      const statuses = yield* told.in(Effect.forEach([1, 2, 3], () => request({ from: undefined })))
      assert.deepStrictEqual(statuses.map(({ status }) => status), [200, 429, 429])
      assert.lengthOf(warnings(told.lines), 1)
      assert.deepStrictEqual(warnings(told.lines)[0]!.annotations, { throttle: "all routes" })
      yield* told.in(other({ from: undefined }))
      assert.deepStrictEqual(warnings(told.lines).map(({ annotations }) => annotations["throttle"]), [
        "all routes",
        "others"
      ])
    }))

  it.effect("is not warned of where there is an address, or a key that needs none", () =>
    Effect.gen(function*() {
      const told = Telemetry.collect()
      for (
        const options of [
          { key: HttpThrottle.header("x-tenant") },
          { key: HttpThrottle.clientAddress({ header: "cf-connecting-ip" }) },
          { key: Effect.succeed("everybody") },
          { skip: () => true }
        ]
      ) {
        const request = yield* told.in(ask(inFront(options)))
        const headers = { "x-tenant": "acme", "cf-connecting-ip": "203.0.113.9" }
        yield* told.in(request({ headers, from: undefined }))
      }
      yield* told.in((yield* ask(inFront()))({ from: "192.0.2.1" }))
      // A key of the app's own that happens to be the same.
      yield* told.in((yield* ask(inFront({ key: Effect.succeed("unknown") })))({ from: "192.0.2.1" }))
      assert.deepStrictEqual(warnings(told.lines), [])
    }))

  it.effect("is warned of also where the address is a part of the key", () =>
    Effect.gen(function*() {
      const told = Telemetry.collect()
      const key = Effect.map(HttpThrottle.clientAddress(), (address) => `client:${address}`)
      const request = yield* told.in(ask(inFront({ key })))
      yield* told.in(Effect.forEach([1, 2], () => request({ from: undefined })))
      assert.lengthOf(warnings(told.lines), 1)
    }))

  it.effect("is also one whose address is none", () =>
    Effect.gen(function*() {
      const told = Telemetry.collect()
      const request = yield* told.in(ask(inFront()))
      yield* told.in(request({ from: "somebody" }))
      assert.lengthOf(warnings(told.lines), 1)
    }))

  it("is what HttpRouter.toWebHandler makes", async () => {
    const told = Telemetry.collect()
    const logger = Logger.layer([
      Logger.make(({ logLevel, message }) => void told.lines.push({ message, level: logLevel, annotations: {} }))
    ])
    const { dispose, handler } = HttpRouter.toWebHandler(Layer.provideMerge(inFront(), logger), { disableLogger: true })
    const statuses = [1, 2, 3].map(async () => (await handler(new Request("http://localhost/"))).status)
    assert.deepStrictEqual(await Promise.all(statuses), [200, 429, 429])
    assert.lengthOf(warnings(told.lines), 1)
    await dispose()
  })
})

it("an address that the platform knows can be given to a web handler, and is the key", async () => {
  class Peer extends Context.Service<Peer, { readonly address: string }>()("test/Peer") {}
  const { dispose, handler } = HttpRouter.toWebHandler(inFront(), {
    disableLogger: true,
    middleware: (app) =>
      Effect.flatMap(Peer, ({ address }) =>
        Effect.updateService(
          app,
          HttpServerRequest.HttpServerRequest,
          (request) => request.modify({ remoteAddress: Option.some(address) })
        ))
  })
  const from = async (address: string) =>
    (await handler(new Request("http://localhost/"), Peer.context({ address }))).status
  assert.deepStrictEqual(
    [await from("192.0.2.1"), await from("192.0.2.1"), await from("192.0.2.2"), await from("2001:db8::1")],
    [200, 429, 200, 200]
  )
  assert.deepStrictEqual([await from("2001:db8::2"), await from("2001:db8:0:1::1")], [429, 200])
  await dispose()
})
