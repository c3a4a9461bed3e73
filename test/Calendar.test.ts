/**
 * Windows of a calendar: where they begin and end on odd days, and what a throttle does there.
 *
 * The instants of the tables are facts about the zones, written by hand. A property compares with a model that scans a
 * zone's dates minute by minute.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Option, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import { TestClock } from "effect/testing"
import { estimateOf, fork, settled, startsOf, throttleErrorOf } from "./utils/kit.ts"
import { randomNumbers } from "./utils/random-program.ts"

type Unit = "day" | "week" | "month"

const hour = 3_600_000
const at = (iso: string): number => Date.parse(iso)
const iso = (millis: number): string => new Date(millis).toISOString().replace(":00.000Z", "Z")

const quota = (zone: string, per: Unit, limit = 1) => Throttle.window({ kind: "calendar", limit, per, zone })

/** Sets the clock, and makes a throttle. */
const throttleAt = (instant: string, policy: Throttle.Policy<any>) =>
  Effect.andThen(TestClock.setTime(at(instant)), Throttle.make(policy))

const ask = (throttle: Throttle.Throttle, times: number) =>
  Effect.map(
    Effect.forEach(Array.from({ length: times }), () => throttle.withPermitsIfAvailable(Effect.void, 1)),
    (ran) => ran.filter(Option.isSome).length
  )

/** The end of the window that contains an instant, by how long a second call would wait. */
const endAt = (zone: string, per: Unit, instant: number) =>
  Effect.gen(function*() {
    yield* TestClock.setTime(instant)
    const throttle = yield* Throttle.make(quota(zone, per))
    assert.strictEqual(yield* ask(throttle, 2), 1)
    // Instants of today are nanoseconds that a number rounds.
    return Math.round(instant + (yield* estimateOf(throttle))!)
  })

/** Windows, and the edges at which they begin and end. */
const odd: ReadonlyArray<readonly [what: string, zone: string, per: Unit, begin: string, end: string]> = [
  ["an ordinary day", "America/Los_Angeles", "day", "2026-01-15T08:00Z", "2026-01-16T08:00Z"],
  ["23 hours, forward at 2:00", "America/Los_Angeles", "day", "2026-03-08T08:00Z", "2026-03-09T07:00Z"],
  ["the day after it", "America/Los_Angeles", "day", "2026-03-09T07:00Z", "2026-03-10T07:00Z"],
  ["25 hours, back at 2:00", "America/Los_Angeles", "day", "2026-11-01T07:00Z", "2026-11-02T08:00Z"],
  ["a week of 167 hours", "America/Los_Angeles", "week", "2026-03-02T08:00Z", "2026-03-09T07:00Z"],
  ["a month of 743 hours", "America/Los_Angeles", "month", "2026-03-01T08:00Z", "2026-04-01T07:00Z"],
  ["23 hours, no midnight", "America/Sao_Paulo", "day", "2018-11-04T03:00Z", "2018-11-05T02:00Z"],
  ["the day before it", "America/Sao_Paulo", "day", "2018-11-03T03:00Z", "2018-11-04T03:00Z"],
  ["25 hours, back at midnight", "America/Sao_Paulo", "day", "2019-02-16T02:00Z", "2019-02-17T03:00Z"],
  ["23 hours, no midnight", "Asia/Beirut", "day", "2022-03-26T22:00Z", "2022-03-27T21:00Z"],
  ["25 hours, back at midnight", "Asia/Beirut", "day", "2022-10-28T21:00Z", "2022-10-29T22:00Z"],
  ["23 hours, no midnight", "Africa/Cairo", "day", "2023-04-27T22:00Z", "2023-04-28T21:00Z"],
  ["25 hours, back at midnight", "Africa/Cairo", "day", "2023-10-25T21:00Z", "2023-10-26T22:00Z"],
  ["a month whose last day has 25 hours", "Asia/Beirut", "month", "2022-09-30T21:00Z", "2022-10-31T22:00Z"],
  ["23 hours, no midnight", "Asia/Tehran", "day", "2022-03-21T20:30Z", "2022-03-22T19:30Z"],
  ["23 hours, no midnight", "America/Havana", "day", "2026-03-08T05:00Z", "2026-03-09T04:00Z"],
  ["25 hours, midnight twice", "America/Havana", "day", "2026-11-01T04:00Z", "2026-11-02T05:00Z"],
  ["23 hours, forward at 0:01", "America/St_Johns", "day", "2010-03-14T03:30Z", "2010-03-15T02:30Z"],
  ["the day before back at 0:01", "America/St_Johns", "day", "2010-11-06T02:30Z", "2010-11-07T02:30Z"],
  ["25 hours, back at 0:01", "America/St_Johns", "day", "2010-11-07T02:30Z", "2010-11-08T03:30Z"],
  ["24.5 hours, half an hour back", "Australia/Lord_Howe", "day", "2026-04-04T13:00Z", "2026-04-05T13:30Z"],
  ["23.5 hours, half an hour forward", "Australia/Lord_Howe", "day", "2026-10-03T13:30Z", "2026-10-04T13:00Z"],
  ["22 hours, two forward", "Antarctica/Troll", "day", "2026-03-29T00:00Z", "2026-03-29T22:00Z"],
  ["26 hours, two back", "Antarctica/Troll", "day", "2026-10-24T22:00Z", "2026-10-26T00:00Z"],
  ["another offset at midnight", "Asia/Pyongyang", "day", "2018-05-03T15:30Z", "2018-05-04T15:00Z"],
  ["a month with another offset", "America/Caracas", "month", "2016-05-01T04:30Z", "2016-06-01T04:00Z"],
  ["the day before a skipped one", "Pacific/Apia", "day", "2011-12-29T10:00Z", "2011-12-30T10:00Z"],
  ["the day after a skipped one", "Pacific/Apia", "day", "2011-12-30T10:00Z", "2011-12-31T10:00Z"],
  ["a week of 6 days", "Pacific/Apia", "week", "2011-12-26T10:00Z", "2012-01-01T10:00Z"],
  ["a December of 30 days", "Pacific/Apia", "month", "2011-12-01T10:00Z", "2011-12-31T10:00Z"],
  ["the day before a skipped one", "Pacific/Kwajalein", "day", "1993-08-20T12:00Z", "1993-08-21T12:00Z"],
  ["the day after a skipped one", "Pacific/Kwajalein", "day", "1993-08-21T12:00Z", "1993-08-22T12:00Z"],
  ["the earliest days", "Pacific/Kiritimati", "day", "2025-12-31T10:00Z", "2026-01-01T10:00Z"],
  ["the latest days", "Etc/GMT+12", "day", "2026-01-01T12:00Z", "2026-01-02T12:00Z"],
  ["three quarters of an hour", "Asia/Kathmandu", "day", "2025-12-31T18:15Z", "2026-01-01T18:15Z"],
  ["28 days", "UTC", "month", "2026-02-01T00:00Z", "2026-03-01T00:00Z"],
  ["29 days", "UTC", "month", "2024-02-01T00:00Z", "2024-03-01T00:00Z"],
  ["30 days", "UTC", "month", "2026-04-01T00:00Z", "2026-05-01T00:00Z"],
  ["31 days, and another year", "UTC", "month", "2026-12-01T00:00Z", "2027-01-01T00:00Z"],
  ["29 days, a leap year of 400", "UTC", "month", "2000-02-01T00:00Z", "2000-03-01T00:00Z"],
  ["28 days, no leap year of 100", "UTC", "month", "2100-02-01T00:00Z", "2100-03-01T00:00Z"],
  ["a leap day", "Europe/Berlin", "day", "2024-02-28T23:00Z", "2024-02-29T23:00Z"],
  ["a week over the end of a year", "UTC", "week", "2025-12-29T00:00Z", "2026-01-05T00:00Z"],
  ["the last week of a leap year", "Europe/Berlin", "week", "2024-12-29T23:00Z", "2025-01-05T23:00Z"],
  ["the first days of Unix time", "UTC", "week", "1969-12-29T00:00Z", "1970-01-05T00:00Z"]
]

describe("the edges of a calendar", () => {
  it.effect.each(odd)("%s: %s, %s from %s to %s", ([, zone, per, begin, end]) =>
    Effect.gen(function*() {
      const [from, to] = [at(begin), at(end)]
      for (
        const instant of [from, from + 1, from + hour / 2, from + hour, (from + to) / 2, to - hour, to - 61_000, to - 1]
      ) {
        if (instant >= 0) assert.strictEqual(iso(yield* endAt(zone, per, instant)), end, `from ${iso(instant)} on`)
      }
      // The window before it ends where it begins, and the one after it is another.
      if (from > 0) assert.strictEqual(iso(yield* endAt(zone, per, from - 1)), begin)
      assert.isAbove(yield* endAt(zone, per, to), to)
    }))

  it.effect("the default zone is UTC", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt(
        "2026-05-06T13:00Z",
        Throttle.window({ kind: "calendar", limit: 1, per: "day" })
      )
      yield* throttle.wait()
      assert.strictEqual(yield* estimateOf(throttle), 11 * hour)
    }))

  // The brute-force model.
  const dates = new Map<string, Intl.DateTimeFormat>()
  const dateAt = (zone: string, instant: number): string => {
    let format = dates.get(zone)
    if (format === undefined) {
      format = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" })
      dates.set(zone, format)
    }
    return format.format(instant)
  }
  /** The Monday of a date's week, the first of its month, or the date itself. */
  const unitOf = (date: string, per: Unit): string => {
    if (per === "day") return date
    if (per === "month") return date.slice(0, 7)
    const noon = Date.parse(`${date}T12:00Z`)
    return new Date(noon - (new Date(noon).getUTCDay() + 6) % 7 * 24 * hour).toISOString().slice(0, 10)
  }
  /** The first minute after an instant at which the zone shows a later unit than ever before. */
  const nextUnit = (zone: string, per: Unit, instant: number): number => {
    let latest = ""
    for (let minute = Math.floor(instant / 60_000) * 60_000 - 4 * hour;; minute += 60_000) {
      const unit = unitOf(dateAt(zone, minute), per)
      if (unit > latest) {
        if (minute > instant) return minute
        latest = unit
      }
    }
  }
  const zones = Intl.supportedValuesOf("timeZone")

  it.effect(
    "are those of a model that scans the dates of a random zone minute by minute",
    () =>
      Effect.gen(function*() {
        const next = randomNumbers(2026)
        const from = at("1973-01-01T00:00Z")
        for (let i = 0; i < 200; i++) {
          const zone = zones[Math.floor(next() * zones.length)]!
          // Near a change of the zone's offset, if there is one in the following year.
          let instant = from + Math.floor(next() * (at("2037-01-01T00:00Z") - from))
          const format = new Intl.DateTimeFormat("en", { timeZone: zone, timeZoneName: "longOffset" })
          const offset = (t: number) => format.format(t).split(" ").at(-1)
          let change = instant
          while (change < instant + 366 * 24 * hour && offset(change) === offset(change + 24 * hour)) {
            change += 24 * hour
          }
          if (i % 4 > 0) instant = change + Math.floor((next() * 72 - 24) * hour)
          const per = i % 20 === 0 ? "month" : i % 10 === 0 ? "week" : "day"
          assert.strictEqual(
            iso(yield* endAt(zone, per, instant)),
            iso(nextUnit(zone, per, instant)),
            `${per} in ${zone} at ${iso(instant)}`
          )
        }
      }),
    60_000
  )
})

describe("a window of a calendar", () => {
  it.effect("is full until the last millisecond of the local day, and new at midnight", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-07-01T06:59:59.000Z", quota("America/Los_Angeles", "day", 3))
      yield* TestClock.adjust(500)
      assert.strictEqual(yield* ask(throttle, 5), 3)
      yield* TestClock.setTime(at("2026-07-01T06:59:59.999Z"))
      assert.strictEqual(yield* ask(throttle, 5), 0)
      assert.strictEqual(yield* estimateOf(throttle), 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* ask(throttle, 5), 3)
      assert.strictEqual(yield* estimateOf(throttle), 24 * hour)
    }))

  it.effect("lets waiting calls start at midnight, whatever length its days have", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-03-07T20:00Z", quota("America/Los_Angeles", "day", 2))
      const starts = yield* startsOf(throttle, 7)
      yield* TestClock.adjust(5 * 24 * hour)
      const [first, second, third, fourth] = [
        "2026-03-07T20:00Z",
        "2026-03-08T08:00Z",
        "2026-03-09T07:00Z",
        "2026-03-10T07:00Z"
      ]
      assert.deepStrictEqual(starts.map(iso), [first, first, second, second, third, third, fourth])
    }))

  it.effect("estimates behind a queue across days of 25 and 23 hours", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-10-31T20:00Z", quota("America/Los_Angeles", "day", 2))
      const starts = yield* startsOf(throttle, 7)
      const estimated = at("2026-10-31T20:00Z") + (yield* estimateOf(throttle))!
      assert.strictEqual(iso(estimated), "2026-11-03T08:00Z")
      yield* fork(throttle.withPermit(Effect.map(Clock.currentTimeMillis, (now) => void starts.push(now))))
      yield* TestClock.adjust(5 * 24 * hour)
      assert.strictEqual(iso(starts.at(-1)!), "2026-11-03T08:00Z")
    }))

  it.effect("gives months of 28 to 31 days the same limit, over years", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2023-11-20T12:00Z", quota("Europe/Berlin", "month"))
      const starts = yield* startsOf(throttle, 16)
      yield* TestClock.setTime(at("2026-01-01T00:00Z"))
      assert.deepStrictEqual(starts.slice(1).map((start) => iso(start).slice(0, 13)), [
        "2023-11-30T23",
        "2023-12-31T23",
        "2024-01-31T23",
        "2024-02-29T23",
        "2024-03-31T22",
        "2024-04-30T22",
        "2024-05-31T22",
        "2024-06-30T22",
        "2024-07-31T22",
        "2024-08-31T22",
        "2024-09-30T22",
        "2024-10-31T23",
        "2024-11-30T23",
        "2024-12-31T23",
        "2025-01-31T23"
      ])
    }))

  it.effect("starts limit calls a local day in a loop, over a year with both changes", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-01-01T00:30Z", quota("America/Sao_Paulo", "day", 5))
      const counts = new Map<string, number>()
      const format = new Intl.DateTimeFormat("sv-SE", { timeZone: "America/Sao_Paulo" })
      for (let i = 0; i < 4 * 366; i++) {
        const ran = yield* ask(throttle, 3)
        const date = format.format(yield* Clock.currentTimeMillis)
        counts.set(date, (counts.get(date) ?? 0) + ran)
        yield* TestClock.adjust(6 * hour)
      }
      const [first, ...rest] = [...counts.values()]
      assert.isAtMost(first!, 5)
      assert.deepStrictEqual(rest.slice(0, -1).filter((count) => count !== 5), [])
    }))

  it.effect("of another zone, after an update, ends as planned, and the next one at midnight in the new zone", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-10-25T10:00Z", quota("Europe/Berlin", "day", 2))
      assert.strictEqual(yield* ask(throttle, 3), 2)
      yield* throttle.update(quota("Asia/Tokyo", "day", 2))
      // The open window ends at midnight in Berlin, the next one at midnight in Tokyo, 16 hours later.
      assert.strictEqual(yield* estimateOf(throttle), 13 * hour)
      yield* TestClock.adjust(13 * hour)
      assert.strictEqual(yield* ask(throttle, 3), 2)
      assert.strictEqual(yield* estimateOf(throttle), 16 * hour)
    }))

  it.effect("rejects with the time until midnight", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ kind: "calendar", limit: 1, per: "day", zone: "Asia/Tokyo", maxQueue: 0 })
      const throttle = yield* throttleAt("2026-05-05T09:00Z", policy)
      yield* throttle.withPermit(Effect.void)
      const exit = yield* Effect.exit(throttle.withPermit(Effect.void))
      const { reason, retryAfter } = throttleErrorOf(exit)
      assert.strictEqual(reason._tag, "QueueFull")
      assert.strictEqual(Duration.toMillis(retryAfter!), 6 * hour)
    }))

  it.effect("maxWait compares with the time until midnight", () =>
    Effect.gen(function*() {
      const policy = (maxWait: number) =>
        Throttle.window({ kind: "calendar", limit: 1, per: "day", zone: "Asia/Tokyo", maxWait })
      for (const [maxWait, waits] of [[6 * hour, true], [6 * hour - 1, false]] as const) {
        const throttle = yield* throttleAt("2026-05-05T09:00Z", policy(maxWait))
        yield* throttle.withPermit(Effect.void)
        const call = yield* fork(Effect.exit(throttle.withPermit(Effect.void)))
        yield* settled
        assert.strictEqual(call.pollUnsafe() === undefined, waits)
      }
    }))

  it.effect("settles and cancels within a window, and not into the next", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", quota("UTC", "day", 10))
      yield* throttle.usePermits((permit) => permit.settle(2), 8)
      assert.strictEqual(yield* ask(throttle, 10), 8)
      yield* TestClock.setTime(at("2026-05-06T23:59Z"))
      yield* throttle.usePermits((permit) =>
        Effect.gen(function*() {
          yield* TestClock.adjust(2 * 60_000)
          assert.strictEqual(yield* ask(throttle, 3), 3)
          yield* permit.cancel
        }), 5)
      assert.strictEqual(yield* ask(throttle, 10), 7)
    }))

  it.effect("an update of the limit keeps what is spent, one of the unit or the zone the open window too", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", quota("UTC", "day", 2))
      assert.strictEqual(yield* ask(throttle, 3), 2)
      yield* throttle.update(quota("UTC", "day", 3))
      assert.strictEqual(yield* ask(throttle, 3), 1)
      yield* throttle.update(quota("UTC", "month", 3))
      assert.strictEqual(yield* estimateOf(throttle), 3 * hour)
      yield* TestClock.adjust(3 * hour)
      assert.strictEqual(yield* ask(throttle, 5), 3)
      assert.strictEqual(at("2026-05-06T00:00Z") + (yield* estimateOf(throttle))!, at("2026-06-01T00:00Z"))
    }))

  it.effect("continues no window of another kind", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", quota("UTC", "day", 2))
      assert.strictEqual(yield* ask(throttle, 3), 2)
      yield* throttle.update(Throttle.window({ kind: "fixed", limit: 2, per: "1 day" }))
      assert.strictEqual(yield* ask(throttle, 3), 2)
    }))

  it.effect("waiting calls are decided anew by an update", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", quota("UTC", "day", 2))
      const starts = yield* startsOf(throttle, 4)
      yield* throttle.update(quota("UTC", "day", 3))
      yield* settled
      assert.strictEqual(starts.length, 3)
      yield* TestClock.adjust(3 * hour)
      assert.strictEqual(starts.length, 4)
    }))

  it.effect("interrupts the waiting calls when it closes, and leaves nothing charged for an interrupted one", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(at("2026-05-05T21:00Z"))
      const [exit, left] = yield* Effect.scoped(Effect.gen(function*() {
        const throttle = yield* Throttle.make(quota("UTC", "day", 2))
        yield* throttle.wait(2)
        const interrupted = yield* fork(throttle.wait(2))
        const call = yield* fork(Effect.exit(throttle.wait(1)))
        yield* settled
        interrupted.interruptUnsafe()
        yield* TestClock.adjust(3 * hour)
        assert.isTrue(Exit.isSuccess(call.pollUnsafe()!))
        const last = yield* fork(throttle.wait(2))
        return [last, yield* ask(throttle, 1)] as const
      }))
      yield* settled
      assert.isTrue(Exit.isFailure(exit.pollUnsafe()!))
      assert.strictEqual(left, 0)
    }))

  it.effect("under a pause without an end nothing is estimated, and calls wait", () =>
    Effect.gen(function*() {
      const policy = Throttle.window({ kind: "calendar", limit: 2, per: "day", zone: "Asia/Tokyo", maxQueue: 2 })
      const throttle = yield* throttleAt("2026-05-05T21:00Z", policy)
      yield* throttle.pause("Infinity")
      const starts = yield* startsOf(throttle, 2)
      assert.isUndefined(yield* estimateOf(throttle))
      const { reason } = throttleErrorOf(yield* Effect.exit(throttle.withPermit(Effect.void)))
      assert.strictEqual(reason._tag, "QueueFull")
      yield* TestClock.adjust("3 days")
      assert.deepStrictEqual(starts, [])
      yield* throttle.resume
      yield* settled
      assert.strictEqual(starts.length, 2)
    }))

  it.effect("estimates years ahead", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", quota("UTC", "month", 1))
      yield* startsOf(throttle, 121)
      assert.strictEqual(at("2026-05-05T21:00Z") + (yield* estimateOf(throttle))!, at("2036-06-01T00:00Z"))
    }))

  it.effect("in shadow counts what it would have held back", () =>
    Effect.gen(function*() {
      const throttle = yield* throttleAt("2026-05-05T21:00Z", Throttle.shadow(quota("UTC", "day", 2)))
      yield* Effect.repeat(throttle.withPermit(Effect.void), { times: 4 })
      const before = yield* throttle.statistics
      assert.deepStrictEqual([before.admitted, before.waiting], [2, 3])
      yield* TestClock.adjust(3 * hour)
      const after = yield* throttle.statistics
      assert.deepStrictEqual([after.admitted, after.waiting], [4, 1])
    }))

  it.effect("with a rate in one policy, both decide", () =>
    Effect.gen(function*() {
      const policy = Throttle.all([quota("America/Los_Angeles", "day", 3), Throttle.rate({ limit: 1 })])
      const throttle = yield* throttleAt("2026-07-01T06:59:58Z", policy)
      const starts = yield* startsOf(throttle, 5)
      yield* TestClock.adjust(5_000)
      const seconds = starts.map((start) => (start - at("2026-07-01T07:00Z")) / 1e3)
      assert.deepStrictEqual(seconds, [-2, -1, 0, 1, 2])
    }))

  it.effect("each key of a map has its own, and a key is forgotten when its day is over", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(at("2026-05-05T21:00Z"))
      const map = yield* ThrottleMap.make({
        lookup: (key: string) => quota(key === "tokyo" ? "Asia/Tokyo" : "UTC", "day", 2),
        maxKeys: 2
      })
      const call = (key: string) => map.get(key).withPermitsIfAvailable(Effect.void, 1)
      const ran = yield* Effect.forEach(["utc", "utc", "utc", "tokyo", "tokyo", "tokyo"], call)
      assert.deepStrictEqual(ran.map(Option.isSome), [true, true, false, true, true, false])
      yield* TestClock.adjust(3 * hour + 1_000)
      assert.isTrue(Option.isSome(yield* call("utc")))
      assert.isTrue(Option.isNone(yield* call("tokyo")))
      yield* TestClock.adjust(24 * hour + 2_000)
      const others = yield* Effect.forEach(["berlin", "paris"], call)
      assert.deepStrictEqual(others.map(Option.isSome), [true, true])
      assert.strictEqual((yield* map.statistics).keysEvicted, 0)
    }))

  it.effect("works through the provided service, a Service class and inline", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(at("2026-05-05T21:00Z"))
      const policy = quota("UTC", "day", 1)
      class Daily extends Throttle.Service<Daily>()("Daily", policy) {}
      const provided = Effect.andThen(Throttle.wait(), Throttle.estimateWait()).pipe(Effect.provide(policy))
      const service = Effect.andThen(Daily.wait(), Daily.estimateWait()).pipe(Effect.provide(Daily.layer))
      for (const wait of [yield* provided, yield* service]) {
        assert.strictEqual(Duration.toMillis(Option.getOrThrow(wait)), 3 * hour)
      }
      yield* Effect.void.pipe(policy)
      const call = yield* fork(Effect.void.pipe(policy))
      yield* TestClock.adjust(3 * hour - 1)
      assert.isUndefined(call.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined(call.pollUnsafe())
    }))
})

describe("the wall clock", () => {
  /** A clock whose wall time can be set apart from its monotonic time. */
  const skewed = (start: number) => {
    const time = { millis: 0, skew: start }
    const wall = () => time.millis + time.skew
    const clock: Clock.Clock = {
      currentTimeMillisUnsafe: wall,
      currentTimeMillis: Effect.sync(wall),
      currentTimeNanosUnsafe: () => BigInt(wall()) * 1_000_000n,
      currentTimeNanos: Effect.sync(() => BigInt(wall()) * 1_000_000n),
      monotonicTimeNanosUnsafe: () => BigInt(time.millis) * 1_000_000n,
      monotonicTimeNanos: Effect.sync(() => BigInt(time.millis) * 1_000_000n),
      sleep: () => Effect.never
    }
    return { clock, time }
  }

  const run = (
    start: string,
    steps: (
      throttle: Throttle.Throttle,
      time: { millis: number; skew: number }
    ) => Effect.Effect<void, unknown>,
    policy = quota("America/Los_Angeles", "day", 2)
  ) => {
    const { clock, time } = skewed(at(start))
    return Effect.runSync(
      Effect.scoped(Effect.flatMap(Throttle.make(policy), (throttle) => steps(throttle, time))).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
    )
  }

  it("set forward does not end an open window", () =>
    run("2026-07-01T10:00Z", (throttle, time) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* ask(throttle, 3), 2)
        time.skew += 48 * hour
        assert.strictEqual(yield* ask(throttle, 3), 0)
        // It ends as planned, at what was midnight.
        time.millis += 21 * hour
        assert.strictEqual(yield* ask(throttle, 3), 2)
        assert.strictEqual(yield* estimateOf(throttle), 24 * hour)
      })))

  it("that goes on while the machine sleeps: the open window ends late, the next one at midnight", () =>
    run("2026-07-01T10:00Z", (throttle, time) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* ask(throttle, 3), 2)
        time.skew += 13 * hour
        time.millis += 21 * hour
        assert.strictEqual(yield* ask(throttle, 3), 2)
        assert.strictEqual(yield* estimateOf(throttle), 11 * hour)
      })))

  it("set back an hour does not open the day that is over again", () =>
    run("2026-07-01T10:00Z", (throttle, time) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* ask(throttle, 3), 2)
        time.skew -= hour
        time.millis += 21 * hour
        // The wall clock shows 23:00 of the day whose window is over: this is the window of the next day.
        assert.strictEqual(yield* ask(throttle, 3), 2)
        assert.strictEqual(yield* estimateOf(throttle), 25 * hour)
      })))

  it("set forward an hour on the longest day leaves a window of 23 hours", () =>
    run("2026-11-01T08:00Z", (throttle, time) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* ask(throttle, 3), 2)
        time.skew += hour
        time.millis += 24 * hour
        assert.strictEqual(yield* ask(throttle, 3), 2)
        assert.strictEqual(yield* estimateOf(throttle), 23 * hour)
      })))

  it.each([0, 250_000, 999_000])(
    "shows whole milliseconds: at %d ns behind one a day is over when it shows midnight",
    (part) => {
      let nanos = at("2026-07-01T06:59:59.000Z") * 1e6 + part
      const clock: Clock.Clock = {
        currentTimeMillisUnsafe: () => Math.floor(nanos / 1e6),
        currentTimeMillis: Effect.sync(() => Math.floor(nanos / 1e6)),
        currentTimeNanosUnsafe: () => BigInt(nanos),
        currentTimeNanos: Effect.sync(() => BigInt(nanos)),
        monotonicTimeNanosUnsafe: () => BigInt(nanos - at("2026-07-01T00:00Z") * 1e6),
        monotonicTimeNanos: Effect.sync(() => BigInt(nanos - at("2026-07-01T00:00Z") * 1e6)),
        sleep: () => Effect.never
      }
      const ran = Effect.runSync(
        Effect.scoped(Effect.gen(function*() {
          const throttle = yield* Throttle.make(quota("America/Los_Angeles", "day", 2))
          const before = yield* ask(throttle, 3)
          nanos = at("2026-07-01T06:59:59.999Z") * 1e6
          const last = yield* ask(throttle, 3)
          nanos = at("2026-07-01T07:00:00Z") * 1e6
          return [before, last, yield* ask(throttle, 3)]
        })).pipe(Effect.provideService(Clock.Clock, clock))
      )
      assert.deepStrictEqual(ran, [2, 0, 2])
    }
  )
})

describe("days of UTC", () => {
  it("are fixed windows of a day: random calls with costs, interruptions, bounds, pauses and updates end alike", () => {
    for (let seed = 0; seed < 100; seed++) {
      const random = randomNumbers(seed)
      const int = (from: number, to: number) => from + Math.floor(random() * (to - from + 1))
      const bounds = seed % 3 === 0
        ? { maxQueue: int(0, 4) }
        : seed % 3 === 1
        ? { maxWait: int(1, 60) * hour, timeout: int(1, 60) * hour }
        : {}
      const calls = Array.from({ length: 40 }, () => ({
        at: int(0, 96) * hour + (random() < 0.3 ? int(-1, 1) + hour : 0),
        cost: random() < 0.7 ? 1 : int(1, 3),
        runs: int(0, 3) * hour,
        ...random() < 0.2 ? { interruptAfter: int(1, 40) * hour } : {}
      }))
      const limits = [int(3, 5), int(3, 5)] as const
      const pause = { at: int(10, 60) * hour, pause: int(1, 30) * hour }
      const at = int(10, 80) * hour
      const outcome = (policy: (limit: number) => Throttle.Policy<any>) =>
        Simulation.run(policy(limits[0]), Simulation.list(calls), {
          changes: [pause, { at, update: policy(limits[1]) }]
        }).calls.map(({ outcome, start, wait }) => ({
          outcome,
          start: start && Math.round(start),
          wait: Math.round(wait)
        }))
      assert.deepStrictEqual(
        outcome((limit) => Throttle.window({ kind: "calendar", limit, per: "day", ...bounds })),
        outcome((limit) => Throttle.window({ kind: "fixed", limit, per: "1 day", ...bounds })),
        `seed ${seed}`
      )
    }
  })
})

describe("a window of a calendar as data", () => {
  const data = { _tag: "Window", kind: "calendar", limit: 1_000, per: "day", zone: "America/Los_Angeles" } as const

  it("in words", () => {
    assert.strictEqual(
      Throttle.describe(Throttle.fromData(data)),
      "at most 1000 in each calendar day of America/Los_Angeles"
    )
    assert.strictEqual(
      Throttle.describe(Throttle.window({ kind: "calendar", limit: 5, per: "month", unit: "tokens", maxQueue: 0 })),
      "at most 5 tokens in each calendar month of UTC (never waiting)"
    )
  })

  it.effect("a zone from outside must be known", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Throttle.decode({ ...data, zone: "Mars/Olympus" }))
      assert.instanceOf(error, Schema.SchemaError)
      assert.include(error.message, `Expected the name of a time zone, such as "America/Los_Angeles"`)
    }))

  it.effect.each<readonly [data: object, message: string]>([
    [{ limit: 0, per: "1 minute" }, `Expected an integer ≥ 1\n  at ["limit"]`],
    [{ limit: 1, per: "day" }, `Expected a finite duration > 0\n  at ["per"]`],
    [{ limit: 1, per: 5, kind: "monthly" }, `Expected "sliding" | "fixed"\n  at ["kind"]`],
    [{ limit: 1, per: "1 day", zone: "UTC" }, `Expected no excess property\n  at ["zone"]`],
    [{ limit: 1, per: "year", kind: "calendar" }, `Expected "day" | "week" | "month"\n  at ["per"]`],
    [{ limit: 0, per: "day", kind: "calendar" }, `Expected an integer ≥ 1\n  at ["limit"]`],
    [{ limit: 1, per: "day", kind: "calendar", zon: "UTC" }, `Expected no excess property\n  at ["zon"]`]
  ])("from outside, %j has one error", ([data, message]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Throttle.decode({ _tag: "Window", ...data }))
      assert.strictEqual(error.message, message)
      const nested = yield* Effect.flip(Throttle.decode({ _tag: "All", policies: [{ _tag: "Window", ...data }] }))
      assert.strictEqual(nested.message, message.replace("[", `["policies"][0][`))
    }))

  it("a duration is none of a calendar, and a unit of a calendar is no duration", () => {
    const thrown = (options: object) => {
      try {
        Throttle.window(options as any)
      } catch (error) {
        return String(error)
      }
      return "nothing was thrown"
    }
    assert.strictEqual(
      thrown({ kind: "calendar", limit: 1, per: "1 day" }),
      `RangeError: Throttle.window: "per" must be "day", "week" or "month", received "1 day"`
    )
    assert.strictEqual(
      thrown({ limit: 1, per: "day" }),
      `RangeError: Throttle.window: "per" must be a finite duration > 0, received "day"`
    )
    assert.include(thrown({ limit: 1, per: "1 day", zone: "UTC" }), `unknown option "zone"`)
  })

  it("is simulated", () => {
    const result = Simulation.run(quota("UTC", "day", 2), Simulation.list([0, 0, 0, 0, 0]))
    assert.deepStrictEqual(result.calls.map(({ start }) => start), [0, 0, 24 * hour, 24 * hour, 48 * hour])
    assert.include(Simulation.svg(result), "<svg")
  })
})
