/**
 * Measures how long an effect takes: a log line, a span and running statistics for each run.
 *
 * @since 0.1.0
 * @module
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Rules from "./internal/options.ts"

/**
 * Options of a timer.
 *
 * @see {@link timed} and {@link make}, which take them
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Whether a line is written when a run begins, too. Default: `false`, only the line at its end. */
  readonly verbose?: boolean | undefined
  /** The level of the lines in Effect's logger. Default: `"Info"`. Not used if `print` is given. */
  readonly level?: LogLevel.Severity | undefined
  /**
   * Writes each line, instead of Effect's logger. Its own log entries carry the annotations of the line. Its time is not
   * measured. A defect of `print` becomes a defect of the run. Default: logs at `level`.
   */
  readonly print?: ((line: string) => Effect.Effect<void>) | undefined
}

/**
 * Statistics of the runs that have ended. Durations are exact to the nanosecond.
 *
 * Before the first run ends `runs` is 0, `total` is zero and the other fields are `Option.none()`. Failed and interrupted
 * runs count like successful ones; a run in progress does not count yet. Runs that overlap each add all of their own time,
 * so `total` can exceed the elapsed time.
 *
 * @see {@link Timer} whose `statistics` these are
 * @category models
 * @since 0.1.0
 */
export interface Statistics {
  /** The number of runs that have ended. */
  readonly runs: number
  /** The sum of their durations. */
  readonly total: Duration.Duration
  /** The duration of the run that ended last. */
  readonly last: Option.Option<Duration.Duration>
  /** `total / runs`, rounded down to the nanosecond. */
  readonly average: Option.Option<Duration.Duration>
  readonly shortest: Option.Option<Duration.Duration>
  readonly longest: Option.Option<Duration.Duration>
}

/**
 * A timer: a function that times effects, and the statistics of their runs.
 *
 * @see {@link make} to make one
 * @category models
 * @since 0.1.0
 */
export interface Timer {
  /** The name of its lines and spans. */
  readonly name: string
  /** Times each run of an effect, as {@link timed} describes it. */
  readonly timed: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** The statistics of the runs so far, read in one step. */
  readonly statistics: Effect.Effect<Statistics>
  /** Resets the statistics. A run in progress counts when it ends. */
  readonly reset: Effect.Effect<void>
}

/**
 * Times each run of an effect and writes a line with its outcome, its duration and the average of the runs so far.
 *
 * Time is the monotonic time of the fiber's `Clock`: steps of the wall clock have no effect, and a TestClock is exact.
 * By default one line is logged for each run, at its end, at level `"Info"`; see {@link Options}:
 *
 * ```text
 * parse: begin                                       (with verbose)
 * parse: success after 30ms, average 25ms, runs 2    (or failure, or interrupted)
 * ```
 *
 * Each run is a span with the timer's name. The end line's annotations and the span's attributes are `timer`,
 * `outcome`, `elapsed` and `average` (both numbers, in milliseconds) and `runs`.
 *
 * **When to use**
 *
 * Around an effect, piped or as the last argument of `Effect.fn`, where the lines and the spans suffice.
 *
 * **Gotchas**
 *
 * The function that `timed` returns holds the statistics. Make it once, outside the function that uses it:
 * `(id) => get(id).pipe(Timer.timed("get"))` makes a new one for each call, and each average is of one run. Programs that
 * share the function share its statistics; {@link make} makes new ones each time it is run.
 *
 * **Interruption**
 *
 * The effect stays as interruptible as it was. An interrupted run counts, and its line says so. Lines are written
 * uninterruptibly, so each begin line has its end line. Runs may overlap; each is measured separately.
 *
 * **Errors**
 *
 * Adds none: the effect's exit is returned unchanged; a failed run counts, and its line says so. Throws a `RangeError` at
 * once for an empty name, an unknown option or one of the wrong type.
 *
 * **Example** (Timing a function)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Timer } from "effect-throttle"
 *
 * const fetchUser = Effect.fn(function*(id: number) {
 *   yield* Effect.sleep("10 millis")
 *   return { id }
 * }, Timer.timed("fetchUser", { verbose: true }))
 *
 * // fetchUser: begin
 * // fetchUser: success after 10.212ms, average 10.212ms, runs 1
 * await Effect.runPromise(fetchUser(1))
 * ```
 *
 * @see {@link make} for a timer whose statistics can be read
 * @category combinators
 * @since 0.1.0
 */
export const timed = (name: string, options: Options = {}): Timer["timed"] =>
  fromState(settle("Timer.timed", name, options), Ref.makeUnsafe(empty)).timed

/**
 * Makes a timer whose statistics can be read and reset; each run of this effect makes a new one.
 *
 * Options, defaults, lines and spans are those of {@link timed}.
 *
 * **When to use**
 *
 * Where a program reads the number of runs, their total, average, shortest and longest duration.
 *
 * **Interruption**
 *
 * As with {@link timed}: an interrupted run counts.
 *
 * **Errors**
 *
 * The effect never fails. `make` throws a `RangeError` at once for an empty name, an unknown option or one of the wrong
 * type.
 *
 * **Example** (Reading the statistics)
 *
 * ```ts
 * import { Console, Duration, Effect, Option } from "effect"
 * import { Timer } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   const timer = yield* Timer.make("task", { print: (line) => Console.log(line) })
 *   yield* timer.timed(Effect.sleep("5 millis"))
 *   yield* Effect.sleep("10 millis").pipe(timer.timed)
 *   return yield* timer.statistics
 * })
 *
 * const { longest, runs } = await Effect.runPromise(program)
 * console.log(runs, Option.map(longest, Duration.format))
 * ```
 *
 * @see {@link timed} where the lines and the spans suffice
 * @category constructors
 * @since 0.1.0
 */
export const make = (name: string, options: Options = {}): Effect.Effect<Timer> => {
  const settings = settle("Timer.make", name, options)
  return Effect.map(Ref.make(empty), (state) => fromState(settings, state))
}

// --- the timer ---

const fromState = ({ name, print, verbose }: Settings, state: Ref.Ref<Statistics>): Timer => {
  const end = Effect.fnUntraced(function*(start: bigint, exit: Exit.Exit<unknown, unknown>) {
    const elapsed = Duration.nanos((yield* Clock.monotonicTimeNanos) - start)
    const { runs, total } = yield* Ref.updateAndGet(state, add(elapsed))
    const average = mean(total, runs)
    const outcome = outcomeOf(exit)
    const attributes = {
      timer: name,
      outcome,
      elapsed: Duration.toMillis(elapsed),
      average: Duration.toMillis(average),
      runs
    }
    yield* Effect.annotateCurrentSpan(attributes)
    yield* Effect.annotateLogs(
      print(`${name}: ${outcome} after ${text(elapsed)}, average ${text(average)}, runs ${runs}`),
      attributes
    )
  })

  return {
    name,
    // Only the effect itself can be interrupted, so each begin line has its end line.
    timed: (self) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        if (verbose) yield* Effect.annotateLogs(print(`${name}: begin`), { timer: name })
        const start = yield* Clock.monotonicTimeNanos
        return yield* Effect.onExit(restore(self), (exit) => end(start, exit))
      })).pipe(Effect.withSpan(name, { attributes: { timer: name } }, { captureStackTrace: false })),
    statistics: Ref.get(state),
    reset: Ref.set(state, empty)
  }
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): "success" | "failure" | "interrupted" =>
  Exit.isSuccess(exit) ? "success" : Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "failure"

/** Rounds to microseconds, and to milliseconds from one second on. */
const text = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  return millis < 1_000 ? `${Number(millis.toFixed(3))}ms` : Duration.format(Duration.millis(Math.round(millis)))
}

// --- statistics ---

const empty: Statistics = {
  runs: 0,
  total: Duration.zero,
  last: Option.none(),
  average: Option.none(),
  shortest: Option.none(),
  longest: Option.none()
}

const mean = (total: Duration.Duration, runs: number): Duration.Duration => Duration.divideUnsafe(total, runs)

const add = (elapsed: Duration.Duration) => (before: Statistics): Statistics => {
  const runs = before.runs + 1
  const total = Duration.sum(before.total, elapsed)
  const orElapsed = Option.getOrElse(() => elapsed)
  return {
    runs,
    total,
    last: Option.some(elapsed),
    average: Option.some(mean(total, runs)),
    shortest: Option.some(Duration.min(orElapsed(before.shortest), elapsed)),
    longest: Option.some(Duration.max(orElapsed(before.longest), elapsed))
  }
}

// --- settings ---

interface Settings {
  readonly name: string
  readonly verbose: boolean
  readonly print: (line: string) => Effect.Effect<void>
}

const severities = LogLevel.values.filter((level) => level !== "All" && level !== "None")

const rules = {
  verbose: Rules.boolean,
  level: Rules.oneOf(...severities),
  print: Rules.func<(line: string) => Effect.Effect<void>>("a function from a line to an Effect")
}

/** Checks the name and the options, and fills in the defaults. Throws a RangeError. */
const settle = (caller: string, name: string, options: Options): Settings => {
  const { level = "Info", print = Effect.logWithLevel(level), verbose = false } = Rules.readAll(caller, rules, options)
  return { name: Rules.read(caller, "name", Rules.text, name), verbose, print }
}
