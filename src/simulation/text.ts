/** A picture of a simulation for terminals. */
import * as Options from "../internal/options.ts"
import * as Callers from "./callers.ts"
import * as Rules from "./rules.ts"
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
  /** Characters: an integer ≥ 40. Default: 80. */
  readonly width?: number | undefined
}

/**
 * Draws a simulation in characters: arrivals, waiting calls, running calls, starts and rejections over time.
 *
 * **Details**
 *
 * Each character is a span of time. Its height is the maximum in that span or, for arrivals, starts and rejections, their
 * number. Each row has its own scale, with its maximum at the end of the row; empty rows are omitted. Where calls have
 * different callers, the waiting calls of each have a row with its name. The rows are followed by {@link describe}. No line
 * is longer than `width`; in a terminal pass `process.stdout.columns`.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options.
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
  const { width = 80 } = Options.readAll("Simulation.text", { width: Rules.columns }, options)
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
  /** The maximum in each column, with the value from the column before. */
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
    ...Callers.groupsOf(result).map(({ calls, name }) =>
      [`· ${Callers.shortened(name, gutter - 3)}`, peaks(Series.waiting({ ...result, calls }))] as const
    ),
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
