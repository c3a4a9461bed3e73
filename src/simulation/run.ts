/** Runs calls through a limiter in virtual time. */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Caller from "../internal/caller.ts"
import * as Options from "../internal/options.ts"
import * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Arrival } from "./arrivals.ts"
import * as Rules from "./rules.ts"
import * as World from "./world.ts"

/**
 * The outcome of a call: it ran to its end, was rejected for a reason, was interrupted while it waited or ran, or waits for
 * ever, as in an infinite pause.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = "done" | Refusal | "interrupted" | "waiting"

/**
 * The reason of a rejection. Those of maps and of shared stores do not occur in a simulation.
 *
 * @category models
 * @since 0.1.0
 */
export type Refusal = keyof Throttle.Statistics["rejected"]

/**
 * A call of a simulation. All times are milliseconds since the start of the simulation.
 *
 * @see {@link Result} for where it comes from
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly arrival: number
  /** The instant of its start; undefined if it did not start. */
  readonly start: number | undefined
  /** The instant at which its run ended, or at which it was rejected or interrupted; undefined if it waits for ever. */
  readonly end: number | undefined
  /** The time from its arrival to its start or, if it did not start, to its end. */
  readonly wait: number
  /** Its cost; 1 if its arrival has none. */
  readonly cost: Throttle.Cost
  /** The key of its caller; absent if it has none. */
  readonly caller?: string
  readonly outcome: Outcome
}

/**
 * A change of the throttle during a simulation: a pause, the end of a pause, or an update of its policy.
 *
 * @see {@link RunOptions}, which takes them
 * @category models
 * @since 0.1.0
 */
export type Change =
  | { readonly at: Duration.Input; readonly pause: Duration.Input }
  | { readonly at: Duration.Input; readonly resume: true }
  | { readonly at: Duration.Input; readonly update: Throttle.Policy<any> }

/**
 * A {@link Change} of a result. Times are milliseconds, a policy is its data.
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
  /** How long a call runs whose arrival has no `runs`. Default: 0. */
  readonly runs?: Duration.Input | undefined
  /** Changes of the throttle. Default: none. */
  readonly changes?: ReadonlyArray<Change> | undefined
  /** How late each timer of the throttle ends; real timers are 1 to 2 ms late. Default: 0. */
  readonly late?: Duration.Input | undefined
  /** The title in pictures and texts. Default: the policy in words. */
  readonly name?: string | undefined
}

/**
 * The result of a simulation.
 *
 * @see {@link summary} for its numbers
 * @see {@link svg} and {@link text} for its picture
 * @category models
 * @since 0.1.0
 */
export interface Result {
  readonly name: string
  /** The policy; several where calls passed several throttles, in that order. */
  readonly policies: ReadonlyArray<Throttle.PolicyData>
  /** Sorted by instant. */
  readonly changes: ReadonlyArray<Changed>
  /** In order of arrival. */
  readonly calls: ReadonlyArray<Call>
}

const where = "Simulation.run"

const rules = {
  runs: Rules.duration,
  changes: Options.array,
  late: Rules.duration,
  name: Rules.string
}

const readChange = (received: unknown, i: number): Changed => {
  const name = `changes[${i}]`
  const change = Options.read(where, name, Options.object, received) as Change
  const at = World.rounded(Options.read(where, `${name}.at`, Rules.duration, change.at))
  if (Predicate.hasProperty(change, "pause")) {
    return { at, pause: Options.read(where, `${name}.pause`, Options.anyDuration, change.pause) }
  }
  if (Predicate.hasProperty(change, "update") && Throttle.isPolicy(change.update)) {
    return { at, update: change.update.data }
  }
  if (Predicate.hasProperty(change, "resume") && change.resume === true) return { at, resume: true }
  throw Options.invalid(where, name, "{ pause: duration }, { resume: true } or { update: policy }", change)
}

const carryOut = (change: Changed, throttle: Throttle.Throttle): Effect.Effect<void> =>
  "pause" in change
    ? throttle.pause(change.pause)
    : "update" in change
    ? throttle.update(Throttle.fromData(change.update))
    : throttle.resume

/**
 * Runs calls through a policy in virtual time and returns the outcome of each.
 *
 * **When to use**
 *
 * To size a limit before it is in force, to understand a policy, or to compare two policies.
 *
 * **Details**
 *
 * It runs the limiter of `Throttle.make` on a virtual clock: time advances as soon as nothing is left to do, so an hour of
 * 10 calls per second takes half a second. The run is synchronous and deterministic. It logs nothing and does not count in
 * `Throttle.metrics`. The wall clock starts at 0, on a full minute.
 *
 * At one instant, ends of calls come first, then changes, then arrivals in their order, then interruptions. The simulation
 * ends when no call waits or runs, except calls that can never start. Instants are rounded to nanoseconds, and are at most
 * 100 years.
 *
 * An array of policies is a chain: calls pass one throttle after the other. `run([rate, five], calls)` acts as
 * `call.pipe(five, rate)`.
 *
 * **Errors**
 *
 * A rejection is an outcome, not an error. Throws a `RangeError` for invalid options, arrivals and costs.
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
 * console.log(refused.QueueFull, wait.max) // 2994 of 9000; no call waits longer than 2 s
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
  const policies: ReadonlyArray<Throttle.Policy<any>> = Array.isArray(policy) ? policy : [policy]
  for (const one of policies) {
    if (!Throttle.isPolicy(one)) throw Options.invalid(where, "policy", "a policy", one)
  }
  Options.read(where, "arrivals", Options.array, arrivals)
  const { late = 0, name, runs: usually = 0, ...read } = Options.readAll(where, rules, options)
  const changes = Array.from(read.changes ?? [], readChange).toSorted((a, b) => a.at - b.at)
  if (changes.length > 0 && policies.length !== 1) {
    throw Options.invalid(where, "changes", "undefined for several policies", options.changes)
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
    name: name ?? (policies.map(Throttle.describe).join(", then ") || "no limit"),
    policies: policies.map(({ data }) => data),
    changes,
    calls: visits.toSorted((a, b) => a.arrival - b.arrival).map(callOf)
  }
}

/** A call in progress. */
interface Visit {
  readonly arrival: number
  readonly interruptAt: number
  readonly runs: number
  readonly cost: Throttle.Cost | undefined
  readonly caller: Partial<Throttle.Caller> | undefined
  fiber: Fiber.Fiber<void, ThrottleError> | undefined
  start: number | undefined
  end: number | undefined
  outcome: Outcome
}

const fields = ["at", "cost", "runs", "interruptAfter", "caller"]

const visit = (arrival: Arrival, i: number, usually: number): Visit => {
  const name = `arrivals[${i}]`
  Options.read(where, name, Options.object, arrival)
  Options.known(`${where}, ${name}`, arrival, fields)
  const value = (field: "at" | "runs" | "interruptAfter", otherwise: number) =>
    arrival[field] === undefined && field !== "at"
      ? otherwise
      : Options.read(where, `${name}.${field}`, Rules.duration, arrival[field])
  const at = World.rounded(value("at", 0))
  return {
    arrival: at,
    interruptAt: World.rounded(at + value("interruptAfter", Infinity)),
    runs: value("runs", usually),
    cost: arrival.cost,
    caller: arrival.caller === undefined ? undefined : Caller.read(`${where}, ${name}.caller`, arrival.caller),
    fiber: undefined,
    start: undefined,
    end: undefined,
    outcome: "waiting"
  }
}

const enter = (world: World.World, throttles: ReadonlyArray<Throttle.Throttle>, visit: Visit): void => {
  const { caller, cost } = visit
  const work = Effect.suspend(() => {
    visit.start = world.now()
    return world.pass(visit.runs)
  })
  const call = throttles.reduceRight<Effect.Effect<void, ThrottleError>>(
    (inner, throttle) => cost === undefined ? throttle.withPermit(inner) : throttle.withPermits(inner, cost),
    work
  )
  visit.fiber = world.fork(caller === undefined ? call : Throttle.withCaller(caller)(call))
  visit.fiber.addObserver((exit) => {
    visit.end = world.now()
    visit.outcome = outcomeOf(exit)
    // Frees the fiber: a simulation may have 100,000 of them.
    visit.fiber = undefined
  })
}

const callOf = ({ arrival, caller: { key = "" } = {}, cost = 1, end, outcome, start }: Visit): Call => {
  const over = start ?? end
  const wait = over === undefined ? Infinity : World.rounded(over - arrival)
  return { arrival, start, end, wait, cost, ...(key === "" ? undefined : { caller: key }), outcome }
}

/**
 * Returns the result with the calls of one caller alone, for its numbers and its picture. `key`: "" for calls without a
 * caller.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = [
 *   ...Simulation.steady({ rate: 100, duration: "10 seconds", caller: { key: "flooder" } }),
 *   ...Simulation.steady({ rate: 1, duration: "10 seconds", caller: { key: "light" } })
 * ]
 * const waitOf = (order: "arrival" | "fair") =>
 *   Simulation.summary(Simulation.ofCaller(Simulation.run(Throttle.rate({ limit: 10, order }), calls), "light")).wait.p50
 *
 * console.log(waitOf("arrival") > 30_000, waitOf("fair") < 300) // true true
 * ```
 *
 * @see {@link summary} for numbers
 * @category running
 * @since 0.2.0
 */
export const ofCaller = (result: Result, key: string): Result => ({
  ...result,
  name: key === "" ? result.name : `${key}: ${result.name}`,
  calls: result.calls.filter(({ caller = "" }) => caller === key)
})

const outcomeOf = (exit: Exit.Exit<unknown, ThrottleError>): Outcome => {
  if (Exit.isSuccess(exit)) return "done"
  const error = Cause.findErrorOption(exit.cause)
  if (Option.isSome(error)) return error.value.reason._tag as Refusal
  if (Cause.hasDies(exit.cause)) throw Cause.squash(exit.cause)
  return "interrupted"
}

/** The result of an effect that has ended; throws its defect. */
const succeeded = <A>(fiber: Fiber.Fiber<A>): A => {
  const exit = fiber.pollUnsafe()
  if (exit !== undefined && Exit.isSuccess(exit)) return exit.value
  throw exit === undefined ? new Error(`${where}: a change did not end`) : Cause.squash(exit.cause)
}
