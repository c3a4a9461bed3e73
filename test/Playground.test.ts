/**
 * What the playground's page says: its address, its simulation and its code say the same. The page itself is tested in a
 * browser, in PlaygroundPage.test.ts.
 */
import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll } from "vitest"
import { arrivals, bounds, type Field, type Fields, type Kinds, policies, run } from "../docs/playground/fields.ts"
import {
  arrivalsOf,
  examples,
  fromHash,
  mostCalls,
  mostItems,
  simulate,
  type State,
  toCode,
  toHash
} from "../docs/playground/state.ts"
import { compile } from "./utils/compile.ts"
import { root } from "./utils/files.ts"
import { randomNumbers } from "./utils/random-program.ts"

const randomState = (seed: number): State => {
  const random = randomNumbers(seed)
  const below = (n: number) => Math.floor(random() * n)
  const value = (field: Field) =>
    field.type === "number"
      ? field.min + field.step * below((field.max - field.min) / field.step)
      : field.type === "choice"
      ? field.choices[below(field.choices.length)]!
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
    policies: items(policies, below(4)),
    arrivals: items(arrivals, 1 + below(2)),
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

describe("the address", () => {
  it("says all of a state", () => {
    for (const state of states) assert.deepStrictEqual(fromHash(toHash(state)), state)
    const nothing: State = { policies: [], arrivals: [], bounds: {}, run: {} }
    assert.deepStrictEqual(fromHash(toHash(nothing)), nothing)
  })

  it("may be empty: then it is the first example", () =>
    assert.deepStrictEqual(fromHash(""), fromHash(examples[0]!.hash)))

  it.each([
    ["an unknown kind", "#policy=magic,limit:5", []],
    ["an unknown option", "#policy=concurrency,limit:5,colour:red", [{ kind: "concurrency", options: { limit: 5 } }]],
    ["no number", "#policy=concurrency,limit:many", [{ kind: "concurrency", options: { limit: 3 } }]],
    ["too much", "#policy=concurrency,limit:1e99", [{ kind: "concurrency", options: { limit: 50 } }]],
    ["too little", "#policy=concurrency,limit:-5", [{ kind: "concurrency", options: { limit: 1 } }]],
    [
      "what no slider says",
      "#policy=spacing,interval:254.6,from:end",
      [{ kind: "spacing", options: { interval: 250, from: "end", align: false } }]
    ],
    ["a name of every object", "#policy=constructor&policy=__proto__,limit:1", []]
  ])("may say %s", (_, hash, expected) => assert.deepStrictEqual(fromHash(hash).policies, expected))

  it("may say too many", () => assert.lengthOf(fromHash(`#${"policy=concurrency&".repeat(99)}`).policies, mostItems))
})

describe("the code", () => {
  mkdirSync(join(root, "test/examples-generated"), { recursive: true })
  const folder = mkdtempSync(join(root, "test/examples-generated/playground-"))
  afterAll(() => rmSync(folder, { recursive: true }))

  // Where the library refuses the combination, the page shows what it says, and the code would throw the same.
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

  it("compiles", async () => assert.strictEqual(await compile(sound.map(({ file }) => file)), ""), 60_000)

  it("gives the result that the page shows", async () => {
    for (const { file, result, state } of sound) {
      const { result: told } = await import(file)
      assert.deepStrictEqual(told, result, toHash(state))
    }
  }, 60_000)
})
