/** The process of one server, for the HTTP section: listens on a free port and prints it. Ends with the process that started it. */
import { NodeHttpServer } from "@effect/platform-node"
import fastifyRateLimit from "@fastify/rate-limit"
import { Effect, Layer } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import express from "express"
import { rateLimit } from "express-rate-limit"
import fastify from "fastify"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"

const often = 1_000_000_000
const body = { hello: "world" }

const portOf = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port))
  })

const hello = HttpRouter.add("GET", "/", Effect.sync(() => HttpServerResponse.jsonUnsafe(body)))

const effect = (limit: Layer.Layer<never, never, HttpRouter.HttpRouter>): Promise<number> =>
  new Promise((resolve) => {
    const app = HttpRouter.serve(Layer.merge(hello, limit), { disableLogger: true, disableListenLog: true })
    const told = Layer.effectDiscard(Effect.map(HttpServer.HttpServer, ({ address }) => {
      if ("port" in address) resolve(address.port)
    }))
    Effect.runFork(Layer.launch(
      Layer.merge(app, told).pipe(
        Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))
      )
    ))
  })

const limited = (options: Partial<HttpThrottle.PolicyOptions>) =>
  HttpThrottle.middleware({ policy: Throttle.rate({ limit: often, burst: often }), ...options }, { global: true })

const expressApp = (isLimited: boolean): Promise<number> => {
  const app = express()
  if (isLimited) {
    app.use(rateLimit({ windowMs: 60_000, limit: often, standardHeaders: "draft-8", legacyHeaders: false }))
  }
  app.get("/", (_, response) => {
    response.json(body)
  })
  return portOf(createServer(app))
}

const fastifyApp = async (isLimited: boolean): Promise<number> => {
  const app = fastify()
  if (isLimited) await app.register(fastifyRateLimit, { max: often, timeWindow: 60_000 })
  app.get("/", async () => body)
  await app.listen({ host: "127.0.0.1", port: 0 })
  return (app.server.address() as AddressInfo).port
}

const servers: Readonly<Record<string, () => Promise<number>>> = {
  effect: () => effect(Layer.empty),
  "effect, limited": () => effect(limited({})),
  "effect, limited, and everybody": () => effect(limited({ global: Throttle.rate({ limit: often, burst: often }) })),
  "effect, limited, no fields": () => effect(limited({ fields: "none" })),
  "effect, all refused": () => effect(limited({ policy: Throttle.rate({ limit: 1, per: "1 day" }) })),
  express: () => expressApp(false),
  "express, limited": () => expressApp(true),
  fastify: () => fastifyApp(false),
  "fastify, limited": () => fastifyApp(true)
}

process.on("disconnect", () => process.exit(0))
// What it has computed so far, in microseconds, whenever it is asked.
process.on("message", () => {
  const { system, user } = process.cpuUsage()
  process.send!(user + system)
})
process.send!(await servers[process.argv[2]!]!())
