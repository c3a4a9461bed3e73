/**
 * Servers in memory that limit requests as real ones do, each in its own dialect, on whatever clock there is. An answer takes
 * a round trip, of which the server decides in the middle.
 */
import { Clock, Effect } from "effect"
import { HttpClient, type HttpClientResponse } from "effect/http"
import { atOnce } from "../http/memory.ts"

export interface Answer {
  readonly isRefused: boolean
  readonly headers?: Record<string, string>
  /** Of a refusal. Default: 429. */
  readonly status?: number
}

/** Decides about a request that arrives, in seconds since the start. */
export type Limit = (at: number) => Answer

export interface Log {
  /** Milliseconds since the start at which requests were sent, in that order. */
  readonly starts: Array<number>
  /** Milliseconds since the start at which requests were refused by the server. */
  readonly refusals: Array<number>
  /** Refused requests that were sent before any refusal was heard: these nothing can avoid. */
  readonly firstFlight: () => number
}

/** A client of a server with this limit. */
export const serve = (limit: Limit, roundTrip = 50): Effect.Effect<{ readonly client: HttpClient.HttpClient } & Log> =>
  Effect.map(Clock.monotonicTimeNanos, (start) => {
    const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos - start) / 1e6)
    const starts: Array<number> = []
    const refusals: Array<number> = []
    const refusedStarts: Array<number> = []
    let firstHeard = Infinity
    const client = HttpClient.make((request) =>
      Effect.gen(function*() {
        const sent = yield* now
        starts.push(sent)
        yield* Effect.sleep(roundTrip / 2)
        const at = yield* now
        const { headers = {}, isRefused, status = 429 } = limit(at / 1_000)
        if (isRefused) {
          refusals.push(at)
          refusedStarts.push(sent)
          firstHeard = Math.min(firstHeard, at + roundTrip / 2)
        }
        yield* Effect.sleep(roundTrip / 2)
        return atOnce(request, { status: isRefused ? status : 200, headers }) as HttpClientResponse.HttpClientResponse
      })
    )
    return {
      client,
      starts,
      refusals,
      firstFlight: () => refusedStarts.filter((sent) => sent < firstHeard).length
    }
  })

/** Less than this beside a whole number is the noise of a fraction. */
const grain = 1e-9

interface Level {
  readonly isRefused: boolean
  /** Tokens left, with fractions. */
  readonly left: number
  /** Tokens a second, now. */
  readonly rate: number
}

/** A bucket that holds so many, refills continuously, and is full at first. */
export const bucket = (options: {
  readonly rate: number | ((at: number) => number)
  readonly size: number
  readonly answer?: (level: Level) => Record<string, string>
}): Limit => {
  const { answer = () => ({}), rate, size } = options
  const rateAt = typeof rate === "number" ? () => rate : rate
  let left = size
  let last = 0
  return (at) => {
    const rate = rateAt(at)
    left = Math.min(size, left + (at - last) * rate)
    last = at
    const isRefused = left < 1 - grain
    if (!isRefused) left--
    return { isRefused, headers: answer({ isRefused, left, rate }) }
  }
}

/** So many in each window of the clock. */
export const fixedWindow = (options: {
  readonly limit: number
  readonly seconds: number
  readonly answer: (level: { readonly left: number; readonly ends: number }) => Record<string, string>
  readonly status?: number
}): Limit => {
  const { answer, limit, seconds, status = 429 } = options
  let current = -1
  let used = 0
  return (at) => {
    const index = Math.floor(at / seconds)
    if (index > current) {
      current = index
      used = 0
    }
    const isRefused = used >= limit
    if (!isRefused) used++
    return { isRefused, status, headers: answer({ left: limit - used, ends: (index + 1) * seconds - at }) }
  }
}

const whole = (left: number): number => Math.max(0, Math.floor(left + grain))

/** `RateLimit` and `RateLimit-Policy` of draft 10, `Retry-After` in whole seconds, and if wished in milliseconds beside. */
export const draft10 = (quota: number, window: number, withMillis = false) => ({ isRefused, left, rate }: Level) => {
  const more = (1 - (left - whole(left))) / rate
  const until = (1 - left) / rate
  return {
    "ratelimit-policy": `"default";q=${quota};w=${window}`,
    ratelimit: `"default";r=${whole(left)};t=${Math.max(1, Math.ceil(more - grain))}`,
    ...(isRefused ? { "retry-after": `${Math.max(1, Math.ceil(until - grain))}` } : undefined),
    ...(isRefused && withMillis ? { "retry-after-ms": `${Math.max(1, Math.ceil(until * 1_000 - grain))}` } : undefined)
  }
}

/** `X-Shopify-Shop-Api-Call-Limit`, and `Retry-After: 2.0`. */
export const shopify = (size: number) => ({ isRefused, left }: Level) => ({
  "x-shopify-shop-api-call-limit": `${size - whole(left)}/${size}`,
  ...(isRefused ? { "retry-after": "2.0" } : undefined)
})

/** Limit, remaining and a reset that says when all is there again, as a span. */
export const openai = (size: number) => ({ left, rate }: Level) => ({
  "x-ratelimit-limit-requests": `${size}`,
  "x-ratelimit-remaining-requests": `${whole(left)}`,
  "x-ratelimit-reset-requests": `${Math.max(1, Math.ceil((size - left) / rate * 1_000))}ms`
})

/** Limit, remaining and seconds left, whole ones. */
export const github = (limit: number) => ({ ends, left }: { readonly left: number; readonly ends: number }) => ({
  "x-ratelimit-limit": `${limit}`,
  "x-ratelimit-remaining": `${left}`,
  "x-ratelimit-reset": `${Math.ceil(ends - grain)}`
})
