/**
 * Laws of the orders of the queue, over random programs; equal seeds give equal programs. More with FUZZ, from FROM.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Effect } from "effect"
import { Throttle } from "effect-throttle"
import * as Demand from "../src/internal/demand.ts"
import * as Plan from "../src/internal/plan.ts"
import { fair } from "../src/internal/queue/fair.ts"
import { FairModel, type ModelCall } from "./utils/fair-model.ts"
import { assertIdle, statisticsOf } from "./utils/kit.ts"
import { changed, orderProgram, parts, playOrder, random, uneven } from "./utils/order-programs.ts"
import { expected, numbersOf, type OrderCall, type OrderProgram } from "./utils/order-reference.ts"
import * as Sweep from "./utils/sweep.ts"

const scale = Number(process.env["FUZZ"] ?? 1)
const from = Number(process.env["FROM"] ?? 1)

/** Checks so many seeds. */
const seeds = (count: number, check: (seed: number) => void): void => {
  for (let seed = from; seed < from + count * scale; seed++) check(seed)
}

const timeout = 600_000

// ---------------------------------------------------------------------------------------------------------------------
// Against slow models
// ---------------------------------------------------------------------------------------------------------------------

interface QueuedCall {
  readonly id: number
  readonly arrival: number
  readonly caller: Throttle.Caller
  demand: Demand.Demand
  readonly settlement: object | undefined
  place: unknown
}

/** Plays random events on the queue of the fair order and on its model, and compares all that they tell. */
const compareQueue = (seed: number): void => {
  const source = random(seed)
  const { chance, int, pick } = source
  const given = parts(source)
  const units = new Set(given.map(({ unit }) => unit))
  let plan = Plan.make({ _tag: "All", policies: given as any })
  const ageing = pick(0, 0, 4e6, 16e6)
  let now = 0
  const queue = fair<QueuedCall>(() => now, ageing)
  const ranking = queue.ranking!
  const model = new FairModel(ageing)
  const waiting: Array<QueuedCall> = []
  const open: Array<QueuedCall> = []
  const settled = new Set<QueuedCall>()
  const names = ["a", "b", "c", "d"].slice(0, int(1, 4))
  const isSteady = chance(0.5)
  const weights = [0.5, 1, 2, 4] as const
  let calls = 0
  const log: Array<string> = []

  const newCall = (): QueuedCall => {
    const key = pick(...names)
    const cost = !units.has("slots")
      ? int(0, 4)
      : { slots: int(0, 4), ...(units.has(undefined) ? { permits: int(0, 4) } : undefined) }
    return {
      id: calls++,
      arrival: now,
      demand: Demand.make(plan, cost),
      caller: {
        key,
        weight: isSteady ? weights[names.indexOf(key)]! : pick(...weights),
        priority: pick(0, 0, 1, -1, 2)
      },
      settlement: chance(0.4) ? {} : undefined,
      place: undefined
    }
  }
  const modelled = ({ arrival, caller, demand, id }: QueuedCall): ModelCall => ({
    id,
    ...caller,
    arrival,
    ...numbersOf(demand)
  })
  const take = <A>(array: Array<A>, index = int(0, array.length - 1)): A => array.splice(index, 1)[0]!
  const isOpen = ({ demand, settlement }: QueuedCall) => settlement !== undefined || numbersOf(demand).share > 0

  const act = (): void => {
    const action = int(0, 12)
    if (action < 4) {
      const call = newCall()
      const { caller: { key, priority, weight }, demand: { cost } } = call
      log.push(`${call.id} arrives: ${JSON.stringify({ key, weight, priority, cost })}`)
      assert.strictEqual(ranking.isFirst(call), model.isFirst(modelled(call)), "whether it would be first")
      assert.deepStrictEqual(
        Array.from(ranking.before(call), ({ id }) => id),
        model.before(modelled(call)),
        "before it"
      )
      queue.push(call)
      model.arrive(modelled(call))
      waiting.push(call)
    } else if (action < 8 && waiting.length > 0) {
      const head = queue.peek()!
      log.push(`${head.id} starts`)
      take(waiting, waiting.indexOf(head))
      queue.remove(head, true)
      model.start(head.id, isOpen(head))
      if (isOpen(head)) open.push(head)
    } else if (action === 8 && waiting.length > 0) {
      const call = take(waiting)
      log.push(`${call.id} leaves`)
      queue.remove(call, false)
      model.leave(call.id)
    } else if (action < 11 && open.length > 0) {
      const call = take(open)
      log.push(`${call.id} ends`)
      ranking.ended(call)
      model.end(call.id)
    } else if (action === 11 && open.length > 0) {
      const call = open[int(0, open.length - 1)]!
      if (call.settlement === undefined || settled.has(call)) return
      if (chance(0.3)) {
        log.push(`${call.id} is cancelled`)
        take(open, open.indexOf(call))
        ranking.cancelled(call)
        model.cancel(call.id)
      } else {
        const actual = Demand.make(plan, { [units.has("slots") ? "slots" : "permits"]: int(0, 9) })
        log.push(`${call.id} is settled: ${JSON.stringify(actual.cost)}`)
        settled.add(call)
        ranking.settled(call, actual)
        model.settle(call.id, numbersOf(actual).timing)
      }
    } else if (action === 12 && chance(0.5)) {
      plan = Plan.make({ _tag: "All", policies: changed(source, given) as any })
      log.push("update")
      for (const call of waiting) call.demand = Demand.forPlan(plan, call.demand)
      ranking.replanned()
      model.update((id) => numbersOf(waiting.find((call) => call.id === id)!.demand))
    }
  }

  try {
    for (let step = 0; step < 60; step++) {
      const former = queue.peek()
      const changesAt = ranking.changesAt()
      if (chance(0.6)) now += pick(1, 2, 4, 8, int(0, 20)) * 1e6
      log.push(`at ${now / 1e6}`)
      model.advance(now)
      ranking.refresh()
      assert.strictEqual(queue.peek()?.id, model.head()?.id, "the head, as time passes")
      if (queue.peek() !== former) assert.isAtMost(changesAt, now + 1e3, "when the head changes")
      act()
      assert.strictEqual(queue.peek()?.id, model.head()?.id, "the head")
      const ahead = new Map(ranking.ahead())
      assert.deepStrictEqual([...ahead.keys()].toSorted(), [...model.ahead().keys()].toSorted(), "the accounts")
      for (const [key, nanos] of model.ahead()) assert.closeTo(ahead.get(key)!, nanos, 1e-3, `ahead: ${key}`)
      if (ranking.isSettled()) {
        for (const { had, key } of model.callers) {
          const isOwing = model.ownCalls(key).length === 0 && !model.running.some(({ call }) => call.key === key)
          if (isOwing) assert.isAtMost(had - model.faded(), 1e-3, `settled, though ${key} owes`)
        }
      }
    }
  } catch (error) {
    throw new Error(`seed ${seed}\n${log.slice(-20).join("\n")}`, { cause: error })
  }
}

/** Compares what becomes of the calls of a program with the reference; returns whether it is certain. */
const compareThrottle = (seed: number): boolean => {
  const program = orderProgram(seed)
  const { calls } = program
  const { margin, outcomes } = expected(program)
  const played = playOrder(program)
  const arrivals = calls.map(({ at }) => at)
  const coincide = outcomes.some(({ start }, i) =>
    start !== undefined && arrivals.some((at, j) => j !== i && Math.abs(at - start) < 2e-3)
  )
  if ((margin > 0 && margin < 1e-2) || coincide) return false
  for (const [i, { end, start }] of outcomes.entries()) {
    const outcome = played.outcomes[i]!
    const about = `seed ${seed}, call ${i}: ${JSON.stringify(outcome)}, expected ${JSON.stringify({ start, end })}`
    assert.strictEqual(outcome.end, end, about)
    assert.strictEqual(outcome.start === undefined, start === undefined, about)
    if (start !== undefined) assert.closeTo(outcome.start!, start, 2e-3, about)
  }
  assertIdle(played.throttle, `seed ${seed}`)
  return true
}

describe("models", () => {
  it("the fair queue does what a slow model of its rules does", () => seeds(300, compareQueue), timeout)

  it("a throttle starts the calls of every order when a slow reference does", () => {
    let certain = 0
    seeds(300, (seed) => void (certain += Number(compareThrottle(seed))))
    assert.isAbove(certain, 280 * scale)
  }, timeout)
})

// ---------------------------------------------------------------------------------------------------------------------
// Bounds
// ---------------------------------------------------------------------------------------------------------------------

const plainCall = (key: string, at: number): OrderCall => ({
  at,
  runs: 0,
  cost: 1,
  caller: { key, weight: 1, priority: 0 },
  use: "withPermits",
  actual: 0,
  settlesAfter: 0,
  interruptAt: undefined
})

/** A program of callers that wait together, on one part that decides by time. */
const crowd = (seed: number, order: object, heaviest: number, withWeights = true): OrderProgram => {
  const source = random(seed)
  const { int, pick } = source
  const part = pick<object>(
    { _tag: "Rate", limit: pick(1, 2, 4), per: 16, burst: 3 },
    { _tag: "TokenBucket", capacity: 4, refill: pick(1, 2, 4), per: 16 }
  )
  const keys = ["a", "b", "c"].slice(0, int(2, 3))
  const weights = keys.map(() => withWeights ? pick(0.5, 1, 2, 4) : 1)
  const calls = Array.from({ length: int(10, 40) }, (): OrderCall => {
    const i = int(0, keys.length - 1)
    return {
      ...plainCall(keys[i]!, uneven(source, 0, 40)),
      cost: int(1, heaviest),
      caller: { key: keys[i]!, weight: weights[i]!, priority: 0 }
    }
  }).toSorted((a, b) => a.at - b.at)
  return { policy: { ...part, ...order } as any, calls, turns: [] }
}

/** The nanoseconds of the throttle that a permit takes. */
const paceOf = ({ policy }: OrderProgram): number => {
  const { pace: { per, permits } } = Plan.make(policy).meters[0]!
  return per / permits
}

describe("bounds", () => {
  it("callers that wait together get shares by weight, within one call of each", () => {
    let checked = 0
    seeds(150, (seed) => {
      const program = crowd(seed, { order: "fair" }, 4)
      const { calls } = program
      const { order, outcomes } = playOrder(program)
      const pace = paceOf(program)
      const keys = [...new Set(calls.map(({ caller }) => caller.key))]
      const of = (key: string) => calls.flatMap(({ caller }, i) => caller.key === key ? [i] : [])
      const waits = (key: string, at: number) => of(key).some((i) => calls[i]!.at < at && outcomes[i]!.start! > at)
      for (const [a, b] of keys.flatMap((a) => keys.filter((b) => a < b).map((b) => [a, b] as const))) {
        const bound = [a, b].reduce(
          (sum, key) =>
            sum + Math.max(...of(key).map((i) => (calls[i]!.cost as number) * pace / calls[i]!.caller.weight)),
          0
        )
        // The difference of what both have had, since they wait together.
        let difference = 0
        let [least, most] = [0, 0]
        for (const i of order) {
          const { caller, cost } = calls[i]!
          const at = outcomes[i]!.start!
          if (!waits(a, at - 1e-2) || !waits(b, at - 1e-2)) {
            difference = least = most = 0
            continue
          }
          const had = (cost as number) * pace / caller.weight
          if (caller.key === a) difference += had
          if (caller.key === b) difference -= had
          least = Math.min(least, difference)
          most = Math.max(most, difference)
          checked++
          assert.isAtMost(most - least, bound + 1e-3, `seed ${seed}: ${a} and ${b}`)
        }
      }
    })
    assert.isAbove(checked, 1_000)
  }, timeout)

  it("a call passes another only if it came less than ageing after it for each step of priority", () => {
    let passed = 0
    seeds(150, (seed) => {
      const { pick } = random(-seed)
      const ageing = pick(2, 8, 32)
      const plain = crowd(seed, { order: "priority", ageing }, 4)
      const calls = plain.calls.map((call) => ({ ...call, caller: { ...call.caller, priority: pick(0, 0, 1, 2, -1) } }))
      const { order } = playOrder({ ...plain, calls })
      order.forEach((j, place) => {
        for (const i of order.slice(place + 1)) {
          if (calls[i]!.at >= calls[j]!.at) continue
          passed++
          const steps = calls[j]!.caller.priority - calls[i]!.caller.priority
          assert.isBelow(calls[j]!.at - calls[i]!.at, steps * ageing + 1e-9, `seed ${seed}: ${j} passes ${i}`)
        }
      })
    })
    assert.isAbove(passed, 1_000)
  }, timeout)

  it("with equal costs, the throttle is used as much in every order as in that of arrival", () => {
    seeds(100, (seed) => {
      const { pick } = random(-seed)
      const startsIn = (order: object) => {
        const program = crowd(seed, order, 1)
        const calls = program.calls.map((call) => ({ ...call, caller: { ...call.caller, priority: pick(0, 1, 2) } }))
        return playOrder({ ...program, calls }).outcomes.map(({ start }) => start!).toSorted((a, b) => a - b)
      }
      const starts = startsIn({})
      for (const order of [{ order: "fair" }, { order: "fair", ageing: 4 }, { order: "priority", ageing: 8 }]) {
        startsIn(order).forEach((start, i) => assert.closeTo(start, starts[i]!, 3e-3, `seed ${seed}: ${order.order}`))
      }
    })
  }, timeout)

  it("every waiting caller ranks between the virtual time and one cost later", () => {
    seeds(100, (seed) => {
      const { chance, int, pick } = random(seed)
      const model = new FairModel(0)
      const weights = new Map(["a", "b", "c"].map((key) => [key, pick(0.5, 1, 2)]))
      const withdraws = seed % 2 === 0
      let most = 0
      for (let id = 0; id < 60; id++) {
        model.advance(id * 1e6)
        const key = pick("a", "b", "c")
        const weight = weights.get(key)!
        const timing = int(1, 8) * 1e6
        most = Math.max(most, timing / weight)
        model.arrive({ id, key, weight, priority: 0, arrival: id * 1e6, timing, share: 0 })
        if (withdraws && chance(0.2)) model.leave(pick(...model.waiting).id)
        if (chance(0.6) && model.waiting.length > 0) model.start(model.head()!.id, false)
        for (const { rank } of model.ranks()) {
          assert.isAtLeast(rank, model.v - (withdraws ? most / 4 : 0), `seed ${seed}`)
          assert.isAtMost(rank, model.v + most, `seed ${seed}`)
        }
      }
    })
  }, timeout)
})

// ---------------------------------------------------------------------------------------------------------------------
// Equivalences
// ---------------------------------------------------------------------------------------------------------------------

/** The same program with another policy's order and other callers. */
const altered = (
  { calls, policy, turns }: OrderProgram,
  order: object,
  caller: (caller: Throttle.Caller, i: number) => Throttle.Caller
): OrderProgram => {
  const ordered = (policy: any): any => {
    const { ageing: _, order: __, ...others } = policy
    return { ...others, ...order }
  }
  return {
    policy: ordered(policy),
    calls: calls.map((call, i) => ({ ...call, caller: caller(call.caller, i) })),
    turns: turns.map((turn) => ({ ...turn, policy: ordered(turn.policy) }))
  }
}

const assertSame = (a: OrderProgram, b: OrderProgram, where: string): void => {
  const [one, other] = [playOrder(a), playOrder(b)]
  assert.deepStrictEqual(one.order, other.order, where)
  for (const [i, { end, start }] of one.outcomes.entries()) {
    assert.strictEqual(end, other.outcomes[i]!.end, `${where}, call ${i}`)
    if (start !== undefined) assert.closeTo(start, other.outcomes[i]!.start!, 2e-3, `${where}, call ${i}`)
  }
}

const unnamed = { key: "", weight: 1, priority: 0 }

describe("equivalences", () => {
  it("the calls of one caller start by arrival", () =>
    seeds(60, (seed) => {
      const program = orderProgram(seed)
      const alone = (order: object) => altered(program, order, () => unnamed)
      assertSame(alone({ order: "fair" }), alone({}), `seed ${seed}, fair`)
      assertSame(alone({ order: "priority", ageing: 5 }), alone({}), `seed ${seed}, priority`)
    }), timeout)

  it("where no call waits, calls start as in the order of arrival", () => {
    let checked = 0
    seeds(120, (seed) => {
      const program = orderProgram(seed)
      const calls = program.calls.map((call, i) => ({ ...call, at: call.at + 40 * i, interruptAt: undefined }))
      const sparse = { ...program, calls, turns: [] }
      const arrival = altered(sparse, {}, (caller) => caller)
      if (playOrder(arrival).outcomes.some(({ start }, i) => start !== calls[i]!.at)) return
      checked++
      assertSame(altered(sparse, { order: "fair" }, (caller) => caller), arrival, `seed ${seed}`)
      assertSame(altered(sparse, { order: "priority", ageing: 9 }, (caller) => caller), arrival, `seed ${seed}`)
    })
    assert.isAbove(checked, 20)
  }, timeout)

  it("callers that come once, with equal costs and weights, start by arrival", () =>
    seeds(100, (seed) => {
      const program = crowd(seed, { order: "fair" }, 1)
      const once = (order: object) => altered(program, order, (_, i) => ({ ...unnamed, key: `caller ${i}` }))
      assertSame(once({ order: "fair" }), once({}), `seed ${seed}`)
    }), timeout)

  it("only the ratios of weights matter", () =>
    seeds(80, (seed) => {
      const program = orderProgram(seed)
      const fair = (factor: number) =>
        altered(program, { order: "fair", ageing: 4 }, (caller) => ({ ...caller, weight: caller.weight * factor }))
      assertSame(fair(8), fair(1), `seed ${seed}`)
    }), timeout)

  it("the names of callers do not matter", () =>
    seeds(120, (seed) => {
      const program = orderProgram(seed)
      const names = new Map([["", "z"], ["a", "__proto__"], ["b", "a"], ["c", ""]])
      const fair = (name: (key: string) => string) =>
        altered(program, { order: "fair" }, (caller) => ({ ...caller, key: name(caller.key) }))
      assertSame(fair((key) => names.get(key)!), fair((key) => key), `seed ${seed}`)
    }), timeout)
})

// ---------------------------------------------------------------------------------------------------------------------
// Interruption
// ---------------------------------------------------------------------------------------------------------------------

describe("an interrupted waiter leaves no trace", () => {
  const callers = ["z", "a", "a", "b", "a", "c", "b"]
  const policies = {
    "fair, permits": Throttle.concurrency({ limit: 1, order: "fair" }),
    "fair, time": Throttle.rate({ limit: 1, per: 2, order: "fair" }),
    "fair, both": Throttle.all([Throttle.concurrency({ limit: 1 }), Throttle.rate({ limit: 1, per: 3 })], {
      order: "fair"
    }),
    "priority": Throttle.concurrency({ limit: 1, order: "priority", ageing: "1 minute" })
  }
  for (const [name, policy] of Object.entries(policies)) {
    it(name, () => {
      const play = (victim: number, step: number | undefined) => {
        let i = 0
        const options: Sweep.Options = {
          policy,
          calls: callers.length,
          use: (throttle, self): Effect.Effect<unknown, unknown> => {
            const call = i++
            return throttle.withPermit(self).pipe(
              Throttle.withCaller({ key: callers[call]!, priority: call % 3, weight: call === victim ? 4 : 1 })
            )
          },
          act: Sweep.interrupt(victim)
        }
        return Sweep.atStep(options, step ?? 100_000, `${name}, call ${victim}, step ${step}`)
      }
      let interruptions = 0
      for (let victim = 1; victim < callers.length; victim++) {
        // It goes before its fiber has made a step.
        const without = play(victim, 0)
        assert.isFalse(without.order.includes(victim))
        for (let step = Sweep.offset(); step < 1_000; step += Sweep.stride) {
          const { hit, order, throttle } = play(victim, step)
          const where = `${name}, call ${victim}, step ${step}`
          assertIdle(throttle, where)
          if (!hit) break
          // It may also be interrupted after it was charged, or not at all.
          const { interrupted } = statisticsOf(throttle)
          if (interrupted === 1) assert.deepStrictEqual(order, without.order, where)
          interruptions += interrupted
        }
      }
      assert.isAbove(interruptions, 50)
    }, timeout)
  }
})
