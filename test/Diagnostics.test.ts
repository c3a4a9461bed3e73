/**
 * What the compiler says of a mistake: it blames what is wrong, and names what would be right.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { compile } from "./utils/compile.ts"
import { root } from "./utils/files.ts"

mkdirSync(join(root, "test/examples-generated"), { recursive: true })
const folder = mkdtempSync(join(root, "test/examples-generated/mistakes-"))
afterAll(() => rmSync(folder, { recursive: true }))

/** A mistake; what is blamed, as it stands there; and what is said of it. */
const mistakes: ReadonlyArray<readonly [code: string, blamed: string, said: RegExp]> = [
  ["HttpThrottle.client(rate, { retries: 3 })", "retries", /'retries' does not exist in type '.*ClientOptions/],
  ["HttpThrottle.client(bounded, { retries: 3 })", "retries", /'retries' does not exist in type '.*ClientOptions/],
  ["HttpThrottle.client(GitHub, { retries: 3 })", "retries", /'retries' does not exist in type '.*ClientOptions/],
  ["HttpThrottle.client({ lookup: () => rate }, { retries: 3 })", "retries", /'retries' does not exist in type/],
  ["HttpThrottle.client(rate, { cost: 2, retries: 3 })", "retries", /'retries' does not exist in type/],
  ["HttpThrottle.client(rate, { retry: \"3\" })", "retry", /'string' is not assignable to type 'number \| Schedule/],
  ["HttpThrottle.clientScoped(rate, { retries: 3 })", "retries", /'retries' does not exist in type '.*ClientOptions/],
  ["HttpThrottle.client(3)", "3", /'number' is not assignable to parameter/],
  ["HttpThrottle.middleware({ polcy: rate })", "polcy", /Did you mean to write 'policy'/],
  ["Throttle.rate({ limit: 1, brust: 3 })", "brust", /Did you mean to write 'burst'/],
  ["Throttle.rate({ limit: \"1\" })", "limit", /'string' is not assignable to type 'number'/],
  ["Throttle.window({ limit: 1, per: 1, kidn: \"fixed\" })", "kidn", /'kidn' does not exist in type/],
  ["Throttle.window({ limit: 1, per: \"day\" })", "{ limit: 1, per: \"day\" }", /'kind' is missing/],
  [
    "Throttle.window({ kind: \"calendar\", limit: 1, per: \"1 day\" })",
    "{ kind: \"calendar\", limit: 1, per: \"1 day\" }",
    /'"1 day"' is not assignable to type '"day" \| "month" \| "week"'/
  ],
  ["Throttle.window({ kind: \"calendar\", limit: 1, per: \"day\", zon: \"UTC\" })", "zon", /to write 'zone'/],
  ["Throttle.window({ kind: \"calender\", limit: 1, per: 1 })", "kind", /'"calender"' is not assignable to type/],
  ["Throttle.all([rate], { maxqueue: 3 })", "maxqueue", /Did you mean to write 'maxQueue'/],
  [
    "GitHub.withPermits({ tokens: 5 })",
    "tokens",
    /'tokens' does not exist in type '\{ readonly permits\?: number; \}'/
  ],
  ["OpenAI.withPermits({ token: 5 })", "token", /Did you mean to write 'tokens'/],
  ["OpenAI.withPermits(Effect.void, { token: 5 })", "token", /Did you mean to write 'tokens'/],
  ["OpenAI.usePermits({ tokens: 5 })((permit) => permit.settle({ token: 1 }))", "token: 1", /to write 'tokens'/],
  ["OpenAI.layerWith(rate)", "rate", /"tokens"' is not assignable to type '"permits"'/],
  ["GitHub.layerWith(bounded)", "bounded", /'ThrottleError' is not assignable to type 'never'/]
]

const head = `import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
const rate = Throttle.rate({ limit: 1 })
const bounded = Throttle.rate({ limit: 1, maxQueue: 1 })
class GitHub extends Throttle.Service<GitHub>()("GitHub", rate) {}
class OpenAI extends Throttle.Service<OpenAI>()(
  "OpenAI",
  Throttle.all([Throttle.rate({ limit: 1 }), Throttle.rate({ limit: 1, unit: "tokens" })])
) {}
void [Effect, bounded, GitHub, OpenAI, HttpThrottle]
`

describe("the compiler", () => {
  const files = mistakes.map(([code], i) => {
    const file = join(folder, `mistake${i}.ts`)
    writeFileSync(file, `${head}${code}\n`)
    return file
  })
  let complaints = ""
  beforeAll(async () => void (complaints = await compile(files)), 60_000)

  it.each(mistakes.map(([code, blamed, said], i) => ({ code, blamed, said, file: files[i]! })))(
    "blames $blamed in $code",
    ({ blamed, code, file, said }) => {
      // file(line,column): what is wrong, and below it, indented, why
      const [complaint = "", ...others] = complaints.split(/\n(?=\S)/).filter((text) => text.startsWith(basename(file)))
      assert.deepStrictEqual(others, [])
      const [, line, column] = /\((\d+),(\d+)\)/.exec(complaint) ?? []
      assert.deepStrictEqual(
        [line, column],
        [`${head.split("\n").length}`, `${code.lastIndexOf(blamed) + 1}`],
        complaint
      )
      assert.match(complaint, said)
    }
  )
})
