/** Patterns of arrivals, as plain sorted lists. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import * as Caller from "../internal/caller.ts"
import * as Options from "../internal/options.ts"
import type * as Throttle from "../Throttle.ts"
import * as Rules from "./rules.ts"

/**
 * The arrival of a call. All times are milliseconds.
 *
 * @see {@link list} to write them down
 * @category arrivals
 * @since 0.1.0
 */
export interface Arrival {
  /** The instant of its arrival, since the start of the simulation. */
  readonly at: number
  /** Its cost. Default: one permit. */
  readonly cost?: Throttle.Cost | undefined
  /** How long it runs. Default: the option `runs` of {@link run}. */
  readonly runs?: number | undefined
  /** The time after its arrival at which it is interrupted, if it waits or runs then. Default: never. */
  readonly interruptAfter?: number | undefined
  /** Its caller, as for `Throttle.withCaller`. Default: none. */
  readonly caller?: Partial<Throttle.Caller> | undefined
}

/**
 * Options of all patterns: the start of the pattern, and the properties of its calls.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface PatternOptions {
  /** The instant of the start. Default: 0. */
  readonly start?: Duration.Input | undefined
  /** The cost of each call. Default: one permit. */
  readonly cost?: Throttle.Cost | undefined
  /** How long each call runs. Default: the option `runs` of {@link run}. */
  readonly runs?: Duration.Input | undefined
  /** The time after its arrival at which each call is interrupted, if it waits or runs then. Default: never. */
  readonly interruptAfter?: Duration.Input | undefined
  /** The caller of each call, as for `Throttle.withCaller`. Default: none. */
  readonly caller?: Partial<Throttle.Caller> | undefined
}

/**
 * Options of {@link steady}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface SteadyOptions extends PatternOptions {
  /** Calls per `per`: a finite number > 0. */
  readonly rate: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /** The time in which calls arrive. */
  readonly duration: Duration.Input
}

/**
 * Options of {@link poisson}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface PoissonOptions extends SteadyOptions {
  /** Equal seeds give equal calls. Default: 1. */
  readonly seed?: number | string | undefined
}

/**
 * Options of {@link bursts}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface BurstsOptions extends PatternOptions {
  /** Calls in each burst: an integer ≥ 1. */
  readonly size: number
  /** The time from one burst to the next. */
  readonly every: Duration.Input
  /** The time in which bursts arrive; the first one arrives at the start. */
  readonly duration: Duration.Input
}

/**
 * Options of {@link ramp}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface RampOptions extends PatternOptions {
  /** Calls per `per` at the start: a finite number ≥ 0. */
  readonly from: number
  /** Calls per `per` at the end: a finite number ≥ 0. */
  readonly to: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /** The time from the start to the end. */
  readonly duration: Duration.Input
}

const common = ["start", "cost", "runs", "interruptAfter", "caller"]

/** The calls of a pattern. `instants`: since its start. */
const pattern = (where: string, options: PatternOptions, instants: ReadonlyArray<number>): ReadonlyArray<Arrival> => {
  const start = Options.read(where, "start", Rules.duration, options.start ?? 0)
  const like: Omit<Arrival, "at"> = {
    ...(options.cost === undefined ? {} : { cost: options.cost }),
    ...(options.caller === undefined ? {} : { caller: Caller.read(where, options.caller) }),
    ...(options.runs === undefined ? {} : { runs: Options.read(where, "runs", Rules.duration, options.runs) }),
    ...(options.interruptAfter === undefined
      ? {}
      : { interruptAfter: Options.read(where, "interruptAfter", Rules.duration, options.interruptAfter) })
  }
  return instants.map((at) => ({ at: start + at, ...like }))
}

/** `at(0)`, `at(1)` and so on, up to the end. */
const until = (end: number, at: (n: number) => number): ReadonlyArray<number> => {
  const instants: Array<number> = []
  for (let instant = at(0); instant < end; instant = at(instants.length)) instants.push(instant)
  return instants
}

/**
 * Returns calls at an even pace, the first one at the start.
 *
 * **Details**
 *
 * One call every `per / rate`, from the start until just before the start plus `duration`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * console.log(Simulation.steady({ rate: 2, duration: "2 seconds" }).map((call) => call.at)) // [0, 500, 1000, 1500]
 * ```
 *
 * @see {@link poisson} for calls that are independent of each other
 * @category arrivals
 * @since 0.1.0
 */
export const steady = (options: SteadyOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.steady"
  Options.known(where, options, ["rate", "per", "duration", ...common])
  const rate = Options.read(where, "rate", Rules.positive, options.rate)
  const per = Options.read(where, "per", Rules.interval, options.per ?? 1_000)
  const duration = Options.read(where, "duration", Rules.duration, options.duration)
  return pattern(where, options, until(duration, (n) => n * per / rate))
}

/**
 * Returns calls that arrive independently of each other, `rate` per `per` on average, as those of many users do.
 *
 * **When to use**
 *
 * To size a limit. Calls at an even pace below the limit never wait; independent calls sometimes arrive close together, and
 * wait.
 *
 * **Details**
 *
 * A Poisson process: the gaps are exponentially distributed with the mean `per / rate`. Equal seeds give
 * equal calls.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.poisson({ rate: 10, duration: "1 minute", seed: 7 })
 *
 * console.log(calls.length) // about 600
 * ```
 *
 * @see {@link steady} for an even pace
 * @category arrivals
 * @since 0.1.0
 */
export const poisson = (options: PoissonOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.poisson"
  Options.known(where, options, ["rate", "per", "duration", "seed", ...common])
  const rate = Options.read(where, "rate", Rules.positive, options.rate)
  const per = Options.read(where, "per", Rules.interval, options.per ?? 1_000)
  const duration = Options.read(where, "duration", Rules.duration, options.duration)
  const seed = Options.read(where, "seed", Rules.seed, options.seed ?? 1)
  const random = Effect.runSync(Random.withSeed(Random.Random, seed))
  let at = 0
  const next = () => at += -Math.log(1 - random.nextDoubleUnsafe()) * per / rate
  return pattern(where, options, until(duration, next))
}

/**
 * Returns bursts of calls at regular intervals.
 *
 * **Details**
 *
 * `size` calls at the start and after each `every`, until just before the start plus `duration`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.bursts({ size: 3, every: "10 seconds", duration: "20 seconds" })
 *
 * console.log(calls.map((call) => call.at)) // [0, 0, 0, 10000, 10000, 10000]
 * ```
 *
 * @see {@link merge} to add them to a steady pattern
 * @category arrivals
 * @since 0.1.0
 */
export const bursts = (options: BurstsOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.bursts"
  Options.known(where, options, ["size", "every", "duration", ...common])
  const size = Options.read(where, "size", Rules.count, options.size)
  const every = Options.read(where, "every", Rules.interval, options.every)
  const duration = Options.read(where, "duration", Rules.duration, options.duration)
  return pattern(where, options, until(duration, (n) => Math.floor(n / size) * every))
}

/**
 * Returns calls whose rate rises or falls linearly.
 *
 * **When to use**
 *
 * To find the load at which calls begin to wait.
 *
 * **Details**
 *
 * The nth call arrives when the integral of the rate since the start reaches n; the first one arrives at the start.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.ramp({ from: 0, to: 10, duration: "10 seconds" })
 *
 * console.log(calls.length) // 50: 5 per second on average
 * ```
 *
 * @see {@link steady} for one rate
 * @category arrivals
 * @since 0.1.0
 */
export const ramp = (options: RampOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.ramp"
  Options.known(where, options, ["from", "to", "per", "duration", ...common])
  const per = Options.read(where, "per", Rules.interval, options.per ?? 1_000)
  const from = Options.read(where, "from", Rules.natural, options.from) / per
  const to = Options.read(where, "to", Rules.natural, options.to) / per
  const duration = Options.read(where, "duration", Rules.duration, options.duration)
  // from · t + (to - from) · t² / (2 · duration) = n, solved for t in the form that also holds for equal rates.
  const slope = (to - from) / duration
  const at = (n: number) => n === 0 ? 0 : 2 * n / (from + Math.sqrt(Math.max(0, from * from + 2 * slope * n)))
  const total = Math.ceil((from + to) / 2 * duration - 1e-9)
  return pattern(where, options, Array.from({ length: total }, (_, n) => Math.min(at(n), duration)))
}

/**
 * Returns calls that are given one by one, as instants or as objects.
 *
 * **Details**
 *
 * Sorted by instant; calls of one instant stay in the given order.
 *
 * **Errors**
 *
 * Throws a `RangeError` for an instant that is not a duration ≤ 100 years, and for unknown options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.list([0, 0, "1 second", { at: "1.5 seconds", cost: { tokens: 20 }, runs: "200 millis" }])
 *
 * console.log(calls.at(-1)) // { at: 1500, cost: { tokens: 20 }, runs: 200 }
 * ```
 *
 * @see {@link merge} to join lists
 * @category arrivals
 * @since 0.1.0
 */
export const list = (
  calls: ReadonlyArray<Duration.Input | (Omit<PatternOptions, "start"> & { readonly at: Duration.Input })>
): ReadonlyArray<Arrival> => {
  const where = "Simulation.list"
  Options.read(where, "calls", Options.array, calls)
  return inOrder(calls.flatMap((call): ReadonlyArray<Arrival> => {
    if (!isDescribed(call)) return [{ at: Options.read(where, "at", Rules.duration, call) }]
    Options.known(where, call, ["at", ...common.slice(1)])
    const { at, ...options } = call
    return pattern(where, options, [Options.read(where, "at", Rules.duration, at)])
  }))
}

/**
 * Merges patterns into one sorted list.
 *
 * **Details**
 *
 * Sorted by instant; calls of one instant stay in the order of the patterns. The option `start` places one pattern after
 * another. Patterns are plain arrays, so `filter` and `map` work as well.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const day = Simulation.merge(
 *   Simulation.poisson({ rate: 5, duration: "1 minute" }),
 *   Simulation.bursts({ size: 50, every: "20 seconds", duration: "1 minute", start: "10 seconds" })
 * )
 *
 * console.log(day.length) // about 450
 * ```
 *
 * @see {@link list} for single calls
 * @category arrivals
 * @since 0.1.0
 */
export const merge = (...patterns: ReadonlyArray<ReadonlyArray<Arrival>>): ReadonlyArray<Arrival> =>
  inOrder(patterns.flat())

/** Whether it is an object that is not a duration: no Effect Duration, no object of units, no pair of seconds and nanoseconds. */
const isDescribed = (call: unknown): call is PatternOptions & { readonly at: Duration.Input } =>
  Predicate.isObject(call) && !Array.isArray(call) && !Duration.isDuration(call) && !Rules.isDurationObject(call)

const inOrder = (arrivals: ReadonlyArray<Arrival>): ReadonlyArray<Arrival> => arrivals.toSorted((a, b) => a.at - b.at)
