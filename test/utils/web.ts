/** A server without sockets, so that a test's clock rules it: its routes, asked by whatever address is wished. */
import { Effect, Layer, Option, type Scope } from "effect"
import { HttpEffect, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"

export interface Asked {
  readonly path?: string
  readonly method?: string
  readonly headers?: Record<string, string>
  /** The address that the connection comes from; undefined where there is none. */
  readonly from?: string | undefined
}

/** An answer, read to its end. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export const ask = (app: Layer.Layer<never, never, HttpRouter.HttpRouter>): Effect.Effect<
  (asked?: Asked) => Effect.Effect<Answer>,
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const http = yield* HttpRouter.toHttpEffect(app)
    const context = yield* Effect.context<never>()
    return (asked = {}) =>
      Effect.promise(async (signal) => {
        const from = "from" in asked ? asked.from : "192.0.2.1"
        const remoteAddress = Option.fromUndefinedOr(from)
        const fromThere = Effect.updateService(
          http,
          HttpServerRequest.HttpServerRequest,
          (request) => request.modify({ remoteAddress, peerAddress: remoteAddress })
        )
        const { headers = {}, method = "GET", path = "/" } = asked
        const request = new Request(`http://localhost${path}`, { method, headers, signal })
        const response = await HttpEffect.toWebHandlerWith(context)(fromThere as any)(request)
        return {
          status: response.status,
          headers: Object.fromEntries(response.headers),
          body: await response.text()
        }
      })
  })

/** What "/" answers with. */
export const hello = HttpRouter.add("GET", "/", HttpServerResponse.text("hello"))
