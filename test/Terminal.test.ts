/**
 * What the examples and the benchmarks print: it fits the terminal, leaves it as it was, and answers `--help`.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { build } from "esbuild"
import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll } from "vitest"
import * as Report from "../docs/examples/report.ts"
import * as Terminal from "../docs/examples/terminal.ts"
import { root } from "./utils/files.ts"

const output = (columns: number | undefined, isTTY = true) => {
  const written: Array<string> = []
  return {
    written,
    isTTY,
    ...(columns === undefined ? {} : { columns }),
    write: (text: string) => void written.push(text)
  }
}

describe("the width", () => {
  it("is that of the terminal, 80 where there is none, and at least 40", () =>
    assert.deepStrictEqual(
      [output(60), output(200), output(undefined), output(0), output(20)].map(Terminal.width),
      [60, 200, 80, 80, 40]
    ))
})

describe("a text", () => {
  it("is broken between words, and goes on below its first word", () =>
    assert.deepStrictEqual(Terminal.wrap("  one two three\n\nfour", 10), ["  one two", "  three", "", "four"]))

  it("keeps a word whole that is too long", () =>
    assert.deepStrictEqual(Terminal.wrap("a longerthanthis b", 8), ["a", "longerthanthis", "b"]))
})

describe("a table", () => {
  const head = ["", "without", "with"]
  const body = [["answers", "29", "100"], ["in the busiest second", "85", "19"]]

  it("has aligned columns where they fit", () =>
    assert.deepStrictEqual(Terminal.table(head, body, 36), [
      "                       without  with",
      "answers                     29   100",
      "in the busiest second       85    19"
    ]))

  it("is a paragraph for each row where they do not", () =>
    assert.deepStrictEqual(Terminal.table(head, body, 35), [
      "answers",
      "  without: 29, with: 100",
      "in the busiest second",
      "  without: 85, with: 19"
    ]))
})

describe("the demo's report", () => {
  const arrivals = Array.from({ length: 100 }, (_, i) => ({ at: 5_000 + i * 66, accepted: i % 3 > 0, serving: 5 }))
  const statuses = arrivals.map(({ accepted }) => (accepted ? 200 : 429))
  const waits = arrivals.map((_, i) => i * 65)
  const runs = ["unthrottled", "throttled"].map((name) =>
    Report.run({ name, statuses, took: Duration.seconds(6.6), waits, arrivals })
  )

  it.each([40, 47, 59, 60, 80, 200])("fits %i columns, chart, table and words", (width) => {
    const lines = [...Report.table(runs, width), ...Report.timelines(runs, width)]
    for (const line of lines) assert.isAtMost(line.length, width, line)
    assert.include(lines.join(" "), "6 s")
  })

  it("draws as finely as there is room", () => {
    const slotAt = (width: number) => /one column is (\d+) ms/.exec(Report.timelines(runs, width).join(" "))![1]
    assert.deepStrictEqual([80, 70, 60, 40].map(slotAt), ["100", "125", "200", "250"])
  })
})

describe("a line that changes", () => {
  const shown = ["1 of 2", "2 of 2"]
  const run = (show: (line: string) => void) => Effect.sync(() => shown.forEach(show))

  it.effect("is replaced on a terminal, and ended", () =>
    Effect.gen(function*() {
      const terminal = output(80)
      yield* Terminal.withLine(run, terminal)
      assert.strictEqual(terminal.written.join(""), "\r\x1b[2K1 of 2\r\x1b[2K2 of 2\n")
    }))

  it.effect("is ended when it is interrupted, so that the prompt begins a line of its own", () =>
    Effect.gen(function*() {
      const terminal = output(80)
      const fiber = yield* Effect.forkChild(
        Terminal.withLine((show) => Effect.andThen(run(show), Effect.never), terminal),
        { startImmediately: true }
      )
      assert.notInclude(terminal.written.join(""), "\n")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(terminal.written.at(-1), "\n")
    }))

  it.effect("is never so long that the terminal breaks it", () =>
    Effect.gen(function*() {
      const terminal = output(40)
      yield* Terminal.withLine((show) => Effect.sync(() => show("x".repeat(100))), terminal)
      assert.strictEqual(terminal.written[0], `\r\x1b[2K${"x".repeat(39)}`)
    }))

  it.effect("is written once where there is no terminal, and not at all if nothing was shown", () =>
    Effect.gen(function*() {
      const file = output(undefined, false)
      yield* Terminal.withLine(run, file)
      yield* Terminal.withLine(() => Effect.void, file)
      assert.deepStrictEqual(file.written, ["2 of 2\n"])
    }))
})

describe("npm run bench", () => {
  // Bundled from the source: a build into dist would get in the way of other tests.
  mkdirSync(join(root, "test/examples-generated"), { recursive: true })
  const folder = mkdtempSync(join(root, "test/examples-generated/bench-"))
  const main = join(folder, "main.mjs")
  afterAll(() => rmSync(folder, { recursive: true }))
  beforeAll(() =>
    build({
      entryPoints: [join(root, "test/bench/main.ts")],
      outdir: folder,
      outExtension: { ".js": ".mjs" },
      bundle: true,
      // So that sections are loaded as in the build: when they are run.
      splitting: true,
      platform: "node",
      format: "esm",
      packages: "external",
      alias: Object.fromEntries(
        ["index", "http/index", "redis/index", "Throttle"].map((module) => [
          `effect-throttle${module === "index" ? "" : `/${module.replace("/index", "")}`}`,
          join(root, `src/${module}.ts`)
        ])
      )
    }), 60_000)

  const bench = (...args: ReadonlyArray<string>) =>
    promisify(execFile)(process.execPath, [main, ...args], { cwd: root, timeout: 25_000 }).then(
      ({ stdout }) => ({ code: 0, text: stdout }),
      ({ code, stderr, stdout }: { code: number; stderr: string; stdout: string }) => ({ code, text: stdout + stderr })
    )

  it("-- --help says what it takes, and runs nothing", async () => {
    const { code, text } = await bench("--help")
    assert.strictEqual(code, 0)
    for (const word of ["--quick", "--only", "idle", "processes"]) assert.include(text, word)
    assert.notInclude(text, " s in all")
  })

  it.each([["--quik", /'--quik'/], ["--only=idel", /"idel".*idle, mixed/]])(
    "-- %s is refused, and runs nothing",
    async (arg, said) => {
      const { code, text } = await bench(arg)
      assert.strictEqual(code, 1)
      assert.match(text, said)
      assert.notInclude(text, " s in all")
    }
  )
})
