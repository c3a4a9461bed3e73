/**
 * The simulation: the right outcomes of the timelines, a law of queueing theory, and every option.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Metric } from "effect"
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import { play } from "./utils/play.ts"
import { randomNumbers } from "./utils/random-program.ts"
import { timelines } from "./utils/timelines.ts"

const startsOf = ({ calls }: Simulation.Result) => calls.map(({ start }) => start)
const outcomesOf = ({ calls }: Simulation.Result) => calls.map(({ outcome }) => outcome)
const atsOf = (arrivals: ReadonlyArray<Simulation.Arrival>) => arrivals.map(({ at }) => at)
const atOnce = (n: number) => Simulation.list(Array.from({ length: n }, () => 0))

describe("the timelines of the independent model", () => {
  it.each(timelines)("$name", ({ calls, expect, policy }) => {
    const result = Simulation.run(
      Throttle.fromData(policy as any),
      calls.map(({ at, interruptAt, permits, runs }): Simulation.Arrival => ({
        at,
        cost: permits,
        runs,
        interruptAfter: interruptAt === undefined ? undefined : interruptAt - at
      }))
    )
    expect.forEach((expected, i) => {
      const { outcome, start } = result.calls[i]!
      if ("start" in expected) {
        assert.isDefined(start, `call ${i}: ${outcome}`)
        assert.closeTo(start!, expected.start, 0.002, `call ${i}`)
      } else if ("rejected" in expected) assert.strictEqual(outcome, expected.rejected, `call ${i}`)
      else assert.strictEqual(outcome, "interrupted", `call ${i}`)
    })
  })
})

describe("run", () => {
  it("gives the arrival, start, end, wait and outcome of each call", () => {
    const policy = Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 1 })], { maxQueue: 2 })
    const arrivals = Simulation.list([0, { at: 100, runs: "1.5 seconds" }, { at: 200, interruptAfter: 300 }, 300, {
      at: "1 minute",
      cost: 2
    }])
    assert.deepStrictEqual(Simulation.run(policy, arrivals, { runs: 250 }), {
      name: "1 per second; at most 1 at once (at most 2 waiting)",
      policies: [policy.data],
      changes: [],
      calls: [
        { arrival: 0, start: 0, end: 250, wait: 0, cost: 1, outcome: "done" },
        { arrival: 100, start: 1_000, end: 2_500, wait: 900, cost: 1, outcome: "done" },
        { arrival: 200, start: undefined, end: 500, wait: 300, cost: 1, outcome: "interrupted" },
        { arrival: 300, start: undefined, end: 300, wait: 0, cost: 1, outcome: "QueueFull" },
        { arrival: 60_000, start: undefined, end: 60_000, wait: 0, cost: 2, outcome: "PermitsExceedCapacity" }
      ]
    })
  })

  it("gives the same result each time, and does not touch its arguments", () => {
    const policy = Throttle.all([Throttle.rate({ limit: 9, burst: 3 }), Throttle.concurrency({ limit: 4 })])
    const arrivals = Object.freeze(Simulation.poisson({ rate: 10, duration: "1 minute", seed: "again" }))
    const once = Simulation.run(policy, arrivals, { runs: 350 })
    assert.deepStrictEqual(Simulation.run(policy, arrivals, { runs: 350 }), once)
  })

  it("does what the fibers of the other simulator do, whatever the policy", () => {
    const policies = [
      Throttle.rate({ limit: 7, burst: 2, maxQueue: 5 }),
      Throttle.tokenBucket({ capacity: 5, refill: 4, maxWait: 900 }),
      Throttle.window({ limit: 5, per: 700, timeout: 800 }),
      Throttle.window({ limit: 3, per: 500, kind: "fixed" }),
      Throttle.concurrency({ limit: 2, maxQueue: 4 }),
      Throttle.spacing({ interval: 90, from: "end" }),
      Throttle.all([
        Throttle.rate({ limit: 8 }),
        Throttle.concurrency({ limit: 3 }),
        Throttle.spacing({ interval: 50 })
      ])
    ]
    for (let seed = 1; seed <= 140; seed++) {
      const random = randomNumbers(seed)
      const calls = Array.from({ length: 25 }, () => ({
        at: random() * 3_000,
        runs: random() * 400,
        cost: random() < 0.8 ? 1 : 2,
        interruptAfter: random() < 0.8 ? undefined : random() * 1_000
      })).toSorted((a, b) => a.at - b.at)
      const policy = policies[seed % policies.length]!
      const { outcomes } = play(
        policy,
        calls.map((call) => ({
          ...call,
          interruptAt: call.interruptAfter === undefined ? undefined : call.at + call.interruptAfter
        }))
      )
      const result = Simulation.run(policy, calls)
      outcomes.forEach(({ end, start }, i) => {
        assert.strictEqual(result.calls[i]!.outcome, end, `seed ${seed}, call ${i}`)
        if (start !== undefined) assert.closeTo(result.calls[i]!.start!, start, 1e-5, `seed ${seed}, call ${i}`)
      })
    }
  })

  it("agrees with the theory of queues: Poisson calls at a rate wait ρT / 2(1 - ρ) on average", () => {
    for (const load of [0.5, 0.8, 0.9]) {
      const calls = Simulation.poisson({ rate: 10 * load, duration: "2 hours", seed: 3 })
      const { wait } = Simulation.summary(Simulation.run(Throttle.rate({ limit: 10 }), calls))
      const expected = load * 100 / (2 * (1 - load))
      assert.closeTo(wait.mean / expected, 1, 0.1, `load ${load}`)
    }
  }, 30_000)

  it("takes seconds for 100,000 calls, however many wait", () => {
    // Time of the processor, so that other processes do not count.
    const before = process.cpuUsage()
    const calls = Simulation.bursts({ size: 100_000, every: "1 hour", duration: "1 hour" })
    const { longestLine, started } = Simulation.summary(Simulation.run(Throttle.rate({ limit: 10 }), calls))
    assert.deepStrictEqual([started, longestLine], [100_000, 99_999])
    // 1.4 s on an idle machine
    const { system, user } = process.cpuUsage(before)
    assert.isBelow((system + user) / 1_000, 15_000)
  }, 120_000)

  it("lets what ends at an instant come before changes, arrivals and interruptions", () => {
    const none = Throttle.concurrency({ limit: 1, maxQueue: 0 })
    assert.deepStrictEqual(outcomesOf(Simulation.run(none, Simulation.list([0, 100, 200]), { runs: 100 })), [
      "done",
      "done",
      "done"
    ])
    const rate = Throttle.rate({ limit: 10 })
    const interrupted = Simulation.list([0, { at: 0, interruptAfter: 100, runs: 1 }, { at: 100, interruptAfter: 0 }])
    assert.deepStrictEqual(startsOf(Simulation.run(rate, interrupted)), [0, 100, undefined])
    const paused = Simulation.run(rate, Simulation.list([100]), { changes: [{ at: 100, pause: 50 }] })
    assert.deepStrictEqual(startsOf(paused), [150])
  })

  it.each<[limit: number, rate: number, runs: number]>([
    [3, 30, 100],
    [7, 7, 1_000],
    [3, 15, 200],
    [3, 12, 250],
    [11, 33, 1_000 / 3]
  ])(
    "does so at instants that are no whole numbers: %s at once, %s per second, each for %s ms",
    (limit, rate, runs) => {
      const calls = Simulation.steady({ rate, duration: "10 seconds" })
      const result = Simulation.run(Throttle.concurrency({ limit, maxQueue: 0 }), calls, { runs })
      assert.strictEqual(Simulation.summary(result).refused.QueueFull, 0)
    }
  )

  it("does so where the sum of two fractions is not the third", () => {
    const one = Throttle.concurrency({ limit: 1, maxQueue: 0 })
    const ended = Simulation.run(one, Simulation.list([{ at: 0.1, runs: 0.2 }, 0.3]))
    assert.deepStrictEqual(outcomesOf(ended), ["done", "done"])
    const interrupted = Simulation.run(one, Simulation.list([{ at: 0.1, runs: 9, interruptAfter: 0.2 }, 0.3]))
    assert.deepStrictEqual(outcomesOf(interrupted), ["interrupted", "QueueFull"])
    const paused = Simulation.run(Throttle.rate({ limit: 1 }), Simulation.list([0.3]), {
      changes: [{ at: 0.1 + 0.2, pause: 50 }]
    })
    assert.deepStrictEqual(startsOf(paused), [50.3])
  })

  it("interrupts running calls as well", () => {
    const result = Simulation.run(
      Throttle.concurrency({ limit: 1 }),
      Simulation.list([{ at: 0, interruptAfter: 200 }, 50]),
      { runs: 1_000 }
    )
    assert.deepStrictEqual(result.calls.map(({ end, outcome, start }) => [start, end, outcome]), [
      [0, 200, "interrupted"],
      [200, 1_200, "done"]
    ])
  })

  it("pauses, resumes and updates", () => {
    const policy = Throttle.rate({ limit: 10 })
    const changes: ReadonlyArray<Simulation.Change> = [
      { at: "1 second", resume: true },
      { at: 150, pause: "1 minute" },
      { at: 1_050, update: Throttle.rate({ limit: 1 }) }
    ]
    const result = Simulation.run(policy, atOnce(5), { changes })
    assert.deepStrictEqual(startsOf(result), [0, 100, 1_000, 1_550, 2_550])
    assert.deepStrictEqual(result.changes, [
      { at: 150, pause: 60_000 },
      { at: 1_000, resume: true },
      { at: 1_050, update: Throttle.rate({ limit: 1 }).data }
    ])
  })

  it("leaves calls waiting that can never start", () => {
    const result = Simulation.run(Throttle.rate({ limit: 10 }), atOnce(2), { changes: [{ at: 0, pause: Infinity }] })
    assert.deepStrictEqual(outcomesOf(result), ["waiting", "waiting"])
    assert.deepStrictEqual(result.calls[0], {
      arrival: 0,
      start: undefined,
      end: undefined,
      wait: Infinity,
      cost: 1,
      outcome: "waiting"
    })
    assert.include(Simulation.text(result), "2 calls")
    assert.include(Simulation.svg(result), "</svg>")
  })

  it("wakes the throttle late, as real timers do, and not the calls", () => {
    const late = { late: 3, runs: 20 }
    // What a timer lost, a rate makes up for and spacing does not
    const rate = Simulation.run(Throttle.rate({ limit: 100 }), atOnce(5), late)
    assert.deepStrictEqual(startsOf(rate), [0, 13, 23, 33, 43])
    const spacing = Simulation.run(Throttle.spacing({ interval: 10 }), atOnce(5), late)
    assert.deepStrictEqual(startsOf(spacing), [0, 13, 26, 39, 52])
    assert.deepStrictEqual(rate.calls.map(({ end, start }) => end! - start!), [20, 20, 20, 20, 20])
  })

  it("passes several policies one after the other", () => {
    const rate = Throttle.rate({ limit: 10 })
    const five = Throttle.concurrency({ limit: 5 })
    const calls = Simulation.list(Array.from({ length: 20 }, (_, i) => ({ at: 0, runs: i < 5 ? 2_000 - 100 * i : 20 })))
    // As in docs/composing.md
    assert.strictEqual(
      startsOf(Simulation.run([rate, five], calls)).join(" "),
      "0 100 200 300 400 2000 2000 2000 2000 2000 2020 2020 2020 2020 2020 2040 2040 2040 2040 2040"
    )
    assert.strictEqual(Simulation.run([rate, five], []).name, "10 per second, then at most 5 at once")
    assert.deepStrictEqual(startsOf(Simulation.run([], atOnce(2))), [0, 0])
  })

  it("charges costs by unit", () => {
    const policy = Throttle.all([
      Throttle.rate({ limit: 10 }),
      Throttle.tokenBucket({ capacity: 100, refill: 100, unit: "tokens" })
    ])
    const result = Simulation.run(policy, [{ at: 0, cost: { tokens: 100 } }, { at: 0, cost: { tokens: 50 } }])
    assert.deepStrictEqual(startsOf(result), [0, 500])
  })

  it.effect("is not counted with what really happened", () =>
    Effect.gen(function*() {
      Simulation.run(Throttle.rate({ limit: 10, name: "only simulated" }), atOnce(3))
      assert.notInclude(JSON.stringify(yield* Metric.snapshot), "only simulated")
    }))

  const rate = Throttle.rate({ limit: 1 })
  it.each<[string, () => unknown]>([
    [`"policy" must be a policy, received undefined`, () => Simulation.run(undefined as any, [])],
    [`"policy" must be a policy, received 3`, () => Simulation.run([rate, 3 as any], [])],
    [`"arrivals" must be an array, received 3`, () => Simulation.run(rate, 3 as any)],
    [`"arrivals[1]" must be an object, received null`, () => Simulation.run(rate, [{ at: 0 }, null as any])],
    [`"changes" must be an array, received 3`, () => Simulation.run(rate, [], { changes: 3 as any })],
    [`"changes[0]" must be an object, received 3`, () => Simulation.run(rate, [], { changes: [3 as any] })],
    [
      `"arrivals[1].at" must be a finite duration ≥ 0 and ≤ 100 years, received -1`,
      () => Simulation.run(rate, [{ at: 0 }, { at: -1 }])
    ],
    [`"arrivals[0].runs" must be a finite duration`, () => Simulation.run(rate, [{ at: 0, runs: Infinity }])],
    [`"arrivals[0].interruptAfter" must be`, () => Simulation.run(rate, [{ at: 0, interruptAfter: NaN }])],
    [
      `"runs" must be a finite duration ≥ 0 and ≤ 100 years, received "soon"`,
      () => Simulation.run(rate, [], { runs: "soon" as any })
    ],
    [
      `"late" must be a finite duration ≥ 0 and ≤ 100 years, received -1`,
      () => Simulation.run(rate, [], { late: -1 })
    ],
    [
      `unknown option "until"; the options are runs, changes, late, name`,
      () => Simulation.run(rate, [], { until: 3 } as any)
    ],
    [`options must be an object, received null`, () => Simulation.run(rate, [], null as any)],
    [`"changes[0].at" must be`, () => Simulation.run(rate, [], { changes: [{ at: NaN, pause: 1 }] })],
    [`"changes[0].pause" must be`, () => Simulation.run(rate, [], { changes: [{ at: 1, pause: -1 }] })],
    [
      `"changes[0]" must be { pause: duration }, { resume: true } or { update: policy }, received `,
      () => Simulation.run(rate, [], { changes: [{ at: 1, update: 3 as any }] })
    ],
    [
      `"changes" must be undefined for several policies, received `,
      () => Simulation.run([rate, rate], [], { changes: [{ at: 1, pause: 1 }] })
    ],
    [`"name" must be a string, received 5`, () => Simulation.run(rate, [], { name: 5 as any })],
    [
      `unknown option "bogus"; the options are at, cost, runs, interruptAfter`,
      () => Simulation.run(rate, [{ at: 0, bogus: 1 } as any])
    ],
    [`"arrivals[0].at" must be a finite duration ≥ 0 and`, () => Simulation.run(rate, [{ at: 1e303 }])],
    [`"arrivals[0].at" must be a finite duration ≥ 0 and`, () => Simulation.run(rate, [{ at: 5e15 }])],
    [`"arrivals[0].runs" must be a finite`, () => Simulation.run(rate, [{ at: 0, runs: 1e303 }])],
    [`unknown unit "tokens"`, () => Simulation.run(rate, [{ at: 0, cost: { tokens: 1 } }])]
  ])("RangeError: %s", (message, f) => assert.throws(f, RangeError, message))
})

it("an update may add bounds", () => {
  const changes = [{ at: 1, update: Throttle.rate({ limit: 1, maxQueue: 0 }) }]
  const { calls } = Simulation.run(Throttle.rate({ limit: 1 }), Simulation.list([0, 2]), { changes })
  assert.deepStrictEqual(calls.map(({ outcome }) => outcome), ["done", "QueueFull"])
})

describe("arrivals", () => {
  it("steady", () => {
    assert.deepStrictEqual(atsOf(Simulation.steady({ rate: 4, duration: "1 second" })), [0, 250, 500, 750])
    assert.deepStrictEqual(
      Simulation.steady({
        rate: 1,
        per: "1 minute",
        duration: "2 minutes",
        start: 5,
        cost: 2,
        runs: 7,
        interruptAfter: 9
      }),
      [{ at: 5, cost: 2, runs: 7, interruptAfter: 9 }, { at: 60_005, cost: 2, runs: 7, interruptAfter: 9 }]
    )
    assert.deepStrictEqual(Simulation.steady({ rate: 4, duration: 0 }), [])
  })

  it("poisson: the same seed gives the same calls, gaps are exponential", () => {
    const options = { rate: 20, duration: "1 hour" } as const
    const calls = atsOf(Simulation.poisson(options))
    assert.deepStrictEqual(atsOf(Simulation.poisson({ ...options, seed: 1 })), calls)
    assert.notDeepEqual(atsOf(Simulation.poisson({ ...options, seed: 2 })), calls)
    assert.closeTo(calls.length / 72_000, 1, 0.02)
    const gaps = calls.slice(1).map((at, i) => at - calls[i]!)
    assert.isTrue(gaps.every((gap) => gap >= 0))
    // Of exponential gaps 1/e are longer than the mean, 1/e² longer than twice the mean
    for (const n of [1, 2]) {
      assert.closeTo(gaps.filter((gap) => gap > n * 50).length / gaps.length, Math.exp(-n), 0.01)
    }
  })

  it("bursts", () => {
    const calls = Simulation.bursts({ size: 2, every: 100, duration: 250, start: 10 })
    assert.deepStrictEqual(atsOf(calls), [10, 10, 110, 110, 210, 210])
  })

  it("ramp: as many as the rate adds up to, ever closer or ever farther", () => {
    for (const [from, to] of [[0, 10], [10, 0], [5, 15], [8, 8]] as const) {
      const calls = atsOf(Simulation.ramp({ from, to, duration: "10 seconds" }))
      assert.strictEqual(calls.length, 5 * (from + to))
      const half = calls.filter((at) => at < 5_000).length
      assert.closeTo(half, 5 * (from + (from + to) / 2) / 2, 1, `${from} to ${to}`)
      calls.slice(1).forEach((at, i) => assert.isAtLeast(at, calls[i]!))
      assert.isBelow(calls.at(-1)!, 10_000)
    }
    assert.deepStrictEqual(Simulation.ramp({ from: 0, to: 0, duration: "10 seconds" }), [])
  })

  it("list and merge sort by instant, and keep the given order at one instant", () => {
    const calls = Simulation.list(["1 second", { at: 0, cost: 1 }, { at: 1_000, cost: 2 }, 500])
    assert.deepStrictEqual(calls, [{ at: 0, cost: 1 }, { at: 500 }, { at: 1_000 }, { at: 1_000, cost: 2 }])
    const both = Simulation.merge(calls, Simulation.list([{ at: 500, cost: 9 }]), [])
    assert.deepStrictEqual(both.map(({ at, cost }) => [at, cost]), [[0, 1], [500, undefined], [500, 9], [
      1_000,
      undefined
    ], [1_000, 2]])
  })

  it("list takes durations in all their forms", () => {
    const calls = Simulation.list([{ seconds: 1 }, Duration.millis(5), [2, 500_000], 7n, { at: { minutes: 1 } }])
    assert.deepStrictEqual(atsOf(calls), [7e-6, 5, 1_000, 2_000.5, 60_000])
  })

  it.each<[string, () => unknown]>([
    [
      `Simulation.steady: "rate" must be a finite number > 0, received 0`,
      () => Simulation.steady({ rate: 0, duration: 1 })
    ],
    [
      `Simulation.steady: "per" must be a finite duration > 0 and ≤ 100 years, received 0`,
      () => Simulation.steady({ rate: 1, per: 0, duration: 1 })
    ],
    [
      `Simulation.steady: "duration" must be a finite duration ≥ 0 and ≤ 100 years, received Infinity`,
      () => Simulation.steady({ rate: 1, duration: Infinity })
    ],
    [
      `Simulation.steady: unknown option "seed"; the options are rate, per, duration, start`,
      () => Simulation.steady({ rate: 1, duration: 1, seed: 3 } as any)
    ],
    [
      `Simulation.poisson: "seed" must be a finite number or a string, received NaN`,
      () => Simulation.poisson({ rate: 1, duration: 1, seed: NaN })
    ],
    [
      `Simulation.bursts: "size" must be an integer ≥ 1, received 0.5`,
      () => Simulation.bursts({ size: 0.5, every: 1, duration: 1 })
    ],
    [
      `Simulation.ramp: "from" must be a finite number ≥ 0, received -1`,
      () => Simulation.ramp({ from: -1, to: 1, duration: 1 })
    ],
    [`Simulation.ramp: "start" must be`, () => Simulation.ramp({ from: 1, to: 1, duration: 1, start: -1 })],
    [
      `Simulation.list: "at" must be a finite duration ≥ 0 and ≤ 100 years, received NaN`,
      () => Simulation.list([NaN])
    ],
    [`Simulation.list: "calls" must be an array, received 3`, () => Simulation.list(3 as any)],
    [
      `Simulation.list: unknown option "att"; the options are at, cost, runs, interruptAfter`,
      () => Simulation.list([{ att: 100 } as any])
    ],
    [`Simulation.list: "at" must be`, () => Simulation.list([{} as any])],
    [`Simulation.list: unknown option "start"`, () => Simulation.list([{ at: 0, start: 3 } as any])]
  ])("RangeError: %s", (message, f) => assert.throws(f, RangeError, message))
})

describe("summary", () => {
  it("adds up", () => {
    const policy = Throttle.all([Throttle.rate({ limit: 1 }), Throttle.concurrency({ limit: 2 })], { maxQueue: 3 })
    const arrivals = [...atOnce(6), { at: 10_000, interruptAfter: 500 }]
    assert.deepStrictEqual(Simulation.summary(Simulation.run(policy, arrivals, { runs: 1_500 })), {
      calls: 7,
      started: 5,
      refused: { QueueFull: 2, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 },
      interrupted: 1,
      duration: 10_500,
      throughput: 5 / 10.5,
      wait: { mean: 1_200, p50: 1_000, p90: 3_000, p99: 3_000, max: 3_000 },
      longestLine: 3,
      mostRunning: 2
    })
  })

  it("of nothing is zero", () => {
    assert.deepStrictEqual(Simulation.summary(Simulation.run(Throttle.none, [])), {
      calls: 0,
      started: 0,
      refused: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 },
      interrupted: 0,
      duration: 0,
      throughput: 0,
      wait: { mean: 0, p50: 0, p90: 0, p99: 0, max: 0 },
      longestLine: 0,
      mostRunning: 0
    })
  })
})

describe("text", () => {
  it("draws what happened", () => {
    const calls = Simulation.bursts({ size: 8, every: "5 seconds", duration: "10 seconds" })
    const result = Simulation.run(Throttle.rate({ limit: 1, burst: 1, maxQueue: 4 }), calls, { runs: 500 })
    const picture = `1 per second, burst 1 (at most 4 waiting)

arriving    █                    █                   8
waiting     █████▆▆▆▆▄▄▄▄▂▂▂▂    █████▆▆▆▆▄▄▄▄▂▂▂▂   4
starting    █   ▄   ▄   ▄   ▄    ▄   ▄   ▄   ▄   ▄   2
running     ███ ▄▄▄ ▄▄▄ ▄▄▄ ▄▄▄  ▄▄▄ ▄▄▄ ▄▄▄ ▄▄▄ ▄▄▄ 2
refused     ▅                    █                   3
            0 s                                9.5 s

16 calls in 9.5 s: 11 started; refused: 5 QueueFull. Waits:
half up to 2 s, nine of ten up to 4 s, the longest 4 s. At
most 4 waiting and 2 running at once.`
    assert.strictEqual(Simulation.text(result, { width: 60 }), picture)
  })

  it.each([40, 41, 59, 60, 80, 120])("of %i characters has no longer line, and keeps every word", (width) => {
    const policy = Throttle.all([
      Throttle.rate({ limit: 1, burst: 1, maxQueue: 4, name: "requests" }),
      Throttle.tokenBucket({ capacity: 90_000, refill: 90_000, per: "1 minute", unit: "tokens" }),
      Throttle.concurrency({ limit: 20 })
    ], { timeout: "3 seconds" })
    const calls = Simulation.bursts({
      size: 800,
      every: "5 seconds",
      duration: "10 seconds",
      interruptAfter: "2 seconds"
    })
    const result = Simulation.run(policy, calls, { runs: 500 })
    const text = Simulation.text(result, { width })
    for (const line of text.split("\n")) assert.isAtMost(line.length, width, line)
    const words = text.replace(/\s+/g, " ")
    assert.include(words, Throttle.describe(policy))
    assert.include(words, Simulation.describe(result))
  })

  /** Calls at one instant, of which one starts each second, in the order "fair". */
  const withCallers = (names: ReadonlyArray<string | undefined>) =>
    Simulation.run(
      Throttle.rate({ limit: 1, order: "fair", maxQueue: 5 }),
      names.map((key) => ({ at: 0, ...(key === undefined ? {} : { caller: { key } }) }))
    )

  it("names callers, where there are several, with the waiting calls of each", () => {
    const picture = `1 per second (fair among callers, at most 5 waiting)

arriving    █                                        4
waiting     ██████████████▅▅▅▅▅▅▅▅▅▅▅▅▅▃▃▃▃▃▃▃▃▃▃▃▃▃ 3
· no caller ███████████████████████████              1
· busy      ██████████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄ 2
starting    █            █            █            █ 1
            0 s                                  3 s

4 calls in 3 s: all started. Waits: half up to 1 s, nine of
ten up to 3 s, the longest 3 s. At most 3 waiting at once.
By caller: no caller 1 call, half waited up to 2 s, the
longest 2 s; busy 3 calls, half waited up to 1 s, the
longest 3 s.`
    assert.strictEqual(Simulation.text(withCallers(["busy", "busy", "busy", undefined]), { width: 60 }), picture)
    const one = Simulation.text(withCallers(["busy", "busy"]))
    assert.notInclude(one, "busy")
    assert.strictEqual(one, Simulation.text(withCallers([undefined, undefined])))
  })

  it("says of each caller how many started", () => {
    const names = ["a", "b", "b", "b", "b", "b", "b", "c"]
    const policy = Throttle.rate({ limit: 1, maxQueue: 1 })
    const said = Simulation.describe(Simulation.run(policy, names.map((key) => ({ at: 0, caller: { key } }))))
    assert.match(
      said,
      /By caller: a 1 call, no wait; c 1 call, 0 started; b 6 calls, 1 started, half waited up to 1 s, the longest 1 s\.$/
    )
  })

  it("names the eight callers with the most calls, or seven and the others", () => {
    const many = (callers: number) =>
      Simulation.describe(withCallers(Array.from({ length: callers }, (_, i) => Array(i + 1).fill(`k${i + 1}`)).flat()))
    assert.match(many(8), /By caller: k1 1 call.*; k8 8 calls/)
    const nine = many(9)
    assert.match(nine, /By caller: k3 3 calls.*; k9 9 calls.*; 2 others 3 calls/)
    assert.notMatch(nine, /k[12] /)
  })

  it.each([40, 80])("of %i characters has no longer line, whatever the callers are called", (width) => {
    const names = [
      "first",
      "tenant-00000000000000000000001",
      "tenant-00000000000000000000002",
      "\u{1f600}".repeat(40),
      "a\u001b[31m\nb",
      "\ud800"
    ]
    const text = Simulation.text(withCallers(names), { width })
    for (const line of text.split("\n")) assert.isAtMost(line.length, width, line)
    assert.include(text, "· tena…0001")
    assert.include(text, "· tena…0002")
    assert.notMatch(text.replaceAll("\n", ""), /[\p{Cc}\p{Cs}]/u)
  })

  it("describes a run without waits, and a run without calls", () => {
    const result = Simulation.run(Throttle.none, Simulation.list([0]))
    assert.match(Simulation.text(result), /1 call in 0 s: all started\. Nobody waited\.$/)
    assert.match(Simulation.text(Simulation.run(Throttle.none, [])), /No calls\.$/)
  })

  it("describes calls that waited and did not start, and calls that wait for ever", () => {
    const one = Throttle.concurrency({ limit: 1, timeout: 100 })
    assert.strictEqual(
      Simulation.describe(Simulation.run(one, atOnce(2), { runs: 500 })),
      "2 calls in 500 ms: 1 started; refused: 1 TimedOut. Those who started did not wait. " +
        "At most 1 waiting and 1 running at once."
    )
    const changes = [{ at: 50, pause: Infinity }]
    assert.strictEqual(
      Simulation.describe(Simulation.run(Throttle.rate({ limit: 10 }), atOnce(3), { changes })),
      "3 calls in 0 s: 1 started; 2 waiting for ever. Those who started did not wait. At most 2 waiting at once."
    )
  })

  it("is as wide as one likes", () => {
    const picture = Simulation.text(Simulation.run(Throttle.none, atOnce(1)), { width: 300_000 })
    assert.isAbove(picture.length, 300_000)
  })

  it("rounds a time in the unit in which it is written", () => {
    const said = (runs: number) => Simulation.describe(Simulation.run(Throttle.none, atOnce(1), { runs }))
    for (
      const [runs, words] of [[999.4, "999 ms"], [999.6, "1 s"], [1_000, "1 s"]] as const
    ) assert.include(said(runs), `1 call in ${words}:`)
  })

  it("RangeError", () => {
    const result = Simulation.run(Throttle.none, [])
    assert.throws(
      () => Simulation.text(result, { width: 3 }),
      RangeError,
      "\"width\" must be an integer ≥ 40"
    )
  })
})

describe("svg", () => {
  /** Texts and attributes hold no markup, and every tag is closed. */
  const wellFormed = (svg: string) => {
    const open: Array<string> = []
    const rest = svg.replace(
      /<(\/?)([a-z]+)((?:\s[\w:-]+="[^"<&]*(?:&\w+;[^"<&]*)*")*)\s*(\/?)>/g,
      (_, end, name, __, single) => {
        if (end === "/") assert.strictEqual(open.pop(), name)
        else if (single !== "/") open.push(name)
        return ""
      }
    )
    assert.deepStrictEqual(open, [])
    assert.notMatch(rest, /[<>]|&(?!\w+;)/)
    assert.notMatch(svg, /NaN|Infinity|undefined/)
  }
  const count = (svg: string, part: string) => svg.split(part).length - 1

  it("draws a line while a call waits, a bar while it runs, a cross for a rejection and a diamond for an interruption", () => {
    const policy = Throttle.rate({ limit: 1, maxQueue: 2 })
    const calls = Simulation.list([0, 0, { at: 0, interruptAfter: 500 }, 0, 0])
    const svg = Simulation.svg(Simulation.run(policy, calls, { runs: 100 }))
    wellFormed(svg)
    assert.strictEqual(count(svg, `<circle class="arrive"`), 2 + 1)
    assert.strictEqual(count(svg, `<rect class="run"`), 2 + 1)
    assert.strictEqual(count(svg, `<path class="bad"`), 2 + 1)
    assert.strictEqual(count(svg, `<path class="cut"`), 1 + 1)
    for (const text of [">waiting<", ">running<", ">refused<", ">interrupted<", ">rate 1<", ">maxQueue 2<"]) {
      assert.include(svg, text)
    }
  })

  it("has a title and a description in words", () => {
    const result = Simulation.run(Throttle.rate({ limit: 1 }), atOnce(3), { name: `<a> & "b"` })
    const svg = Simulation.svg(result, { id: "mine" })
    wellFormed(svg)
    assert.include(svg, `role="img" aria-labelledby="mine-title mine-desc"`)
    assert.include(svg, `<title id="mine-title">&lt;a&gt; &amp; &quot;b&quot;</title>`)
    assert.include(svg, `<desc id="mine-desc">3 calls in 2 s: all started. Waits: half up to 1 s`)
  })

  it("draws many calls as numbers over time, in a size that does not grow with them", () => {
    const policy = Throttle.all([Throttle.rate({ limit: 9, maxQueue: 20 }), Throttle.concurrency({ limit: 3 })])
    const sizes = ["1 minute", "1 hour"].map((duration) => {
      const calls = Simulation.poisson({ rate: 10, duration: duration as "1 hour" })
      const svg = Simulation.svg(Simulation.run(policy, calls, { runs: 300 }))
      wellFormed(svg)
      for (
        const text of [
          "arriving in",
          "of them",
          ">waiting<",
          ">running<",
          "starts in the",
          ">limit 3<",
          ">maxQueue 20<"
        ]
      ) {
        assert.include(svg, text)
      }
      return svg.length
    })
    assert.isBelow(sizes[1]!, 2 * sizes[0]!)
  })

  it("draws several above each other on one axis, as wide as one likes", () => {
    const results = [0, 5].map((burst) => Simulation.run(Throttle.rate({ limit: 1, burst }), atOnce(7)))
    const svg = Simulation.svg(results, { width: 400, panels: ["calls"] })
    wellFormed(svg)
    assert.include(svg, `width="400"`)
    assert.include(svg, "<title id=\"simulation-title\">1 per second; against: 1 per second, burst 5</title>")
    assert.strictEqual(count(svg, ">0 s<"), 1)
    assert.notInclude(svg, "starts in the")
  })

  const flooded = (flood: number, options: Omit<Simulation.SvgOptions, "id"> = {}) => {
    const calls = Simulation.merge(
      Simulation.bursts({ size: flood, every: 1_000, duration: 1_000, caller: { key: "<flooder>" } }),
      Simulation.list([150, 250].map((at) => ({ at, caller: { key: "light" } })))
    )
    const svg = Simulation.svg(Simulation.run(Throttle.rate({ limit: 10, order: "fair" }), calls), options)
    wellFormed(svg)
    return svg
  }

  it.each([720, 400])("draws the calls of each caller apart, under its name: %i wide", (width) => {
    const svg = flooded(9, { width, panels: ["calls"] })
    assert.notInclude(svg, ">calls<")
    const [light, flooder] = svg.slice(svg.indexOf(">calls: light<")).split("&lt;flooder&gt;<")
    assert.strictEqual(count(light!, `<rect class="run"`), 2)
    assert.strictEqual(count(flooder!, `<rect class="run"`), 9 + 1)
    assert.include(svg, "By caller: light 2 calls")
  })

  it("draws many calls as the numbers of all, and the waiting ones of each caller", () => {
    const svg = flooded(60)
    for (const text of [">arriving in", ">waiting<", ">waiting: light<", ">waiting:<", ">&lt;flooder&gt;<"]) {
      assert.include(svg, text)
    }
    assert.notInclude(svg, ">calls")
    assert.notInclude(flooded(9), ">waiting:")
  })

  it("draws calls of one caller as those of none", () => {
    const draw = (caller?: Simulation.Arrival["caller"]) =>
      Simulation.svg(Simulation.run(Throttle.rate({ limit: 10 }), [{ at: 0, caller }, { at: 0, caller }]))
    assert.strictEqual(draw({ key: "only" }), draw())
  })

  it("draws pauses, updates, windows of the clock and slots on it", () => {
    const changed = Simulation.run(Throttle.concurrency({ limit: 1 }), atOnce(5), {
      changes: [{ at: 100, pause: 300 }, { at: 600, update: Throttle.concurrency({ limit: 4 }) }],
      runs: 200
    })
    const svg = Simulation.svg(changed)
    wellFormed(svg)
    assert.strictEqual(count(svg, `<rect class="band"`), 1)
    for (const text of [">pause<", ">update<", ">limit 4<"]) assert.include(svg, text)
    for (
      const policy of [
        Throttle.window({ limit: 1, per: 100, kind: "fixed" }),
        Throttle.spacing({ interval: 100, align: true })
      ]
    ) assert.strictEqual(count(Simulation.svg(Simulation.run(policy, atOnce(5))), `<line class="edge"`), 5)
  })

  it("labels panels with permits where calls cost more than one", () => {
    const policy = Throttle.all([Throttle.window({ limit: 5, per: 100 }), Throttle.concurrency({ limit: 5 })])
    const labels = [1, 2].map((cost) => {
      const svg = Simulation.svg(Simulation.run(policy, Simulation.list([{ at: 0, cost, runs: 50 }]), {}))
      return [">permits held<", ">starts in the<", ">permits in the<"].filter((text) => svg.includes(text))
    })
    assert.deepStrictEqual(labels, [[">starts in the<"], [">permits held<", ">permits in the<"]])
  })

  const limitsOf = (policy: Throttle.Policy<any>, update: Throttle.Policy<any>, at = 1_000) => {
    const calls = Simulation.list(Array.from({ length: 41 }, (_, i) => i * 50))
    const svg = Simulation.svg(Simulation.run(policy, calls, { runs: 500, changes: [{ at, update }] }))
    wellFormed(svg)
    const lines = [...svg.matchAll(/<path class="limit" d="([^"]*)"\/>\n<text class="limited"[^>]*>([^<]*)</g)]
    return lines.map((
      [, path, text]
    ) => [text, path!.endsWith("H696") ? "to the end" : "ends", path!.startsWith("M124 ")])
  }

  it.each<[string, Throttle.Policy<any>, Throttle.Policy<any>, ReadonlyArray<ReadonlyArray<unknown>>]>([
    ["another value", Throttle.rate({ limit: 9 }), Throttle.rate({ limit: 2 }), [["rate 2", "to the end", true]]],
    [
      "no bound",
      Throttle.rate({ limit: 9, maxQueue: 7 }),
      Throttle.rate({ limit: 9 }),
      [["maxQueue 7", "ends", true], ["rate 9", "to the end", true]]
    ],
    [
      "another per",
      Throttle.rate({ limit: 2 }),
      Throttle.rate({ limit: 180, per: "1 minute" }),
      [["rate 2", "ends", true], ["rate 180", "to the end", false]]
    ],
    ["no limit", Throttle.concurrency({ limit: 5 }), Throttle.none, [["limit 5", "ends", true]]],
    ["a limit", Throttle.none, Throttle.rate({ limit: 2 }), [["rate 2", "to the end", false]]],
    [
      "another kind",
      Throttle.rate({ limit: 2 }),
      Throttle.window({ limit: 3, per: "1 second" }),
      [["rate 2", "ends", true], ["limit 3", "to the end", false]]
    ],
    [
      "another order",
      Throttle.all([Throttle.rate({ limit: 5 }), Throttle.concurrency({ limit: 3 })]),
      Throttle.all([Throttle.concurrency({ limit: 4 }), Throttle.rate({ limit: 6 })]),
      [["rate 6", "to the end", true], ["limit 4", "to the end", true]]
    ]
  ])(
    "draws each limit as long as it is in force: an update to %s",
    (_, policy, update, expected) => assert.deepStrictEqual(limitsOf(policy, update), expected)
  )

  it("draws what happened before the first call at the edge, or not at all", () => {
    const changes: ReadonlyArray<Simulation.Change> = [
      { at: 100, pause: "1 hour" },
      { at: "2 hours", update: Throttle.rate({ limit: 3 }) },
      { at: "4 hours", pause: "6 hours" }
    ]
    const calls = Simulation.list([36_000_000, 36_000_000])
    const svg = Simulation.svg(Simulation.run(Throttle.rate({ limit: 7 }), calls, { changes }))
    wellFormed(svg)
    assert.strictEqual(count(svg, `<rect class="band"`), 0)
    assert.notInclude(svg, ">update<")
    assert.include(svg, ">rate 3<")
    for (const [, x] of svg.matchAll(/ x1?="([^"]*)"/g)) assert.isAtLeast(Number(x), 0)
    const paused = Simulation.svg(Simulation.run(Throttle.rate({ limit: 7 }), calls, {
      changes: [{ at: 100, pause: 36_001_000 }]
    }))
    assert.strictEqual(count(paused, `<rect class="band" x="124"`), 1)
  })

  it.each<[first: number, last: number, ticks: ReadonlyArray<string>]>([
    [0, 100_000, ["0 s", "20 s", "40 s", "60 s", "80 s", "100 s"]],
    [1_000_000, 1_004_000, ["1000 s", "1001 s", "1002 s", "1003 s", "1004 s"]],
    [36_100_000, 36_400_000, ["601 min", "602 min", "603 min", "604 min", "605 min", "606 min"]],
    [0, 36_000_000 * 2, ["0 h", "5 h", "10 h", "15 h", "20 h"]]
  ])("marks its axis in whole units: from %s to %s", (first, last, expected) => {
    const svg = Simulation.svg(Simulation.run(Throttle.none, Simulation.list([first, last])))
    const ticks = [...svg.matchAll(/class="axis"[^>]*>([^<]*)</g)].map(([, text]) => text!)
    assert.deepStrictEqual(ticks, expected)
  })

  it("draws a hundred years, and an instant at their end", () => {
    const end = 36_525 * 86_400_000
    for (const calls of [[0, end], [end]]) {
      const svg = Simulation.svg(Simulation.run(Throttle.rate({ limit: 1 }), Simulation.list(calls)))
      wellFormed(svg)
      assert.isBelow(count(svg, `class="axis"`), 10)
    }
  })

  it("replaces what XML may not contain", () => {
    const name = "a\u0000b\u001bc\ud800d\uffffe\u{1f600}\tf"
    const svg = Simulation.svg(Simulation.run(Throttle.none, atOnce(1), { name }))
    assert.include(svg, ">a\ufffdb\ufffdc\ufffdd\ufffde\u{1f600}\tf</title>")
  })

  it("draws nothing as well", () => wellFormed(Simulation.svg([Simulation.run(Throttle.none, [])])))

  it.each<[string, Simulation.SvgOptions]>([
    [`"width" must be a finite number ≥ 320, received 100`, { width: 100 }],
    [`"id" must be a string, received 5`, { id: 5 as any }],
    [`unknown option "height"; the options are panels, width, id`, { height: 3 } as any],
    [`"panels" must be an array of calls, arrivals, refused, waiting, running, starts, received ["call"]`, {
      panels: ["call" as any]
    }]
  ])(
    "RangeError: %s",
    (message, options) =>
      assert.throws(() => Simulation.svg(Simulation.run(Throttle.none, []), options), RangeError, message)
  )
})
