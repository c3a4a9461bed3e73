/**
 * Runs fibers one scheduler task at a time on a clock of its own, so that a test can act between any two steps.
 *
 * With one operation of its own a task every place where a fiber could be interrupted is a step. (That is a
 * `MaxOpsBeforeYield` of 3: coming back from a yield costs two operations, so with 1 or 2 a fiber never gets on.) Nothing
 * is asynchronous: a whole simulation runs inside one call of `run`.
 */
import { Clock, Context, Duration, Effect, Exit, Fiber, Metric, Scheduler } from "effect"

export interface Simulator {
  /** Starts a fiber at the current instant. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Does something at an instant, in milliseconds; at one instant in the order of the calls. */
  readonly at: (millis: number, action: () => void) => void
  /** Runs until nothing is left to do: no task, no sleeper. */
  readonly run: () => void
  /** Milliseconds since the start. */
  readonly now: () => number
  /** Steps taken so far. */
  readonly steps: () => number
  /** Sleepers alive now. */
  readonly sleepers: () => number
  /** Sets the wall clock to show so many milliseconds more than the monotonic clock. */
  readonly setWall: (offset: number) => void
  readonly clock: Clock.Clock
}

export const make = (options: {
  /** Operations before a fiber yields; default 3, one of its own. */
  readonly operations?: number
  /** Milliseconds by which every sleep ends late; default 0. */
  readonly late?: (sleep: number) => number
  /** Called before each step. */
  readonly beforeStep?: (step: number) => void
  /** Services for the fibers; default: a metric registry of its own. */
  readonly context?: Context.Context<never>
  /** Steps after which a simulation is called endless. */
  readonly limit?: number
} = {}): Simulator => {
  const tasks: Array<() => void> = []
  let events: Array<{ readonly at: number; readonly order: number; readonly action: () => void }> = []
  let now = 0
  let wall = 0
  let order = 0
  let steps = 0
  let sleepers = 0

  const schedule = (at: number, action: () => void) => {
    const event = { at, order: order++, action }
    let index = events.length
    while (index > 0 && events[index - 1]!.at > at) index--
    events.splice(index, 0, event)
    return event
  }

  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => now + wall,
    currentTimeMillis: Effect.sync(() => now + wall),
    currentTimeNanosUnsafe: () => BigInt(Math.round((now + wall) * 1e6)),
    currentTimeNanos: Effect.sync(() => BigInt(Math.round((now + wall) * 1e6))),
    monotonicTimeNanosUnsafe: () => BigInt(Math.round(now * 1e6)),
    monotonicTimeNanos: Effect.sync(() => BigInt(Math.round(now * 1e6))),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const millis = Duration.toMillis(duration)
        sleepers++
        const event = schedule(now + millis + (options.late?.(millis) ?? 0), () => {
          sleepers--
          resume(Effect.void)
        })
        return Effect.sync(() => {
          const before = events.length
          events = events.filter((other) => other !== event)
          if (events.length < before) sleepers--
        })
      })
  }

  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
    makeDispatcher: () => ({ scheduleTask: (task) => void tasks.push(task), flush: () => {} })
  }

  const context = (options.context ?? Context.make(Metric.MetricRegistry, new Map())).pipe(
    Context.add(Clock.Clock, clock),
    Context.add(Scheduler.Scheduler, scheduler),
    Context.add(Scheduler.MaxOpsBeforeYield, options.operations ?? 3)
  )

  return {
    fork: (effect) => Effect.runForkWith(context)(effect),
    at: (millis, action) => void schedule(millis, action),
    run: () => {
      while (tasks.length > 0 || events.length > 0) {
        options.beforeStep?.(steps)
        steps++
        if (steps > (options.limit ?? 1_000_000)) throw new Error("the simulation does not end")
        const task = tasks.shift()
        if (task !== undefined) {
          task()
          continue
        }
        const next = events.shift()
        if (next === undefined) continue
        now = Math.max(now, next.at)
        next.action()
      }
    },
    now: () => now,
    steps: () => steps,
    sleepers: () => sleepers,
    setWall: (offset) => {
      wall = offset
    },
    clock
  }
}

/** What an effect gives that ends without anything else being done. */
export const result = <A, E>(simulator: Simulator, effect: Effect.Effect<A, E>): A => {
  const fiber = simulator.fork(effect)
  simulator.run()
  const exit = fiber.pollUnsafe()
  if (exit !== undefined && Exit.isSuccess(exit)) return exit.value
  throw new Error(`an effect has ended as ${exit}`)
}

/** A context with metrics of its own. */
export const ownMetrics = (): Context.Context<never> => Context.make(Metric.MetricRegistry, new Map())
