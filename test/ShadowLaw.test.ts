/**
 * The same program in force and in shadow: the same numbers at every instant, for every kind of call.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option, Scope } from "effect"
import { Throttle } from "effect-throttle"
import { randomNumbers } from "./utils/random-program.ts"
import * as Simulator from "./utils/simulator.ts"

interface Options {
  readonly settles?: boolean
  readonly updates?: boolean
  readonly pauses?: boolean
  readonly interrupts?: boolean
  readonly aligned?: boolean
}

/** What is seen at some instants; undefined where the two are not to be compared. */
const play = (seed: number, isShadow: boolean, options: Options) => {
  const next = randomNumbers(seed)
  const int = (n: number) => Math.floor(next() * n)
  const pick = <A>(...all: ReadonlyArray<A>): A => all[int(all.length)]!
  // No two things at one instant: a fraction of its own for each.
  let things = 0
  const off = () => (++things) * 0.00413 + things ** 2 * 0.0000137
  const part = (): any => {
    const unit = pick(undefined, undefined, "slots")
    const given = unit === undefined ? {} : { unit }
    switch (int(options.aligned === true ? 7 : 6)) {
      case 0:
        return { _tag: "TokenBucket", capacity: 3 + int(4), refill: 1 + int(3), per: 5 + int(9), ...given }
      case 1:
        return { _tag: "Rate", limit: 1 + int(4), per: 5 + int(20), burst: 2 + int(3), ...given }
      case 2:
        return { _tag: "Window", limit: 3 + int(4), per: 5 + int(20), kind: pick("fixed", "sliding"), ...given }
      case 3:
        return { _tag: "Spacing", interval: 1 + int(4), from: pick("end", "start"), ...given }
      case 6:
        return { _tag: "Spacing", interval: 1 + int(4), align: true, ...given }
      default:
        return { _tag: "Concurrency", limit: 3 + int(4), ...given }
    }
  }
  const parts = Array.from({ length: 1 + int(3) }, part)
  const bounds = () => ({
    ...(next() < 0.3 && { timeout: 3 + int(20) + 0.00333 }),
    ...(next() < 0.3 && { maxQueue: int(6) }),
    ...(next() < 0.3 && parts.some(({ _tag }) => _tag !== "Concurrency") && { maxWait: 3 + int(30) + 0.00555 })
  })
  const scaled = (part: any) => ({
    ...part,
    ...("capacity" in part && { capacity: 3 + int(4) }),
    ...("limit" in part && { limit: part._tag === "Rate" ? 1 + int(4) : 3 + int(4) })
  })
  const shaded = (data: any) => {
    const policy = Throttle.fromData(data)
    return isShadow ? Throttle.shadow(policy) : policy
  }
  const policy = shaded({ _tag: "All", policies: parts, ...bounds() })
  const simulator = Simulator.make({
    operations: 2_048,
    context: Simulator.ownMetrics(),
    limit: 200_000
  })
  const throttle = Simulator.result(simulator, Scope.provide(Throttle.make(policy), Scope.makeUnsafe()))
  const counts = new Set(parts.map(({ unit }) => unit ?? "permits"))
  const cost = (): Throttle.Cost => {
    const all = { permits: int(3), slots: int(3) }
    return Object.fromEntries(Object.entries(all).filter(([unit]) => counts.has(unit)))
  }
  let comparable = true
  for (let i = 0; i < 16; i++) {
    const at = int(50) + off()
    const interrupted = options.interrupts === true && next() < 0.3
    const d1 = pick(0, 1, 3, 9) + off()
    const d2 = pick(0, 1, 3, 9) + off()
    const fails = next() < 0.2
    const kind = int(6)
    const asked = cost()
    const actual = cost()
    const ends = pick("settle", "cancel", "nothing")
    const interruptAt = at + int(20) + off()
    let started = false
    const sleep = interrupted ? Effect.sleep(1_000 + off()) : Effect.sleep(d1)
    const body = Effect.suspend(() => {
      started = true
      return fails ? Effect.andThen(sleep, Effect.fail("no")) : sleep
    })
    const call = (): Effect.Effect<unknown, unknown> => {
      const later = (permit: Throttle.Permit) =>
        Effect.andThen(
          body,
          Effect.andThen(
            options.settles !== true || ends === "nothing"
              ? Effect.void
              : ends === "settle"
              ? permit.settle(actual)
              : permit.cancel,
            Effect.sleep(d2)
          )
        )
      switch (kind) {
        case 0:
          return throttle.withPermitsIfAvailable(body, asked)
        case 1:
          return Effect.scoped(Effect.flatMap(throttle.takeScoped(asked), later))
        case 2:
        case 3:
          return throttle.usePermits(asked)(later)
        default:
          return throttle.withPermits(body, asked)
      }
    }
    simulator.at(at, () => {
      const fiber = simulator.fork(call())
      if (interrupted) {
        simulator.at(interruptAt, () => {
          // In force one that has started ends now, in shadow as much later as it would have started later.
          if (!isShadow && started) comparable = false
          if (!isShadow && fiber.pollUnsafe() !== undefined) return
          fiber.interruptUnsafe()
        })
      }
    })
  }
  if (options.updates === true) {
    for (let i = 0; i < 3; i++) {
      const data = { _tag: "All", policies: parts.map(scaled), ...bounds() }
      const at = int(60) + off()
      if (next() < 0.6) simulator.at(at, () => void simulator.fork(throttle.update(shaded(data))))
    }
  }
  if (options.pauses === true) {
    for (let i = 0; i < 2; i++) {
      const at = int(60) + off()
      const millis = int(15) + off()
      simulator.at(at, () => void simulator.fork(throttle.pause(millis)))
      const until = int(70) + off()
      if (next() < 0.3) simulator.at(until, () => void simulator.fork(throttle.resume))
    }
  }
  const seen: Array<object> = []
  // Three readings each, in case something happens at the very instant of one.
  for (const at of [11.31, 23.11, 37.71, 52.91, 71.13, 99.93, 5_000.5].flatMap((at) => [at, at + 0.013, at + 0.027])) {
    simulator.at(at + 0.00001, () => {
      const { longestWait, waited, ...others } = Effect.runSync(throttle.statistics)
      const next = Effect.runSync(throttle.estimateWait(counts.has("permits") ? 1 : { slots: 1 }))
      seen.push({
        at,
        ...others,
        waited: Math.round(Duration.toMillis(waited) * 100) / 100,
        longestWait: Math.round(Duration.toMillis(longestWait) * 100) / 100,
        next: Option.match(next, { onNone: () => "none", onSome: (d) => Math.round(Duration.toMillis(d) * 50) / 50 })
      })
    })
  }
  simulator.run()
  return { seen, comparable, parts }
}

const isNear = (a: unknown, b: unknown): boolean =>
  typeof a === "number" && typeof b === "number" ? Math.abs(a - b) < 0.05 : JSON.stringify(a) === JSON.stringify(b)

/** Whether the two may be compared; fails where they are seen to differ. */
const agree = (seed: number, options: Options): boolean => {
  const real = play(seed, false, options)
  if (!real.comparable) return false
  const shadow = play(seed, true, options)
  const isSame = (i: number): boolean => {
    const other = new Map(Object.entries(shadow.seen[i]!))
    return Object.entries(real.seen[i]!).every(([key, value]) => isNear(value, other.get(key)))
  }
  for (let i = 0; i < real.seen.length; i += 3) {
    if (isSame(i) || isSame(i + 1) || isSame(i + 2)) continue
    assert.deepStrictEqual(shadow.seen[i], real.seen[i], `seed ${seed} ${JSON.stringify(real.parts)}`)
  }
  return true
}

/** More with FUZZ, from FROM. */
const runs = Number(process.env["FUZZ"] ?? 30)
const from = Number(process.env["FROM"] ?? 100)

describe("a policy in shadow counts what it would count in force", () => {
  const cases: Record<string, Options> = {
    "calls of every kind": {},
    "settled and cancelled": { settles: true },
    "across updates": { updates: true },
    "across updates, settled and cancelled": { updates: true, settles: true },
    "across pauses": { pauses: true, settles: true },
    "interrupted while they wait": { interrupts: true, settles: true },
    "on the clock": { aligned: true, settles: true, updates: true }
  }
  for (const [name, options] of Object.entries(cases)) {
    it(name, () => {
      let compared = 0
      // Few programs with interruptions may be compared.
      const count = options.interrupts === true ? 5 * runs : runs
      for (let seed = from; seed < from + count; seed++) if (agree(seed, options)) compared++
      assert.isAbove(compared, count / 100)
    }, 600_000)
  }
})
