/**
 * The throttled client against servers that answer anything, in simulated time: what holds whatever they say.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Metric, Schema } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { Headers, HttpClient, HttpClientRequest } from "effect/http"
import * as Simulator from "../utils/simulator.ts"
import { type Answer, atOnce } from "./memory.ts"

const policies = [
  Throttle.none,
  Throttle.rate({ limit: 20 }),
  Throttle.concurrency({ limit: 2 }),
  Throttle.all([Throttle.window({ limit: 3, per: "1 second" }), Throttle.concurrency({ limit: 1 })])
]

const answers: ReadonlyArray<Answer> = [
  { status: 200 },
  { status: 200 },
  { status: 200, headers: { "x-ratelimit-remaining": "0", "x-ratelimit-reset": "0.7" } },
  { status: 200, headers: { "ratelimit": "\"a\";r=0;t=1" } },
  { status: 404, headers: { "retry-after": "9" } },
  { status: 403 },
  { status: 403, headers: { "retry-after": "2" } },
  { status: 429 },
  { status: 429, headers: { "retry-after": "1" } },
  { status: 429, headers: { "retry-after-ms": "150", "stripe-should-retry": "false" } },
  { status: 429, headers: { "retry-after": "soon", "ratelimit-remaining": "-1", "ratelimit": ";;" } },
  { status: 503 },
  { status: 503, headers: { "retry-after-ms": "400" } },
  { status: 503, headers: { "x-should-retry": "true" } }
]

type Event =
  | { readonly _tag: "sent"; readonly at: number; readonly request: number }
  | { readonly _tag: "heard"; readonly at: number; readonly request: number; readonly answer: Answer }

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const Request = Schema.Struct({
  at: int(0, 3_000),
  method: Schema.Literals(["GET", "POST"]),
  /** Of each attempt, in turn. */
  answers: Schema.Array(int(0, answers.length - 1)).check(Schema.isMinLength(5), Schema.isMaxLength(5)),
  takes: int(0, 300)
})

/** All that happened, in order, and the status that each request got. After its script a request is answered with 200. */
const play = (policy: Throttle.Policy<never>, requests: ReadonlyArray<typeof Request.Type>, adapt: boolean) => {
  const simulator = Simulator.make({ operations: 2_048, context: Context.make(Metric.MetricRegistry, new Map()) })
  const events: Array<Event> = []
  const attempts = requests.map(() => 0)
  const server = HttpClient.makeWith<never, never, never, never>(
    Effect.flatMap((request) =>
      Effect.suspend(() => {
        const i = Number(request.url.split("/").at(-1))
        const { answers: script, takes } = requests[i]!
        const answer = answers[script[attempts[i]!++] ?? 0]!
        events.push({ _tag: "sent", at: simulator.now(), request: i })
        return Effect.sync(() => {
          events.push({ _tag: "heard", at: simulator.now(), request: i, answer })
          return atOnce(request, answer)
        }).pipe(Effect.delay(takes))
      })
    ),
    Effect.succeed
  )
  const polite = HttpThrottle.client(policy, { jitter: 0, adapt })
  const client = polite(server)
  const fibers = requests.map(({ at, method }, i) =>
    simulator.fork(
      Effect.delay(
        Effect.map(client.execute(HttpClientRequest.make(method)(`http://a.example/${i}`)), ({ status }) => status),
        at
      )
    )
  )
  simulator.run()
  const statistics = simulator.fork(polite.statistics)
  simulator.run()
  const exit = statistics.pollUnsafe()
  return {
    events,
    attempts,
    exits: fibers.map((fiber) => fiber.pollUnsafe()),
    learned: exit !== undefined && Exit.isSuccess(exit) ? exit.value.get("http://a.example") : undefined,
    sleepers: simulator.sleepers()
  }
}

const verdictOf = ({ headers = {}, status }: Answer) =>
  HttpThrottle.read({ status, headers: Headers.fromInput(headers) }, 0)

/** Whether an answer is repeated, were there no end to that. */
const isRepeated = (method: string, answer: Answer) => {
  const { refused, retry } = verdictOf(answer)
  return refused && (retry ?? (answer.status !== 503 || method === "GET"))
}

describe("whatever servers answer", () => {
  it.prop(
    "without adaptation no request is sent during a pause, each is repeated as often as it may be, and gets its last answer",
    [int(0, policies.length - 1), Schema.Array(Request).check(Schema.isMinLength(1), Schema.isMaxLength(8))],
    ([index, requests]) => {
      const { attempts, events, exits } = play(policies[index]!, requests, false)
      const heard = requests.map((): Array<Answer> => [])
      let pausedUntil = -Infinity
      for (const event of events) {
        if (event._tag === "sent") {
          assert.isAtLeast(event.at, pausedUntil - 0.001, `request ${event.request} was sent during a pause`)
          continue
        }
        const { answer, at, request } = event
        const before = heard[request]!.push(answer) - 1
        const named = verdictOf(answer).wait
        const again = isRepeated(requests[request]!.method, answer) && before < 3
        // A 429 without a time holds everybody back as long as the request that it is about: 1, 2, 4 s.
        const backoff = again && answer.status !== 503 ? 1_000 * 2 ** before : 0
        pausedUntil = Math.max(pausedUntil, at + (named > 0 ? named : backoff))
      }
      for (const [i, { method, answers: script }] of requests.entries()) {
        const all = script.slice(0, 4).map((answer) => answers[answer]!)
        const last = all.findIndex((answer) => !isRepeated(method, answer))
        const expected = all.slice(0, last < 0 ? 4 : last + 1)
        assert.deepStrictEqual(heard[i], expected)
        assert.strictEqual(attempts[i], expected.length)
        assert.deepStrictEqual(exits[i], Exit.succeed(expected.at(-1)!.status))
      }
    },
    { arbitrary: { runs: 300 } }
  )

  it.prop(
    "with adaptation no request is sent during a time that was named, each ends with its last answer, and nothing stays behind",
    [int(0, policies.length - 1), Schema.Array(Request).check(Schema.isMinLength(1), Schema.isMaxLength(8))],
    ([index, requests]) => {
      const { attempts, events, exits, learned, sleepers } = play(policies[index]!, requests, true)
      const heard = requests.map((): Array<Answer> => [])
      let pausedUntil = -Infinity
      for (const event of events) {
        if (event._tag === "sent") {
          assert.isAtLeast(event.at, pausedUntil - 0.001, `request ${event.request} was sent during a pause`)
          continue
        }
        const { answer, at, request } = event
        heard[request]!.push(answer)
        const { refused, wait } = verdictOf(answer)
        if (refused) pausedUntil = Math.max(pausedUntil, at + wait)
      }
      for (const [i, { method }] of requests.entries()) {
        const all = heard[i]!
        assert.strictEqual(attempts[i], all.length)
        assert.deepStrictEqual(exits[i], Exit.succeed(all.at(-1)!.status))
        // All but the last were refusals that may be repeated; the last is none, or one too many.
        for (const answer of all.slice(0, -1)) assert.isTrue(isRepeated(method, answer))
        if (isRepeated(method, all.at(-1)!)) assert.isAtLeast(all.length, 4)
      }
      assert.deepInclude(learned, { waiting: 0, running: 0 })
      assert.strictEqual(sleepers, 0)
    },
    { arbitrary: { runs: 300 } }
  )

  const unlimited = answers.flatMap(({ headers = {}, status }, i) =>
    status < 500 && !("retry-after" in headers) && verdictOf(answers[i]!).wait === 0 && !verdictOf(answers[i]!).refused
      ? [i]
      : []
  )

  it.prop(
    "without a refusal or a field starts are what they are without adaptation",
    [int(0, policies.length - 1), Schema.Array(Request).check(Schema.isMinLength(1), Schema.isMaxLength(12))],
    ([index, requests]) => {
      const wellBehaved = requests.map((request) => ({
        ...request,
        answers: request.answers.map((answer) => unlimited[answer % unlimited.length]!)
      }))
      assert.deepStrictEqual(
        play(policies[index]!, wellBehaved, true).events,
        play(policies[index]!, wellBehaved, false).events
      )
    },
    { arbitrary: { runs: 300 } }
  )
})
