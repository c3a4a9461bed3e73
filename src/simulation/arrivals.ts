/** When calls arrive: patterns, as plain sorted lists. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { format } from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import type * as Throttle from "../Throttle.ts"
import * as Options from "./options.ts"

/**
 * A call to come. All times are milliseconds.
 *
 * @see {@link list} to write them down
 * @category arrivals
 * @since 0.1.0
 */
export interface Arrival {
  /** When it arrives, since the beginning. */
  readonly at: number
  /** What it asks for. Default: one permit. */
  readonly cost?: Throttle.Cost | undefined
  /** How long it runs. Default: what `run` says. */
  readonly runs?: number | undefined
  /** Interrupted when it is not over so long after its arrival, whether it waits or runs. Default: never. */
  readonly interruptAfter?: number | undefined
}

/**
 * What all patterns take: what their calls are like, and when the pattern begins.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface PatternOptions {
  /** When the pattern begins. Default: 0. */
  readonly start?: Duration.Input | undefined
  /** What each call asks for. Default: one permit. */
  readonly cost?: Throttle.Cost | undefined
  /** How long each call runs. Default: what `run` says. */
  readonly runs?: Duration.Input | undefined
  /** Each call is interrupted when it is not over so long after its arrival. Default: never. */
  readonly interruptAfter?: Duration.Input | undefined
}

/**
 * Options of {@link steady}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface SteadyOptions extends PatternOptions {
  /** Calls per `per`. A finite number above 0. */
  readonly rate: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /** How long calls come. */
  readonly duration: Duration.Input
}

/**
 * Options of {@link poisson}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface PoissonOptions extends SteadyOptions {
  /** The same seed gives the same calls. Default: 1. */
  readonly seed?: number | string | undefined
}

/**
 * Options of {@link bursts}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface BurstsOptions extends PatternOptions {
  /** Calls that come at once. A whole number of at least 1. */
  readonly size: number
  /** From one burst to the next. */
  readonly every: Duration.Input
  /** How long bursts come; the first one comes at the start. */
  readonly duration: Duration.Input
}

/**
 * Options of {@link ramp}.
 *
 * @category arrivals
 * @since 0.1.0
 */
export interface RampOptions extends PatternOptions {
  /** Calls per `per` at the start. A finite number of at least 0. */
  readonly from: number
  /** Calls per `per` at the end. A finite number of at least 0. */
  readonly to: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /** From the start to the end. */
  readonly duration: Duration.Input
}

const common = ["start", "cost", "runs", "interruptAfter"]

/** The calls at these instants, which count from the pattern's start. */
const pattern = (where: string, options: PatternOptions, instants: ReadonlyArray<number>): ReadonlyArray<Arrival> => {
  const start = Options.value(where, "start", Options.duration, options.start ?? 0)
  const like: Omit<Arrival, "at"> = {
    ...(options.cost === undefined ? {} : { cost: options.cost }),
    ...(options.runs === undefined ? {} : { runs: Options.value(where, "runs", Options.duration, options.runs) }),
    ...(options.interruptAfter === undefined
      ? {}
      : { interruptAfter: Options.value(where, "interruptAfter", Options.duration, options.interruptAfter) })
  }
  return instants.map((at) => ({ at: start + at, ...like }))
}

/** `at(0)`, `at(1)` and so on, as long as they lie before the end. */
const until = (end: number, at: (n: number) => number): ReadonlyArray<number> => {
  const instants: Array<number> = []
  for (let instant = at(0); instant < end; instant = at(instants.length)) instants.push(instant)
  return instants
}

/**
 * Calls at an even pace, the first at the start.
 *
 * **Details**
 *
 * One every `per / rate`, from the start until just before the start plus `duration`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts
 * import * as Simulation from "effect-throttle/simulation"
 *
 * console.log(Simulation.steady({ rate: 2, duration: "2 seconds" }).map((call) => call.at)) // [0, 500, 1000, 1500]
 * ```
 *
 * @see {@link poisson} for calls that know nothing of each other
 * @category arrivals
 * @since 0.1.0
 */
export const steady = (options: SteadyOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.steady"
  Options.known(where, options, ["rate", "per", "duration", ...common])
  const rate = Options.value(where, "rate", Options.positive, options.rate)
  const per = Options.value(where, "per", Options.longDuration, options.per ?? 1_000)
  const duration = Options.value(where, "duration", Options.duration, options.duration)
  return pattern(where, options, until(duration, (n) => n * per / rate))
}

/**
 * Calls that come independently of each other, `rate` per `per` on average: what many users make together.
 *
 * **When to use**
 *
 * To size a limit. An even pace below the limit never waits; real calls gather now and then, and wait.
 *
 * **Details**
 *
 * A Poisson process: the gaps are exponentially distributed with the mean `per / rate`. The same seed gives the same calls.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
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
  const rate = Options.value(where, "rate", Options.positive, options.rate)
  const per = Options.value(where, "per", Options.longDuration, options.per ?? 1_000)
  const duration = Options.value(where, "duration", Options.duration, options.duration)
  const { seed = 1 } = options
  if (!Predicate.isString(seed) && !Number.isFinite(seed)) {
    throw new RangeError(`${where}: seed must be a finite number or a string, got ${format(seed)}`)
  }
  const random = Effect.runSync(Random.withSeed(Random.Random, seed))
  let at = 0
  const next = () => at += -Math.log(1 - random.nextDoubleUnsafe()) * per / rate
  return pattern(where, options, until(duration, next))
}

/**
 * Many calls at once, and again after a while.
 *
 * **Details**
 *
 * `size` calls at the start, and `size` more `every` so often, until just before the start plus `duration`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
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
 * @see {@link merge} to put them on top of something steady
 * @category arrivals
 * @since 0.1.0
 */
export const bursts = (options: BurstsOptions): ReadonlyArray<Arrival> => {
  const where = "Simulation.bursts"
  Options.known(where, options, ["size", "every", "duration", ...common])
  const size = Options.value(where, "size", Options.count, options.size)
  const every = Options.value(where, "every", Options.longDuration, options.every)
  const duration = Options.value(where, "duration", Options.duration, options.duration)
  return pattern(where, options, until(duration, (n) => Math.floor(n / size) * every))
}

/**
 * Calls whose pace rises or falls evenly from one rate to another.
 *
 * **When to use**
 *
 * To see at which load a limit begins to bite.
 *
 * **Details**
 *
 * The nth call comes when the rate, added up since the start, reaches n; the first at the start.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
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
  const per = Options.value(where, "per", Options.longDuration, options.per ?? 1_000)
  const from = Options.value(where, "from", Options.natural, options.from) / per
  const to = Options.value(where, "to", Options.natural, options.to) / per
  const duration = Options.value(where, "duration", Options.duration, options.duration)
  // from · t + (to - from) · t² / (2 · duration) = n, solved for t in the form that holds for equal rates as well.
  const slope = (to - from) / duration
  const at = (n: number) => n === 0 ? 0 : 2 * n / (from + Math.sqrt(Math.max(0, from * from + 2 * slope * n)))
  const total = Math.ceil((from + to) / 2 * duration - 1e-9)
  return pattern(where, options, Array.from({ length: total }, (_, n) => Math.min(at(n), duration)))
}

/**
 * Calls written down one by one: instants, or instants with what the call is like.
 *
 * **Details**
 *
 * In the order of their instants; those of one instant in the order in which they are written.
 *
 * **Errors**
 *
 * Throws a `RangeError` for an instant that is no duration of at most 100 years, and for options that no call has.
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
  Options.array(where, "calls", calls)
  return inOrder(calls.flatMap((call): ReadonlyArray<Arrival> => {
    if (!isDescribed(call)) return [{ at: Options.value(where, "at", Options.duration, call) }]
    Options.known(where, call, ["at", ...common.slice(1)])
    const { at, ...options } = call
    return pattern(where, options, [Options.value(where, "at", Options.duration, at)])
  }))
}

/**
 * Several patterns at the same time.
 *
 * **Details**
 *
 * Sorted by instant; those of one instant in the order in which they are given. A pattern that shall come after another
 * one has a `start`. Patterns are plain arrays: `filter` and `map` serve as well.
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

/** An object that is no duration: neither one of Effect's, nor one by its units, nor a pair of seconds and nanoseconds. */
const isDescribed = (call: unknown): call is PatternOptions & { readonly at: Duration.Input } =>
  Predicate.isObject(call) && !Array.isArray(call) && !Duration.isDuration(call) && !Options.isUnits(call)

const inOrder = (arrivals: ReadonlyArray<Arrival>): ReadonlyArray<Arrival> => arrivals.toSorted((a, b) => a.at - b.at)
