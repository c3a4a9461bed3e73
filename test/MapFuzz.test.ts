/**
 * Random programs on maps: nothing hangs, nothing is left, no key has two budgets.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Effect, Exit, type Fiber, Scope } from "effect"
import { Throttle, ThrottleError, ThrottleMap } from "effect-throttle"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"

class Key extends Data.Class<{ readonly id: number }> {}

interface Options {
  readonly structural?: boolean
  readonly shadows?: boolean
}

const play = (seed: number, options: Options): void => {
  const next = randomNumbers(seed)
  const int = (n: number) => Math.floor(next() * n)
  const pick = <A>(...all: ReadonlyArray<A>): A => all[int(all.length)]!
  const part = (): any => {
    switch (int(5)) {
      case 0:
        return { _tag: "TokenBucket", capacity: 3 + int(4), refill: 1 + int(3), per: 5 + int(9) }
      case 1:
        return { _tag: "Window", limit: 3 + int(4), per: 5 + int(20), kind: pick("fixed", "sliding") }
      case 2:
        return { _tag: "Spacing", interval: 1 + int(4), from: pick("end", "start") }
      default:
        return { _tag: "Concurrency", limit: 3 + int(4) }
    }
  }
  const policyOf = (): Throttle.Policy<any> => {
    const bounds = { ...(next() < 0.2 && { timeout: 3 + int(20) }), ...(next() < 0.1 && { maxQueue: int(4) }) }
    const inner = next() < 0.05
      ? Throttle.none
      : Throttle.fromData({ _tag: "All", policies: Array.from({ length: 1 + int(2) }, part), ...bounds } as any)
    return options.shadows === true && next() < 0.4 ? Throttle.shadow(inner) : inner
  }
  const policies = Array.from({ length: 4 }, policyOf)
  const plans = policies.slice()
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const tricks: Array<Fiber.Fiber<unknown, unknown>> = []
  const permits: Array<Throttle.Permit> = []
  const scopes: Array<Scope.Closeable> = []
  const scope = Scope.makeUnsafe()
  const doings = new Map<number, () => void>()
  const simulator = Simulator.make({
    operations: pick(3, 3, 4, 2_048),
    late: next() < 0.3 ? (sleep) => sleep <= 0 ? 0 : next() * 4 : () => 0,
    context: Simulator.ownMetrics(),
    limit: 400_000,
    beforeStep: (step) => doings.get(step)?.()
  })
  const maxKeys = pick(Infinity, 1, 2, 3)
  const made = ThrottleMap.make({
    lookup: (key: any) => plans[(typeof key === "object" ? key.id : key) % 4]!,
    ...(maxKeys < Infinity && { maxKeys, onFull: pick("evict", "refuse") })
  })
  const map = Simulator.result(simulator, Scope.provide(made, scope))
  const key = (): any => options.structural === true ? new Key({ id: int(4) }) : int(4)
  const cost = () => pick(1, 1, 2, 3, 0)
  const call = (): Effect.Effect<unknown, unknown> => {
    const runs = pick(0, 1, 3, 9)
    const self: Effect.Effect<unknown, unknown> = runs === 0 ? Effect.void : Effect.sleep(runs)
    const body = next() < 0.15 ? Effect.andThen(self, Effect.fail("no")) : self
    switch (int(7)) {
      case 0:
        return map.withPermitsIfAvailable(key(), cost())(body)
      case 1:
        return Effect.scoped(Effect.flatMap(map.takeScoped(key(), cost()), (permit) => {
          permits.push(permit)
          return body
        }))
      case 2:
        return map.usePermits(key(), cost())((permit) => {
          permits.push(permit)
          return Effect.andThen(body, pick(permit.settle(int(4)), permit.cancel, Effect.void))
        })
      case 3: {
        const own = Scope.makeUnsafe()
        scopes.push(own)
        return Effect.andThen(Scope.provide(map.takeScoped(key(), cost()), own), body)
      }
      case 4:
        return Effect.uninterruptible(map.withPermits(key(), cost())(body))
      default:
        return map.withPermits(key(), cost())(body)
    }
  }
  const trick = () => {
    const one = int(13)
    if (one < 3) return void tricks.push(simulator.fork(map.update(key(), pick(...policies))))
    if (one === 3) return void tricks.push(simulator.fork(Effect.ignore(map.pause(key(), int(9)))))
    if (one === 4) return void tricks.push(simulator.fork(map.resume(key())))
    if (one === 5) return void (plans[int(4)] = pick(...policies))
    if (one === 6 && permits.length > 0) return void tricks.push(simulator.fork(pick(...permits).settle(int(5))))
    if (one === 7 && permits.length > 0) return void tricks.push(simulator.fork(pick(...permits).cancel))
    if (one === 8 && scopes.length > 0) {
      return void simulator.fork(Scope.close(scopes.splice(int(scopes.length), 1)[0]!, Exit.void))
    }
    if (one === 9) return void tricks.push(simulator.fork(Effect.andThen(map.estimateWait(key()), map.statistics)))
    if (one === 11) return void tricks.push(simulator.fork(Effect.andThen(map.reset(key()), map.remaining(key()))))
    if (fibers.length > 0) pick(...fibers).interruptUnsafe()
  }
  const first = simulator.steps()
  let at = 0
  for (let i = 0; i < 24; i++) {
    at += pick(0, 0, 1, 2, 5)
    simulator.at(at, () => void fibers.push(simulator.fork(call())))
    if (next() < 0.5) simulator.at(at, trick)
  }
  for (let i = 0; i < 8; i++) doings.set(first + int(900), trick)
  simulator.run()
  doings.clear()
  for (const one of scopes) simulator.fork(Scope.close(one, Exit.void))
  simulator.run()
  for (let id = 0; id < 4; id++) simulator.fork(map.resume(options.structural === true ? new Key({ id }) : id))
  simulator.run()
  simulator.at(simulator.now() + 100_000, () => {})
  simulator.run()
  const where = `seed ${seed}`
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe()
    assert.isDefined(exit, `${where}: call ${i} hangs`)
    if (Exit.isSuccess(exit!)) continue
    for (const reason of exit!.cause.reasons) {
      if (Cause.isDieReason(reason)) assert.fail(`${where}: call ${i} dies of ${reason.defect}`)
      if (Cause.isFailReason(reason)) {
        assert.isTrue(reason.error === "no" || reason.error instanceof ThrottleError, `${where}: call ${i}`)
      }
    }
  }
  for (const one of tricks) {
    const exit = one.pollUnsafe()
    assert.isDefined(exit, `${where}: an update hangs`)
    assert.isTrue(Exit.isSuccess(exit!), `${where}: ${exit}`)
  }
  // Each key is looked at, and what is as good as new is dropped.
  plans.fill(Throttle.none)
  for (let i = 0; i < 96; i++) {
    simulator.fork(Effect.ignore(map.withPermit(options.structural === true ? new Key({ id: 0 }) : 0)(Effect.void)))
  }
  simulator.run()
  const statistics = Effect.runSync(map.statistics)
  assert.deepInclude(statistics, { waiting: 0, running: 0 }, where)
  assert.isAtMost(statistics.keys, 1, where)
}

/** More with FUZZ, from FROM. */
const runs = Number(process.env["FUZZ"] ?? 80)
const from = Number(process.env["FROM"] ?? 1)

describe("random programs on a map leave no key behind", () => {
  for (
    const [name, options] of Object.entries<Options>({
      "plain keys": {},
      "keys in shadow": { shadows: true },
      "structural keys": { structural: true }
    })
  ) {
    it(name, () => {
      for (let seed = from; seed < from + runs; seed++) play(seed, options)
    }, 600_000)
  }
})
