/**
 * Plays a program of calls against a policy on the simulated clock and says what became of each.
 */
import { Cause, Effect, Exit, Fiber } from "effect"
import { Throttle } from "effect-throttle"
import { throttleIn } from "./kit.ts"
import * as Simulator from "./simulator.ts"

export interface Call {
  /** When it arrives, in milliseconds. */
  readonly at: number
  readonly runs: number
  readonly cost: Throttle.Cost
  readonly interruptAt?: number | undefined
}

export interface Outcome {
  /** When it started, if it did. */
  readonly start: number | undefined
  /** How it ended: "done", the reason of its rejection, or "interrupted". */
  readonly end: string
}

export interface Played {
  readonly outcomes: ReadonlyArray<Outcome>
  readonly statistics: Throttle.Statistics
  readonly throttle: Throttle.Throttle
}

export const play = (
  policy: Throttle.Policy<any>,
  calls: ReadonlyArray<Call>,
  options: {
    readonly operations?: number
    /** What happens at an instant, in milliseconds: a pause, an update. */
    readonly turns?: ReadonlyArray<
      { readonly at: number; readonly turn: (throttle: Throttle.Throttle) => Effect.Effect<void> }
    >
    /** When the statistics are read, in milliseconds. */
    readonly readAt?: number
  } = {}
): Played => {
  const simulator = Simulator.make({
    operations: options.operations ?? 2_048
  })
  const throttle = throttleIn(simulator, policy)
  const starts: Array<number | undefined> = calls.map(() => undefined)
  const fibers: Array<Fiber.Fiber<unknown, any>> = []
  calls.forEach((call, i) => {
    simulator.at(call.at, () => {
      fibers[i] = simulator.fork(throttle.withPermits(
        Effect.suspend(() => {
          starts[i] = simulator.now()
          return call.runs === 0 ? Effect.void : Effect.sleep(call.runs)
        }),
        call.cost
      ))
    })
  })
  calls.forEach((call, i) => {
    if (call.interruptAt !== undefined) {
      simulator.at(Math.max(call.at, call.interruptAt), () => fibers[i]!.interruptUnsafe())
    }
  })
  for (const { at, turn } of options.turns ?? []) simulator.at(at, () => void simulator.fork(turn(throttle)))
  if (options.readAt !== undefined) simulator.at(options.readAt, () => {})
  simulator.run()
  const outcomes = fibers.map((fiber, i): Outcome => {
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return { start: starts[i], end: "hangs" }
    if (Exit.isSuccess(exit)) return { start: starts[i], end: "done" }
    const error = Cause.findErrorOption(exit.cause)
    if (error._tag === "Some") return { start: starts[i], end: error.value.reason._tag }
    return { start: starts[i], end: Cause.hasInterrupts(exit.cause) ? "interrupted" : "died" }
  })
  return { outcomes, statistics: Effect.runSync(throttle.statistics), throttle }
}
