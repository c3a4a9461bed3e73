/**
 * Late timers: what is made up for, and what is not.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"

interface Start {
  readonly at: number
  readonly cost: number
}

/** How much more started in some span than `bound` allows for its length; negative if never. */
const excess = (starts: ReadonlyArray<Start>, bound: (millis: number) => number): number => {
  let most = -Infinity
  for (let i = 0; i < starts.length; i++) {
    let sum = 0
    for (let j = i; j < starts.length; j++) {
      sum += starts[j]!.cost
      most = Math.max(most, sum - bound(starts[j]!.at - starts[i]!.at))
    }
  }
  return most
}

const run = (
  seed: number,
  policy: Throttle.Policy<any>,
  options: { readonly heaviest?: number; readonly map?: boolean; readonly pauses?: boolean; readonly runs?: number }
): ReadonlyArray<Start> => {
  const next = randomNumbers(seed)
  const mostLate = [0.3, 2, 9, 15, 40][Math.floor(next() * 5)]!
  const simulator = Simulator.make({
    operations: [3, 2_048][seed % 2]!,
    late: (sleep) => sleep <= 0 ? 0 : next() < 0.2 ? 0 : next() * mostLate,
    context: Simulator.ownMetrics()
  })
  const starts: Array<Start> = []
  const scope = Scope.makeUnsafe()
  const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policy), scope))
  const map = Simulator.result(
    simulator,
    Scope.provide(ThrottleMap.make({ lookup: (_key: string) => policy }), scope)
  )
  let at = 0
  for (let i = 0; i < 120; i++) {
    at += next() < 0.5 ? 0 : next() < 0.1 ? next() * 60 : next() * 4
    const cost = 1 + Math.floor(next() * (options.heaviest ?? 1))
    const use = next()
    const runs = next() * (options.runs ?? 0)
    const again = next() < 0.3 ? 1 + Math.floor(next() * 6) : 1
    const body = Effect.suspend(() => {
      starts.push({ at: simulator.now(), cost })
      return runs > 0 ? Effect.sleep(runs) : Effect.void
    })
    const call: Effect.Effect<unknown, unknown> = options.map === true
      ? use < 0.6
        ? map.withPermits("a", cost)(body)
        : use < 0.8
        ? map.withPermitsIfAvailable("a", cost)(body)
        : map.usePermits("a", cost)(() => body)
      : use < 0.6
      ? throttle.withPermits(body, cost)
      : use < 0.8
      ? throttle.withPermitsIfAvailable(body, cost)
      : throttle.usePermits(() => body, cost)
    simulator.at(at, () => {
      const fiber = simulator.fork(Effect.repeat(call, { times: again - 1 }))
      if (next() < 0.1) simulator.at(simulator.now() + next() * 20, () => fiber.interruptUnsafe())
    })
    if (options.pauses === true && next() < 0.05) {
      const millis = next() * 15
      simulator.at(at, () => void simulator.fork(next() < 0.7 ? throttle.pause(millis) : throttle.resume))
    }
  }
  simulator.run()
  return starts
}

describe("late timers", () => {
  const cases = { "alone": {}, "weighted": { heaviest: 3 }, "paused": { pauses: true }, "a map's key": { map: true } }
  for (const [name, options] of Object.entries(cases)) {
    it(`rate, ${name}: no more than capacity + (t + 10 ms) / T start in any t`, () => {
      for (let seed = 1; seed <= 10; seed++) {
        const next = randomNumbers(-seed)
        const interval = 0.2 + next() * 8
        const capacity = 3 + Math.floor(next() * 4)
        const policy = Throttle.tokenBucket({ capacity, refill: 1, per: interval })
        const starts = run(seed, policy, options)
        assert.isAtMost(excess(starts, (t) => capacity + (t + 10) / interval), 1e-2, `seed ${seed}`)
      }
    })
  }

  it("so it is for a rate within an all, and the window beside it stays strict", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const next = randomNumbers(-seed)
      const interval = 0.2 + next() * 8
      const policy = Throttle.all([
        Throttle.rate({ limit: 1, per: interval }),
        Throttle.concurrency({ limit: 2 }),
        Throttle.window({ limit: 4, per: 4 * interval })
      ])
      const starts = run(seed, policy, { runs: 5 })
      assert.isAtMost(excess(starts, (t) => 1 + (t + 10) / interval), 1e-2, `seed ${seed}`)
      // The window is strict: less than its length apart.
      const inWindow = starts.map(({ at }, i) =>
        starts.slice(i).filter((other) => other.at - at < 4 * interval - 2e-3).length
      )
      assert.isAtMost(Math.max(...inWindow), 4, `seed ${seed}`)
    }
  })

  it("spacing beside a rate keeps its gap", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const next = randomNumbers(-seed)
      const interval = 0.5 + next() * 8
      const policy = Throttle.all([Throttle.rate({ limit: 1, per: interval / 2 }), Throttle.spacing({ interval })])
      const starts = run(seed, policy, {})
      for (let i = 1; i < starts.length; i++) {
        assert.isAtLeast(starts[i]!.at - starts[i - 1]!.at, interval - 2e-3, `seed ${seed}`)
      }
    }
  })
})

const latePlay = (
  policy: Throttle.Policy<any>,
  late: number,
  program: (
    throttle: Throttle.Throttle,
    call: Effect.Effect<void, unknown>,
    simulator: Simulator.Simulator
  ) => void
): ReadonlyArray<number> => {
  const simulator = Simulator.make({
    operations: 2_048,
    late: (sleep) => sleep <= 0 ? 0 : late,
    context: Simulator.ownMetrics()
  })
  const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policy), Scope.makeUnsafe()))
  const starts: Array<number> = []
  program(throttle, throttle.withPermit(Effect.sync(() => void starts.push(simulator.now()))), simulator)
  simulator.run()
  return starts
}

describe("a late start is made up for", () => {
  it("not after a pause", () => {
    // Two calls at 0: the second is due at 1 and starts 5 ms late. Then a pause of 3 ms, and five calls at its end.
    const starts = latePlay(Throttle.rate({ limit: 1, per: 1 }), 5, (throttle, call, simulator) => {
      simulator.fork(call)
      simulator.fork(call)
      simulator.at(6, () => void simulator.fork(throttle.pause(3)))
      simulator.at(9, () => {
        for (let i = 0; i < 5; i++) simulator.fork(call)
      })
    })
    assert.strictEqual(starts.filter((at) => at > 8 && at < 9.5).length, 1, `${starts}`)
  })

  it("not after an update to slots of the clock", () => {
    const starts = latePlay(Throttle.rate({ limit: 1, per: 3 }), 5, (throttle, call, simulator) => {
      simulator.setWall(96)
      // The second is due at 3 and starts at 8; the wall clock shows 104.
      simulator.fork(call)
      simulator.fork(call)
      simulator.at(9, () => void simulator.fork(throttle.update(Throttle.spacing({ interval: 100, align: true }))))
      simulator.at(9, () => void simulator.fork(call))
    })
    // 105 is no multiple of 100.
    assert.isAtLeast(starts[2]!, 104 - 1e-3, `${starts}`)
  })

  it("not by a window that an update adds", () => {
    const starts = latePlay(Throttle.rate({ limit: 1, per: 3 }), 5, (throttle, call, simulator) => {
      simulator.fork(call)
      simulator.fork(call)
      simulator.at(9, () => void simulator.fork(throttle.update(Throttle.window({ limit: 1, per: 50 }))))
      simulator.at(9, () => {
        for (let i = 0; i < 3; i++) simulator.fork(call)
      })
    })
    for (let i = 3; i < starts.length; i++) assert.isAtLeast(starts[i]! - starts[i - 1]!, 50 - 1e-3, `${starts}`)
  })
})

describe("settlements do not slow the schedule down", () => {
  /** Starts a second of 20 loops on timers that are up to 2 ms late, or on time. */
  const achieved = (capacity: number, isLate: boolean): number => {
    let n = 0
    const late = (sleep: number) => sleep <= 0 ? 0 : Math.ceil(sleep) - sleep + (n = (n * 7 + 3) % 20) / 10
    const simulator = Simulator.make({
      operations: 2_048,
      late: isLate ? late : () => 0,
      context: Simulator.ownMetrics(),
      limit: 10_000_000
    })
    const policy = Throttle.tokenBucket({ capacity, refill: 1_000 })
    const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policy), Scope.makeUnsafe()))
    let starts = 0
    for (let i = 0; i < 20; i++) {
      const call = throttle.usePermits((permit) => {
        if (simulator.now() < 2_000) starts++
        return Effect.andThen(Effect.sleep(5), permit.settle(1))
      }, 2)
      simulator.fork(Effect.repeat(call, { while: () => simulator.now() < 2_000 }))
    }
    simulator.run()
    return starts / 2
  }
  it.each([2, 3, 5, 8])("bucket of %d", (capacity) => {
    assert.isAtLeast(achieved(capacity, true) / achieved(capacity, false), 0.98)
  })
})
