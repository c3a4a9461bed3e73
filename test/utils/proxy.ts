/** A TCP proxy that can be cut, and healed. */
import { connect, createServer, type Socket } from "node:net"

export interface Proxy {
  readonly port: number
  /** Ends all connections and takes no new ones. */
  readonly cut: () => void
  readonly heal: () => void
  readonly close: () => Promise<void>
}

export const startProxy = (to: number): Promise<Proxy> =>
  new Promise((resolve) => {
    const state = { isCut: false }
    const sockets = new Set<Socket>()
    const server = createServer((near) => {
      if (state.isCut) return near.destroy()
      const far = connect(to, "127.0.0.1")
      for (const [one, other] of [[near, far], [far, near]] as const) {
        sockets.add(one)
        one.setNoDelay(true)
        one.on("error", () => {})
        one.on("close", () => {
          sockets.delete(one)
          other.destroy()
        })
        one.pipe(other)
      }
      return undefined
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const destroy = () => {
        for (const socket of sockets) socket.destroy()
      }
      resolve({
        port: typeof address === "object" && address !== null ? address.port : 0,
        cut: () => {
          state.isCut = true
          destroy()
        },
        heal: () => {
          state.isCut = false
        },
        close: () => {
          destroy()
          return new Promise((resolve) => server.close(() => resolve()))
        }
      })
    })
  })
