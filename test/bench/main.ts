/**
 * `npm run bench`: runs every section, prints its table, and writes docs/benchmarks.md.
 * `--quick` runs less and writes nothing; `--only=idle,waiting` runs some.
 */
import { writeFileSync } from "node:fs"
import { quick } from "./harness.ts"
import * as Machine from "./machine.ts"
import { markdown, type Section, summary, terminal } from "./report.ts"
import * as Accuracy from "./sections/accuracy.ts"
import * as Added from "./sections/added.ts"
import * as Block from "./sections/block.ts"
import * as Bundle from "./sections/bundle.ts"
import * as Cpu from "./sections/cpu.ts"
import * as Http from "./sections/http.ts"
import * as Idle from "./sections/idle.ts"
import * as Keys from "./sections/keys.ts"
import * as Leaving from "./sections/leaving.ts"
import * as Memory from "./sections/memory.ts"
import * as Processes from "./sections/processes.ts"
import * as Redis from "./sections/redis.ts"
import * as Waiting from "./sections/waiting.ts"

const sections: Record<string, () => Promise<Section>> = {
  idle: Idle.section,
  mixed: Idle.mixedSection,
  added: Added.section,
  waiting: Waiting.section,
  leaving: Leaving.section,
  accuracy: Accuracy.section,
  block: Block.section,
  cpu: Cpu.section,
  keys: Keys.section,
  memory: Memory.section,
  http: Http.section,
  redis: Redis.section,
  processes: Processes.section,
  bundle: Bundle.section
}

const only = process.argv.find((arg) => arg.startsWith("--only="))?.slice("--only=".length).split(",")
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
