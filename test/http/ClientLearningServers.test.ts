/**
 * A client that learns, against more servers than those of the scenarios: other round trips and numbers at once, a window met at
 * any moment, servers that are shut for minutes, and servers that refuse whatever the rate.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { TestClock } from "effect/testing"
import * as Servers from "../utils/limited-servers.ts"

const origin = "http://a.example"

interface Options {
  readonly atOnce?: number
  readonly roundTrip?: number
  readonly jitter?: number
  readonly retry?: number
}

/** Sends so many requests at once, and returns what became of them. */
const play = (limit: Servers.Limit, requests: number, options: Options = {}) =>
  Effect.gen(function*() {
    const { atOnce = 10, jitter = 0, retry = 3, roundTrip = 50 } = options
    const server = yield* Servers.serve(limit, roundTrip)
    const polite = HttpThrottle.client(Throttle.concurrency({ limit: atOnce }), { jitter, retry })
    const client = polite(server.client)
    const start = yield* Clock.monotonicTimeNanos
    const statuses: Array<number> = []
    let seconds = 0
    const get = (i: number) =>
      Effect.flatMap(client.get(`${origin}/${i}`), ({ status }) =>
        Effect.map(Clock.monotonicTimeNanos, (nanos) => {
          statuses.push(status)
          seconds = Number(nanos - start) / 1e9
        }))
    yield* Effect.forkChild(
      Effect.forEach(Array.from({ length: requests }, (_, i) => i), get, { concurrency: "unbounded" })
    )
    for (let minute = 0; minute < 180 && statuses.length < requests; minute++) yield* TestClock.adjust("1 minute")
    const refused = server.refusals.length
    const figures = {
      done: statuses.length,
      givenUp: statuses.filter((status) => status !== 200).length,
      refused,
      seconds
    }
    return { ...figures, text: JSON.stringify(figures) }
  })

const own = (rate: number, size: number, quota: number, window: number) =>
  Servers.bucket({ rate, size, answer: Servers.draft10(quota, window, true) })

interface More {
  readonly left: number
  /** Seconds until there is one more. */
  readonly more: number
  readonly isRefused: boolean
}

const sliding = (
  limit: number,
  seconds: number,
  answer: (more: More) => Record<string, string>
): Servers.Limit => {
  const log: Array<number> = []
  return (at) => {
    while (log.length > 0 && log[0]! <= at - seconds) log.shift()
    const isRefused = log.length >= limit
    if (!isRefused) log.push(at)
    const more = log.length === 0 ? 0 : log[0]! + seconds - at
    return { isRefused, headers: answer({ left: limit - log.length, more, isRefused }) }
  }
}

const ownSliding = ({ isRefused, left, more }: More): Record<string, string> => ({
  "ratelimit-policy": "\"default\";q=20;w=2",
  ratelimit: `"default";r=${left};t=${Math.max(1, Math.ceil(more))}`,
  ...(isRefused
    ? {
      "retry-after": `${Math.max(1, Math.ceil(more))}`,
      "retry-after-ms": `${Math.max(1, Math.ceil(more * 1_000))}`
    }
    : undefined)
})

const afterASecond = ({ isRefused }: { readonly isRefused: boolean }): Record<string, string> =>
  isRefused ? { "retry-after": "1" } : {}

/** Servers, and how long 150 requests take at best. */
const servers: Readonly<Record<string, { readonly limit: () => Servers.Limit; readonly ideal: number }>> = {
  "this package's middleware, 10 a second without burst": { limit: () => own(10, 1, 10, 1), ideal: 15 },
  "this package's middleware, 100 a second, burst 20": { limit: () => own(100, 21, 100, 1), ideal: 1.3 },
  "this package's middleware, a sliding window of 20 in 2 s": { limit: () => sliding(20, 2, ownSliding), ideal: 13 },
  "a silent sliding window of 30 in 10 s": { limit: () => sliding(30, 10, () => ({})), ideal: 40 },
  "OpenAI, 60 a minute": {
    limit: () => Servers.bucket({ rate: 1, size: 60, answer: Servers.openai(60) }),
    ideal: 90
  },
  "GitHub, 60 a minute": {
    limit: () => Servers.fixedWindow({ limit: 60, seconds: 60, answer: Servers.github(60), status: 403 }),
    ideal: 120
  },
  "Retry-After: 1, 5 a second, burst 10": {
    limit: () => Servers.bucket({ rate: 5, size: 10, answer: afterASecond }),
    ideal: 28
  },
  "silent, 25 a second": { limit: () => Servers.bucket({ rate: 25, size: 25 }), ideal: 5 },
  "silent, one in 5 s": { limit: () => Servers.bucket({ rate: 0.2, size: 1 }), ideal: 745 }
}

describe("whatever the round trip and the number at once, none is given up and little time is lost", () => {
  for (const [name, { ideal, limit }] of Object.entries(servers)) {
    for (const [atOnce, roundTrip] of [[1, 400], [50, 5]] as const) {
      it.effect(`${name}; ${atOnce} at once, ${roundTrip} ms`, () =>
        Effect.gen(function*() {
          const { done, givenUp, seconds, text } = yield* play(limit(), 150, { atOnce, roundTrip, jitter: 0.1 })
          assert.deepStrictEqual([done, givenUp], [150, 0], text)
          assert.isAtMost(seconds, 1.5 * Math.max(ideal, (150 / atOnce) * roundTrip / 1_000) + 10, text)
        }))
    }
  }
})

describe("a window is told from a bucket at whatever moment it is met", () => {
  for (const offset of [0, 40, 58, 59.4, 59.7]) {
    it.effect(`GitHub, 60 a minute, ${offset} s after it began`, () =>
      Effect.gen(function*() {
        const window = Servers.fixedWindow({ limit: 60, seconds: 60, answer: Servers.github(60), status: 403 })
        const { givenUp, refused, seconds, text } = yield* play((at) => window(at + offset), 400)
        assert.strictEqual(givenUp, 0, text)
        assert.isAtMost(refused, 3, text)
        // 400 are seven windows.
        assert.isAtMost(seconds, 60 - offset + 5 * 60 + 12, text)
      }))
  }
})

describe("a server that was shut is sent requests at its rate soon after it has opened", () => {
  for (const minutes of [0.5, 10]) {
    it.effect(`after ${minutes} minutes`, () =>
      Effect.gen(function*() {
        const open = Servers.bucket({ rate: 10, size: 10 })
        const from = minutes * 60
        const named = { "retry-after": `${Math.min(60, from)}` }
        const { done, givenUp, seconds, text } = yield* play(
          (at) => at < from ? { isRefused: true, headers: named } : open(at - from),
          200,
          { retry: 30 }
        )
        assert.deepStrictEqual([done, givenUp], [200, 0], text)
        // 19 s at best.
        assert.isAtMost(seconds - from, 60, text)
      }))
  }
})

/** Pseudo-random numbers from 0 to 1, always the same. */
const random = (seed: number) => () => {
  seed = (seed * 1_664_525 + 1_013_904_223) % 4_294_967_296
  return seed / 4_294_967_296
}

describe("a server that refuses whatever the rate is sent no less than a request in 8 s", () => {
  const refusals: Readonly<Record<string, () => boolean>> = {
    "every second request": (() => {
      let nth = 0
      return () => ++nth % 2 === 0
    })(),
    "a fifth of them at random": (() => {
      const next = random(7)
      return () => next() < 0.2
    })()
  }
  for (const [name, isRefused] of Object.entries(refusals)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const { done, refused, seconds, text } = yield* play(() => ({ isRefused: isRefused() }), 200)
        assert.strictEqual(done, 200, text)
        // And the pauses after refusals, of up to 8 s.
        assert.isAtMost(seconds, 8 * (200 + 2 * refused), text)
      }))
  }
  for (const share of [0.02, 0.05]) {
    it.effect(`${share} of them at random: the rate stays`, () =>
      Effect.gen(function*() {
        const next = random(7)
        const { done, givenUp, seconds, text } = yield* play(() => ({ isRefused: next() < share }), 500)
        assert.deepStrictEqual([done, givenUp], [500, 0], text)
        assert.isAtMost(seconds, 120, text)
      }))
  }
})

describe("two processes behind a load balancer, each at 10 a second, are sent the rates of both", () => {
  for (const size of [1, 21]) {
    it.effect(`with a burst of ${size - 1}`, () =>
      Effect.gen(function*() {
        const next = random(3)
        const both = [0, 1].map(() => own(10, size, size === 1 ? 10 : 30, size === 1 ? 1 : 3))
        const { done, givenUp, seconds, text } = yield* play((at) => both[next() < 0.5 ? 0 : 1]!(at), 400)
        assert.deepStrictEqual([done, givenUp], [400, 0], text)
        // 20 s at best; one process alone would take 40 s.
        assert.isAtMost(seconds, 45, text)
      }))
  }
})
