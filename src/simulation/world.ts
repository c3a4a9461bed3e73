/**
 * A world with a clock and a scheduler of its own: time passes as soon as there is nothing left to do at an instant.
 *
 * Nothing in it is asynchronous: a whole run happens inside one call of `run`, and is the same each time.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Scheduler from "effect/Scheduler"
import * as Agenda from "../internal/agenda.ts"

export interface World {
  /** Milliseconds since the beginning, at which the wall clock shows 0 as well. */
  readonly now: () => number
  /** Starts a fiber at this instant. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Does nothing for so many milliseconds; such a sleep is never late. */
  readonly pass: (millis: number) => Effect.Effect<void>
  /**
   * Does each of these at its instant, and all that follows from it, until nothing is left to do. Whatever fibers wait for
   * at an instant comes before them. They are in the order of their instants.
   */
  readonly run: (turns: ReadonlyArray<Turn>) => void
}

/** Something that happens to the world from outside. */
export interface Turn {
  readonly at: number
  readonly action: () => void
}

/**
 * To nanoseconds: sums of fractions are not exact, and what ends at an instant has to end at the very instant at which
 * something else arrives.
 */
export const rounded = (millis: number): number => Math.round(millis * 1e6) / 1e6

/** `late`: so many milliseconds after its time every sleep ends. */
export const make = (late: number): World => {
  const agenda = Agenda.make()
  let tasks: Array<() => void> = []
  let now = 0

  const passing = (millis: number): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      const entry = Agenda.enter(agenda, rounded(now + millis), () => resume(Effect.void))
      return Effect.sync(() => void (entry.action = undefined))
    })

  const nanos = () => BigInt(Math.round(now * 1e6))
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => now,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) => Duration.isFinite(duration) ? passing(Duration.toMillis(duration) + late) : Effect.never
  }

  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
    makeDispatcher: () => ({ scheduleTask: (task) => void tasks.push(task), flush: () => {} })
  }

  const context = Context.make(Clock.Clock, clock).pipe(
    Context.add(Scheduler.Scheduler, scheduler),
    // What is only simulated is not counted with what really happened, nor logged or traced.
    Context.add(Metric.MetricRegistry, new Map()),
    Context.add(References.MinimumLogLevel, "None"),
    Context.add(References.TracerEnabled, false)
  )

  const runFork = Effect.runForkWith(context)

  /** Until every fiber waits for time to pass. */
  const settle = () => {
    while (tasks.length > 0) {
      const batch = tasks
      tasks = []
      for (const task of batch) task()
    }
  }

  /** Until nothing is left that fibers wait for up to an instant. */
  const passUntil = (instant: number) => {
    settle()
    for (let first = agenda.heap[0]; first !== undefined && first.at <= instant; first = agenda.heap[0]) {
      Agenda.next(agenda)
      if (first.action === undefined) continue
      now = first.at
      first.action(now)
      settle()
    }
  }

  return {
    now: () => now,
    fork: (effect) => runFork(effect),
    pass: (millis) => millis === 0 ? Effect.void : passing(millis),
    run: (turns) => {
      for (const turn of turns) {
        passUntil(turn.at)
        now = turn.at
        turn.action()
      }
      passUntil(Infinity)
    }
  }
}
