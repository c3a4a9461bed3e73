/**
 * An update at every scheduler step of every kind of call, where calls hold several permits.
 *
 * Whatever the step, an admitted call runs, every call ends, every call can be interrupted, and all permits are free
 * again at the end. Everything is observed through the public service.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, type Fiber, Option, Scheduler, Scope } from "effect"
import { Throttle, ThrottleError } from "effect-throttle"
import { throttleIn } from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"

const pool = (limit: number) => Throttle.concurrency({ limit })
const slots = (limit: number) => Throttle.concurrency({ limit, unit: "slots" })
const bucket = (capacity: number) => Throttle.tokenBucket({ capacity, refill: 1_000 })
const gap = (interval: number) => Throttle.spacing({ interval, from: "end" })
const both = (a: number, b: number) => Throttle.all([pool(a), slots(b)])

interface Change {
  readonly from: Throttle.Policy<any>
  readonly to: ReadonlyArray<Throttle.Policy<any>>
  readonly cost: Throttle.Cost
}

const inPermits = { permits: 3 }
const inSlots = { permits: 3, slots: 3 }

const changes: Record<string, Change> = {
  "shrink below what runs": { from: pool(5), to: [pool(2)], cost: inPermits },
  "shrink to what runs": { from: pool(5), to: [pool(3)], cost: inPermits },
  "grow": { from: pool(3), to: [pool(9)], cost: inPermits },
  "shrink and grow": { from: pool(5), to: [pool(1), pool(6)], cost: inPermits },
  "shrink twice": { from: pool(9), to: [pool(5), pool(2)], cost: inPermits },
  "to none": { from: pool(5), to: [Throttle.none], cost: inPermits },
  "to none and back": { from: pool(5), to: [Throttle.none, pool(3)], cost: inPermits },
  "to shadow": { from: pool(5), to: [Throttle.shadow(pool(2))], cost: inPermits },
  "to shadow and back": { from: pool(5), to: [Throttle.shadow(pool(2)), pool(3)], cost: inPermits },
  "from shadow": { from: Throttle.shadow(pool(2)), to: [pool(3)], cost: inPermits },
  "a pool added": { from: pool(5), to: [both(3, 3)], cost: inPermits },
  "a pool removed": { from: both(5, 5), to: [pool(2), both(3, 3)], cost: inSlots },
  "two pools shrink": { from: both(5, 6), to: [both(3, 2)], cost: inSlots },
  "two pools change places": { from: both(5, 6), to: [Throttle.all([slots(3), pool(2)])], cost: inSlots },
  "a bucket beside it shrinks": {
    from: Throttle.all([bucket(9), pool(5)]),
    to: [Throttle.all([bucket(4), pool(2)])],
    cost: inPermits
  },
  "a bucket is added and the pool shrinks": {
    from: pool(5),
    to: [Throttle.all([bucket(3), pool(3)])],
    cost: inPermits
  },
  "spacing from the end is added": { from: pool(5), to: [Throttle.all([gap(3), pool(2)])], cost: inPermits },
  "spacing from the end is removed": { from: Throttle.all([gap(3), pool(5)]), to: [pool(2)], cost: inPermits }
}

/** The changes that are swept for every kind of call; the others for `withPermits`. */
const everyUse = new Set([
  "shrink below what runs",
  "to shadow and back",
  "two pools shrink",
  "a bucket beside it shrinks",
  "spacing from the end is added"
])

type Use = (
  throttle: Throttle.Throttle,
  cost: Throttle.Cost,
  self: Effect.Effect<void>
) => Effect.Effect<unknown, unknown>

const uses: Record<string, Use> = {
  withPermits: (throttle, cost, self) => throttle.withPermits(self, cost),
  withPermitsIfAvailable: (throttle, cost, self) => throttle.withPermitsIfAvailable(self, cost),
  takeScoped: (throttle, cost, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(cost), self)),
  usePermits: (throttle, cost, self) => throttle.usePermits(cost)((permit) => Effect.andThen(self, permit.settle(1))),
  "usePermits, cancelled": (throttle, cost, self) =>
    throttle.usePermits(cost)((permit) => Effect.andThen(self, permit.cancel)),
  "withPermits, uninterruptible": (throttle, cost, self) => Effect.uninterruptible(throttle.withPermits(self, cost))
}

/** A call that a smaller limit has left nothing to wait for is rejected; one that asks for a unit that is gone dies. */
const mayEndLike = (exit: Exit.Exit<unknown, unknown>): boolean => {
  if (Exit.isSuccess(exit)) return true
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error instanceof ThrottleError) return error.reason._tag === "PermitsExceedCapacity"
  return exit.cause.reasons.some((reason) => Cause.isDieReason(reason) && reason.defect instanceof RangeError)
}

/** In one task, although the fibers of the calls yield after each operation. */
const atOnce = Effect.provideService(Scheduler.MaxOpsBeforeYield, 2_048)

/** Four calls at one instant, updates before one step, and one call interrupted some steps later. */
const run = (change: Change, use: Use, victim: number | undefined, step: number, where: string): boolean => {
  let hit = false
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const simulator = Simulator.make({
    limit: 10_000,
    beforeStep: (current) => {
      if (fibers.length < 4) return
      if (current === step) {
        hit = true
        for (const policy of change.to) simulator.fork(atOnce(throttle.update(policy)))
      }
      if (current === step + 9 && victim !== undefined) fibers[victim]!.interruptUnsafe()
    }
  })
  const scope = Scope.makeUnsafe()
  const throttle: Throttle.Throttle = throttleIn(simulator, change.from, scope)
  step += simulator.steps()
  let running = 0
  for (const cost of [change.cost, change.cost, 1, change.cost]) {
    const body = Effect.suspend(() => {
      running++
      return Effect.sleep(2)
    })
    // Some steps first, so that an update, which takes some itself, can come before each of those that count.
    fibers.push(simulator.fork(Effect.andThen(Effect.yieldNow, Effect.suspend(() => use(throttle, cost, body)))))
  }
  simulator.run()
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe()
    assert.isDefined(exit, `${where}: call ${i} hangs`)
    if (i !== victim) assert.isTrue(mayEndLike(exit!), `${where}: call ${i} ended with ${exit}`)
  }
  // In shadow a call may have yet to end that has really ended.
  simulator.at(simulator.now() + 1_000, () => {})
  simulator.run()
  const statistics = Effect.runSync(throttle.statistics)
  assert.deepInclude(statistics, { waiting: 0, running: 0 }, where)
  // A policy in shadow also runs what it would have rejected.
  if (![change.from, ...change.to].some(({ data }) => data._tag === "Shadow")) {
    assert.isAtLeast(statistics.admitted, running, where)
  }
  assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
  // All permits of the last policy can be had at once, one by one, and no more than those.
  if (hit) {
    const last = change.to.at(-1)!
    const limit = last === Throttle.none || last.data._tag === "Shadow" ? 5 : limitOf(last.data)
    let taken = 0
    for (let i = 0; i < limit + 1; i++) {
      const taking = throttle.withPermitsIfAvailable(Effect.sleep(1), 1)
      simulator.at(simulator.now() + 10_000, () => {
        simulator.fork(Effect.map(taking, (ran) => {
          if (Option.isSome(ran)) taken++
        }))
      })
    }
    simulator.run()
    const isUnlimited = last === Throttle.none || last.data._tag === "Shadow"
    assert.strictEqual(taken, isUnlimited ? limit + 1 : limit, `${where}: permits free afterwards`)
  }
  simulator.fork(Scope.close(scope, Exit.void))
  simulator.run()
  return hit
}

/** How many calls of one permit such a policy lets run at once. */
const limitOf = (data: Throttle.PolicyData): number => {
  switch (data._tag) {
    case "All":
      return Math.min(...data.policies.map(limitOf))
    case "Concurrency":
      return data.unit === undefined ? data.limit : Infinity
    case "Spacing":
      return 1
    case "TokenBucket":
      return data.capacity
    default:
      return Infinity
  }
}

describe("an update at every scheduler step, where calls hold several permits", () => {
  for (const [name, change] of Object.entries(changes)) {
    it(name, () => {
      for (const [way, use] of Object.entries(uses).slice(0, everyUse.has(name) ? undefined : 1)) {
        for (const victim of everyUse.has(name) ? [undefined, 0] : [undefined, 1]) {
          let step = 0
          while (run(change, use, victim, step, `${way}, victim ${victim}, step ${step}`)) step++
          assert.isAbove(step, 20)
        }
      }
    })
  }
})
