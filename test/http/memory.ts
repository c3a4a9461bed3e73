/**
 * A server in memory: answers by a script, on whatever clock there is, and remembers what it was sent.
 */
import { Clock, Effect, Stream } from "effect"
import { HttpClient, HttpClientError, type HttpClientRequest, HttpClientResponse } from "effect/http"

export interface Answer {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body?: string
  /** Milliseconds until the head of the answer is there. */
  readonly takes?: number
}

export interface Seen {
  /** Milliseconds on the monotonic clock. */
  readonly at: number
  readonly method: string
  readonly url: string
  readonly status: number
}

export const ok: Answer = { status: 200 }

export const tooMany = (retryAfter?: number | string): Answer => ({
  status: 429,
  body: "too many",
  ...(retryAfter === undefined ? undefined : { headers: { "retry-after": String(retryAfter) } })
})

export const unavailable = (retryAfter?: number | string): Answer => ({ ...tooMany(retryAfter), status: 503 })

/** Answers in turn, and by the last one from then on; or as a function of the request and its number. */
export const make = (
  script: ReadonlyArray<Answer> | ((request: HttpClientRequest.HttpClientRequest, nth: number) => Answer)
) => {
  const seen: Array<Seen> = []
  const inside = { now: 0, most: 0 }
  const answerTo = (request: HttpClientRequest.HttpClientRequest, nth: number): Answer =>
    typeof script === "function" ? script(request, nth) : script[Math.min(nth, script.length - 1)]!
  const client = HttpClient.make((request, url) =>
    Effect.suspend(() => {
      const { body = "fine", headers = {}, status, takes = 0 } = answerTo(request, seen.length)
      inside.most = Math.max(inside.most, ++inside.now)
      return Clock.monotonicTimeNanos.pipe(
        Effect.map((nanos) =>
          seen.push({ at: Math.round(Number(nanos) / 1e3) / 1e3, method: request.method, url: url.href, status })
        ),
        Effect.andThen(takes > 0 ? Effect.sleep(takes) : Effect.void),
        Effect.map(() => HttpClientResponse.fromWeb(request, new Response(body, { status, headers }))),
        Effect.ensuring(Effect.sync(() => inside.now--))
      )
    })
  )
  return { client, seen, inside, times: () => seen.map(({ at }) => at) }
}

/** Answers at once, as a function of the time. */
export const clocked = (answerAt: (millis: number) => Answer, at: Effect.Effect<number>) =>
  HttpClient.make((request) =>
    Effect.map(at, (millis) => {
      const { headers = {}, status } = answerAt(millis)
      return HttpClientResponse.fromWeb(request, new Response("", { status, headers }))
    })
  )

/** An answer whose body is there in so many milliseconds, for simulations, which have no promises. */
export const atOnce = (
  request: HttpClientRequest.HttpClientRequest,
  { headers = {}, status }: Answer,
  bodyTakes = 0
): HttpClientResponse.HttpClientResponse => {
  const body = Stream.succeed(new Uint8Array(1))
  return Object.defineProperty(
    HttpClientResponse.fromWeb(request, new Response(null, { status, headers })),
    "stream",
    {
      value: bodyTakes > 0 ? Stream.fromEffect(Effect.delay(Stream.runHead(body), bodyTakes)) : body,
      configurable: true
    }
  )
}

/** The client as an error of every status that is none of success. */
export const isStatusError = (error: unknown): error is HttpClientError.HttpClientError =>
  HttpClientError.isHttpClientError(error) && error.reason._tag === "StatusCodeError"
