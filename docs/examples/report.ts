/**
 * What the demo prints: progress, a table, and a timeline of what reached the server, as wide as the terminal; colours only
 * on a terminal.
 */
import { Duration } from "effect"
import type { Throttle } from "effect-throttle"
import { type Arrival, quota } from "./quota-server.ts"
import * as Terminal from "./terminal.ts"

export interface Run {
  readonly name: string
  readonly answers: number
  readonly refused: number
  /** Milliseconds, as all times here. */
  readonly took: number
  /** Of every page, ascending. */
  readonly waits: ReadonlyArray<number>
  /** By time, counted from the first. */
  readonly arrivals: ReadonlyArray<Arrival>
}

export const run = (seen: {
  readonly name: string
  readonly statuses: ReadonlyArray<number>
  readonly took: Duration.Duration
  readonly waits: ReadonlyArray<number>
  readonly arrivals: ReadonlyArray<Arrival>
}): Run => {
  const start = seen.arrivals[0]?.at ?? 0
  return {
    name: seen.name,
    answers: count(seen.statuses, (status) => status === 200),
    refused: count(seen.statuses, (status) => status === 429),
    took: Duration.toMillis(seen.took),
    waits: seen.waits.toSorted((a, b) => a - b),
    arrivals: seen.arrivals.map((arrival) => ({ ...arrival, at: arrival.at - start }))
  }
}

const count = <A>(items: ReadonlyArray<A>, isOne: (item: A) => boolean): number => items.filter(isOne).length

// ---------------------------------------------------------------------------------------------------------------------
// Output
// ---------------------------------------------------------------------------------------------------------------------

// False where NO_COLOR is set or the terminal has none.
const hasColors = process.stdout.isTTY === true && process.stdout.hasColors()

const paint = (code: number) => (text: string): string => hasColors ? `\x1b[${code}m${text}\x1b[0m` : text
const red = paint(31)
const green = paint(32)
const dim = paint(2)

/** The progress of a run. */
export const progress = (
  name: string,
  total: number,
  statuses: ReadonlyArray<number>,
  { waiting }: Throttle.Statistics
): string => {
  const refused = count(statuses, (status) => status === 429)
  return `${name.padEnd(13)} ${statuses.length} of ${total} pages, ${refused} × 429, ${waiting} waiting`
}

// ---------------------------------------------------------------------------------------------------------------------
// The table
// ---------------------------------------------------------------------------------------------------------------------

export const table = (runs: ReadonlyArray<Run>, width: number): ReadonlyArray<string> => {
  const row = (title: string, cell: (run: Run) => string) => [title, ...runs.map(cell)]
  const middle = ({ waits }: Run) => (waits[(waits.length - 1) >> 1]! + waits[waits.length >> 1]!) / 2
  const rows = [
    row("answers", (run) => `${run.answers}`),
    row("429s", (run) => `${run.refused}`),
    row("time", (run) => time(run.took)),
    row("shortest wait*", (run) => time(run.waits[0]!)),
    row("median wait", (run) => time(middle(run))),
    row("longest wait", (run) => time(run.waits.at(-1)!)),
    row(`in the busiest second (${quota.requests} allowed)`, (run) => `${busiest(run)}`),
    row(
      `served at once, at most (${quota.atOnce} allowed)`,
      (run) => `${Math.max(...run.arrivals.map((a) => a.serving))}`
    )
  ]
  const about = "* of every page: from asking the throttle until it let the request start, 0 where that was at once"
  return [...Terminal.table(["", ...runs.map(({ name }) => name)], rows, width), ...Terminal.wrap(about, width)]
}

const time = (millis: number): string =>
  millis < 1_000 ? `${Math.round(millis)} ms` : `${(millis / 1_000).toFixed(2)} s`

/** The most requests in any second, refused ones included. */
const busiest = ({ arrivals }: Run): number =>
  Math.max(...arrivals.map(({ at }) => count(arrivals, (other) => other.at >= at && other.at < at + quota.per)))

// ---------------------------------------------------------------------------------------------------------------------
// The timeline
// ---------------------------------------------------------------------------------------------------------------------

/** The possible widths of a column in milliseconds: whole parts of a second. */
const slots = [100, 125, 200, 250, 500, 1_000]

/** The prefix of a chart. */
const gutter = 11

export const timelines = (runs: ReadonlyArray<Run>, width: number): ReadonlyArray<string> => {
  const last = Math.max(...runs.map((run) => run.arrivals.at(-1)!.at))
  const columnsOf = (slot: number) => 1 + Math.floor(last / slot)
  // More than a minute does not fit a narrow terminal.
  const slot = slots.find((slot) => gutter + columnsOf(slot) <= width) ?? slots.at(-1)!
  return [
    ...[
      `When requests started, as the server saw them; one column is ${slot} ms.`,
      "Bars against the quota: how many in the second that ends with the column.",
      `started: how many in the column, up to █ for ${mostIn(slot)} or more. ×: 429s among them.`
    ].flatMap((line) => Terminal.wrap(line, width)),
    ...runs.flatMap((run) => ["", ...timeline(run, slot, columnsOf(slot), width)])
  ]
}

/** So many starts in a column are a full bar. */
const mostIn = (slot: number): number => Math.ceil(8 * slot / 100)

const timeline = (run: Run, slot: number, columns: number, width: number): ReadonlyArray<string> => {
  const slotsPerSecond = 1_000 / slot
  /** From one second that is named to the next. */
  const step = Math.ceil(5 / slotsPerSecond)
  const slots = Array.from(
    { length: columns },
    (_, i) => run.arrivals.filter(({ at }) => Math.floor(at / slot) === i)
  )
  const lastSecond = slots.map((_, i) => slots.slice(Math.max(0, i + 1 - slotsPerSecond), i + 1).flat().length)
  const bars = (from: number, to: number) => lastSecond.map((n) => bar(n - from, to - from)).join("")
  const line = (title: string, content: string, color = dim) =>
    `${title.padStart(gutter - 1)} ${color(content.trimEnd())}`.trimEnd()
  const quarters = [3, 2, 1, 0].map((i) => [i, i + 1].map((n) => n * quota.requests / 4) as [number, number])
  return [
    ...Terminal.wrap(`${run.name}: ${run.refused} refused, ${busiest(run)} in the busiest second`, width),
    line("over", bars(quota.requests, 5 * quota.requests), red),
    line(`quota ${quota.requests}`, "┈".repeat(columns)),
    ...quarters.map(([from, to]) => line("", bars(from, to), green)),
    line("started", slots.map(({ length }) => bar(length, mostIn(slot))).join(""), green),
    line("429s", slots.map((slot) => slot.every(({ accepted }) => accepted) ? " " : "×").join(""), red),
    line("", slots.map((_, i) => i % slotsPerSecond === 0 ? "┴" : "─").join("")),
    line(
      "",
      slots.map((_, i) => {
        const name = `${i / slotsPerSecond} s`
        return i % (step * slotsPerSecond) === 0 && i + name.length <= columns ? name.padEnd(step * slotsPerSecond) : ""
      }).join("")
    )
  ]
}

/** A bar of a height from " " to "█". */
const bar = (value: number, full: number): string => " ▁▂▃▄▅▆▇█"[Math.max(0, Math.min(8, Math.ceil(value / full * 8)))]!
