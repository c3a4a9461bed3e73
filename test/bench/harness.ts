/**
 * How things are measured: plain, bounded runs, warmed up, all cases of a section in turn within each round, medians.
 */
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

/** `npm run bench -- --quick`: fewer rounds and shorter runs. */
export const quick = process.argv.includes("--quick")

/** This machine's speed: bars in absolute time were set where one step of the runtime takes 80 ns. */
export const usualStep = 80

export const median = (numbers: ReadonlyArray<number>): number => {
  const sorted = numbers.toSorted((a, b) => a - b)
  const half = sorted.length / 2
  return (sorted[Math.floor(half)]! + sorted[Math.ceil(half) - 1]!) / 2
}

/** Nanoseconds that it takes. */
export const timed = async (run: () => Promise<unknown>): Promise<number> => {
  const start = process.hrtime.bigint()
  await run()
  return Number(process.hrtime.bigint() - start)
}

/** What one run of a case measured, by name of the figure. */
export type Figures = Readonly<Record<string, number>>

/** A case, ready to be run. */
export type Run = () => Promise<Figures>

interface Worker {
  readonly run: Run
  readonly stop: () => void
}

const entry = fileURLToPath(new URL("case.js", import.meta.url))

/** A process of its own for a case, so that the compiler has seen nothing but that case. Runs it whenever it is asked. */
const start = (words: ReadonlyArray<string | number>): Worker => {
  const child = fork(entry, [...words.map(String), ...(quick ? ["--quick"] : [])], { execArgv: ["--expose-gc"] })
  return {
    run: () =>
      new Promise((resolve, reject) => {
        const exited = (code: number | null) => reject(new Error(`${words.join(" ")}: ended with ${code}`))
        const late = setTimeout(() => reject(new Error(`${words.join(" ")}: no answer in 60 s`)), 60_000)
        child.once("exit", exited)
        child.once("message", (figures) => {
          clearTimeout(late)
          child.off("exit", exited)
          resolve(figures as Figures)
        })
        child.send("run")
      }),
    stop: () => child.kill()
  }
}

/**
 * Runs all cases in turn, round after round, and gives the median of each figure of each case. A process for each case,
 * for all rounds: so what else the machine does falls on all of them alike.
 */
export const rounds = async <K extends string>(
  options: { readonly warmup: number; readonly count: number },
  cases: Readonly<Record<K, ReadonlyArray<string | number>>>
): Promise<Record<K, Figures>> => {
  const names = Object.keys(cases) as Array<K>
  const workers = names.map((name) => start(cases[name]))
  try {
    const seen = names.map((): Array<Figures> => [])
    for (let round = 0; round < options.warmup + options.count; round++) {
      for (const [i, worker] of workers.entries()) {
        const figures = await worker.run()
        if (round >= options.warmup) seen[i]!.push(figures)
      }
    }
    return Object.fromEntries(names.map((name, i) => [name, middle(seen[i]!)])) as Record<K, Figures>
  } finally {
    for (const worker of workers) worker.stop()
  }
}

/** The median of each figure. */
export const middle = (all: ReadonlyArray<Figures>): Figures =>
  Object.fromEntries(Object.keys(all[0]!).map((figure) => [figure, median(all.map((one) => one[figure]!))]))

/** What must hold however slow the machine is: a bench that breaks it fails. */
export const insist = (holds: boolean, what: string): void => {
  if (!holds) throw new Error(`broken: ${what}`)
}

export const collectGarbage = (): number => {
  globalThis.gc!()
  globalThis.gc!()
  return process.memoryUsage().heapUsed
}
