/**
 * An interruption at every scheduler step, of every kind of call, under every kind of policy: nothing may leak.
 *
 * One operation of its own a task, five calls, one of them (or two) interrupted before step 0, 1, 2 ... until the program is over
 * before the step comes. After each run the throttle must be as good as new.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Metric, References, Scope, Tracer } from "effect"
import { Throttle } from "effect-throttle"
import { assertIdle, statisticsOf } from "./utils/kit.ts"
import * as Simulator from "./utils/simulator.ts"
import * as Sweep from "./utils/sweep.ts"

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

const uses: Record<string, Sweep.Use> = {
  withPermit: (throttle, self) => throttle.withPermit(self),
  takeScoped: (throttle, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(), self)),
  "withPermit, uninterruptible": (throttle, self) => Effect.uninterruptible(throttle.withPermit(self)),
  "a failing effect": (throttle, self) => throttle.withPermit(Effect.andThen(self, Effect.fail("no"))),
  "a dying effect": (throttle, self) => throttle.withPermit(Effect.andThen(self, Effect.die("no")))
}

const callers = 5

/** Five calls at one instant, some of them interrupted before a step, for every step. Returns the number of steps. */
const sweep = (
  policy: Throttle.Policy<any>,
  use: Sweep.Use,
  victims: ReadonlyArray<number>,
  name: string,
  context?: Context.Context<never>
): number =>
  Sweep.everyStep(
    {
      policy,
      calls: callers,
      use,
      act: Sweep.interrupt(...victims),
      ...(context === undefined ? undefined : { context })
    },
    `${name}, victims ${victims}`,
    (swept, where) => {
      const { fibers, hit, order, scope, simulator, throttle } = swept
      assertIdle(throttle, where)
      Sweep.assertOrder(swept, where)
      const { admitted, interrupted, rejected } = statisticsOf(throttle)
      const rejections = Object.values(rejected).reduce((a, b) => a + b, 0)
      // A call interrupted between the charge and its first operation was admitted and did nothing; at most the victims.
      assert.isAtLeast(admitted, order.length, `${where}: admitted`)
      assert.isAtMost(admitted - order.length, hit ? victims.length : 0, `${where}: charged without a start`)
      assert.isAtMost(interrupted, victims.length, `${where}: interrupted`)
      // An interrupted call may have ended before it arrived; no other call may be lost.
      assert.isAtMost(callers - admitted - interrupted - rejections, hit ? victims.length : 0, `${where}: lost`)
      for (const [i, fiber] of fibers.entries()) {
        const isVictim = hit && victims.includes(i)
        if (isVictim || order.includes(i)) continue
        assert.isTrue(Exit.isFailure(fiber.pollUnsafe()!), `${where}: call ${i} never started`)
      }
      Sweep.assertUsable(swept, where)
      simulator.fork(Scope.close(scope, Exit.void))
      simulator.run()
    }
  )

describe("interruption at every scheduler step", () => {
  for (const [name, policy] of Object.entries(policies)) {
    it(name, () => {
      const steps = [[0], [1], [2], [4], [1, 2]].map((victims) =>
        sweep(policy, uses["withPermit"]!, victims, `${name}, withPermit`)
      )
      assert.isAtLeast(Math.min(...steps), 30)
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
        simulator.fork(Effect.map(Layer.buildWithScope(policies[name]!, scope), (throttle) => {
          context = throttle
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
        if (hit) assert.isAtLeast(statisticsOf(throttle).admitted, begun)
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
  it("delays no waiting call", () => {
    const simulator = Simulator.make({ operations: 2_048 })
    let context: Context.Context<Throttle.Throttle> | undefined
    simulator.fork(Effect.map(Layer.buildWithScope(policies["concurrency 1"]!, Scope.makeUnsafe()), (throttle) => {
      context = throttle
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
