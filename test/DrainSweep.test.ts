/**
 * A drain at every scheduler step of some calls, and what may happen at every step of a drain: nothing may leak, no call may be
 * lost, and the drain completes when the throttle is idle, not before.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, type Fiber, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { assertIdle, reasonOf, statisticsOf } from "./utils/kit.ts"
import * as Sweep from "./utils/sweep.ts"

const bounded = { maxQueue: 100 } as const

/** Otherwise a nested call may wait behind calls that wait for the permits of its own fiber. */
const nesting = Throttle.concurrency({ limit: 1, onReentry: "bypass", ...bounded })

const policies: Record<string, Throttle.Policy<any>> = {
  nesting,
  concurrency: Throttle.concurrency({ limit: 2, ...bounded }),
  rate: Throttle.rate({ limit: 500, ...bounded }),
  "spacing from the end": Throttle.spacing({ interval: 3, from: "end", ...bounded }),
  all: Throttle.all([Throttle.rate({ limit: 1_000 }), Throttle.concurrency({ limit: 1 })], bounded),
  shadow: Throttle.shadow(Throttle.concurrency({ limit: 1 }))
}

const uses: Record<string, Sweep.Use> = {
  withPermit: (throttle, self) => throttle.withPermit(self),
  takeScoped: (throttle, self) => Effect.scoped(Effect.andThen(throttle.takeScoped(), self)),
  usePermits: (throttle, self) =>
    throttle.usePermits((permit) => Effect.andThen(self, permit.settle({ permits: 1 })), { permits: 1 }),
  "nested calls": (throttle, self) => throttle.withPermit(Effect.andThen(self, throttle.withPermits(Effect.void, 0)))
}

const calls = 4

type Drain = Fiber.Fiber<number>

const wasInterrupted = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

/** Starts a drain, and asserts at its end that the throttle is idle. */
const startDrain = ({ simulator, throttle }: Sweep.Swept, where: string, deadline?: number): Drain =>
  simulator.fork(Effect.map(throttle.drain(deadline), (interrupted) => {
    const { running, waiting } = statisticsOf(throttle)
    // Of the calls that hold permits for a scope the deadline waits for none.
    if (deadline === undefined) assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 }, where)
    else assert.strictEqual(waiting, 0, where)
    return interrupted
  }))

/** Every call has finished, was refused, or was interrupted; nothing is left; newcomers are refused. */
const check = ({ fibers, simulator, throttle }: Sweep.Swept, drain: Drain, where: string, mayInterrupt: boolean) => {
  const exit = drain.pollUnsafe()
  assert.isTrue(exit !== undefined && Exit.isSuccess(exit), `${where}: the drain ended as ${exit}`)
  for (const fiber of fibers) {
    const exit = fiber.pollUnsafe()!
    const isAllowed = Exit.isSuccess(exit) || reasonOf(exit) === "Draining" || (mayInterrupt && wasInterrupted(exit))
    assert.isTrue(isAllowed, `${where}: a call ended as ${exit}`)
  }
  assertIdle(throttle, where)
  const late = simulator.fork(throttle.withPermit(Effect.void))
  simulator.run()
  assert.isTrue(Exit.isFailure(late.pollUnsafe()!), `${where}: a newcomer was admitted`)
}

describe("a drain at every step", () => {
  for (const [name, policy] of Object.entries(policies)) {
    for (const [what, use] of Object.entries(uses)) {
      if (what === "nested calls" && policy !== nesting) continue
      for (const deadline of [undefined, 0, 3]) {
        it(`${name}, ${what}, ${deadline === undefined ? "no deadline" : `deadline ${deadline} ms`}`, () => {
          let drain: Drain | undefined
          const act = (swept: Sweep.Swept) => void (drain = startDrain(swept, name, deadline))
          const steps = Sweep.everyStep({ act, calls, policy, use }, name, (swept, where) => {
            if (!swept.hit) return
            check(swept, drain!, where, deadline !== undefined)
            const { admitted, interrupted, rejected } = statisticsOf(swept.throttle)
            // With a nested call each admitted call may count twice.
            assert.isAtLeast(admitted + interrupted + rejected.Draining, deadline === undefined ? calls : 0, where)
          })
          assert.isAbove(steps, 10)
        })
      }
    }
  }
})

const acts: Record<string, (swept: Sweep.Swept) => void> = {
  "the interruption of two calls": Sweep.interrupt(1, 2),
  "an update": ({ simulator, throttle }) => {
    simulator.fork(throttle.update(Throttle.all([Throttle.concurrency({ limit: 3 }), Throttle.rate({ limit: 300 })])))
  },
  "an update to a policy in shadow": ({ simulator, throttle }) => {
    simulator.fork(throttle.update(Throttle.shadow(Throttle.rate({ limit: 100 }))))
  },
  "a pause": ({ simulator, throttle }) => {
    simulator.fork(throttle.pause(4))
  },
  "the end of the scope": ({ scope, simulator }) => {
    simulator.fork(Scope.close(scope, Exit.void))
  },
  "another drain with a deadline": ({ simulator, throttle }) => {
    simulator.fork(throttle.drain(2))
  }
}

describe("at every step of a drain", () => {
  for (const [what, act] of Object.entries(acts)) {
    for (const [name, policy] of Object.entries(policies)) {
      it(`${what}, ${name}`, () => {
        let drain: Drain | undefined
        // It begins with the first call.
        const watch = (swept: Sweep.Swept) => {
          if (swept.order.length > 0) drain ??= startDrain(swept, name)
        }
        const use: Sweep.Use = (throttle, self) => {
          drain = undefined
          return throttle.usePermits((permit) => Effect.andThen(self, permit.settle(1)), 1)
        }
        Sweep.everyStep({ act, calls, policy, use, watch }, `${what}, ${name}`, (swept, where) => {
          if (drain !== undefined) check(swept, drain, where, true)
        })
      })
    }
  }

  it("its interruption: calls finish, and newcomers stay refused", () => {
    for (const [name, policy] of Object.entries(policies)) {
      // In shadow calls run on in the simulation if the drain was interrupted before its first step.
      if (name === "shadow") continue
      let drain: Drain | undefined
      const watch = (swept: Sweep.Swept) => {
        if (swept.order.length > 0) drain ??= startDrain(swept, name, 20)
      }
      const use: Sweep.Use = (throttle, self) => {
        drain = undefined
        return throttle.withPermit(self)
      }
      const act = () => drain?.interruptUnsafe()
      Sweep.everyStep({ act, calls, policy, use, watch }, name, ({ fibers, throttle }, where) => {
        for (const fiber of fibers) {
          const exit = fiber.pollUnsafe()!
          assert.isTrue(Exit.isSuccess(exit) || reasonOf(exit) === "Draining", `${where}: a call ended as ${exit}`)
        }
        assertIdle(throttle, where)
      })
    }
  })
})

describe("a map drained at every step", () => {
  for (const [name, policy] of Object.entries(policies)) {
    for (const deadline of [undefined, 3]) {
      it(`${name}, ${deadline === undefined ? "no deadline" : `deadline ${deadline} ms`}`, () => {
        let map!: ThrottleMap.ThrottleMap<string>
        let drain: Drain | undefined
        Sweep.everyStep(
          {
            policy,
            calls,
            make: (simulator, scope) => {
              simulator.fork(Effect.map(
                Scope.provide(ThrottleMap.make({ lookup: () => policy }), scope),
                (made) => void (map = made)
              ))
              simulator.run()
              return map.get("a")
            },
            use: uses["withPermit"]!,
            act: ({ simulator }) => {
              simulator.fork(Effect.exit(map.withPermit("b")(Effect.sleep(2))))
              drain = simulator.fork(map.drain(deadline))
            }
          },
          name,
          ({ fibers, hit, simulator }, where) => {
            if (!hit) return
            assert.isTrue(Exit.isSuccess(drain!.pollUnsafe()!), where)
            const { running, waiting } = Effect.runSync(map.statistics)
            assert.deepStrictEqual({ running, waiting }, { running: 0, waiting: 0 }, where)
            for (const fiber of fibers) {
              const exit = fiber.pollUnsafe()!
              const isAllowed = Exit.isSuccess(exit) || reasonOf(exit) === "Draining" || deadline !== undefined
              assert.isTrue(isAllowed, `${where}: a call ended as ${exit}`)
            }
            const late = simulator.fork(map.withPermit("c")(Effect.void))
            simulator.run()
            assert.strictEqual(reasonOf(late.pollUnsafe()), "Draining", where)
          }
        )
      })
    }
  }
})
