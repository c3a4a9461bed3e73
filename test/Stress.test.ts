/**
 * Everything at once: random policies of up to three parts, calls of every kind and cost, timeouts, full queues, late timers,
 * interruptions at scheduler steps and at instants, scopes that close, each program judged by what its parts promise. In
 * three of ten programs there are pauses, updates or settlements meanwhile: then only what no policy may break is judged.
 *
 * The suite plays the same programs each time. `npm run stress` plays others for a minute; STRESS_SECONDS says for how long
 * instead, and STRESS_SEED plays one program again, such as a failed one.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit, Option } from "effect"
import type { Throttle } from "effect-throttle"
import { leftOf } from "./utils/kit.ts"
import { perform, type Performed, type Start } from "./utils/perform.ts"
import { coarse, type Part, type Program, randomProgram } from "./utils/random-program.ts"

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((a, b) => a + b, 0)

/** Milliseconds: sleeps are whole microseconds, and what is due within one of them is due. */
const noise = 2e-3

/** A call that is late waits for an event that was missed, not for a rounding: far more than this. */
const late = 0.05

/** What `rate` and `tokenBucket` make up for when a timer wakes late, and a little more. */
const catchUp = 10.1

// ---------------------------------------------------------------------------------------------------------------------
// What each part promises, computed from its definition and not from the algorithm
// ---------------------------------------------------------------------------------------------------------------------

/** A start as a part sees it. */
interface Charged {
  readonly at: number
  readonly end: number
  readonly amount: number
}

const amountOf = (part: Part, cost: Throttle.Cost): number => {
  const given = typeof cost === "number" ? { permits: cost } : cost
  const unit = part.unit ?? "permits"
  const amount = given[unit as keyof typeof given] ?? (unit === "permits" ? 1 : 0)
  return part._tag === "Spacing" ? Math.min(1, amount) : amount
}

const chargedTo = (part: Part, { calls }: Program, starts: ReadonlyArray<Start>): ReadonlyArray<Charged> =>
  starts
    .map(({ at, call, end = Infinity }) => ({ at, end, amount: amountOf(part, calls[call]!.cost) }))
    .filter(({ amount }) => amount > 0)

const total = (starts: ReadonlyArray<Charged>): number => sum(starts.map(({ amount }) => amount))

/** Whether a part lets a call start at an instant, after these starts. */
const allows = (part: Part, at: number, amount: number, before: ReadonlyArray<Charged>): boolean => {
  if (amount === 0) return true
  switch (part._tag) {
    case "Rate":
    case "TokenBucket": {
      const [capacity, each] = part._tag === "Rate"
        ? [part.burst + 1, part.per / part.limit]
        : [part.capacity, part.per / part.refill]
      // The level of a leaking bucket, in milliseconds until it is empty.
      let level = 0
      let since = 0
      for (const start of before) {
        level = Math.max(0, level - (start.at - since)) + start.amount * each
        since = start.at
      }
      return Math.max(0, level - (at - since)) <= (capacity - amount) * each + noise
    }
    case "Window": {
      const windowOf = (at: number) => Math.floor((at + noise) / part.per)
      const counts = part.kind === "sliding"
        ? (start: Charged) => start.at + part.per > at + noise
        : (start: Charged) => windowOf(start.at) === windowOf(at)
      return total(before.filter(counts)) + amount <= part.limit
    }
    case "Spacing": {
      const phase = at % part.interval
      if (part.align && phase > noise && part.interval - phase > noise) return false
      return before.every(({ at: start, end }) => (part.from === "end" ? end : start) + part.interval <= at + noise)
    }
    case "Concurrency":
      return total(before.filter(({ end }) => end > at + noise)) + amount <= part.limit
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// What must hold
// ---------------------------------------------------------------------------------------------------------------------

const early = (program: Program, { starts }: Performed): ReadonlyArray<string> =>
  program.turns.length > 0 ? [] : starts.flatMap(({ at, call }, i) =>
    program.parts.flatMap((part) => {
      const isRate = part._tag === "Rate" || part._tag === "TokenBucket"
      // A start that comes late still belongs to the slot it was late for.
      if (program.late > 0 && part._tag === "Spacing" && part.align) return []
      const from = program.late > 0 && isRate ? at + catchUp : at
      const before = chargedTo(part, program, starts.slice(0, i))
      const allowed = allows(part, from, amountOf(part, program.calls[call]!.cost), before)
      return allowed ? [] : [`call ${call} started at ${at}, too early for ${part._tag}`]
    })
  )

/** At no instant since it was the head could a call have started before it did. */
const tooLate = (program: Program, { headSince, starts, statistics }: Performed): ReadonlyArray<string> => {
  // Timers were late, or a call was charged that was not seen to start.
  if (program.late > 0 || program.turns.length > 0 || statistics.admitted !== starts.length) return []
  return starts.flatMap(({ at, call }, i) => {
    const since = headSince.get(call)
    if (since === undefined || at <= since + late) return []
    const asked = program.parts.map((part) => ({
      part,
      amount: amountOf(part, program.calls[call]!.cost),
      before: chargedTo(part, program, starts.slice(0, i))
    }))
    const first = since + 4 * noise
    const samples = 60
    for (let sample = 0; sample <= samples; sample++) {
      const instant = first + (at - late - first) * sample / samples
      if (asked.every(({ amount, before, part }) => allows(part, instant, amount, before))) {
        return [`call ${call} started at ${at}, too late: the head since ${since}, it could at ${instant}`]
      }
    }
    return []
  })
}

const overtaken = ({ operations }: Program, { admitted, queued, starts }: Performed): ReadonlyArray<string> => {
  // In small steps a start may come some steps after the admission, in large ones many are admitted in the same.
  const order = operations === coarse ? starts.map(({ call }) => call).filter((i) => queued.includes(i)) : admitted
  const expected = queued.filter((i) => order.includes(i))
  return order.join() === expected.join() ? [] : [`started in the order ${order}, not ${expected}`]
}

const afterTimeout = ({ bounds, calls, late }: Program, { queued, starts }: Performed): ReadonlyArray<string> =>
  late > 0 ? [] : starts
    .filter(({ at, call }) => queued.includes(call) && at - calls[call]!.at > (bounds.timeout ?? Infinity) + noise)
    .map(({ at, call }) => `call ${call} started after its timeout, at ${at}`)

const lost = ({ turns }: Program, { exits, starts }: Performed): ReadonlyArray<string> => [
  ...exits.flatMap((exit, i) => {
    if (exit === undefined) return [`call ${i} hangs`]
    // After an update its unit may be one that nothing counts.
    if (turns.length > 0 && String(exit).includes("unknown unit")) return []
    return Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? [`call ${i} died: ${Cause.pretty(exit.cause)}`] : []
  }),
  ...starts.filter(({ end }) => end === undefined).map(({ call }) => `call ${call} never ended`),
  ...starts.filter(({ call }, i) => starts.findIndex((start) => start.call === call) < i).map(({ call }) =>
    `call ${call} started twice`
  )
]

/** Nothing may be left of the calls when all is over. */
const leaks = (_: Program, { limiter, timers }: Performed): ReadonlyArray<string> =>
  [...leftOf(limiter), ...(timers > 0 ? ["a timer"] : [])].map((what) => `left over: ${what}`)

const miscounted = (program: Program, { exits, starts, statistics }: Performed): ReadonlyArray<string> => {
  const { admitted, interrupted, rejected } = statistics
  const unavailable = exits.filter((exit, i) =>
    program.calls[i]!.use === "ifAvailable" && exit !== undefined && Exit.isSuccess(exit) &&
    Option.isOption(exit.value) && Option.isNone(exit.value)
  )
  const counted = admitted + interrupted + sum(Object.values(rejected)) + unavailable.length
  // A call that is interrupted between two steps may not have arrived yet, or not have started although it was charged;
  // a call on a closed throttle does not count either.
  const exact = program.closeAt === undefined && program.turns.length === 0 &&
    program.calls.every(({ interruptStep }) => interruptStep === undefined)
  return [
    ...(exact ? counted === exits.length : counted <= exits.length)
      ? []
      : [`statistics count ${counted} calls of ${exits.length}`],
    ...(exact ? admitted === starts.length : admitted >= starts.length)
      ? []
      : [`statistics count ${admitted} admitted, ${starts.length} started`]
  ]
}

const laws = [early, tooLate, overtaken, afterTimeout, lost, leaks, miscounted]

// ---------------------------------------------------------------------------------------------------------------------
// Programs
// ---------------------------------------------------------------------------------------------------------------------

interface Failure {
  readonly seed: number
  readonly report: string
}

/** How often happened what the laws are about: programs in which nothing happens would keep them all. */
const tally = () => ({ programs: 0, started: 0, waited: 0, refused: 0, interrupted: 0 })

const judge = (seed: number, seen: ReturnType<typeof tally>): Failure | undefined => {
  const program = randomProgram(seed)
  const performed = perform(program)
  seen.programs++
  seen.started += performed.starts.length
  seen.waited += performed.admitted.length
  seen.refused += sum(Object.values(performed.statistics.rejected))
  seen.interrupted += performed.statistics.interrupted
  const problems = [...performed.problems, ...laws.flatMap((law) => law(program, performed))]
  if (problems.length === 0) return undefined
  const report = [
    `seed ${seed} (replay: STRESS_SEED=${seed})`,
    ...problems.slice(0, 5).map((problem) => `  ${problem}`),
    `  program: ${JSON.stringify(program)}`,
    `  starts: ${JSON.stringify(performed.starts)}`
  ]
  return { seed, report: report.join("\n") }
}

/** Plays seed after seed, as long as there are more and few have failed. */
const stress = (first: number, more: (seed: number) => boolean): ReturnType<typeof tally> => {
  const seen = tally()
  const failures: Array<Failure> = []
  for (let seed = first; more(seed) && failures.length < 5; seed++) {
    const failure = judge(seed, seen)
    if (failure !== undefined) failures.push(failure)
  }
  if (failures.length > 0) {
    const seeds = failures.map(({ seed }) => seed).join(", ")
    assert.fail(`of ${seen.programs} programs these failed: ${seeds}\n${failures[0]!.report}`)
  }
  return seen
}

const { npm_lifecycle_event, STRESS_SECONDS, STRESS_SEED } = process.env

/** No variable to set, so that the script is the same in every shell. */
const seconds = Number(STRESS_SECONDS ?? (npm_lifecycle_event === "stress" ? 60 : 0))

describe("stress", () => {
  if (STRESS_SEED !== undefined) {
    const seed = Number(STRESS_SEED)
    it(`program ${seed}`, () => {
      stress(seed, (next) => next === seed)
    })
  } else if (seconds > 0) {
    it(`programs for ${seconds} s`, () => {
      const until = performance.now() + seconds * 1_000
      const { programs } = stress(1_000_000, () => performance.now() < until)
      process.stdout.write(`${programs} programs kept every promise\n`)
    }, (seconds + 30) * 1_000)
  } else {
    it("3,000 programs", () => {
      const { interrupted, refused, started, waited } = stress(1, (seed) => seed <= 3_000)
      assert.isAbove(started, 10_000)
      assert.isAbove(waited, 3_000)
      assert.isAbove(refused, 1_000)
      assert.isAbove(interrupted, 500)
    }, 60_000)
  }
})
