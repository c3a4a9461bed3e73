/**
 * What the playground's page says: its address, its simulation and its code say the same. The page itself is tested in a
 * browser, in PlaygroundPage.test.ts.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Result } from "effect-throttle/simulation"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll } from "vitest"
import {
  arrivals,
  bounds,
  type Field,
  type Fields,
  type Kinds,
  policies,
  run,
  whole
} from "../docs/playground/fields.ts"
import {
  arrivalsOf,
  compares,
  examples,
  fromHash,
  mostCalls,
  mostItems,
  remarksOn,
  simulate,
  simulateByArrival,
  type State,
  toCode,
  toHash
} from "../docs/playground/state.ts"
import { compile } from "./utils/compile.ts"
import { root } from "./utils/files.ts"
import { randomNumbers } from "./utils/random-program.ts"

const texts = ["", "", "light", "flooder", `a,b:c=d&e%2C+"f"`, "\u{1f600}".repeat(20)]

const randomState = (seed: number): State => {
  const random = randomNumbers(seed)
  const below = (n: number) => Math.floor(random() * n)
  const value = (field: Field) =>
    field.type === "number"
      ? random() < 0.05
        ? field.max
        : field.min + field.step * below((field.reach - field.min) / field.step)
      : field.type === "choice"
      ? field.choices[below(field.choices.length)]!
      : field.type === "text"
      ? texts[below(texts.length)]!
      : random() < 0.5
  const all = (fields: Fields) =>
    Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, value(field)]))
  const items = (kinds: Kinds, n: number) =>
    Array.from({ length: n }, () => {
      const [kind, { fields }] = Object.entries(kinds)[below(Object.keys(kinds).length)]!
      return { kind, options: all(fields) }
    })
  const some = (fields: Fields) => Object.fromEntries(Object.entries(all(fields)).filter(() => random() < 0.4))
  return {
    policies: items(policies, below(4)).map((item) => ({
      ...item,
      options: random() < 0.8 ? { ...item.options, unit: "permits" } : item.options
    })),
    arrivals: items(arrivals, 1 + below(2)).map((item) => ({
      ...item,
      // Most calls cost one permit, and most policies count permits: otherwise hardly anything would go together.
      options: random() < 0.6 ? { ...item.options, permits: 1, amount: 0 } : item.options
    })),
    whole: all(whole),
    bounds: some(bounds),
    run: some(run)
  }
}

const states = [
  ...examples.map(({ hash }) => fromHash(hash)),
  // More calls than the page shows
  fromHash("#policy=rate,limit:50&arrivals=steady,rate:50,duration:60000&arrivals=steady,rate:50,duration:60000"),
  ...Array.from({ length: 40 }, (_, i) => randomState(i + 1))
]

const concurrency = (limit: number) => [{ kind: "concurrency", options: { limit, unit: "permits" } }]

describe("the address", () => {
  it("says all of a state", () => {
    for (const state of states) assert.deepStrictEqual(fromHash(toHash(state)), state)
    const nothing: State = {
      policies: [],
      arrivals: [],
      whole: { together: "all", order: "arrival", ageing: 10_000, compare: false, shadow: false },
      bounds: {},
      run: {}
    }
    assert.deepStrictEqual(fromHash(toHash(nothing)), nothing)
  })

  it("may be empty: then it is the first example", () =>
    assert.deepStrictEqual(fromHash(""), fromHash(examples[0]!.hash)))

  it.each([
    ["an unknown kind", "#policy=magic,limit:5", []],
    ["an unknown option", "#policy=concurrency,limit:5,colour:red", concurrency(5)],
    ["no number", "#policy=concurrency,limit:many", concurrency(3)],
    ["too much", "#policy=concurrency,limit:1e99", concurrency(1_000_000)],
    ["too little", "#policy=concurrency,limit:-5", concurrency(1)],
    [
      "what is between two steps of a slider",
      "#policy=spacing,interval:254,from:end",
      [{ kind: "spacing", options: { interval: 254, from: "end", align: false, unit: "permits" } }]
    ],
    ["a name of every object", "#policy=constructor&policy=__proto__,limit:1", []]
  ])("may say %s", (_, hash, expected) => assert.deepStrictEqual(fromHash(hash).policies, expected))

  it.each(["%", "%zz", "100%"])("may say a text that is not encoded: %s", (text) => {
    const { arrivals } = fromHash(`#policy=rate&arrivals=steady,caller:${text}`)
    assert.strictEqual(arrivals[0]!.options["caller"], text)
  })

  it("may say too many", () => assert.lengthOf(fromHash(`#${"policy=concurrency&".repeat(99)}`).policies, mostItems))

  it.each([
    [
      "#policy=concurrency,limit:1e99",
      /^policy 1: limit must be a whole number from 1 to 1,000,000; "1e99" became 1000000/
    ],
    ["#policy=rate&policy=concurrency,limit:0", /^policy 2: limit must be a whole number from 1/],
    ["#policy=rate,per:7200000", /^policy 1: per must be a number from 0\.1 to 3,600 s; "7200000" became 3600000/],
    ["#policy=rate,limit:many", /"many" became 5/],
    ["#policy=window,kind:rolling", /kind must be one of sliding, fixed; "rolling" became sliding/],
    ["#policy=rate,limt:3", /^policy 1: there is no "limt"/],
    ["#policy=magic", /^There is no policy "magic"/],
    ["#policy=rate&arrivals=steady,rate:5000", /^pattern 1: rate must be a whole number from 1 to 200/],
    [
      "#policy=rate&order=newest",
      /^the address: order must be one of arrival, priority, fair; "newest" became arrival/
    ],
    [`#policy=rate&arrivals=steady,caller:${"x".repeat(21)}`, /^pattern 1: caller must be at most 20 characters/],
    ["#policy=rate&arrivals=steady,priority:-9", /^pattern 1: priority must be a whole number from -5/],
    ["#policy=rate&maxQueue=-1", /maxQueue must be a whole number from 0/],
    ["#policy=rate&maxqueue=1", /there is no "maxqueue"/],
    [`#${"policy=rate&".repeat(9)}`, /^Only the first 5 of 9/]
  ])("is remarked on where it is not taken as it is: %s", (hash, expected) => {
    const remarks = remarksOn(hash)
    assert.lengthOf(remarks, 1)
    assert.match(remarks[0]!, expected)
  })

  it("is not remarked on where it is", () => {
    for (const state of states) assert.deepStrictEqual(remarksOn(toHash(state)), [])
    assert.deepStrictEqual(remarksOn(""), [])
    for (const { hash } of examples) assert.deepStrictEqual(remarksOn(hash), [])
  })
})

describe("the examples of orders", () => {
  it.each([
    ["share fairly", "light"],
    ["urgent first", "reset"]
  ])("%s: calls of one caller wait for 100 ms, and by arrival for more than half a second", (name, caller) => {
    const state = fromHash(examples.find((example) => example.name.startsWith(name))!.hash)
    assert.isTrue(compares(state))
    const waits = ({ calls }: Result) => calls.filter((call) => call.caller === caller).map(({ wait }) => wait)
    for (const wait of waits(simulate(state))) assert.closeTo(wait, 100, 0.01)
    const byArrival = simulateByArrival(state)
    for (const wait of waits(byArrival)) assert.isAbove(wait, 500)
    assert.strictEqual(byArrival.name, "10 per second, by arrival")
  })

  it("are compared with the order of arrival only where there is another", () => {
    assert.isFalse(compares(fromHash("#policy=rate&compare=true")))
    assert.isFalse(compares(fromHash("#policy=rate&order=fair")))
  })
})

describe("the code", () => {
  mkdirSync(join(root, "test/examples-generated"), { recursive: true })
  const folder = mkdtempSync(join(root, "test/examples-generated/playground-"))
  afterAll(() => rmSync(folder, { recursive: true }))

  // Where the library rejects the combination, the page shows its message, and the code would throw the same.
  const sound = states.flatMap((state, i) => {
    try {
      return [{ file: join(folder, `state${i}.ts`), result: simulate(state), state }]
    } catch (error) {
      assert.instanceOf(error, RangeError)
      return []
    }
  })
  for (const { file, state } of sound) writeFileSync(file, `${toCode(state)}\nexport { result }\n`)

  it("shows no more calls than the page does", () =>
    assert.isTrue(
      sound.some(({ result, state }) => arrivalsOf(state).length > mostCalls && result.calls.length === mostCalls)
    ))

  it("is there for most states", () => assert.isAbove(sound.length, states.length / 2))

  const codeOf = (hash: string) => toCode(fromHash(hash))

  it("has the README's own policy, with its units and costs", () => {
    const code = codeOf(examples.find(({ name }) => name.includes("language model"))!.hash)
    const readme = readFileSync(join(root, "README.md"), "utf8")
    const parts = readme.match(/^ {4}Throttle\.(tokenBucket|concurrency)\(\{.*\}\)/gm)!.map((part) => part.trim())
    assert.lengthOf(parts, 3)
    for (const part of parts) assert.include(code.replaceAll(/(\d)(?=(\d{3})+\b)/g, "$1_"), part)
    assert.include(code, "Api.withPermits({ tokens: 1000 })")
  })

  it("has policies one after the other, and the last of them in shadow", () => {
    const code = codeOf(
      "#policy=rate,limit:9&policy=rate,limit:5&arrivals=steady&together=chain&shadow=true&maxQueue=2"
    )
    assert.include(code, "const policy1 = Throttle.rate({ limit: 9, maxQueue: 2 })")
    assert.include(code, "const policy2 = Throttle.shadow(Throttle.rate({ limit: 5, maxQueue: 2 }))")
    assert.include(code, "Effect.succeed({ id }).pipe(policy2, policy1)")
    assert.include(code, "Simulation.run([policy1, policy2], arrivals)")
  })

  it("has several in shadow as one", () =>
    assert.include(
      codeOf("#policy=rate&policy=concurrency&arrivals=steady&shadow=true").replaceAll(/\s+/g, " "),
      "Throttle.shadow(Throttle.all([ Throttle.rate({ limit: 5 }), Throttle.concurrency({ limit: 3 }) ]))"
    ))

  it("has the order of a whole policy, and the callers", () => {
    const calls = "arrivals=steady,caller:light,weight:2&arrivals=bursts,priority:1"
    const alone = codeOf(`#policy=rate&${calls}&order=priority&ageing=60000`)
    assert.include(alone, `Throttle.rate({ limit: 5, order: "priority", ageing: "1 minute" })`)
    assert.include(alone, `caller: { key: "light", weight: 2 } })`)
    assert.include(alone, "caller: { priority: 1 } })")
    assert.include(alone, `.pipe(policy, Throttle.withCaller({ key: "light", weight: 2 }))`)
    const all = codeOf(`#policy=rate&policy=concurrency&${calls}&order=fair&maxQueuePerCaller=3`)
    assert.include(all, `], { order: "fair", ageing: "10 seconds", maxQueuePerCaller: 3 })`)
    assert.notInclude(codeOf(`#policy=rate&${calls}`), "ageing")
  })

  it("has ageing in the fair order only where calls have a priority", () => {
    const policyOf = (priority: number) => codeOf(`#policy=rate&arrivals=steady,priority:${priority}&order=fair`)
    assert.include(policyOf(0), `{ limit: 5, order: "fair" }`)
    assert.include(policyOf(1), `{ limit: 5, order: "fair", ageing: "10 seconds" }`)
  })

  it("compiles", async () => assert.strictEqual(await compile(sound.map(({ file }) => file)), ""), 60_000)

  it("gives the result that the page shows", async () => {
    for (const { file, result, state } of sound) {
      const { result: told } = await import(file)
      assert.deepStrictEqual(told, result, toHash(state))
    }
  }, 60_000)
})
