/**
 * The meters as tables and laws: a row is a call at an instant (milliseconds), its cost, and when it may start. They are pure, so
 * no clock is needed, and no Effect.
 */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { fixed } from "../src/internal/part/fixed.ts"
import type { Layers } from "../src/internal/part/layers.ts"
import { boundary, estimateReadyAt, type Meter, type Wall } from "../src/internal/part/meter.ts"
import { rate } from "../src/internal/part/rate.ts"
import { sliding } from "../src/internal/part/sliding.ts"
import { spacing } from "../src/internal/part/spacing.ts"

const ms = 1e6

interface Row {
  readonly at: number
  readonly cost?: number
  /** When it may start; it is charged then. */
  readonly due: number
  /** What the wall clock shows at `at`, if not the same. */
  readonly wall?: number
  /** When it is charged, if not when due. */
  readonly charged?: number
}

/** To take is to be due now and to be charged now. */
const takes = <S>(meter: Meter<S, any>, state: S, now: number, cost: number, wall: Wall) =>
  assert.deepStrictEqual(
    meter.tryCharge(state, now, cost, wall),
    meter.readyAt(state, now, cost, wall) > now ? undefined : meter.charge(state, now, cost, wall)
  )

/** What is left may start at once, and no more. With a microsecond of noise, as everywhere: levels are sums of fractions. */
const leaves = <S>(meter: Meter<S, any>, state: S, now: number, wall: Wall) => {
  const noise = 1_000
  const left = meter.remaining(state, now, wall)
  const most = meter.capacity === Infinity ? 1 : meter.capacity
  assert.isTrue(left >= 0 && left <= most, `${left} are left`)
  if (left > 0) assert.isAtMost(meter.readyAt(state, now, left, wall), now + noise)
  if (left < most) assert.isAbove(meter.readyAt(state, now - noise, left + 1, wall), now - noise)
}

const check = <S>(meter: Meter<S, any>, rows: ReadonlyArray<Row>) => {
  let state = meter.initial
  for (const [i, row] of rows.entries()) {
    const offset = (row.wall ?? row.at) - row.at
    const wall = (at: number) => at / ms + offset
    const due = meter.readyAt(state, row.at * ms, row.cost ?? 1, wall)
    assert.closeTo(due / ms, row.due, 1e-4, `row ${i}`)
    // Asking changes nothing.
    assert.strictEqual(meter.readyAt(state, row.at * ms, row.cost ?? 1, wall), due)
    takes(meter, state, row.at * ms, row.cost ?? 1, wall)
    leaves(meter, state, row.at * ms, wall)
    state = meter.charge(state, row.charged === undefined ? due : row.charged * ms, row.cost ?? 1, wall)
  }
}

describe("rate", () => {
  it("paces by the interval from an empty bucket", () =>
    check(rate({ kind: "rate", interval: 200 * ms, capacity: 1 }), [
      { at: 0, due: 0 },
      { at: 0, due: 200 },
      { at: 250, due: 400 },
      { at: 1_000, due: 1_000 },
      { at: 1_000, due: 1_200 }
    ]))

  it("lets the capacity start at once, and wins it back by unused time alone", () =>
    check(rate({ kind: "rate", interval: 200 * ms, capacity: 4 }), [
      { at: 0, due: 0 },
      { at: 0, due: 0 },
      { at: 0, due: 0 },
      { at: 0, due: 0 },
      { at: 0, due: 200 },
      { at: 650, due: 650 },
      { at: 650, due: 650 },
      { at: 650, due: 800 }
    ]))

  it("spends what a call costs", () =>
    check(rate({ kind: "rate", interval: 100 * ms, capacity: 10 }), [
      { at: 0, cost: 4, due: 0 },
      { at: 1, cost: 6, due: 1 },
      { at: 2, cost: 5, due: 500 },
      { at: 500, cost: 10, due: 1_500 }
    ]))

  it("does not drift after a year of uptime, where a number of nanoseconds has a grain of 4", () => {
    const meter = rate({ kind: "rate", interval: 1e9 / 3_000_001, capacity: 1 })
    const year = 365 * 24 * 3_600 * 1e9
    let state = meter.initial
    let at = year
    const calls = 3_000_001
    for (let i = 0; i <= calls; i++) {
      at = meter.readyAt(state, at, 1, () => 0)
      state = meter.charge(state, at, 1, () => 0)
    }
    assert.closeTo(at - year, 1e9, 1e3)
  })
})

describe("sliding window", () => {
  const meter = sliding({ kind: "sliding", limit: 3, per: 1_000 * ms })

  it("frees a permit exactly one window after it was taken", () =>
    check(meter, [
      { at: 0, due: 0 },
      { at: 400, due: 400 },
      { at: 800, due: 800 },
      { at: 900, due: 1_000 },
      { at: 1_000, due: 1_400 },
      { at: 1_400, due: 1_800 },
      { at: 9_000, due: 9_000 }
    ]))

  it("waits for as many starts to leave as a weighted call needs", () =>
    check(meter, [
      { at: 0, due: 0 },
      { at: 100, due: 100 },
      { at: 200, cost: 2, due: 1_000 },
      { at: 1_000, cost: 3, due: 2_000 }
    ]))

  it("counts starts at the instant they were charged", () =>
    check(meter, [
      { at: 0, cost: 3, due: 0, charged: 30 },
      { at: 100, due: 1_030 }
    ]))
})

describe("fixed window", () => {
  const meter = fixed({ kind: "fixed", limit: 2, per: 1_000 * ms })

  it("counts in the windows of the wall clock", () =>
    check(meter, [
      { at: 0, wall: 300_700, due: 0 },
      { at: 10, wall: 300_710, due: 10 },
      { at: 20, wall: 300_720, due: 300 },
      { at: 300, wall: 301_000, due: 300 },
      { at: 310, wall: 301_010, due: 1_300 }
    ]))

  it("does not move a window's end when the wall clock is set back or forth in the middle", () =>
    check(meter, [
      { at: 0, wall: 0, due: 0 },
      { at: 100, wall: -9_900, due: 100 },
      { at: 200, wall: 90_000, due: 1_000 }
    ]))

  it("opens no extra window when the wall clock lags behind the boundary that just passed", () =>
    check(meter, [
      { at: 500, cost: 2, due: 500 },
      // 1 ms slow: the wall clock shows 999 at the end of the window.
      { at: 1_000, wall: 999, cost: 2, due: 1_000 },
      { at: 1_002, wall: 1_001, due: 2_001 }
    ]))
})

describe("spacing", () => {
  it("keeps the interval from charge to charge, whatever the cost", () =>
    check(spacing({ kind: "spacing", interval: 500 * ms, align: false, fromEnd: false }), [
      { at: 0, due: 0 },
      { at: 0, cost: 7, due: 500, charged: 512 },
      { at: 600, due: 1_012 }
    ]))

  it("aligned, is due on multiples of the interval, the first too", () =>
    check(spacing({ kind: "spacing", interval: 500 * ms, align: true, fromEnd: false }), [
      { at: 130, due: 500 },
      { at: 500, due: 1_000 },
      { at: 2_001, due: 2_500 },
      { at: 3_000, due: 3_000 }
    ]))

  it("aligned, follows the wall clock", () =>
    check(spacing({ kind: "spacing", interval: 60_000 * ms, align: true, fromEnd: false }), [
      { at: 5, wall: 90_000, due: 30_005 }
    ]))

  it("aligned, keeps the interval from an end, however close to a slot that came", () =>
    check(spacing({ kind: "spacing", interval: 1_000 * ms, align: true, fromEnd: true }), [
      { at: 0, due: 0, charged: 1_001.5 },
      { at: 1_002, due: 3_000 }
    ]))

  it("aligned, keeps the interval when the wall clock is set forward", () =>
    check(spacing({ kind: "spacing", interval: 1_000 * ms, align: true, fromEnd: false }), [
      { at: 0, wall: 0, due: 0 },
      // 300 ms ahead now: the next multiple would come after 700 ms, too soon.
      { at: 10, wall: 310, due: 1_700 }
    ]))
})

describe("boundary", () => {
  it.each([
    [0, 0, 0],
    [1, 1, 1_000],
    [999.5, 999.5, 1_000],
    [0, 1_700_000_000_000, 0],
    [0, 1_700_000_000_001, 999],
    [77, -400, 477]
  ])("from %d ms with the wall at %d: %d", (from, wall, expected) => {
    const at = boundary(from * ms, 1_000 * ms, () => wall)
    assert.closeTo(at / ms, expected, 1e-3)
  })
})

describe("estimateReadyAt", () => {
  const cases: ReadonlyArray<readonly [string, Meter<any, any>]> = [
    ["rate", rate({ kind: "rate", interval: 100 * ms, capacity: 7 })],
    ["sliding window", sliding({ kind: "sliding", limit: 7, per: 1_000 * ms })],
    ["fixed window", fixed({ kind: "fixed", limit: 7, per: 1_000 * ms })],
    ["spacing", spacing({ kind: "spacing", interval: 300 * ms, align: false, fromEnd: false })],
    ["spacing, aligned", spacing({ kind: "spacing", interval: 300 * ms, align: true, fromEnd: false })]
  ]
  const wall = (at: number) => at / ms + 123

  for (const [name, meter] of cases) {
    it(`${name}: equals the result of starting the calls ahead one by one`, () => {
      let seed = 1
      const random = (n: number) => {
        seed = (seed * 48_271) % 2_147_483_647
        return seed % n
      }
      for (let round = 0; round < 500; round++) {
        const heaviest = round % 2 === 0 ? 1 : 7
        let state = meter.initial
        let at = 0
        for (let i = random(20); i > 0; i--) {
          const cost = 1 + random(heaviest)
          takes(meter, state, at + random(200) * ms, cost, wall)
          leaves(meter, state, at + random(200) * ms, wall)
          at = meter.readyAt(state, at + random(200) * ms, cost, wall)
          state = meter.charge(state, at, cost, wall)
        }
        const from = at + random(300) * ms
        const costs = Array.from({ length: random(30) }, () => 1 + random(heaviest))
        const cost = 1 + random(heaviest)
        let expected = from
        let virtual = state
        for (const next of costs) {
          expected = meter.readyAt(virtual, expected, next, wall)
          virtual = meter.charge(virtual, expected, next, wall)
        }
        expected = meter.readyAt(virtual, expected, cost, wall)
        const ahead = { calls: costs.length, total: costs.reduce((a, b) => a + b, 0), costs }
        assert.closeTo(
          estimateReadyAt(meter, state, from, cost, ahead, wall)! / ms,
          expected / ms,
          1e-3,
          `round ${round}`
        )
      }
    })
  }
})

/** The state after `cost` started at `at`, and the ticket by which it may be refunded. */
const open = <S, T>(meter: Meter<S, T>, before: S, at: number, cost: number): readonly [S, T] => {
  const { state, ticket } = meter.open(meter.charge(before, at * ms, cost, unixTime), before)
  return [state, ticket]
}

/** The state after a call has cost `more`, or less, than it was charged: as the limiter settles it. */
const settle = <S, T>(meter: Meter<S, T>, state: S, ticket: T, now: number, more: number): S =>
  more > 0
    ? meter.charge(state, now, more, unixTime)
    : more < 0
    ? meter.refund(state, ticket, now, -more)
    : state

const unixTime: Wall = (at) => at / ms

describe("settling", () => {
  const kinds: ReadonlyArray<readonly [string, Meter<any, any>]> = [
    ["rate", rate({ kind: "rate", interval: 100 * ms, capacity: 10 })],
    ["sliding window", sliding({ kind: "sliding", limit: 10, per: 1_000 * ms })],
    ["fixed window", fixed({ kind: "fixed", limit: 10, per: 1_000 * ms })]
  ]

  /** When 1, 5 and 10 may start, asked at `at`. */
  const dues = <S>(meter: Meter<S, any>, state: S, at: number) =>
    [1, 5, 10].map((cost) => Math.round(meter.readyAt(state, at * ms, cost, unixTime) / ms))

  it.each([
    ["rate", [300, 300, 300]],
    // 2 stay in the window until it is over.
    ["sliding window", [300, 300, 1_000]],
    ["fixed window", [300, 300, 1_000]]
  ])("%s: less than it was charged", (name, expected) => {
    const [, meter] = kinds.find(([kind]) => kind === name)!
    const [state, ticket] = open(meter, meter.initial, 0, 10)
    assert.deepStrictEqual(dues(meter, settle(meter, state, ticket, 300 * ms, -8), 300), expected)
  })

  it.each([
    ["rate", [700, 1_100, 1_600]],
    ["sliding window", [1_000, 1_300, 1_300]],
    ["fixed window", [1_000, 1_000, 1_000]]
  ])("%s: more than it was charged is charged now, above the capacity too", (name, expected) => {
    const [, meter] = kinds.find(([kind]) => kind === name)!
    const [state, ticket] = open(meter, meter.initial, 0, 10)
    assert.deepStrictEqual(dues(meter, settle(meter, state, ticket, 300 * ms, 6), 300), expected)
  })

  it.each(kinds)("%s: a refund does not return what has expired", (_, meter) => {
    const [first, ticket] = open(meter, meter.initial, 0, 10)
    const state = meter.charge(first, 1_000 * ms, 10, unixTime)
    const settled = settle(meter, state, ticket, 1_000 * ms, -10)
    assert.deepStrictEqual(dues(meter, settled, 1_000), dues(meter, state, 1_000))
  })

  it("rate: only as much comes back as would still be there", () => {
    const [, meter] = kinds[0]!
    const [first, ticket] = open(meter, meter.initial, 0, 5)
    // 2 of the 5 are left when the next comes: without them the bucket would have been empty, not below.
    const state = meter.charge(first, 300 * ms, 8, unixTime)
    assert.deepStrictEqual(dues(meter, settle(meter, state, ticket, 300 * ms, -5), 300), [300, 600, 1_100])
  })

  it("rate: a refund does not include what was charged in between", () => {
    const meter = rate({ kind: "rate", interval: 100 * ms, capacity: 20 })
    const [first, large] = open(meter, meter.initial, 0, 10)
    const [second, small] = open(meter, first, 0, 1)
    // At 1,050 the bucket of these two would be down to half a permit; without the large one it had long been empty.
    const debt = settle(meter, second, small, 1_050 * ms, 10)
    const settled = settle(meter, debt, large, 1_050 * ms, -10)
    const alone = meter.charge(meter.charge(meter.initial, 0, 1, unixTime), 1_050 * ms, 10, unixTime)
    assert.closeTo(
      meter.readyAt(settled, 1_050 * ms, 20, unixTime) / ms,
      meter.readyAt(alone, 1_050 * ms, 20, unixTime) / ms,
      1e-3
    )
  })

  it.each(kinds)("%s: open or not, it counts the same", (_, meter) => {
    const opened = meter.open(meter.initial, meter.initial)
    let { state } = opened
    let plain = meter.initial
    for (const [at, cost] of [[0, 3], [10, 7], [900, 1], [1_500, 4]] as const) {
      state = meter.charge(state, at * ms, cost, unixTime)
      plain = meter.charge(plain, at * ms, cost, unixTime)
      assert.deepStrictEqual(dues(meter, state, at), dues(meter, plain, at))
    }
    assert.deepStrictEqual(meter.close(state, opened.ticket), plain)
  })

  const countOf = (layers: Layers | undefined): number =>
    layers === undefined ? 0 : 1 + countOf(layers.left) + countOf(layers.right)

  it("rate: no more layers than open calls, also while one call stays open for ever and the bucket fills", () => {
    const meter = rate({ kind: "rate", interval: 100 * ms, capacity: 10_000 })
    let [state, first] = open(meter, meter.initial, 0, 1)
    const others: Array<number> = []
    for (let i = 1; i <= 1_000; i++) {
      const [next, other] = open(meter, state, i, 5)
      others.push(other)
      state = next
      if (i % 3 === 0) continue
      const [gone] = others.splice(i % others.length, 1)
      state = meter.close(settle(meter, state, gone!, i * ms, -3), gone!)
      assert.isAtMost(countOf(state.open!.layers), others.length + 2)
    }
    for (const ticket of others) state = meter.close(state, ticket)
    assert.isAtMost(countOf(state.open!.layers), 2)
    assert.isUndefined(meter.close(state, first).open)
  })

  it("rate: what a smaller bucket lost is returned first, and once", () => {
    const large = rate({ kind: "rate", interval: 100 * ms, capacity: 10 })
    const small = rate({ kind: "rate", interval: 100 * ms, capacity: 5 })
    const [one, first] = open(large, large.initial, 0, 5)
    const [two, second] = open(large, one, 0, 5)
    const updated = small.adopt(two, large, 0)
    assert.strictEqual(small.remaining(updated, 0, unixTime), 0)
    const undone = settle(small, updated, first, 0, -5)
    assert.strictEqual(small.remaining(undone, 0, unixTime), 0)
    assert.strictEqual(small.remaining(settle(small, undone, second, 0, -5), 0, unixTime), 5)
    const settled = settle(small, settle(small, updated, first, 0, -3), second, 0, -4)
    assert.strictEqual(small.remaining(settled, 0, unixTime), 2)
    // A charge after the update has lost nothing.
    const [three, third] = open(small, updated, 200, 2)
    assert.strictEqual(small.remaining(settle(small, three, third, 200 * ms, -2), 200 * ms, unixTime), 2)
  })

  it("spacing: undone only where no other start came after it", () => {
    const meter = spacing({ kind: "spacing", interval: 500 * ms, align: false, fromEnd: false })
    const [first, one] = open(meter, meter.initial, 0, 3)
    assert.strictEqual(meter.readyAt(meter.refund(first, one, 100 * ms, 3), 100 * ms, 1, unixTime), 100 * ms)
    const [second, two] = open(meter, first, 500, 1)
    assert.strictEqual(meter.refund(second, one, 600 * ms, 3), second)
    assert.strictEqual(meter.refund(second, two, 600 * ms, 1), first)
  })

  it("sliding window: a log of 100,000 starts is refunded at both ends and in the middle", () => {
    const meter = sliding({ kind: "sliding", limit: 200_000, per: 1_000_000 * ms })
    let state = meter.initial
    for (let i = 0; i < 100_000; i++) state = meter.charge(state, i * ms, 2, unixTime)
    for (const at of [0, 1, 31, 32, 33, 1_000, 50_000, 99_000, 99_998, 99_999]) {
      state = meter.refund(state, at * ms, 100_000 * ms, 1)
    }
    assert.strictEqual(meter.remaining(state, 100_000 * ms, unixTime), 10)
    // The first three leave the window one after the other: 1, 1 and 2 permits.
    const due = (cost: number) => (meter.readyAt(state, 100_000 * ms, cost, unixTime) / ms) - 1_000_000
    assert.deepStrictEqual([10, 11, 12, 13, 14, 15].map(due), [-900_000, 0, 1, 2, 2, 3])
    state = meter.refund(state, 0, 100_000 * ms, 1)
    assert.deepStrictEqual([11, 12, 13].map(due), [-900_000, 1, 2])
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Laws of settling
// ---------------------------------------------------------------------------------------------------------------------

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const AnyMeter = Schema.Struct({
  kind: Schema.Literals(["rate", "sliding", "fixed"]),
  capacity: int(4, 9),
  /** For rate the interval, in sevenths of a millisecond. Windows are so many milliseconds: boundaries that are exact. */
  period: int(1, 70)
})

const meterOf = ({ capacity, kind, period }: typeof AnyMeter.Type): Meter<any, any> => {
  switch (kind) {
    case "rate":
      return rate({ kind: "rate", interval: period * ms / 7, capacity })
    case "sliding":
      return sliding({ kind: "sliding", limit: capacity, per: period * ms })
    case "fixed":
      return fixed({ kind: "fixed", limit: capacity, per: period * ms })
  }
}

const History = Schema.Array(Schema.Struct({
  /** Milliseconds after the one before it. */
  gap: int(0, 12),
  cost: int(1, 4),
  /** Milliseconds after its start at which it is settled; above 50: never, it stays open. */
  after: int(0, 60),
  /** What it is settled for, in halves of its cost. */
  actual: int(0, 8),
  /** Whether it is a call that cannot be settled. */
  plain: Schema.Boolean
})).check(Schema.isMaxLength(12))

interface Spent {
  readonly at: number
  cost: number
}

/**
 * Starts the calls as soon as they may, settles each at its time, and calls `look` after each of these steps with the
 * state, and with the state of one that has known from the beginning what is known now.
 */
const live = (
  meter: Meter<any, any>,
  history: typeof History.Type,
  settleFor: (cost: number, halves: number) => number,
  look: (state: any, replay: any, now: number, where: string) => void
) => {
  let state = meter.initial
  let now = 0
  let arrival = 0
  const spent: Array<Spent> = []
  const pending: Array<{ readonly at: number; readonly settle: () => void }> = []
  const replay = () =>
    spent.toSorted((a, b) => a.at - b.at).filter(({ cost }) => cost > 0).reduce(
      (state, { at, cost }) => meter.charge(state, at, cost, unixTime),
      meter.initial
    )
  const settleUntil = (until: () => number) => {
    for (;;) {
      const next = pending[0]
      if (next === undefined || next.at > until()) return
      pending.shift()
      now = next.at
      next.settle()
    }
  }
  for (const [i, call] of history.entries()) {
    arrival += call.gap * ms
    now = Math.max(now, arrival)
    const due = () => meter.readyAt(state, Math.max(now, arrival), call.cost, unixTime)
    settleUntil(due)
    now = due()
    const before = state
    state = meter.charge(state, now, call.cost, unixTime)
    const entry: Spent = { at: now, cost: call.cost }
    spent.push(entry)
    look(state, replay(), now, `start of ${i}`)
    if (call.plain) continue
    const opened = meter.open(state, before)
    const { ticket } = opened
    state = opened.state
    if (call.after > 50) continue
    pending.push({
      at: now + call.after * ms,
      settle: () => {
        const more = settleFor(call.cost, call.actual) - call.cost
        const former = structuredClone(state)
        const held = state
        state = settle(meter, state, ticket, now, more)
        assert.deepStrictEqual(held, former, "it changed the state that was")
        if (more < 0) entry.cost += more
        if (more > 0) spent.push({ at: now, cost: more })
        state = meter.close(state, ticket)
        look(state, replay(), now, `settling ${i}`)
      }
    })
    pending.sort((a, b) => a.at - b.at)
  }
  settleUntil(() => Infinity)
}

/** The instants at which every cost may start, asked at some instants from now on. */
const future = (meter: Meter<any, any>, state: any, now: number): ReadonlyArray<readonly [string, number]> =>
  [0, 3, 11, 50, 400].flatMap((later) =>
    Array.from({ length: meter.capacity }, (_, i) =>
      [
        `${i + 1} in ${later} ms`,
        meter.readyAt(state, now + later * ms, i + 1, unixTime)
      ] as const)
  )

const sameFuture = (meter: Meter<any, any>) => (state: any, replay: any, now: number, where: string) => {
  const expected = future(meter, replay, now)
  for (const [i, [what, due]] of future(meter, state, now).entries()) {
    // A bucket may seem emptier than empty by 8 ns.
    assert.closeTo(due, expected[i]![1], 10, `${where}: ${what}`)
  }
}

describe("laws of settling", () => {
  const arbitrary = { arbitrary: { runs: 500 } }
  const less = (cost: number, halves: number) => Math.floor(cost * Math.min(2, halves) / 2)
  const any = (cost: number, halves: number) => Math.floor(cost * halves / 2)

  it.prop(
    "settled for less, in any order: as if it had cost no more from the beginning",
    [AnyMeter, History],
    ([data, history]) => {
      const meter = meterOf(data)
      live(meter, history, less, sameFuture(meter))
    },
    arbitrary
  )

  it.prop(
    "settled for less or more, in any order: as if what is more had been a call of its own",
    [AnyMeter, History],
    ([data, history]) => {
      const meter = meterOf(data)
      live(meter, history, any, sameFuture(meter))
    },
    arbitrary
  )

  it.prop(
    "settled for less or more, in any order: never more generous than that",
    [AnyMeter, History],
    ([data, history]) => {
      const meter = meterOf(data)
      live(meter, history, any, (state, replay, now, where) => {
        const expected = future(meter, replay, now)
        for (const [i, [what, due]] of future(meter, state, now).entries()) {
          assert.isAtLeast(due, expected[i]![1] - 10, `${where}: ${what}`)
        }
      })
    },
    arbitrary
  )

  it.prop(
    "all charges refunded, in any order: the state acts as the initial one",
    [AnyMeter, History],
    ([data, history]) => {
      const meter = meterOf(data)
      const undone = history.map((call) => ({ ...call, plain: false, after: call.after % 50 }))
      let last: readonly [any, number] = [meter.initial, 0]
      live(meter, undone, () => 0, (state, _, now) => {
        last = [state, now]
      })
      sameFuture(meter)(last[0], meter.initial, last[1], "in the end")
    },
    arbitrary
  )

  const Updates = Schema.Array(Schema.Struct({
    gap: int(0, 12),
    /** A call that may be settled, one that may not, a settlement of an open call, or a bucket of another size. */
    what: Schema.Literals(["open", "plain", "settle", "update"]),
    cost: int(1, 4),
    /** Which of the open calls is settled. */
    which: int(0, 5),
    capacity: int(4, 9)
  })).check(Schema.isMaxLength(14))

  it.prop(
    "rate: settled for less around updates, as if it had cost no more from the beginning",
    [Updates],
    ([steps]) => {
      const of = (capacity: number) => rate({ kind: "rate", interval: ms, capacity })
      let meter = of(9)
      let { initial: state } = meter
      let now = 0
      const events: Array<{ readonly at: number; cost: number } | { readonly at: number; readonly capacity: number }> =
        []
      const open: Array<{ readonly ticket: number; readonly event: { cost: number } }> = []
      const replay = () => {
        let last = of(9)
        let state = last.initial
        for (const event of events) {
          if ("cost" in event) {
            if (event.cost > 0) state = last.charge(state, event.at, event.cost, unixTime)
          } else {
            const next = of(event.capacity)
            state = next.adopt(state, last, event.at)
            last = next
          }
        }
        return state
      }
      for (const [i, { capacity, cost, gap, what, which }] of steps.entries()) {
        now += gap * ms
        if (what === "update") {
          const next = of(capacity)
          state = next.adopt(state, meter, now)
          meter = next
          events.push({ at: now, capacity })
        } else if (what === "settle") {
          const [one] = open.splice(which % Math.max(1, open.length), 1)
          if (one === undefined) continue
          const less = Math.min(cost, one.event.cost)
          state = meter.close(meter.refund(state, one.ticket, now, less), one.ticket)
          one.event.cost -= less
        } else {
          now = meter.readyAt(state, now, cost, unixTime)
          const before = state
          const event = { at: now, cost }
          state = meter.charge(state, now, cost, unixTime)
          events.push(event)
          if (what === "plain") continue
          const opened = meter.open(state, before)
          state = opened.state
          open.push({ ticket: opened.ticket, event })
        }
        sameFuture(meter)(state, replay(), now, `step ${i}: ${what}`)
      }
    },
    arbitrary
  )
})
