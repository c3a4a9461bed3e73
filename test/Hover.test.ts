/**
 * What an editor shows of the package: the comment of the form that is called, so every form must have one, in the
 * declarations that are published.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, posix } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { undocumented } from "./utils/declarations.ts"
import { type Editor, openEditor } from "./utils/editor.ts"
import { root } from "./utils/files.ts"

// Below the repository, so that `effect` is found from there.
mkdirSync(join(root, "test/examples-generated"), { recursive: true })
const folder = mkdtempSync(join(root, "test/examples-generated/hover-"))
afterAll(() => rmSync(folder, { recursive: true }))

beforeAll(() => {
  const tsc = join(root, "node_modules/typescript/bin/tsc")
  const out = ["--outDir", folder, "--tsBuildInfoFile", join(folder, "tsconfig.tsbuildinfo")]
  execFileSync(process.execPath, [tsc, "-p", join(root, "src"), "--emitDeclarationOnly", ...out])
}, 60_000)

const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

/** These files, and those whose exports they pass on. */
const published = (files: ReadonlyArray<string>): Array<string> => {
  const found = new Set<string>()
  const add = (file: string) => {
    if (found.has(file) || file.includes("internal/")) return
    found.add(file)
    for (const [, other] of readFileSync(join(folder, file), "utf8").matchAll(/^export .* from "(\..*)\.[jt]s"/gm)) {
      add(posix.join(dirname(file), `${other}.d.ts`))
    }
  }
  files.forEach(add)
  return [...found]
}

describe("the declarations", () => {
  it("have a comment for every export, every form of a call, and every member of what is called", () => {
    const targets = Object.values<string | null>(exports).filter((target) => target?.endsWith(".js"))
    const files = published(targets.map((target) => target!.replace("./dist/", "").replace(/js$/, "d.ts")))
    assert.includeMembers(files, ["Throttle.d.ts", "ThrottleMap.d.ts", "http/client.d.ts", "simulation/svg.d.ts"])
    const found = files.map((file) => undocumented(readFileSync(join(folder, file), "utf8")))
    assert.isAbove(found.reduce((sum, { looked }) => sum + looked, 0), 200)
    assert.deepStrictEqual(files.flatMap((file, i) => found[i]!.without.map((line) => `${file}: ${line}`)), [])
  })

  it.each([
    ["an export", "export declare const a: number;"],
    ["one whose comment is only tags", "/** @see {@link b} */\nexport declare const a: number;"],
    [
      "a second form",
      "/** A. */\nexport declare const a: {\n    /** One. */\n    (n: number): string;\n    (s: string): string;\n};"
    ],
    ["a generic form", "/** A. */\nexport interface A {\n    <B>(b: B): B;\n}"],
    [
      "a member",
      "/** A. */\nexport interface Operations {\n    /**\n     * @see {@link b}\n     */\n    readonly b: () => void;\n}"
    ]
  ])("are found to lack it for %s", (_, text) => assert.lengthOf(undocumented(text).without, 1))
})

describe("an editor", () => {
  const file = join(folder, "program.ts")
  let editor: Editor

  /** A call, and what is shown with the pointer on the name of what is called. */
  const calls: ReadonlyArray<readonly [call: string, shown: RegExp]> = [
    ["Throttle.rate({ limit: 1 })", /Makes a policy of one start every `per \/ limit`/],
    ["Throttle.rate({ limit: 1, maxQueue: 1 })", /Makes a policy of one start every `per \/ limit`.*\n?.*rejected/],
    ["Throttle.tokenBucket({ capacity: 1, refill: 1 })", /Makes a policy of a bucket of `capacity` permits/],
    [
      "Throttle.tokenBucket({ capacity: 1, refill: 1, timeout: 1 })",
      /Makes a policy of a bucket of `capacity` permits/
    ],
    ["Throttle.window({ limit: 1, per: 1 })", /Makes a policy of at most `limit` permits in a window/],
    ["Throttle.window({ limit: 1, per: 1, maxWait: 1 })", /Makes a policy of at most `limit` permits in a window/],
    ["Throttle.concurrency({ limit: 1 })", /Makes a policy of at most `limit` permits held at once/],
    ["Throttle.concurrency({ limit: 1, maxQueue: 1 })", /Makes a policy of at most `limit` permits held at once/],
    ["Throttle.spacing({ interval: 1 })", /Makes a policy of at least `interval` between/],
    ["Throttle.spacing({ interval: 1, maxQueue: 1 })", /Makes a policy of at least `interval` between/],
    ["Throttle.all([Throttle.none])", /Combines policies into one/],
    ["Throttle.all([Throttle.none], { maxQueue: 1 })", /Combines policies into one/],
    ["Throttle.shadow(policy)", /counts, logs and measures/],
    ["Throttle.stream(policy)", /Throttles a stream/],
    ["Throttle.stream(policy, { cost: () => 1 })", /Throttles a stream/],
    ["Throttle.withPermit(Effect.void)", /once the provided throttle grants one permit/],
    ["Throttle.withPermits(2)", /Runs the piped effect once the throttle grants its/],
    ["Throttle.withPermits(Effect.void, 2)", /Runs an effect once the throttle grants its/],
    ["Throttle.withPermitsIfAvailable(2)", /Runs the piped effect only if no wait is needed/],
    ["Throttle.withPermitsIfAvailable(Effect.void, 2)", /Runs an effect only if no wait is needed/],
    ["Throttle.usePermits(2)", /Takes permits, then runs/],
    ["Throttle.usePermits(() => Effect.void, 2)", /Takes permits, then runs/],
    ["Throttle.wait()", /Waits until a call/],
    ["GitHub.withPermit(Effect.void)", /once the throttle grants one permit/],
    ["GitHub.withPermits(2)", /Runs the piped effect once the throttle grants its/],
    ["GitHub.withPermits(Effect.void, 2)", /Runs an effect once the throttle grants its/],
    ["GitHub.withPermitsIfAvailable(2)", /Runs the piped effect only if no wait is needed/],
    ["GitHub.usePermits(2)", /Takes permits, then runs/],
    ["GitHub.wait()", /Waits until a call/],
    ["GitHub.takeScoped()", /holds them until the scope closes/],
    ["GitHub.estimateWait()", /how long a call of this cost/],
    ["GitHub.pause(1)", /no call start for a duration/],
    ["GitHub.update(policy)", /Replaces the throttle's policy/],
    ["GitHub.drain(1)", /Refuses newcomers/],
    ["GitHub.awaitQueue(1)", /until at least `n` calls wait/],
    ["Throttle.drain(1)", /Refuses newcomers/],
    ["Users.drain(1)", /every key/],
    ["Users.drainOf(\"ada\")", /Drains one key/],
    ["Users.awaitQueue(\"ada\", 1)", /calls of the key wait/],
    ["GitHub.layerWith(policy)", /Layer of another policy/],
    ["Users.withPermit(\"ada\")", /key's throttle/],
    ["Users.withPermits(\"ada\", 2)", /key's throttle/],
    ["Users.wait(\"ada\")", /key/],
    ["HttpThrottle.client(policy)", /Throttles a client by a policy/],
    ["HttpThrottle.client(policy, { cost: 2 })", /with a cost for each request/],
    ["HttpThrottle.client(GitHub)", /by a `Throttle.Service` class/],
    ["HttpThrottle.client(Users)", /Throttles a client by/],
    ["HttpThrottle.clientScoped(policy)", /Throttles a client by a policy/],
    ["HttpThrottle.middleware({ policy })", /Throttles the requests of a server/],
    ["HttpThrottle.middleware({ policy }, { global: true })", /Throttles the requests of a server/],
    [
      "RedisThrottle.layerFor(GitHub, { key: \"a\", onStoreError: \"allow\" })",
      /Makes the Layer of a `Throttle.Service` class/
    ],
    ["Testing.waitUntilWaiting(1)", /Lets other fibers run until/],
    ["Testing.waitUntilWaiting(GitHub, 1)", /Lets other fibers run until/],
    ["Testing.layerFor(GitHub)", /Makes the Layer of a recorder/],
    ["policy(Effect.void)", /Runs the effect once this policy grants one permit/]
  ]

  const head = `import { Effect } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import { RedisThrottle } from "effect-throttle/redis"
import * as Testing from "effect-throttle/testing"
const policy = Throttle.none
class GitHub extends Throttle.Service<GitHub>()("GitHub", policy) {}
class Users extends ThrottleMap.Service<Users>()("Users", { lookup: (_: string) => policy }) {}`.split("\n")

  beforeAll(async () => {
    const paths = { "effect-throttle": ["./index.d.ts"], "effect-throttle/*": ["./*/index.d.ts"] }
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ extends: "../../../tsconfig.base.json", compilerOptions: { paths }, files: ["program.ts"] })
    )
    writeFileSync(file, [...head, ...calls.map(([call]) => call)].join("\n"))
    editor = await openEditor([file])
  }, 60_000)

  afterAll(() => editor?.close())

  it.each(calls.map(([call, shown], i) => ({ call, i, shown })))(
    "shows what $call does",
    async ({ call, i, shown }) => {
      const [, documentation = ""] = (await editor.hover(file, head.length + i, call.indexOf("(") - 1)).split("\n```\n")
      assert.match(documentation, shown)
    }
  )
})
