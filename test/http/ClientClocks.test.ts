/** Servers and clients whose clocks are wrong, or are set: the fields of fresh answers are read all the same. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
const url = "http://a.example/"

/** `off`: how far the server's clock is ahead of the client's, in milliseconds. Nothing is left, and there is more in 20 s. */
const server = (
  offOf: (nth: number) => number | undefined,
  fieldsOf: (nth: number, date: number) => Record<string, string>
) => {
  const times: Array<number> = []
  const client = HttpClient.make((request) =>
    Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      const mono = Number(yield* Clock.monotonicTimeNanos) / 1e6
      const nth = times.push(mono) - 1
      const off = offOf(nth)
      const date = Math.floor((now + (off ?? 0)) / 1_000) * 1_000
      return HttpClientResponse.fromWeb(
        request,
        new Response("", {
          headers: { ...(off === undefined ? {} : { date: new Date(date).toUTCString() }), ...fieldsOf(nth, date) }
        })
      )
    })
  )
  return { client, times }
}

/** Nothing left of 10, until 20 s later by the server's clock. */
const empty = (_: number, date: number) => ({
  "x-ratelimit-limit": "10",
  "x-ratelimit-remaining": "0",
  "x-ratelimit-reset": `${date / 1_000 + 20}`
})

describe("clocks that are right", () => {
  it.effect("the answers are read", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const { client, times } = server(() => 0, (nth, date) => nth < 3 ? {} : empty(nth, date))
      const polite = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false })(client)
      for (let i = 0; i < 4; i++) {
        yield* polite.get(url)
        yield* TestClock.adjust("2 seconds")
      }
      yield* fork(polite.get(url))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 4)
    }))
})

describe("a server whose clock is five minutes slow", () => {
  it.effect("is read from its second answer on", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const { client, times } = server(() => -300_000, empty)
      const polite = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false })(client)
      yield* polite.get(url)
      yield* TestClock.adjust("5 seconds")
      yield* polite.get(url)
      // It has said twice that nothing is left until 20 s later.
      yield* fork(polite.get(url))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 2)
    }))
})

describe("a server whose clock was wrong, and is set right", () => {
  it.effect("is read all the same", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      // Five minutes fast in its first answers
      const { client, times } = server((nth) => nth < 3 ? 300_000 : 0, (nth, date) => nth < 10 ? {} : empty(nth, date))
      const polite = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false })(client)
      for (let i = 0; i < 11; i++) {
        yield* polite.get(url)
        yield* TestClock.adjust("2 seconds")
      }
      yield* fork(polite.get(url))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 11)
    }))

  it.effect("one single answer with a wrong Date does not make the others old", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const { client, times } = server(
        (nth) => nth === 0 ? 3_600_000 : 0,
        (nth, date) => nth < 3 ? {} : empty(nth, date)
      )
      const polite = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false })(client)
      for (let i = 0; i < 4; i++) {
        yield* polite.get(url)
        yield* TestClock.adjust("2 seconds")
      }
      yield* fork(polite.get(url))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(times.length, 4)
    }))
})

describe("the client's clock is set forward by five minutes", () => {
  it.effect("and the answers are read all the same", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const clock = { step: 0 }
      const base = yield* Clock.Clock
      const stepped: Clock.Clock = {
        ...base,
        sleep: base.sleep.bind(base),
        monotonicTimeNanosUnsafe: () => base.monotonicTimeNanosUnsafe(),
        currentTimeMillisUnsafe: () => base.currentTimeMillisUnsafe() + clock.step,
        currentTimeMillis: Effect.sync(() => base.currentTimeMillisUnsafe() + clock.step)
      } as any
      // The server is right: by the clock before the step, which was five minutes slow.
      const { client, times } = server(() => -clock.step, (nth, date) => nth < 4 ? {} : empty(nth, date))
      const polite = HttpThrottle.client(Throttle.none, { jitter: 0, adapt: false })(client)
      yield* Effect.gen(function*() {
        for (let i = 0; i < 3; i++) {
          yield* polite.get(url)
          yield* TestClock.adjust("2 seconds")
        }
        clock.step = 300_000
        for (let i = 0; i < 2; i++) {
          yield* polite.get(url)
          yield* TestClock.adjust("2 seconds")
        }
        yield* fork(polite.get(url))
        yield* TestClock.adjust("1 second")
      }).pipe(Effect.provideService(Clock.Clock, stepped))
      assert.strictEqual(times.length, 5)
    }))
})
