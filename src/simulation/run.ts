/** Runs the limiter itself, call by call, in a world of its own. */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { format } from "effect/Formatter"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Arrival } from "./arrivals.ts"
import * as Options from "./options.ts"
import * as World from "./world.ts"

/**
 * What became of a call: it ran to its end, was refused for a reason, was interrupted while it waited or ran, or waits for
 * ever, as nobody ends an infinite pause.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = "done" | Refusal | "interrupted" | "waiting"

/**
 * Why a throttle refuses; those of maps and of stores that processes share do not happen here.
 *
 * @category models
 * @since 0.1.0
 */
export type Refusal = keyof Throttle.Statistics["rejected"]

/**
 * A call of a simulation. All times are milliseconds since the beginning.
 *
 * @see {@link Result} for where it comes from
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly arrival: number
  /** When it started; undefined if it never did. */
  readonly start: number | undefined
  /** When its run ended, or when it was refused or interrupted; undefined if it waits for ever. */
  readonly end: number | undefined
  /** From the arrival to the start or, if it never started, to its end. */
  readonly wait: number
  /** What it asked for; 1 if its arrival does not say. */
  readonly cost: Throttle.Cost
  readonly outcome: Outcome
}

/**
 * Something that happens to the throttle while calls come: everybody is let wait for a while, a pause ends, or limits
 * change.
 *
 * @see {@link RunOptions} for where it is given
 * @category models
 * @since 0.1.0
 */
export type Change =
  | { readonly at: Duration.Input; readonly pause: Duration.Input }
  | { readonly at: Duration.Input; readonly resume: true }
  | { readonly at: Duration.Input; readonly update: Throttle.Policy<any> }

/**
 * A {@link Change} that was made: times are milliseconds, a policy is its data.
 *
 * @category models
 * @since 0.1.0
 */
export type Changed =
  | { readonly at: number; readonly pause: number }
  | { readonly at: number; readonly resume: true }
  | { readonly at: number; readonly update: Throttle.PolicyData }

/**
 * Options of {@link run}.
 *
 * @category options
 * @since 0.1.0
 */
export interface RunOptions {
  /** How long a call runs whose arrival does not say. Default: 0. */
  readonly runs?: Duration.Input | undefined
  /** What happens to the throttle meanwhile. Default: nothing. */
  readonly changes?: ReadonlyArray<Change> | undefined
  /** So long after its time every timer of the throttle ends; real ones are a millisecond or two late. Default: 0. */
  readonly late?: Duration.Input | undefined
  /** What pictures and texts call it. Default: the policy in words. */
  readonly name?: string | undefined
}

/**
 * What happened in a simulation.
 *
 * @see {@link summary} for its numbers
 * @see {@link svg} and {@link text} for its picture
 * @category models
 * @since 0.1.0
 */
export interface Result {
  readonly name: string
  /** The policy; several where calls had to pass several throttles, in the order in which they were asked. */
  readonly policies: ReadonlyArray<Throttle.PolicyData>
  /** In the order of their instants. */
  readonly changes: ReadonlyArray<Changed>
  /** In the order in which they arrived. */
  readonly calls: ReadonlyArray<Call>
}

const where = "Simulation.run"

const readChange = (change: Change, i: number): Changed => {
  const name = `changes[${i}]`
  Options.object(where, name, change)
  const at = World.rounded(Options.value(where, `${name}.at`, Options.duration, change.at))
  if (Predicate.hasProperty(change, "pause")) {
    return { at, pause: Options.value(where, `${name}.pause`, Options.anyDuration, change.pause) }
  }
  if (Predicate.hasProperty(change, "update") && Throttle.isPolicy(change.update)) {
    return { at, update: change.update.data }
  }
  if (Predicate.hasProperty(change, "resume") && change.resume === true) return { at, resume: true }
  throw new RangeError(`${where}: ${name} must pause for a duration, resume: true or update to a policy`)
}

const carryOut = (change: Changed, throttle: Throttle.Throttle): Effect.Effect<void> =>
  "pause" in change
    ? throttle.pause(change.pause)
    : "update" in change
    ? throttle.update(Throttle.fromData(change.update))
    : throttle.resume

/**
 * Runs calls through a policy in virtual time and says what became of each.
 *
 * **When to use**
 *
 * To size a limit before it is in force, to see what a policy does, to hold two policies against each other.
 *
 * **Details**
 *
 * The limiter is the real one; only its clock is not: time passes as soon as nothing is left to do, so an hour of
 * 10 calls per second takes half a second. It is one call, without a fiber that goes on, and the same arguments give the
 * same result. Nothing is logged, and `Throttle.metrics` do not count it. The wall clock begins at 0 too, on a full minute.
 *
 * At one instant, what ends comes first, then changes, then arrivals in their order, then interruptions. It ends when
 * nobody is left who waits or runs, but for calls that nothing lets in: those wait for ever. Instants are rounded to
 * nanoseconds, and are at most 100 years.
 *
 * An array of policies is a chain: calls pass one throttle after the other, as an effect does that is piped through
 * several, the last one first. So `run([rate, five], calls)` is `call.pipe(five, rate)`.
 *
 * **Errors**
 *
 * What a policy refuses is an outcome. Throws a `RangeError` for bad options, for arrivals that are no list of calls, for a
 * cost that makes no sense.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const policy = Throttle.rate({ limit: 10, burst: 5, maxQueue: 20 })
 * const result = Simulation.run(policy, Simulation.bursts({ size: 30, every: "2 seconds", duration: "10 minutes" }))
 *
 * const { refused, wait } = Simulation.summary(result)
 * console.log(refused.QueueFull, wait.max) // 2994 of 9000, and nobody waits longer than 2 s
 * ```
 *
 * @see {@link summary} for numbers
 * @see {@link svg} for a picture
 * @category running
 * @since 0.1.0
 */
export const run = (
  policy: Throttle.Policy<any> | ReadonlyArray<Throttle.Policy<any>>,
  arrivals: ReadonlyArray<Arrival>,
  options: RunOptions = {}
): Result => {
  Options.known(where, options, ["runs", "changes", "late", "name"])
  const policies: ReadonlyArray<Throttle.Policy<any>> = Array.isArray(policy) ? policy : [policy]
  for (const one of policies) {
    if (!Throttle.isPolicy(one)) throw new RangeError(`${where}: a policy is needed here, got ${format(one)}`)
  }
  Options.text(where, "name", options.name)
  Options.array(where, "arrivals", arrivals)
  Options.array(where, "changes", options.changes ?? [])
  const usually = Options.value(where, "runs", Options.duration, options.runs ?? 0)
  const late = Options.value(where, "late", Options.duration, options.late ?? 0)
  const changes = (options.changes ?? []).map(readChange).toSorted((a, b) => a.at - b.at)
  if (changes.length > 0 && policies.length !== 1) {
    throw new RangeError(`${where}: changes are for one policy, got ${policies.length}`)
  }

  const world = World.make(late)
  const scope = Scope.makeUnsafe()
  const throttles = policies.map((policy): Throttle.Throttle => {
    const fiber = world.fork(Scope.provide(Throttle.make(policy), scope))
    return succeeded(fiber)
  })

  const visits = arrivals.map((arrival, i) => visit(arrival, i, usually))
  const turns: Array<World.Turn> = changes.map((change) => ({
    at: change.at,
    action: () => succeeded(world.fork(carryOut(change, throttles[0]!)))
  }))
  for (const visit of visits) turns.push({ at: visit.arrival, action: () => enter(world, throttles, visit) })
  for (const visit of visits) {
    if (visit.interruptAt === Infinity) continue
    turns.push({ at: visit.interruptAt, action: () => visit.fiber?.interruptUnsafe() })
  }
  world.run(turns.toSorted((a, b) => a.at - b.at))

  return {
    name: options.name ?? (policies.map(Throttle.describe).join(", then ") || "no limit"),
    policies: policies.map(({ data }) => data),
    changes,
    calls: visits.toSorted((a, b) => a.arrival - b.arrival).map(callOf)
  }
}

/** A call on its way. */
interface Visit {
  readonly arrival: number
  readonly interruptAt: number
  readonly runs: number
  readonly cost: Throttle.Cost | undefined
  fiber: Fiber.Fiber<void, ThrottleError> | undefined
  start: number | undefined
  end: number | undefined
  outcome: Outcome
}

const parts = ["at", "cost", "runs", "interruptAfter"]

const visit = (arrival: Arrival, i: number, usually: number): Visit => {
  Options.known(where, arrival, parts, `arrivals[${i}]`)
  const value = (name: "at" | "runs" | "interruptAfter", otherwise: number) =>
    arrival[name] === undefined && name !== "at"
      ? otherwise
      : Options.value(where, `arrivals[${i}].${name}`, Options.duration, arrival[name])
  const at = World.rounded(value("at", 0))
  return {
    arrival: at,
    interruptAt: World.rounded(at + value("interruptAfter", Infinity)),
    runs: value("runs", usually),
    cost: arrival.cost,
    fiber: undefined,
    start: undefined,
    end: undefined,
    outcome: "waiting"
  }
}

const enter = (world: World.World, throttles: ReadonlyArray<Throttle.Throttle>, visit: Visit): void => {
  const { cost } = visit
  const work = Effect.suspend(() => {
    visit.start = world.now()
    return world.pass(visit.runs)
  })
  visit.fiber = world.fork(
    throttles.reduceRight<Effect.Effect<void, ThrottleError>>(
      (inner, throttle) => cost === undefined ? throttle.withPermit(inner) : throttle.withPermits(inner, cost),
      work
    )
  )
  visit.fiber.addObserver((exit) => {
    visit.end = world.now()
    visit.outcome = outcomeOf(exit)
    // 100,000 fibers need not be kept until the end.
    visit.fiber = undefined
  })
}

const callOf = ({ arrival, cost = 1, end, outcome, start }: Visit): Call => {
  const over = start ?? end
  return { arrival, start, end, wait: over === undefined ? Infinity : World.rounded(over - arrival), cost, outcome }
}

const outcomeOf = (exit: Exit.Exit<unknown, ThrottleError>): Outcome => {
  if (Exit.isSuccess(exit)) return "done"
  const error = Cause.findErrorOption(exit.cause)
  if (Option.isSome(error)) return error.value.reason._tag as Refusal
  if (Cause.hasDies(exit.cause)) throw Cause.squash(exit.cause)
  return "interrupted"
}

/** What an effect that does not wait gives; throws what it dies with. */
const succeeded = <A>(fiber: Fiber.Fiber<A>): A => {
  const exit = fiber.pollUnsafe()
  if (exit !== undefined && Exit.isSuccess(exit)) return exit.value
  throw exit === undefined ? new Error(`${where}: a change did not end`) : Cause.squash(exit.cause)
}
