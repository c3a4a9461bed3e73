/** A Redis for the example: the one at REDIS_URL, or a `redis-server` of its own, found on the PATH. */
import { Effect } from "effect"
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

/** Its URL; undefined where there is none. */
export const redisUrl = Effect.suspend(() => {
  const given = process.env.REDIS_URL
  if (given !== undefined && given !== "") return Effect.succeed(given)
  return spawnSync("redis-server", ["--version"]).status === 0
    ? Effect.map(ownServer, ({ url }) => url)
    : Effect.succeed(undefined)
})
