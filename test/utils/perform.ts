/**
 * Performs a random program on the simulated clock, looks inside before every step, and says what happened.
 */
import { Effect, Exit, Fiber, Scope } from "effect"
import { Throttle } from "effect-throttle"
import type { Waiter } from "../../src/internal/backend.ts"
import type { Limiter } from "../../src/internal/limiter.ts"
import * as List from "../../src/internal/list.ts"
import * as Pool from "../../src/internal/pool.ts"
import { limiterOf, throttleIn } from "./kit.ts"
import { type Program, type RandomCall, randomNumbers } from "./random-program.ts"
import * as Simulator from "./simulator.ts"

export interface Start {
  /** Which call of the program. */
  readonly call: number
  readonly at: number
  /** When the effect ended in any way; undefined while it runs. */
  end: number | undefined
}

export interface Performed {
  /** As they began. */
  readonly starts: ReadonlyArray<Start>
  /** Of each call; undefined for one that hangs. */
  readonly exits: ReadonlyArray<Exit.Exit<unknown, unknown> | undefined>
  /** The calls that were in the queue, in their order there. */
  readonly queued: ReadonlyArray<number>
  /** Those of them that were admitted, in that order. */
  readonly admitted: ReadonlyArray<number>
  /** The instant at which a call was first seen at the head of the queue. */
  readonly headSince: ReadonlyMap<number, number>
  readonly limiter: Limiter
  readonly statistics: Throttle.Statistics
  /** Timers left when all was over. */
  readonly timers: number
  /** What was wrong meanwhile. */
  readonly problems: ReadonlyArray<string>
}

const use = (
  throttle: Throttle.Throttle,
  { cost, use }: RandomCall,
  self: Effect.Effect<void, string>,
  permits: Array<Throttle.Permit>
): Effect.Effect<unknown, unknown> => {
  switch (use) {
    case "takeScoped":
      return Effect.scoped(Effect.flatMap(throttle.takeScoped(cost), (permit) => {
        permits.push(permit)
        return self
      }))
    case "ifAvailable":
      return throttle.withPermitsIfAvailable(self, cost)
    case "uninterruptible":
      return Effect.uninterruptible(throttle.withPermits(self, cost))
    case "failing":
      return throttle.withPermits(Effect.andThen(self, Effect.fail("no")), cost)
    default:
      return throttle.withPermits(self, cost)
  }
}

export const perform = (program: Program): Performed => {
  const { bounds, calls, closeAt, parts } = program
  const problems: Array<string> = []
  const permits: Array<Throttle.Permit> = []
  const starts: Array<Start> = []
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const queued = new Map<Waiter, number>()
  const admitted = new Set<number>()
  const headSince = new Map<number, number>()
  const lateness = randomNumbers(-program.seed)

  let limiter: Limiter | undefined
  let firstStep = 0
  /** What was seen last: if time has passed since, nothing was left to do at that instant. */
  let last = { at: 0, timers: 0, waiting: 0 }

  const watch = ({ pools, waiters }: Limiter) => {
    for (const waiter of List.values(waiters)) {
      if (!queued.has(waiter)) queued.set(waiter, fibers.indexOf(waiter.fiber))
    }
    for (const [waiter, call] of queued) if (waiter.state === "started") admitted.add(call)
    const head = waiters.first && queued.get(waiters.first)!
    if (head !== undefined && !headSince.has(head)) headSince.set(head, simulator.now())
    for (const pool of pools) {
      const [free, limit] = [Pool.free(pool), pool.limit]
      // A limit that was lowered is kept to only when enough came back.
      if ((free < 0 && program.turns.length === 0) || free > limit) problems.push(`${free} of ${limit} permits free`)
    }
    if (simulator.now() > last.at) {
      if (last.timers > 1) problems.push(`${last.timers} timers at ${last.at}`)
      if (last.timers > 0 && last.waiting === 0) problems.push(`a timer without a waiting call at ${last.at}`)
    }
    last = { at: simulator.now(), timers: simulator.sleepers(), waiting: waiters.size }
  }

  const simulator = Simulator.make({
    operations: program.operations,
    late: () => lateness() * program.late,
    limit: 200_000,
    beforeStep: (step) => {
      if (limiter === undefined) return
      watch(limiter)
      calls.forEach(({ interruptStep }, i) => {
        if (interruptStep === step - firstStep) fibers[i]?.interruptUnsafe()
      })
    }
  })

  const policy = Throttle.fromData({ _tag: "All", policies: parts, ...bounds })
  const scope = Scope.makeUnsafe()
  const throttle = throttleIn(simulator, policy, scope)
  const watched = limiterOf(throttle)
  limiter = watched
  firstStep = simulator.steps()

  // An event and no sleep, so that the only sleepers are the throttle's timers.
  const busy = (millis: number): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      simulator.at(simulator.now() + millis, () => resume(Effect.void))
    })
  // The hook stands around the start: between the start and a hook of its own an interruption could come.
  const work = (call: number): Effect.Effect<void> =>
    Effect.onExit(
      Effect.suspend(() => {
        starts.push({ call, at: simulator.now(), end: undefined })
        const { runs } = calls[call]!
        return runs === 0 ? Effect.void : busy(runs)
      }),
      () =>
        Effect.sync(() => {
          for (const start of starts) if (start.call === call) start.end = simulator.now()
        })
    )

  calls.forEach((call, i) => {
    simulator.at(call.at, () => {
      fibers[i] = simulator.fork(use(throttle, call, work(i), permits))
    })
    if (call.interruptAt !== undefined) {
      simulator.at(Math.max(call.at, call.interruptAt), () => fibers[i]!.interruptUnsafe())
    }
  })
  for (const { at, millis, parts, what } of program.turns) {
    simulator.at(at, () => {
      const turn = what === "pause"
        ? throttle.pause(millis)
        : what === "resume"
        ? throttle.resume
        : what === "reset"
        ? throttle.reset
        : what === "update"
        ? throttle.update(Throttle.fromData({ _tag: "All", policies: parts, ...bounds }))
        : Effect.forEach(permits, (permit, i) => i % 3 === 0 ? permit.cancel : permit.settle(i % 5))
      simulator.fork(Effect.ignoreCause(turn))
    })
  }
  if (closeAt !== undefined) simulator.at(closeAt, () => void simulator.fork(Scope.close(scope, Exit.void)))
  try {
    simulator.run()
  } catch (error) {
    problems.push(String(error))
  }
  return {
    starts,
    exits: calls.map((_, i) => fibers[i]?.pollUnsafe()),
    queued: [...queued.values()],
    admitted: [...admitted],
    headSince,
    limiter: watched,
    statistics: Effect.runSync(throttle.statistics),
    timers: simulator.sleepers(),
    problems
  }
}
