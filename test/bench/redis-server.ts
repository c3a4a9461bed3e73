/** A redis-server for the sections that need one. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { createServer } from "node:net"

export const isInstalled = (): boolean => spawnSync("redis-server", ["--version"]).status === 0

export const missing = "Skipped: redis-server is not installed (Debian: `apt-get install redis-server`)."

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer().once("error", reject).listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => typeof address === "object" && address !== null ? resolve(address.port) : reject(address))
    })
  })

const started = async (): Promise<{ readonly child: ChildProcess; readonly url: string }> => {
  const port = await freePort()
  const child = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", ""], {
    stdio: ["ignore", "pipe", "ignore"]
  })
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject)
    child.stdout.on("data", (text: Buffer) => {
      if (text.toString().includes("Ready to accept connections")) resolve()
    })
  })
  return { child, url: `redis://127.0.0.1:${port}` }
}

/** Runs something with a server of its own. */
export const withServer = async <A>(use: (url: string) => Promise<A>): Promise<A> => {
  const { child, url } = await started()
  try {
    return await use(url)
  } finally {
    child.kill("SIGKILL")
  }
}
