/** Servers of other frameworks, with the limiters that others wrote for them, on the loopback interface. */
import rateLimit from "@fastify/rate-limit"
import { Effect, type Scope } from "effect"
import express from "express"
import { type DraftHeadersVersion, rateLimit as limitExpress } from "express-rate-limit"
import fastify from "fastify"
import type { Server } from "node:http"
import type { AddressInfo } from "node:net"

/** What the server answered, in its order. */
export interface Running {
  readonly url: string
  readonly statuses: ReadonlyArray<number>
}

export interface Quota {
  readonly limit: number
  readonly windowMs: number
}

const inExpress = (quota: Quota, standardHeaders: DraftHeadersVersion | false) =>
  Effect.acquireRelease(
    Effect.callback<Running & { readonly server: Server }>((resume) => {
      const statuses: Array<number> = []
      const app = express()
      app.use((_request, response, next) => {
        response.on("finish", () => statuses.push(response.statusCode))
        next()
      })
      // Without drafts the fields are X-RateLimit-*.
      app.use(limitExpress({ ...quota, standardHeaders, legacyHeaders: standardHeaders === false }))
      app.get("/:id", (request, response) => void response.send(`this is ${request.params.id}`))
      const server = app.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, statuses, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

const inFastify = ({ limit, windowMs }: Quota, enableDraftSpec: boolean) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const statuses: Array<number> = []
      const server = fastify({ forceCloseConnections: true })
      server.addHook("onResponse", async (_request, reply) => void statuses.push(reply.statusCode))
      await server.register(rateLimit, { max: limit, timeWindow: windowMs, enableDraftSpec })
      server.get(
        "/:id",
        (request, reply) => void reply.send(`this is ${(request.params as { readonly id: string }).id}`)
      )
      return { url: await server.listen({ host: "127.0.0.1", port: 0 }), statuses, server }
    }),
    ({ server }) => Effect.promise(() => server.close())
  )

export const servers = (quota: Quota): Record<string, Effect.Effect<Running, never, Scope.Scope>> => ({
  "express-rate-limit, draft 6": inExpress(quota, "draft-6"),
  "express-rate-limit, draft 7": inExpress(quota, "draft-7"),
  "express-rate-limit, draft 8": inExpress(quota, "draft-8"),
  "express-rate-limit, X-RateLimit": inExpress(quota, false),
  "@fastify/rate-limit": inFastify(quota, false),
  "@fastify/rate-limit, draft": inFastify(quota, true)
})
