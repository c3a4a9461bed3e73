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
import { format } from "effect/Formatter"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Ref from "effect/Ref"

/**
 * How a timer writes its lines.
 *
 * @see {@link timed} and {@link make}, which take them
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Write a line when a run begins too. Default `false`: only the line at its end. */
  readonly verbose?: boolean | undefined
  /** The level of the lines in Effect's logger. Default `"Info"`. Without effect where `print` is given. */
  readonly level?: LogLevel.Severity | undefined
  /**
   * Takes each line instead of Effect's logger; what it logs itself carries the line's annotations. Its time is not
   * measured. A defect of it becomes the run's. Default: log at `level`.
   */
  readonly print?: ((line: string) => Effect.Effect<void>) | undefined
}

/**
 * What a timer knows of the runs that have ended, in Effect `Duration`s, exact to the nanosecond.
 *
 * Before the first run `runs` is 0 and `total` zero, and the rest is `Option.none()`: there is nothing to tell. Runs
 * that failed or were interrupted are counted like those that succeeded; a run still going is not counted yet. Runs
 * that overlap each add all of their own time, so `total` can exceed the time that went by.
 *
 * @see {@link Timer} whose `statistics` these are
 * @category models
 * @since 0.1.0
 */
export interface Statistics {
  /** How many runs have ended. */
  readonly runs: number
  /** All of them together. */
  readonly total: Duration.Duration
  /** The run that ended last. */
  readonly last: Option.Option<Duration.Duration>
  /** `total / runs`, rounded down to the nanosecond. */
  readonly average: Option.Option<Duration.Duration>
  readonly shortest: Option.Option<Duration.Duration>
  readonly longest: Option.Option<Duration.Duration>
}

/**
 * A timer: a function that times effects, and the statistics of the runs it has timed.
 *
 * @see {@link make} to make one
 * @category models
 * @since 0.1.0
 */
export interface Timer {
  /** The name in its lines, and of its spans. */
  readonly name: string
  /** Times each run of an effect, as {@link timed} describes it. */
  readonly timed: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** The runs so far, as one consistent reading. */
  readonly statistics: Effect.Effect<Statistics>
  /** Forgets the runs so far. A run still going counts as the first of the new ones. */
  readonly reset: Effect.Effect<void>
}

/**
 * Times each run of an effect: writes how it ended, how long it took and the average of the runs so far.
 *
 * Time is monotonic time of the fiber's `Clock`, so a wall clock that steps does not matter, and a TestClock is exact.
 * By default one line a run, at its end, through Effect's logger at level `"Info"`; see {@link Options}:
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
 * Use around an effect, piped or as the last argument of `Effect.fn`, when the lines and the spans are all you want.
 *
 * **Gotchas**
 *
 * The runs are kept in the function that `timed` returns, nowhere else. Make it once, outside the function that uses
 * it: `(id) => get(id).pipe(Timer.timed("get"))` makes a new one for each call, and each average is of one run.
 * Programs that share the function share its runs; {@link make} starts afresh each time it is run.
 *
 * **Interruption**
 *
 * The effect stays as interruptible as it was. An interrupted run is counted and its line says so; writing a line is
 * not interruptible, so each begin line gets its end line. Runs may overlap, each is measured on its own.
 *
 * **Errors**
 *
 * Adds none: the effect's exit passes through, a failed run is counted and its line says so. Throws a `RangeError` at
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
 * Use when a program wants to know the number of runs, their total, average, shortest and longest.
 *
 * **Interruption**
 *
 * As with {@link timed}: an interrupted run is counted.
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
 * @see {@link timed} when the lines and the spans are enough
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
    // Only the effect itself can be interrupted, so that each begin line gets its end line
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

/** People read the lines: microseconds are fine enough, and milliseconds from a second on. */
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

const rules: { readonly [K in keyof Options]-?: readonly [allowed: string, holds: Predicate.Predicate<unknown>] } = {
  verbose: ["a boolean", Predicate.isBoolean],
  level: [`one of ${severities.join(", ")}`, (level) => severities.some((severity) => severity === level)],
  print: ["a function", Predicate.isFunction]
}

/** Checks what the user wrote, and fills in the defaults. */
const settle = (caller: string, name: string, options: Options): Settings => {
  const insist = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new RangeError(`${caller}: ${what}, got ${format(got)}`)
  }
  insist(Predicate.isString(name) && name !== "", "name must be a non-empty string", name)
  insist(Predicate.isObject(options), "options must be an object", options)
  for (const key of Object.keys(options)) {
    insist(Object.hasOwn(rules, key), `an option must be one of ${Object.keys(rules).join(", ")}`, key)
  }
  for (const [key, [allowed, holds]] of Object.entries(rules)) {
    const value = options[key as keyof Options]
    insist(value === undefined || holds(value), `${key} must be ${allowed}`, value)
  }
  const { level = "Info", print = Effect.logWithLevel(level), verbose = false } = options
  return { name, verbose, print }
}
