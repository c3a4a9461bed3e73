/**
 * Requests whose client hangs up before any step of the scheduler: both limits are charged or none, and nothing is held.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Fiber, Layer, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpEffect, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { keyedOf } from "../../src/internal/keyed/map.ts"
import { leftOf, remainingOfKey } from "../utils/kit.ts"
import * as Simulator from "../utils/simulator.ts"
import * as Sweep from "../utils/sweep.ts"

/** Nothing comes back to it while a simulation lasts. */
const budget = 5
const spent = Throttle.rate({ limit: 1, per: "1 hour", burst: budget - 1 })
const spentAndHeld = Throttle.all([spent, Throttle.concurrency({ limit: 1 })])
/** Lets one in every 3 ms: those who come together wait. */
const spentAndPaced = Throttle.all([spent, Throttle.rate({ limit: 1, per: "3 millis" })])

interface Limits {
  readonly policy: Throttle.Policy<any>
  readonly global?: Throttle.Policy<any>
  /** Whether no response counts for its key. */
  readonly countsNone?: boolean
}

const cases: Record<string, Limits> = {
  "a key that paces": { policy: spentAndPaced },
  "a key that holds": { policy: spentAndHeld },
  "neither waits": { policy: spent, global: spent },
  "the key waits": { policy: spentAndPaced, global: spent },
  "everybody waits": { policy: spent, global: spentAndPaced },
  "both wait": { policy: spentAndPaced, global: spentAndPaced },
  "both hold": { policy: spentAndHeld, global: spentAndHeld },
  "a key that paces, and counts none": { policy: spentAndPaced, countsNone: true },
  "a key that holds, and counts none": { policy: spentAndHeld, countsNone: true }
}

const callers = ["a", "a", "b", "a"]

/** One run, with one of the callers interrupted before one step. Gives whether it came to that. */
const run = (
  { countsNone = false, global, policy }: Limits,
  isGlobal: boolean,
  victim: number,
  step: number,
  where: string
): boolean => {
  let hit = false
  const started: Array<string> = []
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const scope = Scope.makeUnsafe()
  let first = Infinity
  const simulator = Simulator.make({
    limit: 100_000,
    beforeStep: (current) => {
      if (current !== first + step || fibers.length < callers.length) return
      hit = true
      fibers[victim]!.interruptUnsafe()
    }
  })
  const handler = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) => {
    started.push(headers["x-key"]!)
    return Effect.as(Effect.sleep(2), HttpServerResponse.text("hello"))
  })
  let map: ThrottleMap.ThrottleMap<string> | undefined
  let http: Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, any> | undefined
  simulator.fork(
    Effect.gen(function*() {
      map = yield* ThrottleMap.make({ lookup: (_key: string) => policy })
      const throttle = HttpThrottle.middleware({
        throttles: Effect.succeed(map),
        key: Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) => headers["x-key"]!),
        global,
        ...(countsNone ? { countIf: () => false } : undefined)
      }, { global: isGlobal as true })
      const route = HttpRouter.add("GET", "/", handler)
      const app = isGlobal
        ? Layer.merge(route, throttle)
        : Layer.provide(route, (throttle as unknown as { readonly layer: Layer.Layer<never> }).layer)
      http = yield* HttpRouter.toHttpEffect(app) as Effect.Effect<any, never, Scope.Scope>
    }).pipe(Effect.provideService(Scope.Scope, scope))
  )
  simulator.run()
  const statuses: Array<number> = []
  const handled = HttpEffect.toHandled(http!, (_, response) => Effect.sync(() => void statuses.push(response.status)))
  const request = HttpServerRequest.fromWeb(new Request("http://localhost/"))
  const ask = (key: string) =>
    simulator.fork(Effect.provideService(
      handled as Effect.Effect<void, never, HttpServerRequest.HttpServerRequest>,
      HttpServerRequest.HttpServerRequest,
      request.modify({ headers: { "x-key": key } as any })
    ))
  first = simulator.steps()
  for (const key of callers) fibers.push(ask(key))
  simulator.run()
  assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
  for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe(), `${where}: a request hangs`)
  // What was charged is what was started and counts; or one more, if the victim was gone before its first operation.
  for (const { limiter } of keyedOf(map!)!.lent.values()) assert.deepStrictEqual(leftOf(limiter), [], where)
  const charged = (key: string) => budget - remainingOfKey(map!, key)[0]!.permits
  const begun = (key: string) => countsNone ? 0 : started.filter((one) => one === key).length
  for (const key of ["a", "b"]) {
    const more = charged(key) - begun(key)
    assert.isTrue(
      more === 0 || (!countsNone && more === 1 && hit && callers[victim] === key),
      `${where}: ${key} charged ${more} more`
    )
  }
  const total = charged("a") + charged("b")
  if (global !== undefined) {
    // Whoever comes later is let in as often as everybody's limit has something left, and no more often.
    const before = statuses.length
    for (let i = 0; i <= budget - total; i++) {
      simulator.at(simulator.now() + 100 * (i + 1), () => void ask(`later ${i}`))
    }
    simulator.run()
    const expected = Array.from({ length: budget - total + 1 }, (_, i) => (i < budget - total ? 200 : 503))
    assert.deepStrictEqual(statuses.slice(before), expected, `${where}: both are charged, or none`)
  }
  simulator.fork(Scope.close(scope, Exit.void))
  simulator.run()
  return hit
}

/** The steps of the shortest sweep: of the one that waits first, and of two others. */
const sweep = (limits: Limits, isGlobal: boolean): number =>
  Math.min(...[1, 0, 3].map((victim) => {
    let step = Sweep.offset()
    while (run(limits, isGlobal, victim, step, `victim ${victim}, step ${step}`)) step += Sweep.stride
    return step
  }))

describe("hanging up before every step", () => {
  for (const [name, limits] of Object.entries(cases)) {
    it(`${name}, in front of all routes`, () => assert.isAbove(sweep(limits, true), 60), 30_000)
  }
  for (const name of ["a key that paces", "both wait"]) {
    it(`${name}, on a route`, () => assert.isAbove(sweep(cases[name]!, false), 60), 30_000)
  }
})
