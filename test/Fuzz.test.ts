/**
 * Random programs of every operation, one operation a task: nothing hangs, nothing is left.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, type Fiber, Metric, Option, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"

interface Kinds {
  readonly shadows?: boolean
  /** Other orders than that of arrival, callers, and bounds of single calls. */
  readonly orders?: boolean
}

const play = (seed: number, { orders = false, shadows = false }: Kinds): void => {
  const next = randomNumbers(seed)
  const int = (n: number) => Math.floor(next() * n)
  const pick = <A>(...all: ReadonlyArray<A>): A => all[int(all.length)]!
  const part = (): any => {
    const unit = pick(undefined, undefined, "slots")
    const given = unit === undefined ? {} : { unit }
    switch (int(6)) {
      case 0:
        return { _tag: "TokenBucket", capacity: 3 + int(4), refill: 1 + int(3), per: 5 + int(9), ...given }
      case 1:
        return { _tag: "Window", limit: 3 + int(4), per: 5 + int(20), kind: pick("fixed", "sliding"), ...given }
      case 2:
        return { _tag: "Spacing", interval: 1 + int(4), from: pick("end", "start"), onReentry: "bypass", ...given }
      default:
        return { _tag: "Concurrency", limit: 1 + int(6), onReentry: "bypass", ...given }
    }
  }
  const policyOf = (): Throttle.Policy<any> => {
    const bounds = {
      ...(next() < 0.2 && { timeout: 3 + int(20) }),
      ...(next() < 0.1 && { maxQueue: int(4) }),
      ...(next() < 0.2 && { maxWait: 3 + int(20) })
    }
    const parts = Array.from({ length: 1 + int(3) }, part)
    const order = orders
      ? pick({ order: "fair" }, { order: "fair", ageing: 1 + int(9) }, { order: "priority", ageing: 1 + int(9) }, {})
      : {}
    if ("order" in order || parts.every(({ _tag }) => _tag === "Concurrency")) delete (bounds as any).maxWait
    if (orders && next() < 0.2) Object.assign(bounds, { maxQueuePerCaller: int(3) })
    const inner = next() < 0.05
      ? Throttle.none
      : Throttle.fromData({ _tag: "All", policies: parts, ...bounds, ...order } as any)
    return shadows && next() < 0.4 ? Throttle.shadow(inner) : inner
  }
  const policies = Array.from({ length: 4 }, policyOf)
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const tricks: Array<Fiber.Fiber<unknown, unknown>> = []
  const permits: Array<Throttle.Permit> = []
  const scopes: Array<Scope.Closeable> = []
  const scope = Scope.makeUnsafe()
  const doings = new Map<number, () => void>()
  const context = Simulator.ownMetrics()
  const simulator = Simulator.make({
    operations: pick(3, 3, 4, 2_048),
    late: next() < 0.2 ? (sleep) => sleep <= 0 ? 0 : next() * 4 : () => 0,
    context,
    limit: 200_000,
    beforeStep: (step) => doings.get(step)?.()
  })
  const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policies[0]!), scope))
  const cost = () => pick<Throttle.Cost>(1, 1, 2, { permits: 1 + int(3), slots: int(3) }, { slots: 1 + int(2) }, 0)
  const call = (): Effect.Effect<unknown, unknown> => {
    const runs = pick(0, 1, 3, 9)
    const self: Effect.Effect<unknown, unknown> = runs === 0 ? Effect.void : Effect.sleep(runs)
    const body = next() < 0.15
      ? Effect.andThen(self, Effect.fail("no"))
      : self
    switch (int(8)) {
      case 0:
        return throttle.withPermitsIfAvailable(body, cost())
      case 1:
        return Effect.scoped(Effect.flatMap(throttle.takeScoped(cost()), (permit) => {
          permits.push(permit)
          return body
        }))
      case 2:
        return throttle.usePermits(cost())((permit) => {
          permits.push(permit)
          return Effect.andThen(body, pick(permit.settle(int(4)), permit.cancel, Effect.void))
        })
      case 3: {
        const own = Scope.makeUnsafe()
        scopes.push(own)
        return Effect.andThen(Scope.provide(throttle.takeScoped(cost()), own), body)
      }
      case 4:
        return Effect.uninterruptible(throttle.withPermits(body, cost()))
      case 5:
        return throttle.withPermit(body)
      default:
        return throttle.withPermits(body, cost())
    }
  }
  const named = (self: Effect.Effect<unknown, unknown>) => {
    const called = Throttle.withCaller({ key: pick("", "a", "b"), weight: pick(1, 1, 3), priority: pick(0, 0, 1, -2) })(
      self
    )
    return next() < 0.2 ? Throttle.withBounds(pick({ timeout: 1 + int(9) }, { maxWait: 1 + int(9) }))(called) : called
  }
  const trick = () => {
    const one = int(12)
    if (one < 4) return void tricks.push(simulator.fork(throttle.update(pick(...policies))))
    if (one === 4) return void tricks.push(simulator.fork(throttle.pause(int(9))))
    if (one === 5) return void tricks.push(simulator.fork(throttle.resume))
    if (one === 10) return void tricks.push(simulator.fork(throttle.reset))
    if (one === 6 && permits.length > 0) return void tricks.push(simulator.fork(pick(...permits).settle(int(5))))
    if (one === 7 && permits.length > 0) return void tricks.push(simulator.fork(pick(...permits).cancel))
    if (one === 8 && scopes.length > 0) {
      return void simulator.fork(Scope.close(scopes.splice(int(scopes.length), 1)[0]!, Exit.void))
    }
    if (fibers.length > 0) pick(...fibers).interruptUnsafe()
  }
  const first = simulator.steps()
  let at = 0
  for (let i = 0; i < 14; i++) {
    at += pick(0, 0, 1, 2, 5)
    // Who is rejected acts on the throttle in the same step.
    const handled = (self: Effect.Effect<unknown, unknown>) =>
      next() < 0.3
        ? Effect.catchCause(self, (cause) =>
          Cause.hasDies(cause)
            ? Effect.failCause(cause)
            : pick<Effect.Effect<unknown, unknown>>(
              Effect.ignoreCause(throttle.update(pick(...policies))),
              throttle.pause(int(5)),
              throttle.resume,
              throttle.withPermitsIfAvailable(Effect.void, 1),
              Effect.ignore(throttle.withPermit(Effect.void))
            ))
        : self
    const called = orders ? named(handled(call())) : handled(call())
    simulator.at(at, () => void fibers.push(simulator.fork(called)))
    if (next() < 0.5) simulator.at(at, trick)
  }
  for (let i = 0; i < 6; i++) doings.set(first + int(500), trick)
  const closes = next() < 0.1
  if (closes) doings.set(first + int(800), () => void simulator.fork(Scope.close(scope, Exit.void)))
  simulator.run()
  // What a pause, a scope or a policy may still hold back is let go.
  doings.clear()
  for (const one of scopes) simulator.fork(Scope.close(one, Exit.void))
  simulator.run()
  simulator.fork(throttle.resume)
  simulator.run()
  simulator.at(simulator.now() + 100_000, () => {})
  simulator.run()
  const statistics = Effect.runSync(throttle.statistics)
  const where = `seed ${seed}`
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe()
    // In shadow somebody may wait for what waits for itself: no more.
    assert.isDefined(exit, `${where}: call ${i} hangs`)
    if (Exit.isSuccess(exit!)) continue
    for (const reason of exit!.cause.reasons) {
      if (Cause.isDieReason(reason)) {
        const { defect } = reason
        assert.isTrue(defect instanceof RangeError, `${where}: call ${i} dies of ${(defect as any)?.stack}`)
      }
      if (Cause.isFailReason(reason)) {
        assert.isTrue(reason.error === "no" || reason.error instanceof ThrottleError, `${where}: call ${i}`)
      }
    }
  }
  for (const one of tricks) {
    const exit = one.pollUnsafe()
    assert.isDefined(exit, `${where}: an update hangs`)
    if (Exit.isFailure(exit!)) {
      for (const reason of exit.cause.reasons) {
        assert.isTrue(Cause.isDieReason(reason) && reason.defect instanceof RangeError, `${where}: ${exit.cause}`)
      }
    }
  }
  assert.deepInclude(statistics, { waiting: 0, running: 0 }, where)
  assert.strictEqual(simulator.sleepers(), 0, where)
  const metrics = Effect.runSyncWith(context)(Metric.snapshot)
  const metric = (id: string) =>
    metrics.filter((one) => one.id === id).reduce((sum, { state }) => {
      if ("count" in state) return sum + Number(state.count)
      return "value" in state ? sum + Number(state.value) : sum
    }, 0)
  assert.deepStrictEqual({
    admitted: metric("throttle_admitted_total"),
    rejected: metric("throttle_rejected_total"),
    interrupted: metric("throttle_interrupted_total"),
    waiting: metric("throttle_waiting"),
    running: metric("throttle_running")
  }, {
    admitted: statistics.admitted,
    rejected: Object.values(statistics.rejected).reduce((sum, n) => sum + n, 0),
    interrupted: statistics.interrupted,
    waiting: 0,
    running: 0
  }, where)
  if (closes) return
  // No permit is missing: what holds all of them starts, and gives them back.
  simulator.fork(throttle.update(Throttle.fromData({ _tag: "All", policies: everyPool })))
  simulator.run()
  for (let i = 0; i < 2; i++) {
    assert.deepStrictEqual(
      Simulator.result(simulator, throttle.withPermitsIfAvailable(Effect.sleep(1), { permits: 6, slots: 6 })),
      Option.some(undefined),
      where
    )
  }
}

/** Whose permits the parts of all policies above become. */
const everyPool: ReadonlyArray<Throttle.PolicyData> = [
  { _tag: "Concurrency", limit: 6, onReentry: "bypass" },
  { _tag: "Concurrency", limit: 6, onReentry: "bypass", unit: "slots" }
]

/** More with FUZZ, from FROM. */
const runs = Number(process.env["FUZZ"] ?? 150)
const from = Number(process.env["FROM"] ?? 1)

describe("random programs", () => {
  it("leave nothing behind, whatever comes between two steps", () => {
    for (let seed = from; seed < from + runs; seed++) play(seed, {})
  }, 600_000)

  it("nor do they with callers, in other orders than that of arrival", () => {
    for (let seed = from; seed < from + runs; seed++) play(seed, { orders: true })
  }, 600_000)

  it("nor do they to and from shadow", () => {
    for (let seed = from; seed < from + runs; seed++) play(seed, { shadows: true })
  }, 600_000)
})
