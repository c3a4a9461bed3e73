/**
 * Laws over random programs and policies. A failure is shrunk, and its replay token is printed.
 */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Throttle } from "effect-throttle"
import { type Call, type Outcome, play } from "./utils/play.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Rate = Schema.Struct({ _tag: Schema.Literal("Rate"), limit: int(1, 7), per: int(5, 40), burst: int(0, 4) })
const TokenBucket = Schema.Struct({
  _tag: Schema.Literal("TokenBucket"),
  capacity: int(1, 6),
  refill: int(1, 7),
  per: int(5, 40)
})
const Window = Schema.Struct({
  _tag: Schema.Literal("Window"),
  limit: int(1, 5),
  per: int(5, 40),
  kind: Schema.Literals(["sliding", "fixed"])
})
const Spacing = Schema.Struct({ _tag: Schema.Literal("Spacing"), interval: int(1, 20), align: Schema.Boolean })
const FromEnd = Schema.Struct({
  _tag: Schema.Literal("Spacing"),
  interval: int(1, 20),
  from: Schema.Literal("end")
})
const Concurrency = Schema.Struct({ _tag: Schema.Literal("Concurrency"), limit: int(1, 4) })

const Timing = Schema.Union([Rate, TokenBucket, Window, Spacing])
const Any = Schema.Union([Rate, TokenBucket, Window, Spacing, FromEnd, Concurrency])

const calls = (heaviest: number) =>
  Schema.Array(
    Schema.Struct({ at: int(0, 60), runs: int(0, 15), cost: int(0, heaviest) })
  ).check(Schema.isMaxLength(14))

const arbitrary = { arbitrary: { runs: 150 } }

const policyOf = (data: object): Throttle.Policy<any> => Throttle.fromData(data as any)

/** The calls in the order in which they arrive: those of one instant as they stand. */
const inOrder = (program: ReadonlyArray<Call>) =>
  program.map((call, i) => ({ call, i })).toSorted((a, b) => a.call.at - b.call.at)

const near = (a: number, b: number) => Math.abs(a - b) < 2e-3

const same = (a: ReadonlyArray<Outcome>, b: ReadonlyArray<Outcome>) => {
  assert.deepStrictEqual(a.map((outcome) => outcome.end), b.map((outcome) => outcome.end))
  for (const [i, outcome] of a.entries()) {
    const other = b[i]!
    assert.strictEqual(outcome.start === undefined, other.start === undefined)
    if (outcome.start !== undefined) assert.closeTo(outcome.start, other.start!, 2e-3, `call ${i}`)
  }
}

interface Started {
  readonly at: number
  readonly cost: number
  readonly end: number
}

const startsOf = (program: ReadonlyArray<Call>, outcomes: ReadonlyArray<Outcome>): ReadonlyArray<Started> =>
  outcomes
    .flatMap(({ start }, i) =>
      start === undefined ? [] : [{ at: start, cost: program[i]!.cost as number, end: start + program[i]!.runs }]
    )
    .toSorted((a, b) => a.at - b.at)

/** Whether these starts are within a policy's promise, computed from the definition and not from the algorithm. */
const keepsPromise = (data: any, starts: ReadonlyArray<Started>): boolean => {
  const paid = starts.filter(({ cost }) => cost > 0)
  const spans = (allowed: (span: number) => number, open = false) =>
    paid.every((first, i) => {
      let sum = 0
      return paid.slice(i).every((last) => {
        sum += last.cost
        return sum <= allowed(last.at - first.at + (open ? 0 : 2e-3)) + 1e-6
      })
    })
  switch (data._tag) {
    case "Rate":
      return spans((span) => 1 + data.burst + span * data.limit / data.per)
    case "TokenBucket":
      return spans((span) => data.capacity + span * data.refill / data.per)
    case "Window": {
      if (data.kind === "sliding") return spans((span) => span < data.per - 2e-3 ? data.limit : Infinity, true)
      const used = new Map<number, number>()
      for (const { at, cost } of paid) {
        const window = Math.floor((at + 1e-3) / data.per)
        used.set(window, (used.get(window) ?? 0) + cost)
      }
      return [...used.values()].every((sum) => sum <= data.limit)
    }
    case "Spacing":
      return paid.every(({ at }, i) => {
        const before = i === 0 ? -Infinity : data.from === "end" ? paid[i - 1]!.end : paid[i - 1]!.at
        const phase = at % data.interval
        return at >= before + data.interval - 2e-3 &&
          (data.align !== true || phase < 2e-3 || data.interval - phase < 2e-3)
      })
    default:
      return paid.every(({ at }) =>
        paid.filter((other) => other.at <= at && at < other.end - 1e-6).reduce((sum, { cost }) => sum + cost, 0) <=
          data.limit
      )
  }
}

describe("laws", () => {
  it.prop(
    "never early, never above the bound, first come first served, no call lost",
    [Any, calls(3)],
    ([data, program]) => {
      const { outcomes, statistics } = play(policyOf(data), program)
      assert.isTrue(outcomes.every(({ end }) => end === "done" || end === "PermitsExceedCapacity"))
      for (const [i, { start }] of outcomes.entries()) if (start !== undefined) assert.isAtLeast(start, program[i]!.at)
      assert.isTrue(keepsPromise(data, startsOf(program, outcomes)), "above the bound")
      const starts = inOrder(program).flatMap(({ i }) => outcomes[i]!.start ?? [])
      assert.deepStrictEqual(starts, starts.toSorted((a, b) => a - b), "overtaken")
      assert.strictEqual(statistics.admitted, starts.length)
      assert.strictEqual(statistics.admitted + statistics.rejected.PermitsExceedCapacity, program.length)
      assert.strictEqual(statistics.waiting + statistics.running, 0)
    },
    arbitrary
  )

  it.prop("idle is wasted: a call that could have started earlier has", [Timing, calls(2)], ([data, program]) => {
    const { outcomes } = play(policyOf(data), program)
    const starts = startsOf(program, outcomes)
    // Any start moved to just after the later of its arrival and the start before it must break the promise, or be there.
    let previous = -Infinity
    for (const { call, i } of inOrder(program)) {
      const start = outcomes[i]!.start
      if (start === undefined) continue
      const earliest = Math.max(call.at, previous)
      previous = start
      const earlier = start - 0.01
      if (call.cost === 0 || earlier < earliest) continue
      if (data._tag === "Spacing" && data.align) continue
      const before = starts.filter(({ at }) => at < start - 1e-6)
      const moved = [...before, { at: earlier, cost: call.cost as number, end: earlier }]
      assert.isFalse(keepsPromise(data, moved), `call ${i} could have started before ${start}`)
    }
  }, arbitrary)

  it.prop("bounds: a rejected call does not affect other calls", [
    Schema.Union([Rate, Window, Spacing, Concurrency]),
    calls(1),
    int(0, 3)
  ], ([data, program, maxQueue]) => {
    const bounded = play(policyOf({ ...data, maxQueue }), program)
    const kept = program.filter((_, i) => bounded.outcomes[i]!.end === "done")
    const unbounded = play(policyOf(data), kept)
    same(bounded.outcomes.filter(({ end }) => end === "done"), unbounded.outcomes)
    assert.isAtMost(Math.max(0, bounded.statistics.rejected.QueueFull), program.length)
  }, arbitrary)

  it.prop("an interrupted waiter leaves no debt: it is as if it had never come", [
    Schema.Union([Rate, TokenBucket, Window]),
    calls(1),
    Schema.Array(int(0, 13)).check(Schema.isMaxLength(4)),
    int(0, 80)
  ], ([data, program, victims, interruptAt]) => {
    const policy = policyOf(data)
    const interrupted = play(policy, program.map((call, i) => victims.includes(i) ? { ...call, interruptAt } : call))
    const gone = interrupted.outcomes.map(({ end, start }) => end === "interrupted" && start === undefined)
    const without = play(policy, program.filter((_, i) => !gone[i]))
    const stayed = interrupted.outcomes.filter((_, i) => !gone[i])
    for (const [i, outcome] of stayed.entries()) {
      // A victim may still have held back those behind it until it went.
      const other = without.outcomes[i]!
      if (outcome.start === undefined || other.start === undefined) continue
      assert.isTrue(near(outcome.start, other.start) || near(outcome.start, interruptAt), `call ${i}`)
    }
    assert.strictEqual(interrupted.statistics.interrupted, gone.filter(Boolean).length)
    assert.strictEqual(interrupted.statistics.admitted, stayed.filter(({ start }) => start !== undefined).length)
  }, arbitrary)

  it.prop("all([p]) is p; none is neutral", [Any, calls(3)], ([data, program]) => {
    const policy = policyOf(data)
    const plain = play(policy, program).outcomes
    same(play(Throttle.all([policy]), program).outcomes, plain)
    same(play(Throttle.all([policy, Throttle.none]), program).outcomes, plain)
    same(play(Throttle.all([Throttle.all([]), Throttle.all([policy])]), program).outcomes, plain)
  }, arbitrary)

  it.prop("all: the order of its parts does not matter, and each part's promise is kept", [
    Schema.Union([Rate, TokenBucket, Window]),
    Schema.Union([Spacing, FromEnd, Concurrency]),
    Schema.Union([Window, Concurrency]),
    calls(1)
  ], ([first, second, third, program]) => {
    const parts = [first, second, third].map(policyOf)
    const { outcomes } = play(Throttle.all(parts), program)
    same(play(Throttle.all(parts.toReversed()), program).outcomes, outcomes)
    const starts = startsOf(program, outcomes)
    for (const data of [first, second, third]) assert.isTrue(keepsPromise(data, starts), JSON.stringify(data))
  }, arbitrary)

  it.prop("the scheduler's grain does not matter", [Any, calls(2)], ([data, program]) => {
    const policy = policyOf(data)
    same(play(policy, program, { operations: 3 }).outcomes, play(policy, program).outcomes)
  }, { arbitrary: { runs: 60 } })
})
