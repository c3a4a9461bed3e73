/**
 * The process of one case: runs it whenever it is asked, and answers with its figures.
 */
import type { Run } from "./harness.ts"

interface Case {
  readonly own: (...args: ReadonlyArray<string>) => Run
}

/** Each process loads what it needs and no more: it saves a third of its time. */
const cases: Record<string, () => Promise<Case>> = {
  idle: () => import("./sections/idle.ts"),
  added: () => import("./sections/added.ts"),
  waiting: () => import("./sections/waiting.ts"),
  leaving: () => import("./sections/leaving.ts"),
  orders: () => import("./sections/orders.ts"),
  accuracy: () => import("./sections/accuracy.ts"),
  cpu: () => import("./sections/cpu.ts"),
  keys: () => import("./sections/keys.ts"),
  http: () => import("./sections/http.ts"),
  memory: () => import("./sections/memory.ts"),
  redis: () => import("./sections/redis.ts"),
  processes: () => import("./sections/processes.ts")
}

const [name, ...args] = process.argv.slice(2).filter((arg) => !arg.startsWith("--"))
const { own } = await cases[name!]!()
const run = own(...args)
process.on("message", async () => process.send!(await run()))
