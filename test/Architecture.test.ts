import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { describe, expect, test } from "vitest"
import * as rules from "./utils/architecture.ts"
import { type Files, readFiles, root } from "./utils/files.ts"

const src = readFiles(["src"], /\.ts$/)
const others = readFiles(["test", "docs", "README.md"], /\.(ts|md)$/)
const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))

const effect = dirname(createRequire(import.meta.url).resolve("effect/package.json"))
const effectSource = (module: string): string | undefined => {
  const path = join(effect, "src", `${module}.ts`)
  return existsSync(path) ? readFileSync(path, "utf8") : undefined
}

describe("the architecture", () => {
  test("imports run in one direction", () => expect(rules.direction(src)).toEqual([]))
  test("no import cycles", () => expect(rules.cycles(src)).toEqual([]))
  test("meters import nothing from outside their folder", () => expect(rules.pureMeters(src)).toEqual([]))
  test("the core imports only stable modules of Effect", () => expect(rules.stableOnly(src, effectSource)).toEqual([]))
  test("time is read from Effect's Clock alone", () => expect(rules.noOtherClock(src)).toEqual([]))
  test("no module has state", () => expect(rules.noModuleState(src)).toEqual([]))
  test("package.json exports each public module and nothing internal", () =>
    expect(rules.closedExports(exports, src)).toEqual([]))
  test("no file imports an internal module by the package's name", () =>
    expect(rules.noInternalByName({ ...src, ...others })).toEqual([]))
  test("no file has more than 400 lines of code", () => expect(rules.shortFiles(src)).toEqual([]))
  test("no export of a public module is marked as internal", () => expect(rules.nothingMarkedInternal(src)).toEqual([]))
})

// Each rule reports each line of its table.
describe("each rule reports a violation", () => {
  const table = (rule: (files: Files) => ReadonlyArray<string>, bad: ReadonlyArray<Files>) =>
    test.each(bad)("%j", (files) => expect(rule(files)).toHaveLength(1))

  describe("direction", () =>
    table(rules.direction, [
      { "src/index.ts": `export * from "./internal/limiter.ts"` },
      { "src/Policy.ts": `import type { Throttle } from "./Throttle.ts"` },
      { "src/Throttle.ts": `import * as All from "./index.ts"` },
      { "src/Throttle.ts": `import { client } from "./http/client.ts"` },
      { "src/internal/limiter.ts": `import { make } from "../Throttle.ts"` },
      { "src/internal/limiter.ts": `import { timed } from "../Timer.ts"` },
      { "src/internal/deeper/other.ts": `import type * as Map from "../../ThrottleMap.ts"` },
      { "src/internal/list.ts": `import {\n  type Limiter\n} from "./limiter.ts"` },
      { "src/internal/observe.ts": `import type * as Limiter from "./limiter.ts"` },
      { "src/internal/local.ts": `import * as Keyed from "./keyed/keyed.ts"` },
      { "src/internal/budget.ts": `import type { Limiter } from "./limiter.ts"` },
      { "src/internal/waiter.ts": `import * as Local from "./local.ts"` },
      { "src/internal/admission.ts": `import * as Keyed from "./keyed/keyed.ts"` },
      { "src/internal/part/rate.ts": `import { List } from "../list.ts"` },
      { "src/internal/queue/fair.ts": `import type { Backend } from "../backend.ts"` },
      { "src/internal/queue/fair.ts": `import * as Local from "../local.ts"` },
      { "src/internal/limit/adaptive.ts": `import * as Backend from "../../redis/internal/backend.ts"` },
      { "src/internal/limit/adaptive.ts": `import type { Limiter } from "../limiter.ts"` },
      { "src/internal/data/schema.ts": `import * as Plan from "../plan.ts"` },
      { "src/http/client.ts": `import "../index.ts"` },
      { "src/simulation/run.ts": `import * as Limiter from "../internal/limiter.ts"` },
      { "src/simulation/run.ts": `import { svg } from "./index.ts"` },
      { "src/lost.ts": "" }
    ]))

  describe("cycles", () =>
    table(rules.cycles, [
      { "src/A.ts": `import "./A.ts"` },
      { "src/A.ts": `import { b } from "./B.ts"`, "src/B.ts": `import type { A } from "./A.ts"` },
      {
        "src/A.ts": `export * from "./B.ts"`,
        "src/B.ts": `import "./internal/c.ts"`,
        "src/internal/c.ts": `import { b } from "../B.ts"`
      }
    ]))

  describe("pure meters", () =>
    table(rules.pureMeters, [
      { "src/internal/part/rate.ts": `import { Duration } from "effect"` },
      { "src/internal/part/rate.ts": `import type { Policy } from "../../Policy.ts"` },
      { "src/internal/part/window.ts": `import "node:util"` }
    ]))

  describe("stable modules", () =>
    table((files) => rules.stableOnly(files, effectSource), [
      { "src/Throttle.ts": `import { Effect, LayerMap } from "effect"` },
      { "src/Throttle.ts": `import * as Effect from "effect/LayerMap"` },
      { "src/Throttle.ts": `import { Effect, type PartitionedSemaphore as P, pipe } from "effect"` },
      { "src/Throttle.ts": `import * as All from "effect"` },
      { "src/internal/limiter.ts": `import { HttpClient } from "effect/http"` },
      { "src/internal/limiter.ts": `import type { X } from "effect/internal/core"` },
      { "src/http/client.ts": `import { Agent } from "undici"` }
    ]))

  describe("other clocks", () =>
    table(rules.noOtherClock, [
      { "src/Timer.ts": `const now = Date.now()` },
      { "src/Timer.ts": `const at = new Date()` },
      { "src/Timer.ts": `const url = "http://x"; performance.now()` },
      { "src/Timer.ts": `/* later */ setTimeout(() => {})` }
    ]))

  describe("module state", () =>
    table(rules.noModuleState, [
      { "src/Throttle.ts": `let count = 0` },
      { "src/Throttle.ts": `const a = 1\nexport let b = a` },
      { "src/internal/list.ts": `var last` }
    ]))

  describe("length", () => {
    const lines = (n: number) => "// a comment\n\n" + "const a = 1\n".repeat(n)
    table(rules.shortFiles, [{ "src/internal/long.ts": lines(401) }])
    test("400 lines of code are allowed", () => expect(rules.shortFiles({ "src/long.ts": lines(400) })).toEqual([]))
  })

  describe("marked as internal", () =>
    table(rules.nothingMarkedInternal, [
      { "src/Throttle.ts": "/** @internal */\nexport const a = 1" },
      { "src/http/client.ts": "/**\n * A client.\n *\n * @internal\n */\nexport const a = 1" }
    ]))

  describe("internal by name", () => {
    // Built from parts, since this file is subject to the rule as well.
    const internal = `"${"effect-throttle"}/internal/limiter"`
    table(rules.noInternalByName, [
      { "test/A.test.ts": `import { make } from ${internal}` },
      { "docs/a.md": "```ts\nconst { make } = await import(" + internal + ")\n```" }
    ])
  })

  test.each<[string, Record<string, unknown>, Files]>([
    ["open", { ".": "./dist/index.js" }, {}],
    ["let out", { "./internal/*": null, "./limiter": "./dist/internal/limiter.js" }, {}],
    ["by pattern", { "./internal/*": null, "./*": "./dist/*.js" }, {}],
    ["forgotten", { "./internal/*": null }, { "src/ThrottleMap.ts": "" }]
  ])("exports: %s", (_, bad, files) => expect(rules.closedExports(bad, files)).toHaveLength(1))

  test("none of them reports what is allowed", () => {
    const good: Files = {
      "src/index.ts": `export * as Throttle from "./Throttle.ts"`,
      "src/Throttle.ts": `/** import { x } from "./index.ts"; let y = Date.now() */
import { Effect, pipe, type Scope } from "effect"
import { make } from "./internal/limiter.ts"
import type { Policy } from "./Policy.ts"
const f = () => {
  let inside = 0 // setTimeout would be wrong
}`,
      "src/Policy.ts": `import { Schema } from "effect"\nexport * from "./internal/data/schema.ts"`,
      "src/ThrottleError.ts": "",
      "src/internal/limiter.ts": `import type { ThrottleError } from "../ThrottleError.ts"
import * as List from "./list.ts"
import { rate } from "./part/rate.ts"`,
      "src/internal/list.ts": "",
      "src/internal/data/schema.ts": "",
      "src/internal/queue/fifo.ts": `import type * as List from "../list.ts"`,
      "src/internal/part/meter.ts": "",
      "src/internal/part/rate.ts": `import type { Meter } from "./meter.ts"`,
      "src/http/client.ts": `import { HttpClient } from "effect/http"\nimport { Throttle } from "../Throttle.ts"`
    }
    const { closedExports: _, stableOnly, ...simple } = rules
    expect(Object.values(simple).flatMap((rule) => rule(good))).toEqual([])
    expect(stableOnly(good, effectSource)).toEqual([])
  })

  test("the linter reports every other clock", () => {
    const folder = mkdtempSync(join(tmpdir(), "effect-throttle-"))
    try {
      mkdirSync(join(folder, "src"))
      writeFileSync(join(folder, ".oxlintrc.json"), readFileSync(join(root, ".oxlintrc.json")))
      const bad = ["Date.now()", "new Date()", "performance.now()", "setTimeout(f, 1)", "globalThis.setInterval(f, 1)"]
      writeFileSync(join(folder, "src", "bad.ts"), bad.map((line) => `console.error(${line})`).join("\n"))
      const oxlint = join(root, "node_modules/oxlint/bin/oxlint")
      const { status, stdout } = spawnSync(process.execPath, [oxlint, "-f", "unix"], { cwd: folder, encoding: "utf8" })
      expect(status).toBe(1)
      for (const line of bad.keys()) expect(stdout).toMatch(new RegExp(`bad\\.ts:${line + 1}:.*no-restricted-`))
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
