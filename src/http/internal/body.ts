/**
 * A response's body that is read in part, and can still be read from its beginning later.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

type Response = HttpClientResponse.HttpClientResponse
type Chunks = readonly [Uint8Array, ...Array<Uint8Array>]
type Next = Pull.Pull<Chunks, HttpClientError.HttpClientError>
type Ended = HttpClientError.HttpClientError | Cause.Done

/** Of a body that is given up no more than this is read: enough for an error's text, little enough for many of them. */
const mostGivenUp = 131_072

/** So much of a body do parsers see. */
const mostLookedAt = 8_192

/** Milliseconds that either may take. */
const longest = 1_000

/** The beginning of a body, as text; undefined where there is none. */
export const lookAt = (body: Body): Effect.Effect<string | undefined> =>
  body.read(mostLookedAt, longest).pipe(
    Effect.andThen(Effect.suspend(() => body.text(mostLookedAt))),
    Effect.onInterrupt(() => body.giveUp)
  )

/**
 * Reads the rest, so that its connection is free. No longer than is worth it: what is not there by then is left where it is.
 * One that does not fit is given up.
 */
export const readOut = (body: Body): Effect.Effect<void> =>
  Effect.andThen(
    body.read(mostGivenUp, longest),
    Effect.suspend(() => body.size() >= mostGivenUp ? body.giveUp : Effect.void)
  )

export interface Body {
  /** Reads until so many bytes are there, or the body is over, for so many milliseconds at most. */
  readonly read: (bytes: number, millis: number) => Effect.Effect<void>
  /** How many bytes have been read. */
  readonly size: () => number
  /** So many bytes of what has been read, as text; undefined where there is nothing. */
  readonly text: (bytes: number) => Effect.Effect<string | undefined>
  /** Stops reading and releases the connection. A later reader fails at this point, unless all was read before. */
  readonly giveUp: Effect.Effect<void>
}

export const make = (response: Response): Body => {
  const { stream } = response
  const scope = Scope.makeUnsafe()
  const kept: Array<Uint8Array> = []
  let size = 0
  /** How the body ended. */
  let over: Exit.Exit<never, Ended> | undefined
  let opened: Next | undefined
  /** What has been asked for and is not there yet. A wait for it can be cut short, and later goes on. */
  let pending: Fiber.Fiber<Chunks, Ended> | undefined

  const open: Next = Effect.suspend(() =>
    opened ?? Effect.flatMap(Scope.provide(Stream.toPull(stream), scope), (pull) => opened = pull)
  )

  const ask: Effect.Effect<Fiber.Fiber<Chunks, Ended>> = Effect.suspend(() =>
    pending !== undefined
      ? Effect.succeed(pending)
      : Effect.map(Effect.forkIn(Effect.interruptible(open), scope), (fiber) => pending = fiber)
  )

  /** The next chunks. What is done with them is done in the step in which they come, so that none gets lost. */
  const next = (use: (chunks: Chunks) => void): Next =>
    Effect.suspend(() =>
      over ??
        Effect.flatMap(Effect.uninterruptible(ask), (fiber) =>
          Effect.flatMap(Fiber.await(fiber), (exit) => {
            pending = undefined
            if (Exit.isSuccess(exit)) use(exit.value)
            else over ??= isEmpty(exit) ? Exit.fail(Cause.Done()) : Exit.failCause(exit.cause)
            return over ?? exit
          }))
    )

  const keep = (chunks: Chunks): void => {
    for (const chunk of chunks) {
      kept.push(chunk)
      size += chunk.byteLength
    }
  }

  const readAll = (bytes: number): Effect.Effect<void> =>
    Effect.suspend(() =>
      size >= bytes || over !== undefined
        ? Effect.void
        : Effect.andThen(Effect.exit(next(keep)), readAll(bytes))
    )

  const whole: Response["stream"] = Stream.concat(
    Stream.suspend(() => Stream.fromIterable(kept.slice())),
    Stream.fromPull(Effect.succeed(next(() => {})))
  )
  restore(response, whole)

  return {
    read: (bytes, millis) => Effect.asVoid(Effect.timeoutOption(readAll(bytes), millis)),
    size: () => size,
    text: (bytes) => {
      let left = bytes
      const chunks = kept.map((chunk) => chunk.subarray(0, Math.max(0, (left -= chunk.byteLength) + chunk.byteLength)))
      return size === 0 ? Effect.undefined : Stream.mkString(Stream.decodeText(Stream.fromIterable(chunks)))
    },
    giveUp: Effect.suspend(() => {
      over ??= Exit.fail(cut(response))
      // Cancelling a stream may take a while; the retry does not wait for it.
      return Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
    })
  }
}

const isEmpty = (exit: Exit.Exit<unknown, Ended>): boolean => {
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "EmptyBodyError"
}

const cut = (response: Response) =>
  new HttpClientError.HttpClientError({
    reason: new HttpClientError.DecodeError({
      request: response.request,
      response,
      description: "the body was cut short when the request was to be repeated"
    })
  })

/** The constructor of the Web platform, which every platform of effect/http has. */
interface Web {
  readonly Response: new(body: unknown, init: unknown) => Parameters<typeof HttpClientResponse.fromWeb>[1]
}

/**
 * Makes the response read from this stream. In place, since an error of its status may refer to the response as well. Text,
 * JSON and the other forms are left to a response of the Web platform, which reads the bytes once for all of them.
 */
const restore = (response: Response, stream: Response["stream"]): void => {
  let web: Response | undefined
  const { headers, request, status } = response
  const fromBytes = () =>
    web ??= HttpClientResponse.fromWeb(
      request,
      new (globalThis as unknown as Web).Response(Stream.toReadableStream(stream), { status, headers })
    )
  Object.defineProperty(response, "stream", { value: stream, configurable: true })
  for (const form of ["arrayBuffer", "text", "json", "urlParamsBody", "formData"] as const) {
    Object.defineProperty(response, form, { get: () => fromBytes()[form], configurable: true })
  }
}
