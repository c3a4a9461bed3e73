/**
 * A client that learns a server's limit, against servers of all kinds on a TestClock: how many requests are sent, refused and
 * given up, and how long it all takes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { TestClock } from "effect/testing"
import * as Servers from "../utils/limited-servers.ts"

/** So many requests at once, or at these instants, in milliseconds. */
type Workload = number | ReadonlyArray<number>

const every = (perSecond: number, seconds: number): Workload =>
  Array.from({ length: perSecond * seconds }, (_, i) => i * 1_000 / perSecond)

export const play = (
  limit: Servers.Limit,
  workload: Workload,
  options: { readonly atOnce?: number; readonly adapt?: boolean; readonly roundTrip?: number } = {}
) =>
  Effect.gen(function*() {
    const { adapt = true, atOnce = 10, roundTrip = 50 } = options
    const server = yield* Servers.serve(limit, roundTrip)
    const client = HttpThrottle.client(Throttle.concurrency({ limit: atOnce }), { jitter: 0, adapt })(server.client)
    const start = yield* Clock.monotonicTimeNanos
    const statuses: Array<number> = []
    let end = 0
    const get = (i: number) =>
      Effect.flatMap(client.get(`http://a.example/${i}`), ({ status }) =>
        Effect.map(Clock.monotonicTimeNanos, (nanos) => {
          statuses.push(status)
          end = Number(nanos - start) / 1e9
        }))
    const instants = typeof workload === "number"
      ? Array.from({ length: workload }, () =>
        0)
      : workload
    const all = yield* Effect.forkChild(
      Effect.forEach(instants, (at, i) =>
        at === 0 ? get(i) : Effect.delay(get(i), at), { concurrency: "unbounded" })
    )
    yield* TestClock.adjust("10 minutes")
    yield* Fiber.join(all)
    return {
      sent: server.starts.length,
      refused: server.refusals.length,
      firstFlight: server.firstFlight(),
      givenUp: statuses.filter((status) => status !== 200).length,
      seconds: end,
      starts: server.starts
    }
  })

interface Scenario {
  readonly limit: () => Servers.Limit
  readonly workload: Workload
  readonly atOnce?: number
  readonly mostRefused: number
  readonly mostSeconds: number
}

const own = (rate: number, size: number, quota: number, window: number, withMillis = false) => () =>
  Servers.bucket({ rate, size, answer: Servers.draft10(quota, window, withMillis) })

const scenarios: Record<string, Scenario> = {
  "1. own middleware, 10/s without burst": {
    limit: own(10, 1, 10, 1),
    workload: 60,
    atOnce: 8,
    mostRefused: 10,
    mostSeconds: 9
  },
  "1. with Retry-After-Ms": {
    limit: own(10, 1, 10, 1, true),
    workload: 60,
    atOnce: 8,
    mostRefused: 10,
    mostSeconds: 6.6
  },
  "2. own middleware, 2/s with a burst of 39": {
    limit: own(2, 40, 40, 20),
    workload: 120,
    mostRefused: 3,
    mostSeconds: 42
  },
  "3. Shopify, 40 at 2/s": {
    limit: () => Servers.bucket({ rate: 2, size: 40, answer: Servers.shopify(40) }),
    workload: 200,
    mostRefused: 2,
    mostSeconds: 83
  },
  "4. OpenAI, 60 a minute": {
    limit: () => Servers.bucket({ rate: 1, size: 60, answer: Servers.openai(60) }),
    workload: 200,
    mostRefused: 3,
    mostSeconds: 144
  },
  "5. GitHub, 60 a minute": {
    limit: () => Servers.fixedWindow({ limit: 60, seconds: 60, answer: Servers.github(60), status: 403 }),
    workload: 200,
    mostRefused: 2,
    mostSeconds: 185
  },
  "6. Retry-After: 1, 5/s with a burst of 10": {
    limit: () =>
      Servers.bucket({
        rate: 5,
        size: 10,
        answer: ({ isRefused }): Record<string, string> => isRefused ? { "retry-after": "1" } : {}
      }),
    workload: 200,
    mostRefused: 28,
    mostSeconds: 41
  },
  "7. silent, 25/s with a burst of 25": {
    limit: () => Servers.bucket({ rate: 25, size: 25 }),
    workload: 1_000,
    mostRefused: 40,
    mostSeconds: 42
  },
  "8. silent, 10/s, from 30 s on 2/s, from 60 s on 20/s": {
    limit: () => Servers.bucket({ rate: (at) => at < 30 ? 10 : at < 60 ? 2 : 20, size: 10 }),
    workload: 900,
    mostRefused: 45,
    mostSeconds: 115
  },
  "9. refuses everything from 2 s to 32 s": {
    limit: () => (at) => ({ isRefused: at >= 2 && at < 32 }),
    workload: every(20, 60),
    mostRefused: 15,
    mostSeconds: 62
  }
}

describe("a server's limit is learned: none given up, few refused, no time lost", () => {
  for (const [name, { atOnce = 10, limit, mostRefused, mostSeconds, workload }] of Object.entries(scenarios)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const { givenUp, refused, seconds, firstFlight, sent } = yield* play(limit(), workload, { atOnce })
        const figures = `${sent}/${refused} (${firstFlight}), ${seconds} s`
        if (process.env["FIGURES"]) process.stderr.write(`${name}: ${figures}\n`)
        assert.strictEqual(givenUp, 0, figures)
        assert.isAtMost(refused, mostRefused, figures)
        assert.isAtMost(seconds, mostSeconds, figures)
      }), 60_000)
  }

  it.effect("10. no limit: starts are what they are without adaptation", () =>
    Effect.gen(function*() {
      const limit: Servers.Limit = () => ({ isRefused: false })
      const learning = yield* play(limit, 1_000)
      const plain = yield* play(limit, 1_000, { adapt: false })
      assert.deepStrictEqual(learning.starts, plain.starts)
      assert.deepStrictEqual([learning.refused, learning.seconds], [0, 5])
    }))
})
