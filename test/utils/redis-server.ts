/** A redis-server of a test's own: started, stopped, hung. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer, type NetConnectOpts } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** Where it is reached: by a file, or by a port of this machine. */
export type Address = { readonly path: string } | { readonly host: string; readonly port: number }

export interface Server<A extends Address = Address> {
  readonly address: A
  readonly start: () => Promise<void>
  /** Kills it, as a crash would. */
  readonly stop: () => Promise<void>
  readonly isUp: () => boolean
  /** It keeps its connections and answers nothing. */
  readonly hang: () => void
  readonly wake: () => void
  /** Stops it for good and removes what it left. */
  readonly close: () => Promise<void>
}

export const isInstalled = (): boolean => spawnSync("redis-server", ["--version"]).status === 0

/** A port that nobody listens on now. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.on("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => typeof address === "object" && address !== null ? resolve(address.port) : reject(address))
    })
  })

/** Waits until somebody answers. */
const answers = async (address: Address): Promise<void> => {
  for (let tries = 0; tries < 1_000; tries++) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(address as NetConnectOpts)
      socket.once("connect", () => socket.write("PING\r\n"))
      socket.once("data", (data) => {
        socket.destroy()
        resolve(data.toString().startsWith("+PONG"))
      })
      socket.once("error", () => resolve(false))
    })
    if (isUp) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error(`redis-server does not answer at ${JSON.stringify(address)}`)
}

const startAt = async <A extends Address>(
  address: A,
  folder: string,
  options: ReadonlyArray<string> = []
): Promise<Server<A>> => {
  const where = "path" in address
    ? ["--port", "0", "--unixsocket", address.path]
    : ["--port", String(address.port), "--bind", address.host]
  const state: { child: ChildProcess | undefined } = { child: undefined }
  const start = async () => {
    state.child = spawn("redis-server", [...where, "--save", "", "--dir", folder, ...options], { stdio: "ignore" })
    await answers(address)
  }
  const stop = async () => {
    const { child } = state
    state.child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await gone
  }
  await start()
  return {
    address,
    start,
    stop,
    isUp: () => state.child !== undefined,
    hang: () => void state.child?.kill("SIGSTOP"),
    wake: () => void state.child?.kill("SIGCONT"),
    close: async () => {
      await stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

const newFolder = () => mkdtempSync(join(tmpdir(), "effect-throttle-redis-"))

/** On a unix socket of its own, so that nobody else can have taken its place. */
export const startServer = (): Promise<Server<{ readonly path: string }>> => {
  const folder = newFolder()
  return startAt({ path: join(folder, "redis.sock") }, folder)
}

/** On a port, for a proxy in front. */
export const startTcpServer = async (
  ...options: ReadonlyArray<string>
): Promise<Server<{ readonly host: string; readonly port: number }>> =>
  startAt({ host: "127.0.0.1", port: await freePort() }, newFolder(), options)
