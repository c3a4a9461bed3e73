/**
 * `npm run bench`: runs every section, prints its table, and writes docs/benchmarks.md.
 * `--quick` runs less and writes nothing; `--only=idle,waiting` runs some; `--help` says so.
 */
import { writeFileSync } from "node:fs"
import { quick } from "./harness.ts"
import * as Machine from "./machine.ts"
import * as Options from "./options.ts"
import { markdown, type Section, summary, terminal } from "./report.ts"

// Loaded when they are run, so that --help need not wait for the libraries that they measure.
const sections: Record<string, () => Promise<Section>> = {
  idle: async () => (await import("./sections/idle.ts")).section(),
  mixed: async () => (await import("./sections/idle.ts")).mixedSection(),
  added: async () => (await import("./sections/added.ts")).section(),
  waiting: async () => (await import("./sections/waiting.ts")).section(),
  leaving: async () => (await import("./sections/leaving.ts")).section(),
  orders: async () => (await import("./sections/orders.ts")).section(),
  accuracy: async () => (await import("./sections/accuracy.ts")).section(),
  block: async () => (await import("./sections/block.ts")).section(),
  cpu: async () => (await import("./sections/cpu.ts")).section(),
  keys: async () => (await import("./sections/keys.ts")).section(),
  memory: async () => (await import("./sections/memory.ts")).section(),
  http: async () => (await import("./sections/http.ts")).section(),
  redis: async () => (await import("./sections/redis.ts")).section(),
  processes: async () => (await import("./sections/processes.ts")).section(),
  bundle: async () => (await import("./sections/bundle.ts")).section()
}

const options = (): Options.Options => {
  try {
    return Options.parse(process.argv.slice(2), Object.keys(sections))
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n`)
    console.error(Options.help(Object.keys(sections)))
    process.exit(1)
  }
}
const { help, only } = options()
if (help) {
  console.log(Options.help(Object.keys(sections)))
  process.exit(0)
}

const machine = Machine.describe()
const seconds = (since: bigint): string => (Number(process.hrtime.bigint() - since) / 1e9).toFixed(0)
const started = process.hrtime.bigint()

for (const line of machine) console.log(line)

const done: Array<Section> = []
for (const [name, run] of Object.entries(sections)) {
  if (only !== undefined && !only.includes(name)) continue
  const began = process.hrtime.bigint()
  const section = await run()
  done.push(section)
  console.log(`${terminal(section)}\n  (${seconds(began)} s)`)
}
const all = summary(done)
console.log(terminal(all))
console.log(`${seconds(started)} s in all`)

if (!quick && only === undefined) {
  writeFileSync(
    new URL("../docs/benchmarks.md", import.meta.url),
    [
      "# Benchmarks",
      "",
      "Written by `npm run bench` (about 7 minutes; `npm run bench -- --quick` takes about 2 and writes",
      "nothing). All figures of a table are from the same run: warm-up, then several rounds with every case in each round,",
      "then medians. Machines differ, and most are shared: compare the ratios, not the nanoseconds. What the figures mean",
      "is on the [performance page](performance.md).",
      "",
      ...machine.map((line) => `- ${line}`),
      `- ${new Date().toISOString().slice(0, 10)}`,
      "",
      ...[...done, all].map(markdown)
    ].join("\n")
  )
}
process.exit(0)
