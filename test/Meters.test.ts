/**
 * The meters as tables: a row is a call at an instant (milliseconds), its cost, and when it may start. They are pure, so
 * no clock is needed, and no Effect.
 */
import { assert, describe, it } from "@effect/vitest"
import { boundary, foresee, type Meter, type Wall } from "../src/internal/meter/meter.ts"
import { rate } from "../src/internal/meter/rate.ts"
import { spacing } from "../src/internal/meter/spacing.ts"
import { fixed, sliding } from "../src/internal/meter/window.ts"

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
const takes = <S>(meter: Meter<S>, state: S, now: number, cost: number, wall: Wall) =>
  assert.deepStrictEqual(
    meter.take(state, now, cost, wall),
    meter.due(state, now, cost, wall) > now ? undefined : meter.charge(state, now, cost, wall)
  )

const check = <S>(meter: Meter<S>, rows: ReadonlyArray<Row>) => {
  let state = meter.initial
  for (const [i, row] of rows.entries()) {
    const offset = (row.wall ?? row.at) - row.at
    const wall = (at: number) => at / ms + offset
    const due = meter.due(state, row.at * ms, row.cost ?? 1, wall)
    assert.closeTo(due / ms, row.due, 1e-4, `row ${i}`)
    // Asking changes nothing.
    assert.strictEqual(meter.due(state, row.at * ms, row.cost ?? 1, wall), due)
    takes(meter, state, row.at * ms, row.cost ?? 1, wall)
    state = meter.charge(state, row.charged === undefined ? due : row.charged * ms, row.cost ?? 1, wall)
  }
}

describe("rate", () => {
  it("paces by the interval from an empty bucket", () =>
    check(rate({ interval: 200 * ms, capacity: 1, grace: 0 }), [
      { at: 0, due: 0 },
      { at: 0, due: 200 },
      { at: 250, due: 400 },
      { at: 1_000, due: 1_000 },
      { at: 1_000, due: 1_200 }
    ]))

  it("lets the capacity start at once, and wins it back by unused time alone", () =>
    check(rate({ interval: 200 * ms, capacity: 4, grace: 0 }), [
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
    check(rate({ interval: 100 * ms, capacity: 10, grace: 0 }), [
      { at: 0, cost: 4, due: 0 },
      { at: 1, cost: 6, due: 1 },
      { at: 2, cost: 5, due: 500 },
      { at: 500, cost: 10, due: 1_500 }
    ]))

  it("does not drift after a year of uptime, where a number of nanoseconds has a grain of 4", () => {
    const meter = rate({ interval: 1e9 / 3_000_001, capacity: 1, grace: 0 })
    const year = 365 * 24 * 3_600 * 1e9
    let state = meter.initial
    let at = year
    const calls = 3_000_001
    for (let i = 0; i <= calls; i++) {
      at = meter.due(state, at, 1, () => 0)
      state = meter.charge(state, at, 1, () => 0)
    }
    assert.closeTo(at - year, 1e9, 1e3)
  })
})

describe("sliding window", () => {
  const meter = sliding({ limit: 3, per: 1_000 * ms })

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
  const meter = fixed({ limit: 2, per: 1_000 * ms })

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
    check(spacing({ interval: 500 * ms, align: false, fromEnd: false }), [
      { at: 0, due: 0 },
      { at: 0, cost: 7, due: 500, charged: 512 },
      { at: 600, due: 1_012 }
    ]))

  it("aligned, is due on multiples of the interval, the first too", () =>
    check(spacing({ interval: 500 * ms, align: true, fromEnd: false }), [
      { at: 130, due: 500 },
      { at: 500, due: 1_000 },
      { at: 2_001, due: 2_500 },
      { at: 3_000, due: 3_000 }
    ]))

  it("aligned, follows the wall clock", () =>
    check(spacing({ interval: 60_000 * ms, align: true, fromEnd: false }), [
      { at: 5, wall: 90_000, due: 30_005 }
    ]))

  it("aligned, keeps the interval from an end, however close to a slot that came", () =>
    check(spacing({ interval: 1_000 * ms, align: true, fromEnd: true }), [
      { at: 0, due: 0, charged: 1_001.5 },
      { at: 1_002, due: 3_000 }
    ]))

  it("aligned, keeps the interval when the wall clock is set forward", () =>
    check(spacing({ interval: 1_000 * ms, align: true, fromEnd: false }), [
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

describe("foresee", () => {
  const cases: ReadonlyArray<readonly [string, Meter<any>]> = [
    ["rate", rate({ interval: 100 * ms, capacity: 7, grace: 0 })],
    ["sliding window", sliding({ limit: 7, per: 1_000 * ms })],
    ["fixed window", fixed({ limit: 7, per: 1_000 * ms })],
    ["spacing", spacing({ interval: 300 * ms, align: false, fromEnd: false })],
    ["spacing, aligned", spacing({ interval: 300 * ms, align: true, fromEnd: false })]
  ]
  const wall = (at: number) => at / ms + 123

  for (const [name, meter] of cases) {
    it(`${name}: agrees with letting everyone ahead start in turn`, () => {
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
          at = meter.due(state, at + random(200) * ms, cost, wall)
          state = meter.charge(state, at, cost, wall)
        }
        const from = at + random(300) * ms
        const costs = Array.from({ length: random(30) }, () => 1 + random(heaviest))
        const cost = 1 + random(heaviest)
        let expected = from
        let virtual = state
        for (const next of costs) {
          expected = meter.due(virtual, expected, next, wall)
          virtual = meter.charge(virtual, expected, next, wall)
        }
        expected = meter.due(virtual, expected, cost, wall)
        const ahead = { calls: costs.length, total: costs.reduce((a, b) => a + b, 0), costs }
        assert.closeTo(foresee(meter, state, from, cost, ahead, wall)! / ms, expected / ms, 1e-3, `round ${round}`)
      }
    })
  }
})
