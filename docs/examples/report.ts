/**
 * What the demo prints: progress, a table, and a timeline of what reached the server. At most 80 columns for a run of 6
 * seconds; colours and a line that changes only on a terminal.
 */
import { Duration } from "effect"
import type { Throttle } from "effect-throttle"
import { type Arrival, quota } from "./quota-server.ts"

export interface Run {
  readonly name: string
  readonly answers: number
  readonly refused: number
  /** Milliseconds, as all times here. */
  readonly took: number
  /** Of every page, from short to long. */
  readonly waits: ReadonlyArray<number>
  /** In the order of time, which begins with the first of them. */
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

export const print = (...lines: ReadonlyArray<string>): void => console.log(lines.join("\n"))

const isTerminal = process.stdout.isTTY === true

// False where NO_COLOR is set or the terminal has none.
const hasColors = isTerminal && process.stdout.hasColors()

const paint = (code: number) => (text: string): string => hasColors ? `\x1b[${code}m${text}\x1b[0m` : text
const red = paint(31)
const green = paint(32)
const dim = paint(2)

/** Shows how far a run is: one line that changes on a terminal, one line at the end elsewhere. */
export const progress =
  (name: string, total: number) => (statuses: ReadonlyArray<number>, { waiting }: Throttle.Statistics): void => {
    const done = statuses.length === total
    if (!isTerminal && !done) return
    const refused = count(statuses, (status) => status === 429)
    const line = `${name.padEnd(13)} ${statuses.length} of ${total} pages, ${refused} × 429, ${waiting} waiting`
    process.stdout.write(isTerminal ? `\r\x1b[2K${line}${done ? "\n" : ""}` : `${line}\n`)
  }

// ---------------------------------------------------------------------------------------------------------------------
// The table
// ---------------------------------------------------------------------------------------------------------------------

export const table = (runs: ReadonlyArray<Run>): ReadonlyArray<string> => {
  const row = (title: string, cell: (run: Run) => string) =>
    title.padEnd(36) + runs.map((run) => cell(run).padStart(14)).join("")
  const middle = ({ waits }: Run) => (waits[(waits.length - 1) >> 1]! + waits[waits.length >> 1]!) / 2
  return [
    row("", (run) => run.name),
    row("answers", (run) => `${run.answers}`),
    row("429s", (run) => `${run.refused}`),
    row("time", (run) => time(run.took)),
    row("wait*  shortest", (run) => time(run.waits[0]!)),
    row("       median", (run) => time(middle(run))),
    row("       longest", (run) => time(run.waits.at(-1)!)),
    row(`in the busiest second (${quota.requests} allowed)`, (run) => `${busiest(run)}`),
    row(
      `served at once, at most (${quota.atOnce} allowed)`,
      (run) => `${Math.max(...run.arrivals.map((a) => a.serving))}`
    ),
    "* of every page: from asking the throttle until it let the request start,",
    "  0 where that was at once"
  ]
}

const time = (millis: number): string =>
  millis < 1_000 ? `${Math.round(millis)} ms` : `${(millis / 1_000).toFixed(2)} s`

/** The most requests in any second, refused ones included. */
const busiest = ({ arrivals }: Run): number =>
  Math.max(...arrivals.map(({ at }) => count(arrivals, (other) => other.at >= at && other.at < at + quota.per)))

// ---------------------------------------------------------------------------------------------------------------------
// The timeline
// ---------------------------------------------------------------------------------------------------------------------

/** Milliseconds a column. */
const slot = 100
const slotsPerSecond = 1_000 / slot

export const timelines = (runs: ReadonlyArray<Run>): ReadonlyArray<string> => {
  const columns = 1 + Math.floor(Math.max(...runs.map((run) => run.arrivals.at(-1)!.at)) / slot)
  return [
    `When requests started, as the server saw them; one column is ${slot} ms.`,
    "Bars against the quota: how many in the second that ends with the column.",
    "started: how many in the column, ▁ one to █ eight or more. ×: 429s among them.",
    ...runs.flatMap((run) => ["", ...timeline(run, columns)])
  ]
}

const timeline = (run: Run, columns: number): ReadonlyArray<string> => {
  const slots = Array.from(
    { length: columns },
    (_, i) => run.arrivals.filter(({ at }) => Math.floor(at / slot) === i)
  )
  const lastSecond = slots.map((_, i) => slots.slice(Math.max(0, i + 1 - slotsPerSecond), i + 1).flat().length)
  const bars = (from: number, to: number) => lastSecond.map((n) => bar(n - from, to - from)).join("")
  const line = (title: string, content: string, color = dim) =>
    `${title.padStart(10)} ${color(content.trimEnd())}`.trimEnd()
  const quarters = [3, 2, 1, 0].map((i) => [i, i + 1].map((n) => n * quota.requests / 4) as [number, number])
  return [
    `${run.name}: ${run.refused} refused, ${busiest(run)} in the busiest second`,
    line("over", bars(quota.requests, 5 * quota.requests), red),
    line(`quota ${quota.requests}`, "┈".repeat(columns)),
    ...quarters.map(([from, to]) => line("", bars(from, to), green)),
    line("started", slots.map((slot) => bar(slot.length, 8)).join(""), green),
    line("429s", slots.map((slot) => slot.every(({ accepted }) => accepted) ? " " : "×").join(""), red),
    line("", slots.map((_, i) => i % slotsPerSecond === 0 ? "┴" : "─").join("")),
    line(
      "",
      slots.map((_, i) => i % slotsPerSecond === 0 ? `${i / slotsPerSecond} s`.padEnd(slotsPerSecond) : "").join("")
    )
  ]
}

/** A bar of a height from " " to "█". */
const bar = (value: number, full: number): string => " ▁▂▃▄▅▆▇█"[Math.max(0, Math.min(8, Math.ceil(value / full * 8)))]!
