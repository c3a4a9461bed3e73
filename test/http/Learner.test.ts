/**
 * The learning of a server's limit, event by event: tables of times in milliseconds and what the next request may do.
 */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Learner from "../../src/http/internal/learning/learner.ts"
import type { Fields } from "../../src/http/internal/learning/quota.ts"

const ms = 1e6

type Event =
  | readonly ["start", at: number]
  /** The request of this order (from 1) is accepted. */
  | readonly ["ok", at: number, order: number, fields?: Partial<Fields>]
  | readonly ["no", at: number, order: number, named?: number, fields?: Partial<Fields>]
  | readonly ["gone", at: number, order: number]

const fieldsOf = (given: Partial<Fields> | undefined): Fields | undefined => {
  if (given === undefined) return undefined
  const reset = (given.reset ?? Infinity) * ms
  return {
    name: given.name ?? "limit",
    remaining: given.remaining ?? 0,
    reset,
    pause: reset,
    longest: 3_600_000 * ms,
    size: given.size,
    window: given.window && given.window * ms
  }
}

/** Plays events; a start is one that somebody waits behind. */
const play = (events: ReadonlyArray<Event>, most: number | undefined = 100) => {
  let learner = Learner.make(0)
  const sent: Array<Learner.Sent> = []
  const refusals: Array<Omit<Learner.Refusal, "learner">> = []
  for (const event of events) {
    const now = event[1] * ms
    if (event[0] === "start") {
      const [next, mark] = Learner.start(learner, now, true)
      learner = next
      sent.push(mark)
    } else if (event[0] === "ok") learner = Learner.accept(learner, now, sent[event[2] - 1]!, fieldsOf(event[3]), most)
    else if (event[0] === "gone") learner = Learner.end(learner, sent[event[2] - 1]!)
    else {
      const [, , order, named, fields] = event
      const refusal = Learner.refuse(
        learner,
        now,
        sent[order - 1]!,
        named === undefined ? undefined : named * ms,
        fieldsOf(fields),
        (nanos) => nanos
      )
      learner = refusal.learner
      const { isCharged, pause, waitsAlone } = refusal
      refusals.push({ isCharged, pause: pause / ms, waitsAlone })
    }
  }
  return { learner, refusals, readyAt: (at: number, ahead = 0) => Learner.readyAt(learner, at * ms, ahead) / ms }
}

const perSecond = (learner: Learner.Learner): number => Number((learner.rate.rate * 1e9).toFixed(3))

const starts = (count: number, at = 0): ReadonlyArray<Event> => Array.from({ length: count }, () => ["start", at])

describe("without a refusal or a field nothing holds back", () => {
  it("however many start", () => {
    const { learner, readyAt } = play([...starts(500), ["ok", 50, 1], ["ok", 50, 2], ["gone", 50, 3]])
    assert.isTrue(Learner.isFree(learner))
    assert.strictEqual(readyAt(50, 100), 50)
  })
})

describe("a refusal", () => {
  it("that is the first teaches no rate: one at once, after 100 ms, and the request as its schedule says", () => {
    const { learner, readyAt, refusals } = play([...starts(3), ["no", 50, 1]])
    assert.deepStrictEqual(refusals, [{ isCharged: true, pause: 100, waitsAlone: true }])
    assert.strictEqual(perSecond(learner), Infinity)
    // Two are still on their way: until they are answered, or overdue.
    assert.strictEqual(readyAt(50), 8_050)
  })

  it("of a request that was on its way then is stale: no attempt, no pause", () => {
    const { learner, readyAt, refusals } = play([...starts(3), ["no", 50, 1], ["no", 51, 2], ["no", 52, 3]])
    assert.deepStrictEqual(refusals.slice(1), [
      { isCharged: false, pause: 0, waitsAlone: false },
      { isCharged: false, pause: 0, waitsAlone: false }
    ])
    assert.strictEqual(learner.rate.fails, 1)
    assert.strictEqual(readyAt(52), 52)
  })

  it("that names a time pauses for it, also a stale one", () => {
    const { refusals } = play([...starts(2), ["no", 50, 1, 1_000], ["no", 60, 2, 2_000]])
    assert.deepStrictEqual(refusals, [
      { isCharged: true, pause: 1_000, waitsAlone: false },
      { isCharged: false, pause: 2_000, waitsAlone: false }
    ])
  })

  it("in succession pauses twice as long, 8 s at most, whatever it names", () => {
    const events: Array<Event> = []
    for (let i = 1; i <= 10; i++) events.push(["start", i * 10_000], ["no", i * 10_000 + 50, i])
    const { refusals } = play(events)
    assert.deepStrictEqual(refusals.map(({ pause }) => pause), [
      100,
      200,
      400,
      800,
      1_600,
      3_200,
      6_400,
      8_000,
      8_000,
      8_000
    ])
    const named = play([["start", 0], ["no", 50, 1, 30], ["start", 100], ["no", 150, 2, 30]])
    assert.deepStrictEqual(named.refusals.map(({ pause }) => pause), [30, 200])
  })

  it("after one, and with some accepted between, teaches the rate of that time: nine tenths of it are sent", () => {
    const events: Array<Event> = [["start", 0], ["no", 50, 1]]
    // Twenty in the second after the pause of 100 ms.
    for (let i = 2; i <= 21; i++) events.push(["start", 100 + 50 * i], ["ok", 150 + 50 * i, i])
    const { learner, refusals } = play([...events, ["start", 1_200], ["no", 1_250, 22]])
    const [withPauses, withoutPauses] = [20 / 1.2, 20 / 1.1]
    assert.strictEqual(perSecond(learner), Number((0.9 * Math.sqrt(withPauses * withoutPauses)).toFixed(3)))
    // A known rate goes on after the time of one request.
    assert.deepStrictEqual([refusals[1]!.isCharged, refusals[1]!.waitsAlone], [true, false])
    assert.closeTo(refusals[1]!.pause, 1_000 / perSecond(learner), 1)
  })

  it("without anything accepted since the last one changes no rate: the server is shut, not slower", () => {
    const events: Array<Event> = [["start", 0], ["no", 50, 1], ["start", 200], ["ok", 250, 2], ["start", 300], [
      "no",
      350,
      3
    ]]
    const once = play(events)
    const twice = play([...events, ["start", 2_000], ["no", 2_050, 4]])
    assert.strictEqual(perSecond(twice.learner), perSecond(once.learner))
    assert.deepStrictEqual(twice.refusals[2], { isCharged: true, pause: 100, waitsAlone: true })
  })
})

describe("a known rate", () => {
  const learned: ReadonlyArray<Event> = [
    ["start", 0],
    ["no", 50, 1],
    ["start", 1_050],
    ["ok", 1_050, 2],
    ["start", 1_050],
    ["no", 1_050, 3]
  ]

  it("lets one start after the other, and no burst after a pause", () => {
    const { learner, readyAt } = play(learned)
    const interval = 1e9 / learner.rate.rate / 1e9 / ms
    assert.closeTo(readyAt(1_050), 1_050 + interval, 0.001)
    const [after] = Learner.start(learner, 60_000 * ms, true)
    assert.closeTo(Learner.readyAt(after, 60_000 * ms, 0) / ms, 60_000 + interval, 0.001)
    // And none while one is on its way to the policy.
    assert.strictEqual(readyAt(60_000, 1), Infinity)
  })

  it("returns to the estimate, stays near it, and goes on beyond it; but not while nobody waits", () => {
    let { learner } = play(learned)
    const top = learner.rate.top
    const { climb } = learner.rate
    const rates: Array<number> = []
    let now = 2_000 * ms
    let age = 0
    for (let i = 0; i < 40; i++) {
      const [next, sent] = Learner.start(learner, now, true)
      now += Math.ceil(1 / learner.rate.rate)
      age += 1 / learner.rate.rate
      learner = Learner.accept(next, now, sent, undefined, 100)
      assert.closeTo(learner.rate.rate / top, 1 - 0.1 * (1 - age / climb) ** 3, 1e-9)
      rates.push(learner.rate.rate)
    }
    assert.deepStrictEqual(rates, rates.toSorted((a, b) => a - b))
    assert.isAbove(learner.rate.rate, top)
    const [next, sent] = Learner.start(learner, now, false)
    assert.strictEqual(Learner.accept(next, now, sent, undefined, 100).rate.rate, learner.rate.rate)
  })
})

describe("one at once after a refusal", () => {
  it("is one more with each that is accepted, up to the most that the policy allows", () => {
    const events: Array<Event> = [["start", 0], ["no", 50, 1], ["start", 200], ["ok", 250, 2]]
    assert.strictEqual(play(events, 4).learner.rate.atOnce, 2)
    assert.strictEqual(play([...events, ["start", 250], ["ok", 300, 3]], 4).learner.rate.atOnce, 3)
    assert.strictEqual(
      play([...events, ["start", 250], ["ok", 300, 3], ["start", 300], ["ok", 350, 4]], 4).learner.rate.atOnce,
      Infinity
    )
    // Without a policy that says, up to the most that ever were.
    assert.strictEqual(
      play([...starts(2), ["no", 50, 1], ["no", 50, 2], ["start", 200], ["ok", 250, 3]], undefined as never).learner
        .rate.atOnce,
      2
    )
  })
})

describe("fields", () => {
  it("say what is left, counting what has started since", () => {
    const { learner, readyAt } = play([...starts(3), ["ok", 50, 1, { remaining: 4, reset: 1_000, size: 5 }]])
    assert.strictEqual(learner.quota.left, 2)
    assert.deepStrictEqual([readyAt(50), readyAt(50, 1), readyAt(50, 2)], [50, 50, Infinity])
  })

  it("of the answer with the least count, in whatever order answers come, as if the others were still to be handled", () => {
    const late: ReadonlyArray<Event> = [
      ...starts(2),
      ["ok", 50, 2, { remaining: 3, reset: 1_000, size: 5 }],
      ["ok", 60, 1, { remaining: 4, reset: 1_000, size: 5 }]
    ]
    assert.strictEqual(play(late).learner.quota.left, 2)
    // The next answer tells.
    const next = play([...late, ["start", 70], ["ok", 120, 3, { remaining: 2, reset: 900, size: 5 }]])
    assert.strictEqual(next.learner.quota.left, 2)
  })

  it("correct what was thought, once for each difference", () => {
    const { learner } = play([
      ["start", 0],
      ["ok", 50, 1, { remaining: 9, reset: 1_000, size: 10 }],
      ...starts(3, 100),
      // Somebody else has sent two.
      ["ok", 150, 2, { remaining: 6, reset: 900, size: 10 }],
      ["ok", 150, 3, { remaining: 5, reset: 900, size: 10 }],
      ["ok", 150, 4, { remaining: 4, reset: 900, size: 10 }]
    ])
    assert.strictEqual(learner.quota.left, 4)
  })

  const empty: ReadonlyArray<Event> = [...starts(2), ["ok", 50, 2, { remaining: 0, reset: 60_000, size: 60 }], [
    "ok",
    50,
    1
  ]]

  it("of an empty limit send one probe when a bucket would have room", () => {
    const { readyAt } = play(empty)
    assert.strictEqual(readyAt(50), 1_050)
    const probing = play([...empty, ["start", 1_050]])
    // No other until its answer is there, or the limit has reset.
    assert.strictEqual(probing.readyAt(1_060), 60_050)
  })

  it("after an accepted probe are a bucket's, which refills", () => {
    const { learner, readyAt } = play([...empty, ["start", 1_050], ["ok", 1_100, 3, {
      remaining: 0,
      reset: 60_000,
      size: 60
    }]])
    assert.strictEqual(learner.quota.kind, "bucket")
    assert.strictEqual(readyAt(1_100), 2_100)
    assert.strictEqual(readyAt(5_000), 5_000)
  })

  it("after a refused probe are a window's: at its end all is there, once", () => {
    const { learner, readyAt, refusals } = play([
      ...empty,
      ["start", 1_050],
      ["no", 1_100, 3, 58_900, { remaining: 0, reset: 58_900, size: 60 }]
    ])
    assert.strictEqual(learner.quota.kind, "window")
    assert.deepStrictEqual(refusals, [{ isCharged: false, pause: 58_900, waitsAlone: false }])
    assert.deepStrictEqual([readyAt(1_100), readyAt(60_000, 59)], [60_000, 60_000])
    assert.strictEqual(Learner.readyAt(learner, 60_000 * ms, 60), Infinity)
  })

  it("after a probe that has no answer send another", () => {
    const { readyAt } = play([...empty, ["start", 1_050], ["gone", 1_100, 3]])
    assert.strictEqual(readyAt(1_100), 1_100)
  })

  it("of a bucket whose reset is the time of one request need no probe", () => {
    const { learner, readyAt } = play([["start", 0], ["ok", 50, 1, {
      remaining: 0,
      reset: 500,
      size: 40,
      window: 20_000
    }]])
    assert.strictEqual(learner.quota.kind, "bucket")
    assert.strictEqual(readyAt(50), 550)
  })

  it("of a limit that was never seen with anything left say nothing of its rate", () => {
    const { learner, readyAt } = play([["start", 0], ["no", 50, 1, 12_000, { remaining: 0, reset: 12_000 }]])
    assert.deepStrictEqual([learner.quota.kind, learner.quota.pace], ["unknown", 0])
    assert.strictEqual(perSecond(learner), Infinity)
    assert.strictEqual(readyAt(50), 12_050)
  })

  it("without a reset never hold back the last one", () => {
    const { readyAt } = play([["start", 0], ["ok", 50, 1, { remaining: 0, size: 10, window: 1_000 }]])
    assert.isBelow(readyAt(50), Infinity)
    const nothing = play([["start", 0], ["ok", 50, 1, { remaining: 0 }]])
    assert.strictEqual(nothing.readyAt(50), 50)
  })

  it("that an answer lacks: its request is not counted", () => {
    const few: ReadonlyArray<Event> = [["start", 0], ["ok", 50, 1, { remaining: 2, reset: 60_000, size: 3 }]]
    const others = play([...few, ...starts(2, 100), ["ok", 150, 2], ["ok", 150, 3]])
    assert.strictEqual(others.learner.quota.left, 2)
    // Nor does its acceptance show a bucket.
    const probe = play([
      ["start", 0],
      ["ok", 50, 1, { remaining: 0, reset: 60_000, size: 60 }],
      ["start", 1_050],
      ["ok", 1_100, 2]
    ])
    assert.deepStrictEqual([probe.learner.quota.kind, probe.learner.quota.left], ["unknown", 0])
  })

  it("of another limit begin anew", () => {
    const { learner } = play([...empty, ["start", 1_050], ["ok", 1_100, 3, {
      name: "other",
      remaining: 7,
      reset: 1_000,
      size: 10
    }]])
    assert.deepStrictEqual([learner.quota.left, learner.quota.kind, learner.quota.size], [7, "unknown", 10])
  })
})

describe("whatever happens", () => {
  const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
  const Step = Schema.Struct({
    wait: int(0, 3_000),
    action: Schema.Literals(["start", "start", "start", "ok", "no", "gone"]),
    which: int(0, 9),
    named: Schema.UndefinedOr(int(0, 5_000)),
    remaining: Schema.UndefinedOr(int(0, 12)),
    reset: int(0, 5_000),
    size: Schema.UndefinedOr(int(1, 10)),
    window: Schema.UndefinedOr(int(1, 5_000))
  })

  it.prop("numbers stay numbers, counts come to zero, and with nothing on its way one may start in the end", [
    Schema.Array(Step).check(Schema.isMaxLength(120))
  ], ([steps]) => {
    let learner = Learner.make(0)
    let now = 0
    const open: Array<Learner.Sent> = []
    const end = (sent: Learner.Sent, { action, named, remaining, reset, size, window }: typeof Step.Type) => {
      const fields = fieldsOf(
        remaining === undefined ? undefined : {
          remaining,
          reset,
          size,
          window
        }
      )
      if (action === "ok") learner = Learner.accept(learner, now, sent, fields, undefined)
      else if (action === "gone") learner = Learner.end(learner, sent)
      else ({ learner } = Learner.refuse(learner, now, sent, named && named * ms, fields, (nanos) => nanos))
    }
    for (const step of steps) {
      now += step.wait * ms
      if (step.action === "start") {
        if (Learner.readyAt(learner, now, 0) > now) continue
        const [next, sent] = Learner.start(learner, now, step.which > 4)
        learner = next
        open.push(sent)
      } else if (open.length > 0) end(open.splice(step.which % open.length, 1)[0]!, step)
      for (const [name, value] of Object.entries({ ...learner.rate, ...learner.quota })) {
        if (typeof value === "number") assert.isFalse(Number.isNaN(value), name)
      }
      assert.isAbove(learner.rate.rate, 0)
      assert.strictEqual(learner.inFlight, open.length)
      const at = Learner.readyAt(learner, now, 0)
      assert.isTrue(at === Infinity || Number.isSafeInteger(at), `${at}`)
    }
    for (const sent of open.splice(0)) learner = Learner.end(learner, sent)
    assert.isBelow(Learner.readyAt(learner, now, 0), Infinity)
  }, { arbitrary: { runs: 500 } })
})
