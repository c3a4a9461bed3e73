/**
 * A clock and a scheduler in virtual time: time advances as soon as nothing is left to do at an instant.
 *
 * A run is synchronous and deterministic.
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
  /** Milliseconds since the start, at which the wall clock shows 0. */
  readonly now: () => number
  /** Starts a fiber at this instant. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Sleeps for a number of milliseconds. Such a sleep is never late. */
  readonly pass: (millis: number) => Effect.Effect<void>
  /**
   * Runs each action at its instant, and all fibers, until nothing is left to do. At one instant sleeps end before actions
   * run. The actions are sorted by instant.
   */
  readonly run: (turns: ReadonlyArray<Turn>) => void
}

/** An action from outside, at an instant. */
export interface Turn {
  readonly at: number
  readonly action: () => void
}

/**
 * Rounds to nanoseconds: sums of fractions are not exact, and a call must end at exactly the instant at which another one
 * arrives.
 */
export const rounded = (millis: number): number => Math.round(millis * 1e6) / 1e6

/** `late`: the milliseconds by which each sleep ends late. */
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
    // A simulation is not counted, logged or traced with real calls.
    Context.add(Metric.MetricRegistry, new Map()),
    Context.add(References.MinimumLogLevel, "None"),
    Context.add(References.TracerEnabled, false)
  )

  const runFork = Effect.runForkWith(context)

  /** Runs fibers until each one sleeps. */
  const settle = () => {
    while (tasks.length > 0) {
      const batch = tasks
      tasks = []
      for (const task of batch) task()
    }
  }

  /** Ends all sleeps up to an instant. */
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
