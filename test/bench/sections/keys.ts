/** What a map of throttles costs: a call for a key, and a key. */
import { Effect, Scope } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { collectGarbage, insist, quick, rounds, type Run, timed } from "../harness.ts"
import { atMost, count, ns, ratio, type Section } from "../report.ts"

const often = 1_000_000_000
const calls = 20_000
const warmup = quick ? 8 : 15
const someKeys = 1_000
const manyKeys = quick ? 50_000 : 1_000_000

const policies: Readonly<Record<string, Throttle.Policy<never>>> = {
  rate: Throttle.rate({ limit: often, burst: often }),
  concurrency: Throttle.concurrency({ limit: 10 })
}

/** Calls for one key after the other, of so many; for 0 keys, calls without a map. */
const loop = (name: string, keys: number): Effect.Effect<void> => {
  const policy = policies[name]!
  if (keys === 0) {
    const call = policy(Effect.void)
    return Effect.gen(function*() {
      for (let i = 0; i < calls; i++) yield* call
    })
  }
  const map = Effect.runSync(Scope.provide(ThrottleMap.make({ lookup: () => policy }), Scope.makeUnsafe()))
  const all = Array.from({ length: keys }, (_, i) => map.withPermit(`key ${i}`)(Effect.void))
  return Effect.orDie(Effect.gen(function*() {
    for (let i = 0; i < calls; i++) yield* all[i % keys]!
  }))
}

const idle: Readonly<Record<string, Throttle.Policy<never>>> = {
  rate: Throttle.rate({ limit: 1, per: "1 day" }),
  window: Throttle.window({ limit: 1, per: "1 day" }),
  spacing: Throttle.spacing({ interval: "1 day" })
}

/** Bytes for each idle key that still has something to remember. */
const bytes = (name: string) =>
  Effect.scoped(Effect.gen(function*() {
    const keys = Array.from({ length: manyKeys }, (_, i) => `key ${i}`)
    const map = yield* ThrottleMap.make({ lookup: () => idle[name]! })
    yield* map.withPermit("first")(Effect.void)
    const before = collectGarbage()
    for (const key of keys) yield* map.withPermit(key)(Effect.void)
    const after = collectGarbage()
    insist((yield* map.statistics).keys === manyKeys + 1, "every key is remembered")
    return (after - before) / manyKeys
  }))

export const own = (what: string, name: string, keys: string): Run => {
  if (what === "bytes") return async () => ({ bytes: await Effect.runPromise(bytes(name)) })
  const program = loop(name, Number(keys))
  return async () => ({ ns: await timed(() => Effect.runPromise(program)) / calls })
}

export const section = async (): Promise<Section> => {
  const names = Object.keys(policies)
  const numbers = [0, 1, someKeys]
  const speed = await rounds(
    { warmup, count: quick ? 7 : 51 },
    Object.fromEntries(
      names.flatMap((name) => numbers.map((keys) => [`${name} ${keys}`, ["keys", "speed", name, keys]]))
    )
  )
  const size = await rounds(
    { warmup: 0, count: 1 },
    Object.fromEntries(Object.keys(idle).map((name) => [name, ["keys", "bytes", name]]))
  )
  const of = (name: string, keys: number) => speed[`${name} ${keys}`]!.ns!
  return {
    title: "One throttle a key",
    about:
      `Calls that need not wait, for one key or for ${
        count(someKeys)
      } in turn, beside the same policy without a map. ` +
      `Bytes for each of ${count(manyKeys)} idle keys that have spent their budget, beyond the key itself.`,
    columns: ["ns a call", "× without a map", "bytes"],
    rows: [
      ...names.flatMap((name) => [
        { what: `\`${name}\`, without a map`, figures: [ns(of(name, 0)), ratio(1)] },
        ...[1, someKeys].map((keys) => {
          const times = of(name, keys) / of(name, 0)
          const what = `\`${name}\`, ${keys === 1 ? "one key" : `${count(keys)} keys`}`
          return atMost(what, [ns(of(name, keys)), ratio(times)], times, 2.5, " ×")
        })
      ]),
      ...Object.keys(idle).map((name) =>
        atMost(`an idle key, \`${name}\``, ["", "", ns(size[name]!.bytes!)], size[name]!.bytes!, 250, " bytes")
      )
    ]
  }
}
