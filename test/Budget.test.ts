/**
 * The decision as a table: what was charged, which permits are held, the demand and the time → when a call may start.
 */
import { assert, describe, it } from "@effect/vitest"
import { Throttle } from "effect-throttle"
import * as Budget from "../src/internal/budget.ts"
import * as Demand from "../src/internal/demand.ts"
import * as Plan from "../src/internal/plan.ts"
import * as Pool from "../src/internal/pool.ts"

const ms = 1e6

interface Start {
  /** Milliseconds. */
  readonly at: number
  readonly cost?: Throttle.Cost
}

/** A plan, its free pools and what these starts have charged. The wall clock shows the time of the monotonic clock. */
const stateOf = (policy: Throttle.Policy<any>, starts: ReadonlyArray<Start> = []) => {
  const plan = Plan.make(policy.data)
  const parts: Budget.Basis = { plan, pools: plan.pools.map(Pool.make), wall: (at) => at / ms }
  const charged = starts.reduce(
    (charged, { at, cost = 1 }) => Budget.charge(parts, charged, Demand.make(plan, cost), at * ms, at * ms),
    Budget.initial(plan)
  )
  return { plan, parts, charged }
}

/** In milliseconds. */
const spell = (decision: Budget.Decision): string =>
  decision._tag === "ReadyAt" ? `ReadyAt ${Math.round(decision.at / 1e3) / 1e3}` : decision._tag

interface Row {
  readonly title: string
  readonly policy: Throttle.Policy<any>
  readonly starts?: ReadonlyArray<Start>
  /** Permits that are held, of each permit-based part. */
  readonly held?: ReadonlyArray<number>
  readonly cost?: Throttle.Cost
  /** Milliseconds. */
  readonly now: number
  readonly decision: string
}

const rate = Throttle.rate({ limit: 10, burst: 1 })
const bucket = Throttle.tokenBucket({ capacity: 4, refill: 2 })
const sliding = Throttle.window({ limit: 2, per: 100 })
const fixed = Throttle.window({ limit: 2, per: 100, kind: "fixed" })
const two = Throttle.concurrency({ limit: 2 })
const both = Throttle.all([Throttle.rate({ limit: 10 }), two])

const rows: ReadonlyArray<Row> = [
  { title: "no limit", policy: Throttle.none, cost: 1_000, now: 7, decision: "ReadyAt 7" },
  { title: "rate: nothing charged", policy: rate, now: 5, decision: "ReadyAt 5" },
  { title: "rate: burst left", policy: rate, starts: [{ at: 0 }], now: 5, decision: "ReadyAt 5" },
  { title: "rate: burst spent", policy: rate, starts: [{ at: 0 }, { at: 0 }], now: 5, decision: "ReadyAt 100" },
  { title: "rate: unused time", policy: rate, starts: [{ at: 0 }, { at: 0 }], now: 100, decision: "ReadyAt 100" },
  { title: "rate: a cost of 0", policy: rate, starts: [{ at: 0, cost: 2 }], cost: 0, now: 5, decision: "ReadyAt 5" },
  { title: "rate: the whole capacity", policy: rate, starts: [{ at: 0 }], cost: 2, now: 0, decision: "ReadyAt 100" },
  { title: "rate: more than the capacity", policy: rate, cost: 3, now: 0, decision: "Never" },
  { title: "token bucket: tokens left", policy: bucket, starts: [{ at: 0, cost: 3 }], now: 0, decision: "ReadyAt 0" },
  {
    title: "token bucket: refilled by half",
    policy: bucket,
    starts: [{ at: 0, cost: 4 }],
    cost: 2,
    now: 500,
    decision: "ReadyAt 1000"
  },
  { title: "token bucket: more than it holds", policy: bucket, cost: 5, now: 0, decision: "Never" },
  {
    title: "sliding window: full",
    policy: sliding,
    starts: [{ at: 10 }, { at: 40 }],
    now: 50,
    decision: "ReadyAt 110"
  },
  {
    title: "sliding window: a cost of all it admits",
    policy: sliding,
    starts: [{ at: 10 }, { at: 40 }],
    cost: 2,
    now: 50,
    decision: "ReadyAt 140"
  },
  { title: "fixed window: full", policy: fixed, starts: [{ at: 10 }, { at: 40 }], now: 50, decision: "ReadyAt 100" },
  {
    title: "fixed window: the next one",
    policy: fixed,
    starts: [{ at: 10 }, { at: 40 }],
    now: 100,
    decision: "ReadyAt 100"
  },
  {
    title: "spacing: each cost counts as one start",
    policy: Throttle.spacing({ interval: 100 }),
    starts: [{ at: 0, cost: 50 }],
    cost: 70,
    now: 30,
    decision: "ReadyAt 100"
  },
  {
    title: "spacing on the clock: the next slot",
    policy: Throttle.spacing({ interval: 100, align: true }),
    now: 130,
    decision: "ReadyAt 200"
  },
  { title: "concurrency: permits are free", policy: two, held: [1], now: 3, decision: "ReadyAt 3" },
  { title: "concurrency: all permits are held", policy: two, held: [2], now: 3, decision: "NeedsPermits" },
  { title: "concurrency: too few permits are free", policy: two, held: [1], cost: 2, now: 3, decision: "NeedsPermits" },
  { title: "concurrency: a cost of 0", policy: two, held: [2], cost: 0, now: 3, decision: "ReadyAt 3" },
  { title: "concurrency: more held than a lowered limit", policy: two, held: [3], now: 3, decision: "NeedsPermits" },
  { title: "concurrency: more than the limit", policy: two, cost: 3, now: 3, decision: "Never" },
  {
    title: "all: the latest of its parts",
    policy: Throttle.all([rate, sliding]),
    starts: [{ at: 0 }, { at: 40 }],
    now: 50,
    decision: "ReadyAt 100"
  },
  {
    title: "all: permits come before time",
    policy: both,
    starts: [{ at: 0 }],
    held: [2],
    now: 50,
    decision: "NeedsPermits"
  },
  {
    title: "all: time where permits are free",
    policy: both,
    starts: [{ at: 0 }],
    held: [1],
    now: 50,
    decision: "ReadyAt 100"
  },
  {
    title: "all: slots of two parts on the clock",
    policy: Throttle.all([
      Throttle.spacing({ interval: 20, align: true }),
      Throttle.spacing({ interval: 30, align: true })
    ]),
    now: 70,
    decision: "ReadyAt 120"
  },
  {
    title: "units: each part decides about its own",
    policy: Throttle.all([rate, Throttle.tokenBucket({ capacity: 10, refill: 1, unit: "tokens" })]),
    starts: [{ at: 0, cost: { tokens: 10 } }],
    cost: { tokens: 3 },
    now: 0,
    decision: "ReadyAt 3000"
  },
  {
    title: "spacing from the end: the permit of the running call",
    policy: Throttle.spacing({ interval: 100, from: "end" }),
    starts: [{ at: 0 }],
    held: [1],
    now: 50,
    decision: "NeedsPermits"
  }
]

describe("the decision", () => {
  it.each(rows)("$title: $decision", ({ cost = 1, decision, held = [], now, policy, starts }) => {
    const { charged, parts, plan } = stateOf(policy, starts)
    for (const [i, pool] of parts.pools.entries()) pool.held = held[i] ?? 0
    const demand = Demand.make(plan, cost)
    const found = Budget.decide(parts, charged, demand, now * ms)
    assert.strictEqual(spell(found), decision)

    // The fast path charges a call exactly if the decision says that it is ready.
    if (found._tag !== "ReadyAt") return
    assert.strictEqual(
      Budget.chargeIfReady(parts, charged, demand, now * ms) !== undefined,
      Budget.isReady(found, now * ms)
    )
    // At the instant that the decision names the call is ready, and a little earlier it is not.
    if (found.at > now * ms) {
      assert.isDefined(Budget.chargeIfReady(parts, charged, demand, found.at), "not ready when it should be")
      assert.isUndefined(Budget.chargeIfReady(parts, charged, demand, found.at - 10 * Budget.tolerance))
    }
  })

  it("changes nothing", () => {
    for (const { cost = 1, now, policy, starts } of rows) {
      const { charged, parts, plan } = stateOf(policy, starts)
      const before = structuredClone(charged)
      Budget.decide(parts, charged, Demand.make(plan, cost), now * ms)
      assert.deepStrictEqual(charged, before)
    }
  })

  it("during a pause without an end names no instant", () => {
    const { charged, parts, plan } = stateOf(rate)
    assert.strictEqual(spell(Budget.decide(parts, charged, Demand.one(plan), Infinity)), "ReadyAt Infinity")
  })

  it("is ready within the tolerance, and not before", () => {
    const at = 100 * ms
    assert.isTrue(Budget.isReady({ _tag: "ReadyAt", at }, at - Budget.tolerance))
    assert.isFalse(Budget.isReady({ _tag: "ReadyAt", at }, at - Budget.tolerance - 1))
    assert.isFalse(Budget.isReady({ _tag: "NeedsPermits" }, Infinity))
    assert.isFalse(Budget.isReady({ _tag: "Never" }, Infinity))
  })
})

describe("a charge", () => {
  const kinds: ReadonlyArray<readonly [string, Throttle.Policy<any>]> = [
    ["rate", rate],
    ["token bucket", bucket],
    ["sliding window", sliding],
    ["fixed window", fixed],
    ["all", Throttle.all([rate, sliding])]
  ]

  it.each(kinds)("%s: a cancelled call leaves no charge", (_, policy) => {
    const { charged, parts, plan } = stateOf(policy)
    const demand = Demand.make(plan, 2)
    const opened = Budget.open(plan, Budget.charge(parts, charged, demand, 0, 0), charged, demand)
    assert.isFalse(Budget.isUnspent(plan, opened.charged, 0))
    const cancelled = Budget.cancel(plan, opened.charged, opened.tickets, demand.meters, 0)
    const closed = Budget.close(plan, cancelled, opened.tickets)
    assert.isTrue(Budget.isUnspent(plan, closed, 0))
    assert.strictEqual(spell(Budget.decide(parts, closed, demand, 0)), "ReadyAt 0")
  })

  it.each(kinds)("%s: settling replaces the estimated cost with the actual one", (_, policy) => {
    const { charged, parts, plan } = stateOf(policy)
    const [one, estimated] = [Demand.make(plan, 1), Demand.make(plan, 2)]
    const opened = Budget.open(plan, Budget.charge(parts, charged, estimated, 0, 0), charged, estimated)
    const settled = Budget.settle(parts, opened.charged, opened.tickets, estimated.meters, one, 0)
    const single = Budget.charge(parts, charged, one, 0, 0)
    for (const cost of [1, 2]) {
      const demand = Demand.make(plan, cost)
      assert.strictEqual(
        spell(Budget.decide(parts, Budget.close(plan, settled, opened.tickets), demand, 0)),
        spell(Budget.decide(parts, single, demand, 0))
      )
    }
  })

  it("of spacing from the end is made when the call ends", () => {
    const { charged, parts, plan } = stateOf(Throttle.spacing({ interval: 100, from: "end" }), [{ at: 0 }])
    const one = Demand.one(plan)
    assert.strictEqual(spell(Budget.decide(parts, charged, one, 10 * ms)), "ReadyAt 10")
    const ended = Budget.chargeRelease(parts, charged, one.meters, 30 * ms)
    assert.strictEqual(spell(Budget.decide(parts, ended, one, 30 * ms)), "ReadyAt 130")
  })

  it("is carried over to the part of the same kind, unit and name", () => {
    const from = stateOf(
      Throttle.all([Throttle.rate({ limit: 10, name: "a" }), Throttle.rate({ limit: 10, name: "b" })]),
      [
        { at: 0 }
      ]
    )
    const to = stateOf(Throttle.rate({ limit: 5, name: "b" }))
    const adopted = Budget.adopt(to.plan, from.plan, from.charged, 0)
    assert.strictEqual(spell(Budget.decide(to.parts, adopted, Demand.one(to.plan), 0)), "ReadyAt 200")
    const other = stateOf(Throttle.rate({ limit: 5, name: "c" }))
    const fresh = Budget.adopt(other.plan, from.plan, from.charged, 0)
    assert.isTrue(Budget.isInitial(other.plan, fresh, 0))
  })
})
