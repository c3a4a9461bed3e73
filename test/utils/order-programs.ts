/**
 * Random programs for the orders of the queue, and what a throttle makes of them on the simulated clock.
 *
 * Costs, weights and limits are such that the numbers of the fair order are exact, and instants are such that hardly two
 * things happen at once: what a program's outcome is does not depend on rounding.
 */
import { Cause, Effect, Exit, Fiber, Option } from "effect"
import { Throttle } from "effect-throttle"
import { throttleIn } from "./kit.ts"
import { actualOf, type OrderCall, type OrderOutcome, type OrderProgram, type OrderTurn } from "./order-reference.ts"
import { randomNumbers } from "./random-program.ts"
import * as Simulator from "./simulator.ts"

export interface Random {
  readonly next: () => number
  readonly int: (from: number, to: number) => number
  readonly pick: <A>(...choices: ReadonlyArray<A>) => A
  readonly chance: (probability: number) => boolean
}

export const random = (seed: number): Random => {
  const next = randomNumbers(seed)
  const int = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))
  return {
    next,
    int,
    pick: (...choices) => choices[int(0, choices.length - 1)]!,
    chance: (probability) => next() < probability
  }
}

/** Milliseconds with microseconds, so that hardly two things happen at once. */
export const uneven = ({ int }: Random, from: number, to: number) => int(from * 1_000, to * 1_000 - 1) / 1_000

export const parts = (random: Random): ReadonlyArray<any> => {
  const { chance, int, pick } = random
  const part = () => {
    const per = pick(4, 8, 16, 32)
    switch (int(0, 6)) {
      case 0:
        return { _tag: "Rate", limit: pick(1, 2, 4), per, burst: pick(0, 1, 3) }
      case 1:
        return { _tag: "TokenBucket", capacity: pick(2, 4, 8), refill: pick(1, 2, 4), per }
      case 2:
        return { _tag: "Window", limit: pick(2, 4), per, kind: pick("sliding", "fixed") }
      case 3:
        return { _tag: "Spacing", interval: pick(1, 2, 4), align: false, from: pick("start", "end") }
      default:
        return { _tag: "Concurrency", limit: pick(1, 2, 4) }
    }
  }
  return Array.from({ length: int(1, 3) }, () => ({ ...part(), ...(chance(0.3) && { unit: "slots" }) }))
}

export const orders = [
  { order: "fair" },
  { order: "fair" },
  { order: "fair", ageing: 4 },
  { order: "priority", ageing: 8 },
  { order: "arrival" }
] as const

/** Other numbers for the same parts. */
export const changed = ({ pick }: Random, parts: ReadonlyArray<any>): ReadonlyArray<any> =>
  parts.map((part) => "limit" in part ? { ...part, limit: pick(1, 2, 4) } : part)

export const orderProgram = (seed: number): OrderProgram => {
  const source = random(seed)
  const { chance, int, pick } = source
  const policies = parts(source)
  const bounds = {
    ...(chance(0.3) && { timeout: uneven(source, 5, 60) }),
    ...(chance(0.15) && { maxQueue: int(0, 6) }),
    ...(chance(0.15) && { maxQueuePerCaller: int(0, 3) })
  }
  const policy = (policies: ReadonlyArray<any>, order: object = pick<object>(...orders)): Throttle.PolicyData =>
    ({ _tag: "All", policies, ...bounds, ...order }) as never
  const order = pick<object>(...orders)
  const units = new Set(policies.map(({ unit }) => unit))
  const cost = (): Throttle.Cost =>
    !units.has("slots")
      ? int(0, 2)
      : !units.has(undefined)
      ? { slots: int(0, 2) }
      : { permits: int(0, 2), slots: int(0, 2) }
  const names = ["", "a", "b", "c"].slice(0, int(1, 4))
  const weights = new Map(names.map((name) => [name, pick(0.5, 1, 1, 2, 4)]))
  const span = pick(10, 30, 60)
  const calls = Array.from({ length: int(2, 16) }, (): OrderCall => {
    const key = pick(...names)
    const runs = uneven(source, 0, 12)
    return {
      at: uneven(source, 0, span),
      runs,
      cost: cost(),
      caller: { key, weight: chance(0.9) ? weights.get(key)! : 8, priority: pick(0, 0, 0, 1, -1, 3) },
      use: pick("withPermits", "withPermits", "withPermits", "ifAvailable", "settles", "settles", "cancels"),
      actual: int(0, 4),
      settlesAfter: uneven(source, 0, 12),
      interruptAt: chance(0.2) ? uneven(source, 0, 70) : undefined
    }
  }).toSorted((a, b) => a.at - b.at)
  const turns = chance(0.3)
    ? Array.from({ length: int(1, 3) }, (): OrderTurn => ({
      at: uneven(source, 0, 50),
      what: pick("pause", "resume", "update", "update"),
      millis: uneven(source, 0, 15),
      policy: chance(0.3) ? policy(policies) : policy(changed(source, policies), order)
    })).toSorted((a, b) => a.at - b.at)
    : []
  return { policy: policy(policies, order), calls, turns }
}

const use = (throttle: Throttle.Throttle, call: OrderCall, self: Effect.Effect<void>) => {
  switch (call.use) {
    case "ifAvailable":
      return throttle.withPermitsIfAvailable(self, call.cost)
    case "settles":
    case "cancels":
      return throttle.usePermits(call.cost)((permit) =>
        Effect.andThen(
          Effect.forkChild(
            Effect.delay(call.use === "settles" ? permit.settle(actualOf(call)) : permit.cancel, call.settlesAfter)
          ),
          self
        )
      )
    default:
      return throttle.withPermits(self, call.cost)
  }
}

export interface OrderPlayed {
  readonly outcomes: ReadonlyArray<OrderOutcome>
  /** The calls that started, in that order. */
  readonly order: ReadonlyArray<number>
  readonly throttle: Throttle.Throttle
  readonly simulator: Simulator.Simulator
}

/** Plays a program on the simulated clock. `act`: something that happens before a step of the scheduler. */
export const playOrder = (
  { calls, policy, turns }: OrderProgram,
  options: {
    readonly operations?: number
    readonly beforeStep?: (step: number, fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) => void
  } = {}
): OrderPlayed => {
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const simulator = Simulator.make({
    operations: options.operations ?? 2_048,
    beforeStep: (step) => options.beforeStep?.(step, fibers)
  })
  const throttle = throttleIn(simulator, Throttle.fromData(policy))
  const order: Array<number> = []
  const starts: Array<number | undefined> = calls.map(() => undefined)
  calls.forEach((call, i) => {
    simulator.at(call.at, () => {
      fibers[i] = simulator.fork(
        use(
          throttle,
          call,
          Effect.suspend(() => {
            starts[i] = simulator.now()
            order.push(i)
            return Effect.sleep(call.runs)
          })
        ).pipe(Throttle.withCaller(call.caller))
      )
    })
    if (call.interruptAt !== undefined) {
      simulator.at(Math.max(call.at, call.interruptAt), () => fibers[i]!.interruptUnsafe())
    }
  })
  for (const { at, millis, policy, what } of turns) {
    simulator.at(at, () => {
      simulator.fork(
        what === "pause"
          ? throttle.pause(millis)
          : what === "resume"
          ? throttle.resume
          : throttle.update(Throttle.fromData(policy))
      )
    })
  }
  simulator.run()
  const outcomes = fibers.map((fiber, i): OrderOutcome => {
    const exit = fiber.pollUnsafe()
    const start = starts[i]
    if (exit === undefined) return { start, end: "hangs" }
    if (Exit.isSuccess(exit)) {
      return { start, end: Option.isOption(exit.value) && Option.isNone(exit.value) ? "none" : "done" }
    }
    const error = Cause.findErrorOption(exit.cause)
    if (Option.isSome(error)) return { start, end: (error.value as any).reason._tag }
    if (Cause.hasInterrupts(exit.cause)) return { start, end: "interrupted" }
    throw new Error(`call ${i} died: ${exit.cause}`)
  })
  return { outcomes, order, throttle, simulator }
}
