/** Real servers on the loopback interface, and what no well-behaved client would send them. */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer, type Scope } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"
import { connect } from "node:net"

/** Serves the routes until the scope closes; gives the port. */
export const serve = <R>(app: Layer.Layer<never, never, R>): Effect.Effect<
  number,
  never,
  Exclude<R, HttpRouter.HttpRouter> | Scope.Scope
> =>
  Effect.gen(function*() {
    const server = HttpRouter.serve(app as Layer.Layer<never, never, HttpRouter.HttpRouter>, {
      disableLogger: true,
      disableListenLog: true
    }).pipe(Layer.provideMerge(NodeHttpServer.layer(
      () => createServer(),
      { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: 100 }
    )))
    const context = yield* Layer.build(Layer.orDie(server))
    const { address } = Context.get(context, HttpServer.HttpServer)
    return "port" in address ? address.port : 0
  }) as any

/** What comes back for these bytes, once the server has closed the connection, or answered for as long as is waited. */
export const exchange = (port: number, bytes: string | Buffer, wait = 2_000): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    let received = ""
    const done = () => {
      socket.destroy()
      resolve(received)
    }
    socket.setTimeout(wait, done)
    socket.on("data", (chunk) => received += chunk.toString("latin1"))
    socket.on("error", done)
    socket.on("close", done)
    // Not ended: to close its half would be to hang up.
    socket.write(bytes)
  })

/** One request, spelled as wished. */
export const request = (...headers: ReadonlyArray<string>): Buffer =>
  Buffer.from(["GET / HTTP/1.1", "Host: a", "Connection: close", ...headers, "", ""].join("\r\n"), "latin1")

export const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1])
