/** The frame of a picture: its margins, its time axis, and the position of each instant. */
import type { Result } from "./run.ts"

export const margin = 16
/** The width on the left for the names of panels; in a narrow picture the names are above the panels. */
const gutter = (isNarrow: boolean) => isNarrow ? 44 : 124
const narrow = 520
export const gap = 16

export interface Frame {
  readonly left: number
  readonly right: number
  readonly from: number
  readonly to: number
  readonly ticks: ReadonlyArray<number>
  readonly x: (at: number) => number
  readonly isNarrow: boolean
}

export const frameOf = (runs: ReadonlyArray<Result>, width: number): Frame => {
  const calls = runs.flatMap(({ calls }) => calls)
  const changes = runs.flatMap(({ changes }) => changes)
  const first = calls.reduce((least, { arrival }) => Math.min(least, arrival), Infinity)
  const last = calls.reduce((most, { arrival, end, start }) => Math.max(most, arrival, start ?? 0, end ?? 0), 0)
  const until = changes.reduce((most, { at }) => Math.max(most, at), last)
  const isNarrow = width < narrow
  const left = gutter(isNarrow)
  const right = width - margin - 8
  const begin = first === Infinity || first < until / 2 ? 0 : first
  const step = stepOf(Math.max(until - begin, 1), (right - left) / 80)
  const from = Math.floor(begin / step) * step
  const to = Math.max(until, from + step)
  const lowest = Math.round(from / step)
  const ticks = Array.from({ length: Math.floor(to / step + 1e-6) - lowest + 1 }, (_, n) => (lowest + n) * step)
  // Instants before the first call are at the left edge.
  const x = (at: number) => left + (Math.max(at, from) - from) / (to - from) * (right - left)
  return { isNarrow, left, right, from, to, ticks, x }
}

/** Milliseconds between ticks: a round number. */
export const stepOf = (span: number, ticks: number): number => {
  const long = [1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000, 1_800_000]
  const found = span >= 4_000 ? long.find((step) => span / step <= ticks) : undefined
  if (found !== undefined) return found
  const least = span / ticks
  const unit = span >= 4_000 ? 3_600_000 : 10 ** Math.floor(Math.log10(least))
  return [1, 2, 5, 10, 24, 48, 168, 720, 8_760].map((n) => n * unit).find((step) => step >= least) ?? least
}
