/**
 * How things are measured: plain, bounded runs, warmed up, all cases of a section in turn within each round, medians.
 */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

/** `npm run bench -- --quick`: fewer rounds and shorter runs. */
export const quick = process.argv.includes("--quick")

export const median = (numbers: ReadonlyArray<number>): number => {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]!
}

/** Nanoseconds that it takes. */
export const timed = async (run: () => Promise<unknown>): Promise<number> => {
  const start = process.hrtime.bigint()
  await run()
  return Number(process.hrtime.bigint() - start)
}

/** The median of several runs, after some that are not counted. */
export const measured = async (
  options: { readonly warmup: number; readonly runs: number },
  run: () => Promise<unknown>
): Promise<number> => {
  for (let i = 0; i < options.warmup; i++) await run()
  const runs: Array<number> = []
  for (let i = 0; i < options.runs; i++) runs.push(await timed(run))
  return median(runs)
}

/** What a case measured, by name of the figure. */
export type Figures = Readonly<Record<string, number>>

const execute = promisify(execFile)
const entry = fileURLToPath(new URL("case.js", import.meta.url))

/** Runs a case in a process of its own, so that the compiler has seen nothing but that case. */
export const ownProcess = async (name: string, ...args: ReadonlyArray<string | number>): Promise<Figures> => {
  const flags = quick ? ["--quick"] : []
  const { stdout } = await execute(process.execPath, ["--expose-gc", entry, name, ...args.map(String), ...flags], {
    timeout: 60_000
  })
  return JSON.parse(stdout)
}

/** Runs all cases in turn, several rounds of it, and gives the median of each figure of each case. */
export const rounds = async <K extends string>(
  count: number,
  cases: Readonly<Record<K, () => Promise<Figures>>>
): Promise<Record<K, Figures>> => {
  const seen = Object.fromEntries(Object.keys(cases).map((name) => [name, []])) as unknown as Record<K, Array<Figures>>
  for (let round = 0; round < count; round++) {
    for (const name in cases) seen[name].push(await cases[name]())
  }
  const middle = (all: ReadonlyArray<Figures>): Figures =>
    Object.fromEntries(Object.keys(all[0]!).map((figure) => [figure, median(all.map((one) => one[figure]!))]))
  return Object.fromEntries(Object.entries<Array<Figures>>(seen).map(([name, all]) => [name, middle(all)])) as Record<
    K,
    Figures
  >
}

/** What must hold however slow the machine is: a bench that breaks it fails. */
export const insist = (holds: boolean, what: string): void => {
  if (!holds) throw new Error(`broken: ${what}`)
}

export const collectGarbage = (): number => {
  globalThis.gc!()
  globalThis.gc!()
  return process.memoryUsage().heapUsed
}
