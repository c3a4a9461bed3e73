/** A picture of a simulation for terminals. */
import * as Options from "./options.ts"
import type { Result } from "./run.ts"
import * as Series from "./series.ts"
import * as Words from "./words.ts"

/**
 * Options of {@link text}.
 *
 * @category options
 * @since 0.1.0
 */
export interface TextOptions {
  /** In characters, a whole number of at least 40. Default: 80. */
  readonly width?: number | undefined
}

/**
 * Draws a simulation in characters: arrivals, those who wait, those who run, starts and refusals over time.
 *
 * **Details**
 *
 * Each character is a span of time, its height the most there was in it, or for arrivals, starts and refusals how many
 * there were; each line has a scale of its own, whose top is written behind it. A line with nothing in it is left out.
 * Below stands what happened, in words. No line is longer than `width`: in a terminal give it `process.stdout.columns`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const calls = Simulation.bursts({ size: 20, every: "5 seconds", duration: "15 seconds" })
 *
 * console.log(Simulation.text(Simulation.run(Throttle.rate({ limit: 5, burst: 5 }), calls)))
 * ```
 *
 * @see {@link svg} for documents and pages
 * @category reading
 * @since 0.1.0
 */
export const text = (result: Result, options: TextOptions = {}): string => {
  const where = "Simulation.text"
  Options.known(where, options, ["width"])
  const width = Options.value(where, "width", Options.columns, options.width ?? 80)
  const { calls } = result
  const columns = width - gutter - 8
  const from = calls[0]?.arrival ?? 0
  const to = calls.reduce((latest, { arrival, end = 0 }) => Math.max(latest, arrival, end), from + 1)
  const columnOf = (at: number) => Math.min(columns - 1, Math.floor((at - from) / (to - from) * columns))

  const counts = (instants: ReadonlyArray<number | undefined>): ReadonlyArray<number> => {
    const found = Array.from({ length: columns }, () => 0)
    for (const at of instants) if (at !== undefined) found[columnOf(at)]!++
    return found
  }
  /** The most in each column, what is there from the column before included. */
  const peaks = (steps: Series.Steps): ReadonlyArray<number> => {
    const found = Array.from({ length: columns }, () => 0)
    let column = 0
    let value = 0
    const goTo = (next: number) => {
      while (column < next) found[++column] = value
    }
    for (const step of steps) {
      goTo(columnOf(step.at))
      value = step.value
      found[column] = Math.max(found[column]!, value)
    }
    goTo(columns - 1)
    return found
  }

  const rows: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
    ["arriving", counts(calls.map(({ arrival }) => arrival))],
    ["waiting", peaks(Series.waiting(result))],
    ["starting", counts(calls.map(({ start }) => start))],
    ["running", peaks(Series.running(result))],
    ["refused", counts(calls.map((call) => Series.isRefused(call) ? call.end : undefined))],
    ["interrupted", counts(calls.map(({ end, outcome }) => outcome === "interrupted" ? end : undefined))]
  ]
  const axis = [Words.time(from), Words.time(to)] as const
  return [
    ...Words.wrap(result.name, width),
    "",
    ...rows.filter(([, values]) => values.some((value) => value > 0)).map(([name, values]) => row(name, values)),
    " ".repeat(gutter) + axis[0].padEnd(columns - axis[1].length) + axis[1],
    "",
    ...Words.wrap(Words.describe(result), width)
  ].join("\n")
}

const gutter = 12

const blocks = " ▁▂▃▄▅▆▇█"

const row = (name: string, values: ReadonlyArray<number>): string => {
  const top = values.reduce((most, value) => Math.max(most, value), 0)
  const bars = values.map((value) => blocks[value === 0 ? 0 : Math.max(1, Math.round(value / top * 8))]).join("")
  return `${name.padEnd(gutter)}${bars} ${Words.number(top)}`
}
