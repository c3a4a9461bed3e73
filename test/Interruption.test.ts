/**
 * An interruption at every scheduler step, of every kind of call, under every kind of policy: nothing may leak.
 *
 * One operation of its own a task, five calls, one of them (or two) interrupted before step 0, 1, 2 ... until the program is over
 * before the step comes. After each run the throttle must be as good as new.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Metric, References, Scope, Tracer } from "effect"
import { Throttle } from "effect-throttle"
import { limiterOf } from "./utils/perform.ts"
import * as Simulator from "./utils/simulator.ts"

const policies: Record<string, Throttle.Policy<any>> = {
  rate: Throttle.rate({ limit: 100 }),
  "rate with burst": Throttle.rate({ limit: 100, burst: 2 }),
  "sliding window": Throttle.window({ limit: 2, per: "10 millis" }),
  "fixed window": Throttle.window({ limit: 2, per: "10 millis", kind: "fixed" }),
  "concurrency 1": Throttle.concurrency({ limit: 1 }),
  "concurrency 2": Throttle.concurrency({ limit: 2 }),
  spacing: Throttle.spacing({ interval: "5 millis" }),
  "spacing aligned": Throttle.spacing({ interval: "5 millis", align: true }),
  "spacing from the end": Throttle.spacing({ interval: "5 millis", from: "end" }),
  "rate with timeout": Throttle.rate({ limit: 100, timeout: "15 millis" }),
  "concurrency with timeout": Throttle.concurrency({ limit: 1, timeout: "6 millis" }),
  "all of time": Throttle.all([Throttle.rate({ limit: 200 }), Throttle.window({ limit: 3, per: "20 millis" })]),
  "all with concurrency": Throttle.all([Throttle.rate({ limit: 200 }), Throttle.concurrency({ limit: 2 })]),
  "all with two kinds of permits": Throttle.all([
    Throttle.concurrency({ limit: 2 }),
    Throttle.concurrency({ limit: 1, unit: "slots" }),
    Throttle.spacing({ interval: "3 millis", from: "end" })
  ])
}

type Use = (throttle: Throttle.Throttle, self: Effect.Effect<void>) => Effect.Effect<unknown, unknown>

const uses: Record<string, Use> = {
  withPermit: (throttle, self) => throttle.withPermit(self),
  takeScoped: (throttle, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(), self)),
  "withPermit, uninterruptible": (throttle, self) => Effect.uninterruptible(throttle.withPermit(self)),
  "a failing effect": (throttle, self) => throttle.withPermit(Effect.andThen(self, Effect.fail("no"))),
  "a dying effect": (throttle, self) => throttle.withPermit(Effect.andThen(self, Effect.die("no")))
}

/** Everything that must hold when nothing runs any more. */
const assertIdle = (throttle: Throttle.Throttle, where: string) => {
  const limiter = limiterOf(throttle)
  assert.strictEqual(limiter.line.size, 0, `${where}: line`)
  assert.isUndefined(limiter.line.head, `${where}: head`)
  assert.isUndefined(limiter.line.tail, `${where}: tail`)
  assert.strictEqual(limiter.counters.waiting, 0, `${where}: waiting`)
  assert.strictEqual(limiter.counters.running, 0, `${where}: running`)
  assert.strictEqual(limiter.holders.size, 0, `${where}: holders`)
  assert.strictEqual(limiter.open, 0, `${where}: open grants`)
  assert.isFalse(limiter.pumping, `${where}: pumping`)
  for (const timing of limiter.parts.timings) {
    assert.strictEqual(timing.calls, 0, `${where}: calls ahead`)
    assert.strictEqual(timing.total, 0, `${where}: total ahead`)
  }
  for (const gate of limiter.parts.gates) {
    assert.strictEqual(gate.free, gate.limit, `${where}: free permits`)
    assert.isTrue(Effect.runSync(gate.semaphore.takeIfAvailable(gate.limit)), `${where}: permits of the Semaphore`)
    assert.strictEqual(Effect.runSync(gate.semaphore.release(gate.limit)), gate.limit)
  }
}

interface Outcome {
  readonly steps: number
  readonly hit: boolean
}

const callers = 5

/** One run: five calls at the same instant and one later, some of them interrupted before one step. */
const run = (
  policy: Throttle.Policy<any>,
  use: Use,
  victims: ReadonlyArray<number>,
  step: number,
  where: string,
  context: Context.Context<never> = Context.make(Metric.MetricRegistry, new Map())
): Outcome => {
  let hit = false
  const order: Array<number> = []
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const simulator = Simulator.make({
    context,
    limit: 100_000,
    beforeStep: (current) => {
      if (current !== step || fibers.length < callers) return
      hit = true
      for (const victim of victims) fibers[victim]!.interruptUnsafe()
    }
  })
  const scope = Scope.makeUnsafe()
  let throttle: Throttle.Throttle | undefined
  simulator.fork(Effect.map(Scope.provide(Throttle.make(policy), scope), (made) => {
    throttle = made
  }))
  simulator.run()
  const built = throttle!
  const start = simulator.steps()
  step += start
  const call = (i: number) =>
    fibers.push(simulator.fork(use(
      built,
      Effect.suspend(() => {
        order.push(i)
        return Effect.sleep(2)
      })
    )))
  for (let i = 0; i < callers; i++) call(i)
  simulator.run()
  assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
  for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe(), `${where}: a call hangs`)
  assertIdle(built, where)
  assert.deepStrictEqual(order, order.toSorted((a, b) => a - b), `${where}: order`)
  const { admitted, interrupted, rejected } = limiterOf(built).counters
  const refused = Object.values(rejected).reduce((a, b) => a + b, 0)
  const begun = order.length
  // A call interrupted between the charge and its first operation was admitted and did nothing; at most the victims.
  assert.isAtLeast(admitted, begun, `${where}: admitted`)
  assert.isAtMost(admitted - begun, hit ? victims.length : 0, `${where}: charged without a start`)
  assert.isAtMost(interrupted, victims.length, `${where}: interrupted`)
  // A victim may have gone before it arrived; nobody else may get lost.
  assert.isAtMost(callers - admitted - interrupted - refused, hit ? victims.length : 0, `${where}: lost`)
  for (let i = 0; i < callers; i++) {
    const exit = fibers[i]!.pollUnsafe()!
    const isVictim = hit && victims.includes(i)
    if (!isVictim && !order.includes(i)) assert.isTrue(Exit.isFailure(exit), `${where}: call ${i} never started`)
  }
  // As good as new: the throttle still lets calls in, in order, none of them lost.
  const again: Array<number> = []
  for (let i = 0; i < 2; i++) {
    simulator.fork(Effect.delay(
      Effect.suspend(() => built.withPermit(Effect.sync(() => void again.push(i)))),
      1_000 + 1_000 * i
    ))
  }
  simulator.run()
  assert.deepStrictEqual(again, [0, 1], `${where}: afterwards`)
  simulator.fork(Scope.close(scope, Exit.void))
  simulator.run()
  return { steps: simulator.steps() - start, hit }
}

const sweep = (
  policy: Throttle.Policy<any>,
  use: Use,
  victims: ReadonlyArray<number>,
  name: string,
  context?: Context.Context<never>
): number => {
  let runs = 0
  for (let step = 0; step < 2_000; step++) {
    const { hit } = run(policy, use, victims, step, `${name}, victims ${victims}, step ${step}`, context)
    runs++
    if (!hit) return runs
  }
  throw new Error("the sweep does not end")
}

describe("interruption at every scheduler step", () => {
  for (const [name, policy] of Object.entries(policies)) {
    it(name, () => {
      const runs = [[0], [1], [2], [4], [1, 2]].map((victims) =>
        sweep(policy, uses["withPermit"]!, victims, `${name}, withPermit`)
      )
      // The sweep really was one: many steps, each with a run of its own.
      assert.isAbove(Math.min(...runs), 30)
    })
  }

  for (const [name, use] of Object.entries(uses).slice(1)) {
    it(name, () => {
      for (const policy of ["rate", "concurrency 1", "all with concurrency", "spacing from the end"]) {
        for (const victims of [[0], [1], [2]]) sweep(policies[policy]!, use, victims, `${policy}, ${name}`)
      }
    })
  }

  it("with logs, spans and an observer that takes its time", () => {
    const context = Context.make(Metric.MetricRegistry, new Map()).pipe(
      Context.add(References.MinimumLogLevel, "Debug"),
      Context.add(References.CurrentLoggers, new Set()),
      Context.add(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })),
      Context.add(Throttle.Observer, () => Effect.sleep(1))
    )
    for (const policy of ["rate", "concurrency 1", "rate with timeout"]) {
      for (const use of ["withPermit", "takeScoped"]) {
        for (const victims of [[0], [1], [2]]) {
          sweep(policies[policy]!, uses[use]!, victims, `${policy}, ${use}, observed`, context)
        }
      }
    }
  })
})

describe("closing the scope at every scheduler step", () => {
  for (const name of ["rate", "concurrency 1", "all with concurrency", "spacing from the end"]) {
    it(name, () => {
      for (let step = 0;; step++) {
        const scope = Scope.makeUnsafe()
        let hit = false
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        const simulator = Simulator.make({
          beforeStep: (current) => {
            if (current !== step || fibers.length === 0) return
            hit = true
            simulator.fork(Scope.close(scope, Exit.void))
          }
        })
        let context: Context.Context<Throttle.Throttle> | undefined
        simulator.fork(Effect.map(Layer.buildWithScope(policies[name]!, scope), (built) => {
          context = built
        }))
        simulator.run()
        const throttle = Context.get(context!, Throttle.Throttle)
        step += simulator.steps()
        const before = simulator.steps()
        let begun = 0
        for (let i = 0; i < callers; i++) {
          fibers.push(simulator.fork(throttle.withPermit(Effect.suspend(() => {
            begun++
            return Effect.sleep(2)
          }))))
        }
        simulator.run()
        for (const fiber of fibers) {
          const exit = fiber.pollUnsafe()
          assert.isDefined(exit, `${name}, step ${step}: left hanging`)
        }
        assertIdle(throttle, `${name}, step ${step}`)
        if (hit) assert.isAtLeast(limiterOf(throttle).counters.admitted, begun)
        step -= before
        if (!hit) {
          assert.isAbove(step, 30)
          return
        }
      }
    })
  }
})

describe("an observer of a fiber that throws", () => {
  it("holds up nobody in line", () => {
    const simulator = Simulator.make({ operations: 2_048 })
    let context: Context.Context<Throttle.Throttle> | undefined
    simulator.fork(Effect.map(Layer.buildWithScope(policies["concurrency 1"]!, Scope.makeUnsafe()), (built) => {
      context = built
    }))
    simulator.run()
    const throttle = Context.get(context!, Throttle.Throttle)
    const first = simulator.fork(throttle.withPermit(Effect.sleep(1)))
    const second = simulator.fork(throttle.withPermit(Effect.void))
    second.addObserver(() => {
      throw new Error("thrown by an observer")
    })
    const third = simulator.fork(throttle.withPermit(Effect.void))
    let thrown = 0
    for (let tries = 0; tries < 5; tries++) {
      try {
        simulator.run()
      } catch {
        thrown++
      }
    }
    assert.strictEqual(thrown, 1)
    for (const fiber of [first, second, third]) assert.isDefined(fiber.pollUnsafe())
    assertIdle(throttle, "after it threw")
  })
})
