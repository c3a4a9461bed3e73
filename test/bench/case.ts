/**
 * The process of one case: runs it, and prints its figures as JSON.
 */
import type { Figures } from "./harness.ts"
import * as Accuracy from "./sections/accuracy.ts"
import * as Added from "./sections/added.ts"
import * as Cpu from "./sections/cpu.ts"
import * as Idle from "./sections/idle.ts"
import * as Leaving from "./sections/leaving.ts"
import * as Memory from "./sections/memory.ts"
import * as Waiting from "./sections/waiting.ts"

const cases: Record<string, (...args: ReadonlyArray<string>) => Promise<Figures>> = {
  idle: Idle.own,
  added: Added.own,
  waiting: Waiting.own,
  leaving: Leaving.own,
  accuracy: Accuracy.own,
  cpu: Cpu.own,
  memory: Memory.own
}

const [name, ...args] = process.argv.slice(2).filter((arg) => !arg.startsWith("--"))
console.log(JSON.stringify(await cases[name!]!(...args)))
// Some of the libraries leave a timer behind.
process.exit(0)
