/**
 * A throttled client interrupted at every scheduler step: while it waits, sends, hears the answer, and waits again. No
 * permit, no waiter and no open grant may stay, a refusal that was heard must hold back the others, and nobody else may
 * get lost.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, type Fiber, Metric, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient } from "effect/http"
import { assertIdle } from "../utils/kit.ts"
import * as Simulator from "../utils/simulator.ts"
import * as Sweep from "../utils/sweep.ts"
import { atOnce } from "./memory.ts"

const policies: Record<string, Throttle.Policy<never>> = {
  "concurrency 1": Throttle.concurrency({ limit: 1 }),
  rate: Throttle.rate({ limit: 100 }),
  all: Throttle.all([Throttle.rate({ limit: 200 }), Throttle.concurrency({ limit: 2 })])
}

type Client = HttpClient.HttpClient.With<unknown, Scope.Scope>

const forms: Record<
  string,
  (
    throttle: Throttle.Throttle | ThrottleMap.ThrottleMap<string>,
    adapt: boolean
  ) => HttpThrottle.Throttled<unknown, Scope.Scope>
> = {
  client: (throttle, adapt) => HttpThrottle.client(throttle, { jitter: 0, adapt }),
  clientScoped: (throttle, adapt) => HttpThrottle.clientScoped(throttle, { jitter: 0, adapt })
}

interface Refusal {
  readonly status: number
  readonly headers: Record<string, string>
  /** For how many milliseconds it holds back everybody, and where that is learned. */
  readonly pause: number
  readonly learned: number
  /** Milliseconds until its body is there. */
  readonly body: number
}

const refusals: Record<string, Refusal> = {
  "a 429 with a time": { status: 429, headers: { "retry-after": "0.02" }, pause: 20, learned: 20, body: 0 },
  "a 429 without a time, and a body": { status: 429, headers: {}, pause: 1_000, learned: 100, body: 3 },
  "a 503 that is waited for alone, and a body": { status: 503, headers: {}, pause: 0, learned: 0, body: 3 }
}

/** Takes 2 ms; the first request is refused. */
const makeServer = (simulator: Simulator.Simulator, { body, headers, status }: Refusal) => {
  const seen: Array<{ readonly url: string; readonly at: number }> = []
  const refusedAt: Array<number> = []
  const client: Client = HttpClient.makeWith<never, never, unknown, Scope.Scope>(
    Effect.flatMap((request) =>
      Effect.suspend(() => {
        const isFirst = seen.push({ url: request.url, at: simulator.now() }) === 1
        return Effect.sync(() => {
          if (!isFirst) return atOnce(request, { status: 200 })
          refusedAt.push(simulator.now())
          return atOnce(request, { status, headers }, body)
        }).pipe(Effect.delay(2))
      })
    ),
    Effect.succeed
  )
  return { client, seen, refusedAt }
}

const callers = 3

interface Subject {
  readonly throttle: Throttle.Throttle | ThrottleMap.ThrottleMap<string>
  readonly assertIdle: (where: string) => void
}

const make = (simulator: Simulator.Simulator, policy: Throttle.Policy<never>, isMap: boolean): Subject => {
  let subject: Subject | undefined
  const scope = Scope.makeUnsafe()
  const one = Effect.map(Throttle.make(policy), (throttle): Subject => ({
    throttle,
    assertIdle: (where) => assertIdle(throttle, where)
  }))
  const map = Effect.map(ThrottleMap.make({ lookup: () => policy }), (throttle): Subject => ({
    throttle,
    assertIdle: (where) => {
      const { running, waiting } = Effect.runSync(throttle.statistics)
      assert.deepStrictEqual([running, waiting], [0, 0], where)
    }
  }))
  simulator.fork(Effect.map(Scope.provide(isMap ? map : one, scope), (made) => void (subject = made)))
  simulator.run()
  return subject!
}

/** One run: three requests at once, one of them interrupted before one step. */
const run = (
  policy: Throttle.Policy<never>,
  form: (typeof forms)[string] | undefined,
  isMap: boolean,
  adapt: boolean,
  refusal: Refusal,
  victim: number,
  step: number,
  where: string
): { readonly hit: boolean; readonly charged: number } => {
  let hit = false
  const fibers: Array<Fiber.Fiber<number, unknown>> = []
  const simulator = Simulator.make({
    context: Context.make(Metric.MetricRegistry, new Map()),
    limit: 100_000,
    beforeStep: (current) => {
      if (current !== step || fibers.length < callers) return
      hit = true
      fibers[victim]!.interruptUnsafe()
    }
  })
  const { assertIdle, throttle } = make(simulator, policy, isMap)
  step += simulator.steps()
  const server = makeServer(simulator, refusal)
  const polite = form!(throttle, adapt)
  const client = polite(server.client)
  const get = (i: number) =>
    simulator.fork(Effect.scoped(Effect.map(client.get(`http://a/${i}`), ({ status }) => status)))
  for (let i = 0; i < callers; i++) fibers.push(get(i))
  simulator.run()
  assert.strictEqual(simulator.sleepers(), 0, `${where}: sleepers`)
  assertIdle(`${where}: idle`)
  const statistics = simulator.fork(Effect.map(polite.statistics, (keys) => keys.get("http://a")!))
  simulator.run()
  const learned = statistics.pollUnsafe()
  assert.isTrue(learned !== undefined && Exit.isSuccess(learned), where)
  if (learned !== undefined && Exit.isSuccess(learned)) {
    assert.deepInclude(learned.value, { waiting: 0, running: 0 }, `${where}: what was learned`)
  }
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe()
    assert.isDefined(exit, `${where}: request ${i} hangs`)
    if (hit && i === victim && Exit.isFailure(exit!)) {
      assert.isTrue(Exit.hasInterrupts(exit!), where)
      continue
    }
    assert.deepStrictEqual(exit, Exit.succeed(200), `${where}: request ${i}`)
  }
  // Whoever heard the refusal, interrupted or not, it holds back everybody who was not under way already. How long is for
  // the schedule to say where it names no time: one that is interrupted before that has heard of none.
  const [refused] = server.refusedAt
  const isHeard = adapt || refusal.headers["retry-after"] !== undefined || !hit || victim !== 0
  for (const { at, url } of server.seen) {
    if (isHeard && refused !== undefined && at > refused) {
      assert.isAtLeast(at, refused + (adapt ? refusal.learned : refusal.pause), `${where}: ${url} is early`)
    }
  }
  const again = get(0)
  simulator.run()
  assert.deepStrictEqual(again.pollUnsafe(), Exit.succeed(200), `${where}: afterwards`)
  return { hit, charged: server.seen.length }
}

describe("interruption at every scheduler step", () => {
  for (const [name, policy] of Object.entries(policies)) {
    for (const [formName, form] of Object.entries(forms)) {
      for (const [answer, refusal] of Object.entries(refusals)) {
        for (const adapt of [true, false]) {
          for (const isMap of name === "all" ? [false, true] : [false]) {
            it(`${formName}, ${name}${isMap ? ", by key" : ""}${adapt ? "" : ", adapt: false"}: ${answer}`, () => {
              for (const victim of [0, 1]) {
                let step = Sweep.offset()
                while (run(policy, form, isMap, adapt, refusal, victim, step, `victim ${victim}, step ${step}`).hit) {
                  step += Sweep.stride
                }
                // The sweep really was one.
                assert.isAbove(step, 60)
              }
            }, 30_000)
          }
        }
      }
    }
  }
})
