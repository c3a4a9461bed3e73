/** A Redis for the example: the one at REDIS_URL, or a `redis-server` of its own, found on the PATH. */
import { NodeRedis } from "@effect/platform-node"
import { Cause, Effect, Fiber, Layer, Logger } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { createServer } from "node:net"

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once("error", reject).listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => typeof address === "object" && address !== null ? resolve(address.port) : reject(address))
    })
  })

const ownServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const port = await freePort()
    const options = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    const child = spawn("redis-server", options, { stdio: ["ignore", "pipe", "inherit"] })
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject)
      child.once("exit", () => reject(new Error("redis-server has ended")))
      child.stdout.on("data", (text: Buffer) => {
        if (text.toString().includes("Ready to accept connections")) resolve()
      })
    })
    return { child, url: `redis://127.0.0.1:${port}` }
  }),
  ({ child }) => Effect.sync(() => void child.kill())
)

/** Its URL; undefined if there is none. */
export const redisUrl = Effect.suspend(() => {
  const given = process.env.REDIS_URL
  if (given !== undefined && given !== "") return Effect.succeed(given)
  return spawnSync("redis-server", ["--version"]).status === 0
    ? Effect.map(ownServer, ({ url }) => url)
    : Effect.succeed(undefined)
})

/** The innermost message of an error. Node's has no message if it has tried several addresses. */
const messageOf = (error: unknown): string =>
  !(error instanceof Error)
    ? String(error)
    : error.cause !== undefined
    ? messageOf(error.cause)
    : error instanceof AggregateError
    ? messageOf(error.errors[0])
    : error.message

/** Returns why no Redis answers at a URL; undefined if one does. */
export const whyUnreachable = (url: string): Effect.Effect<string | undefined> => {
  const connected = Effect.scoped(Layer.build(NodeRedis.layer({ url }))).pipe(
    Effect.as(undefined),
    Effect.catchCause((cause) => Effect.succeed(messageOf(Cause.squash(cause)))),
    Effect.provide(Logger.layer([]))
  )
  // An attempt at a server that does not answer cannot be interrupted.
  return Effect.flatMap(
    Effect.forkDetach(connected),
    (attempt) =>
      Effect.raceFirst(Fiber.join(attempt), Effect.as(Effect.sleep("5 seconds"), "no answer within 5 seconds"))
  )
}
