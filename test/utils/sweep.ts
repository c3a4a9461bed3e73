/**
 * Runs the same calls again for each scheduler step, with an action before that step: an interruption, an update, a pause.
 */
import { assert } from "@effect/vitest"
import { type Context, Effect, type Fiber, Scope } from "effect"
import type { Throttle } from "effect-throttle"
import { statisticsOf, throttleIn } from "./kit.ts"
import * as Simulator from "./simulator.ts"

export interface Swept {
  readonly simulator: Simulator.Simulator
  readonly throttle: Throttle.Throttle
  /** The scope of the throttle. */
  readonly scope: Scope.Closeable
  readonly fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>
  /** The calls that began, in that order. */
  readonly order: ReadonlyArray<number>
  /** Whether the step came. */
  readonly hit: boolean
}

/** A call that runs an effect in a throttle. */
export type Use = (throttle: Throttle.Throttle, self: Effect.Effect<void>) => Effect.Effect<unknown, unknown>

export interface Options {
  readonly policy: Throttle.Policy<any>
  /** The number of calls, all at one instant. Each one that begins runs for 2 ms. */
  readonly calls: number
  readonly use: Use
  /** The action before the step. */
  readonly act: (swept: Swept) => void
  /** Prepares the throttle before the calls arrive. */
  readonly prepare?: (throttle: Throttle.Throttle) => void
  /** Runs before each step from the arrival of the calls on. */
  readonly watch?: (swept: Swept) => void
  /** Makes the throttle, instead of one of the policy. */
  readonly make?: (simulator: Simulator.Simulator, scope: Scope.Closeable) => Throttle.Throttle
  /** Services for the fibers. */
  readonly context?: Context.Context<never>
}

/** Runs the calls with the action before one step. Every call ends, and no timer is left. */
export const atStep = (
  { act, calls, context, make, policy, prepare, use, watch }: Options,
  step: number,
  where: string
): Swept => {
  let first = Infinity
  const order: Array<number> = []
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const scope = Scope.makeUnsafe()
  const simulator = Simulator.make({
    ...(context === undefined ? undefined : { context }),
    limit: 100_000,
    beforeStep: (current) => {
      if (current < first) return
      watch?.(swept)
      if (current !== first + step) return
      swept.hit = true
      act(swept)
    }
  })
  const throttle: Throttle.Throttle = make === undefined
    ? throttleIn(simulator, policy, scope)
    : make(simulator, scope)
  const swept = { fibers, hit: false, order, scope, simulator, throttle }
  prepare?.(throttle)
  first = simulator.steps()
  for (let i = 0; i < calls; i++) {
    fibers.push(simulator.fork(use(
      throttle,
      Effect.suspend(() => {
        order.push(i)
        return Effect.sleep(2)
      })
    )))
  }
  simulator.run()
  for (const [i, fiber] of fibers.entries()) assert.isDefined(fiber.pollUnsafe(), `${where}: call ${i} hangs`)
  assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
  return swept
}

/**
 * Every step is examined with `SWEEP=full`. Otherwise every fifth one, from another first step in each sweep, so that the
 * many sweeps of a test file together still cover each kind of step.
 */
export const stride = process.env["SWEEP"] === "full" ? 1 : 5

let sweeps = 0

/** The first step of the next sweep. */
export const offset = (): number => sweeps++ % stride

/** Repeats this for the steps up to the first one that does not come. Returns the number of steps. */
export const everyStep = (
  options: Options,
  where: string,
  check: (swept: Swept, where: string) => void
): number => {
  for (let step = offset(); step < 5_000; step += stride) {
    const at = `${where}, step ${step}`
    const swept = atStep(options, step, at)
    check(swept, at)
    if (!swept.hit) return step
  }
  throw new Error(`${where}: the sweep does not end`)
}

/** Interrupts calls. */
export const interrupt = (...victims: ReadonlyArray<number>) => ({ fibers }: Swept): void => {
  for (const victim of victims) fibers[victim]!.interruptUnsafe()
}

/** The calls began in order of arrival. */
export const assertOrder = ({ order }: Swept, where: string): void =>
  assert.deepStrictEqual(order, order.toSorted((a, b) => a - b), `${where}: order`)

/** Later calls start as on a new throttle, in their order. */
export const assertUsable = ({ simulator, throttle }: Swept, where: string): void => {
  const again: Array<number> = []
  const { admitted } = statisticsOf(throttle)
  for (const i of [0, 1]) {
    simulator.fork(Effect.delay(
      Effect.suspend(() => throttle.withPermit(Effect.sync(() => void again.push(i)))),
      1_000 + 1_000 * i
    ))
  }
  simulator.run()
  assert.deepStrictEqual(again, [0, 1], `${where}: afterwards`)
  assert.strictEqual(statisticsOf(throttle).admitted, admitted + 2, `${where}: admitted afterwards`)
}
