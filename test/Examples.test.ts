import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { afterAll, describe, expect, test } from "vitest"
import { compile } from "./utils/compile.ts"
import { examplesOf } from "./utils/examples.ts"
import { readFiles, root } from "./utils/files.ts"

// Every example of the README, the docs and the doc comments compiles and runs, against the source.
// Each one is a module of its own in a folder of this run; compiled together they cost one start of the compiler.
// The pages of docs/api are made of the doc comments.
const documents = { ...readFiles(["README.md", "docs"], /^(?!docs\/api\/).*\.md$/), ...readFiles(["src"], /\.ts$/) }
mkdirSync(join(root, "test/examples-generated"), { recursive: true })
const folder = mkdtempSync(join(root, "test/examples-generated/run-"))
afterAll(() => rmSync(folder, { recursive: true }))

const examples = Object.entries(documents).flatMap(([path, text]) => examplesOf(path, text)).map((example) => {
  const file = join(folder, `${example.path.replace(/\W/g, "_")}_${example.line}.ts`)
  writeFileSync(file, example.code)
  return { ...example, file, origin: `${example.path}:${example.line}` }
})

/** With the place in the document instead of the place in the generated file. */
const complaints = async () =>
  examples.reduce(
    (text, { file, path }) => text.replaceAll(`${basename(file)}(`, `${path}(`),
    await compile(examples.map(({ file }) => file))
  )

describe("examples", () => {
  test("compile", async () => expect(await complaints()).toBe(""), 60_000)

  for (const { file, origin, run, tests } of examples) {
    if (!run) continue
    const load = async () => {
      await import(file)
    }
    if (tests) describe(origin, load)
    else test(`${origin} runs`, load, 10_000)
  }
})

describe("the extractor", () => {
  const fence = "```"

  test("markdown", () => {
    const markdown = `# Title
${fence}ts
const a = 1
${fence}
- item
  ${fence}ts no-run
  Effect.runPromise(a)
    indented
  ${fence}
${fence}ts no-check
wrong
${fence}
${fence}sh
npm test
${fence}
\`${fence}md
${fence}ts
quoted
${fence}
\`${fence}
${fence}ts
import { it } from "@effect/vitest"
${fence}`
    expect(examplesOf("a.md", markdown)).toEqual([
      { path: "a.md", line: 3, code: "\n\nconst a = 1\n", run: true, tests: false },
      {
        path: "a.md",
        line: 7,
        code: `${"\n".repeat(6)}await Effect.runPromise(a)\n  indented\n`,
        run: false,
        tests: false
      },
      {
        path: "a.md",
        line: 22,
        code: `${"\n".repeat(21)}import { it } from "@effect/vitest"\n`,
        run: true,
        tests: true
      }
    ])
  })

  test("doc comments", () => {
    const source = `const x = 1
  /**
   * Says.
   *
   * ${fence}ts
   * f(() => {
   *   b
   * })
   * ${fence}
   */
export const y = 2 /* ${fence}ts */
`
    expect(examplesOf("src/a.ts", source)).toEqual([
      { path: "src/a.ts", line: 6, code: "\n\n\n\n\nf(() => {\n  b\n})\n", run: true, tests: false }
    ])
  })

  test.each([
    ["nothing closes", `${fence}ts\nconst a = 1`],
    ["unknown tag", `${fence}ts norun\n${fence}`],
    ["does not await", `${fence}ts\nprogram.pipe(Effect.runPromise)\n${fence}`]
  ])("objects when it %s", (message, markdown) => expect(() => examplesOf("a.md", markdown)).toThrow(message))
})
