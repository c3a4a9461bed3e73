/** Draws the panels of a picture. */
import { type Frame, margin } from "./frame.ts"
import type { CallsPanel, StepsPanel } from "./panels.ts"
import type { Call, Result } from "./run.ts"
import * as Series from "./series.ts"
import { at, bar, cross, diamond, dot, label, line } from "./shapes.ts"
import * as Words from "./words.ts"

/** The minimum width of a bar, so that a run without duration is visible. */
const thinnest = 4

export const callsOf = ({ right, x }: Frame, { calls, pitch }: CallsPanel, top: number): string => {
  const rows = calls.map((call, i) => {
    const { arrival, end, outcome, start, wait } = call
    const y = top + pitch * (i + 0.5)
    const waited = start ?? end
    return [
      ...(wait > 0
        ? [line("wait", x(arrival), y, waited === undefined ? right : x(waited), y), dot(x(arrival), y)]
        : []),
      ...(start === undefined
        ? []
        : [bar(x(start), y, Math.max(thinnest, x(end ?? start) - x(start) - 1), pitch * 0.64)]),
      ...(Series.isRefused(call) ? [cross(x(end!), y)] : outcome === "interrupted" ? [diamond(x(end!), y)] : [])
    ].join("")
  })
  return rows.join("\n")
}

/** Pixels. */
const column = 3

/** The maximum in each column, where there are more steps than columns. */
const thinned = ({ from, left, right, to }: Frame, steps: Series.Steps): Series.Steps => {
  const columns = (right - left) / column
  if (steps.length < columns) return steps
  const span = (to - from) / columns
  const peaks: Array<{ at: number; value: number }> = []
  let place = -1
  let value = 0
  for (const step of steps) {
    const here = Math.floor((step.at - from) / span)
    if (here > place + 1) peaks.push({ at: from + (place + 1) * span, value })
    if (here > place) peaks.push({ at: from + here * span, value: Math.max(value, step.value) })
    else peaks.at(-1)!.value = Math.max(peaks.at(-1)!.value, step.value)
    place = here
    value = step.value
  }
  return [...peaks, { at: from + (place + 1) * span, value }]
}

interface Part {
  readonly begin: number
  readonly end: number
  readonly value: number
}

/** The spans in which a limit was in force, within the picture. */
const inForce = ({ from, to }: Frame, limits: Series.LimitSteps): ReadonlyArray<Part> =>
  limits.flatMap(({ at: instant, value }, i) => {
    const begin = Math.max(from, instant)
    const next = limits[i + 1]
    const end = Math.min(to, next?.at ?? to)
    return value === undefined || (next === undefined ? end < begin : end <= begin) ? [] : [{ begin, end, value }]
  })

/** The label at the end of a limit's line, moved to fit into the picture. */
const limitLabel = ({ left, x }: Frame, text: string, end: number, y: number): string =>
  label(Math.max(x(end), left + 6 * text.length), y, text, "limited", "end")

export const stepsOf = (frame: Frame, panel: StepsPanel, top: number, height: number, scale: number): string => {
  const { left, right, x } = frame
  const bottom = top + height
  const y = (value: number) => bottom - value / scale * (height - 4)
  const path = [`M${at(left)} ${at(bottom)}`]
  for (const step of thinned(frame, panel.steps)) {
    if (step.at > frame.to) break
    path.push(`H${at(x(step.at))}V${at(y(step.value))}`)
  }
  path.push(`H${at(right)}`)
  const parts = inForce(frame, panel.limits)
  const last = parts.at(-1)
  const limit = parts.map(({ begin, end, value }, i) =>
    `${parts[i - 1]?.end === begin ? "V" : `M${at(x(begin))} `}${at(y(value))}H${at(x(end))}`
  )
  return [
    label(left - 6, y(scale) + 4, Words.short(scale), "scale", "end"),
    label(left - 6, bottom + 2, "0", "scale", "end"),
    `<path class="area ${panel.kind}" d="${path.join("")}V${at(bottom)}z"/>`,
    `<path class="line ${panel.kind}" d="${path.join("")}"/>`,
    line("base", left, bottom, right, bottom),
    ...(last === undefined ? [] : [
      `<path class="limit" d="${limit.join("")}"/>`,
      limitLabel(frame, `${panel.word} ${Words.number(last.value)}`, last.end, y(last.value) - 4)
    ])
  ].join("\n")
}

/** Pauses as bands; updates and edges of the clock as lines. */
export const changesOf = (
  { from, right, to, x }: Frame,
  run: Result,
  top: number,
  bottom: number
): ReadonlyArray<string> => {
  const edges = run.policies.flatMap(Series.edgesOf).flatMap((every) =>
    (to - from) / every > 60 ? [] : Array.from(
      { length: Math.floor(to / every) - Math.ceil(from / every) + 1 },
      (_, i) => (Math.ceil(from / every) + i) * every
    )
  )
  const end = (change: Result["changes"][number] & { readonly pause: number }) => {
    const resumed = run.changes.find((other) => "resume" in other && other.at >= change.at)?.at ?? Infinity
    return Math.min(change.at + change.pause, resumed, to)
  }
  return [
    ...edges.map((instant) => line("edge", x(instant), top, x(instant), bottom)),
    ...run.changes.flatMap((change) => {
      if ("resume" in change) return []
      if (change.at < from && ("update" in change || end(change) <= from)) return []
      if ("update" in change) {
        return [
          line("limit", x(change.at), top, x(change.at), bottom),
          label(x(change.at) + 4, top - 4, "update", "limited")
        ]
      }
      const [begin, width] = [x(change.at), x(end(change)) - x(change.at)]
      return [
        `<rect class="band" x="${at(begin)}" y="${at(top)}" width="${at(width)}" height="${at(bottom - top)}"/>`,
        label(Math.min(begin + width / 2, right - 20), top - 4, "pause", "bandname", "middle")
      ]
    })
  ]
}

export const legendOf = (panels: ReadonlyArray<CallsPanel | StepsPanel>, frame: Frame, y: number) => {
  const calls = panels.flatMap((panel) => panel._tag === "Calls" ? panel.calls : [])
  const is = (test: (call: Call) => boolean) => calls.some(test)
  const items: ReadonlyArray<readonly [shown: boolean, text: string, sign: (x: number) => string]> = [
    [is(({ wait }) => wait > 0), "waiting", (x) => dot(x + 3, y) + line("wait", x + 3, y, x + 22, y)],
    [is(({ start }) => start !== undefined), "running", (x) => bar(x, y, 20, 8)],
    [is(Series.isRefused), "refused", (x) => cross(x + 10, y)],
    [is(({ outcome }) => outcome === "interrupted"), "interrupted", (x) => diamond(x + 10, y)]
  ]
  let x = frame.isNarrow ? margin : frame.left
  const lines: Array<string> = []
  for (const [shown, text, sign] of items) {
    if (!shown) continue
    lines.push(sign(x), label(x + 28, y + 4, text, "key"))
    x += 42 + text.length * 6
  }
  return { lines, height: lines.length === 0 ? 0 : 22 }
}
