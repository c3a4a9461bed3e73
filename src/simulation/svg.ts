/** A picture of simulations as SVG. */
import { format } from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import * as Options from "./options.ts"
import type { Call, Result } from "./run.ts"
import * as Series from "./series.ts"
import * as Words from "./words.ts"

/**
 * A part of the picture: the calls one by one; how many arrive and are refused; how many wait; how many run; what started in the last
 * `per` of each part of the policy that has one.
 *
 * @category reading
 * @since 0.1.0
 */
export type Panel = (typeof allPanels)[number]

const allPanels = ["calls", "arrivals", "refused", "waiting", "running", "starts"] as const

/**
 * Options of {@link svg}.
 *
 * @category options
 * @since 0.1.0
 */
export interface SvgOptions {
  /** Which parts to draw. Default: each that has something to show. */
  readonly panels?: ReadonlyArray<Panel> | undefined
  /** In pixels, at least 320. Default: 720. */
  readonly width?: number | undefined
  /** What the ids of its title and description begin with; several pictures in one page need different ones. */
  readonly id?: string | undefined
}

/**
 * Draws one simulation, or several above each other on one axis of time.
 *
 * **Details**
 *
 * Gives an SVG document, which stands by itself and inside HTML. It follows the reader's choice of light or dark colours,
 * tells by shape as well as by colour what became of a call, and has a title and a description in words. Up to 40 calls
 * are drawn one by one: a thin line while one waits, a bar while it runs, a cross where it was refused, a diamond where
 * it was interrupted. A dashed line is a limit: permits held at once, permits per `per`, or `maxQueue`. A rate with a
 * burst may start more than that for a while.
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
 * const policy = Throttle.rate({ limit: 5, burst: 3 })
 * const picture = Simulation.svg(Simulation.run(policy, Simulation.list([0, 0, 0, 0, 0, 0, "2 seconds"])))
 *
 * console.log(picture.length) // write it to a file, or put it into a page
 * ```
 *
 * @see {@link text} for terminals
 * @category reading
 * @since 0.1.0
 */
export const svg = (results: Result | ReadonlyArray<Result>, options: SvgOptions = {}): string => {
  const where = "Simulation.svg"
  Options.known(where, options, ["panels", "width", "id"])
  const width = options.width === undefined ? 720 : Options.value(where, "width", Options.width, options.width)
  Options.text(where, "id", options.id)
  const { panels } = options
  if (panels !== undefined && !(Array.isArray(panels) && panels.every((panel) => allPanels.includes(panel)))) {
    throw new RangeError(`${where}: panels must be of ${allPanels.join(", ")}, got ${format(panels)}`)
  }
  const runs = Predicate.hasProperty(results, "calls") ? [results as Result] : results as ReadonlyArray<Result>
  const frame = frameOf(runs, width)
  const drawn = runs.map((run) => panelsOf(run, panels, stepOf(frame.to - frame.from, 120)))
  // What can be compared has the same scale.
  const scales = new Map<string, number>()
  const scaleOf = (panel: StepsPanel) => scales.get(comparable(panel)) ?? 1
  for (const panel of drawn.flat()) {
    if (panel._tag === "Steps") {
      const scale = Math.max(scaleOf(panel), Series.highest(panel.limits), Series.highest(panel.steps))
      scales.set(comparable(panel), scale)
    }
  }

  let top = 12
  const blocks: Array<string> = []
  runs.forEach((run, i) => {
    const lines = wrapped(run.name, Math.floor((width - 2 * margin) / 7.6))
    lines.forEach((line, n) => blocks.push(label(margin, top + 13 + 18 * n, line, "name")))
    top += 18 * lines.length + (run.changes.length > 0 ? 18 : 8)
    const above = top
    const panels = drawn[i]!.map((panel) => {
      const height = heightOf(panel)
      const name = frame.isNarrow ? label(margin, top + 12, panel.label) : beside(panel.label, top + 12)
      if (frame.isNarrow) top += 20
      const drawing = panel._tag === "Calls"
        ? callsOf(frame, panel, top)
        : stepsOf(frame, panel, top, height, scaleOf(panel))
      top += height + gap
      return `${name}\n${drawing}`
    })
    blocks.push(...changesOf(frame, run, above, top - gap), ...panels)
    top += 14
  })
  const grid = frame.ticks.map((at) => line("grid", frame.x(at), 40, frame.x(at), top - 18))
  const axis = frame.ticks.map((at, i) =>
    label(frame.x(at), top, Words.tick(at, frame.ticks), "axis", i === 0 ? "start" : "middle")
  )
  const legend = legendOf(drawn.flat(), frame, top + 22)
  const height = top + 12 + legend.height
  const id = options.id ?? "simulation"
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `role="img" aria-labelledby="${escaped(id)}-title ${escaped(id)}-desc" class="throttle-simulation">`,
    `<title id="${escaped(id)}-title">${escaped(runs.map(({ name }) => name).join("; against: "))}</title>`,
    `<desc id="${escaped(id)}-desc">${escaped(runs.map(inWords).join(" "))}</desc>`,
    `<style>${style}</style>`,
    `<rect class="back" width="${width}" height="${height}" rx="8"/>`,
    ...grid,
    ...blocks,
    ...axis,
    ...legend.lines,
    "</svg>",
    ""
  ].join("\n")
}

const inWords = (run: Result, _: number, runs: ReadonlyArray<Result>): string =>
  runs.length === 1 ? Words.describe(run) : `${run.name}: ${Words.describe(run)}`

// ---------------------------------------------------------------------------------------------------------------------
// What to draw
// ---------------------------------------------------------------------------------------------------------------------

interface CallsPanel {
  readonly _tag: "Calls"
  readonly label: string
  readonly calls: ReadonlyArray<Call>
}

interface StepsPanel {
  readonly _tag: "Steps"
  readonly kind: "arrivals" | "refused" | "waiting" | "running" | "starts"
  readonly label: string
  readonly steps: Series.Steps
  /** The limit from each instant on; none where nothing limits it. */
  readonly limits: Series.LimitSteps
  readonly word: string
}

/** Panels of different runs that show the same, and of one run those refused beside those who arrived. */
const comparable = ({ kind, label }: StepsPanel): string =>
  kind === "refused" || kind === "arrivals" ? "arrivals" : label

const mostRows = 40

const panelsOf = (
  run: Result,
  chosen: ReadonlyArray<Panel> | undefined,
  span: number
): ReadonlyArray<CallsPanel | StepsPanel> => {
  const wants = (panel: Panel, otherwise: boolean) => chosen === undefined ? otherwise : chosen.includes(panel)
  const isLong = run.calls.length > mostRows
  const waiting = Series.waiting(run)
  const queue = Series.queueLimits(run)
  const limits = Series.limitsOf(run)
  const held = limits.filter(({ per }) => per === undefined)
  const panels: Array<CallsPanel | StepsPanel> = []
  const steps = (
    kind: StepsPanel["kind"],
    label: string,
    steps: Series.Steps,
    limits: Series.LimitSteps = [],
    word = "limit"
  ) => {
    panels.push({ _tag: "Steps", kind, label, steps, limits, word })
  }
  if (wants("calls", !isLong)) panels.push({ _tag: "Calls", label: "calls", calls: run.calls })
  if (wants("arrivals", isLong)) {
    steps(
      "arrivals",
      `arriving in ${Words.time(span).replace(" ", "\u00a0")}`,
      Series.arriving(run, span, () => true)
    )
  }
  if (wants("refused", isLong && run.calls.some(Series.isRefused))) {
    steps("refused", "of them refused", Series.arriving(run, span, Series.isRefused))
  }
  if (wants("waiting", Series.highest(waiting) > 0 && (isLong || queue.length > 0))) {
    steps("waiting", "waiting", waiting, queue, "maxQueue")
  }
  if (wants("running", isLong && held.length === 0 && run.calls.some(Series.lasts))) {
    steps("running", "running", Series.running(run))
  }
  for (const { per, steps: limit, unit, word } of limits) {
    const isPlain = unit === "permits" && Series.costOne(run)
    if (per === undefined && wants("running", true)) {
      steps("running", isPlain ? "running" : `${unit} held`, Series.held(run, unit), limit)
    }
    if (per !== undefined && wants("starts", true)) {
      const label = `${isPlain ? "starts" : unit} in the last ${Words.time(per).replace(" ", "\u00a0")}`
      steps("starts", label, Series.started(run, per, unit), limit, word)
    }
  }
  return panels
}

const pitchOf = (calls: number): number => calls <= 12 ? 14 : calls <= 24 ? 11 : 8

const heightOf = (panel: CallsPanel | StepsPanel): number =>
  panel._tag === "Calls" ? Math.max(28, pitchOf(panel.calls.length) * panel.calls.length) : 56

// ---------------------------------------------------------------------------------------------------------------------
// Where to draw it
// ---------------------------------------------------------------------------------------------------------------------

const margin = 16
/** Room on the left for the names of panels; in a narrow picture they stand above them. */
const gutter = (isNarrow: boolean) => isNarrow ? 44 : 124
const narrow = 520
const gap = 16

interface Frame {
  readonly left: number
  readonly right: number
  readonly from: number
  readonly to: number
  readonly ticks: ReadonlyArray<number>
  readonly x: (at: number) => number
  readonly isNarrow: boolean
}

const frameOf = (runs: ReadonlyArray<Result>, width: number): Frame => {
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
  // What happened before the first call is at the left edge.
  const x = (at: number) => left + (Math.max(at, from) - from) / (to - from) * (right - left)
  return { isNarrow, left, right, from, to, ticks, x }
}

/** Milliseconds between ticks: a number people count in. */
const stepOf = (span: number, ticks: number): number => {
  const long = [1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000, 1_800_000]
  const found = span >= 4_000 ? long.find((step) => span / step <= ticks) : undefined
  if (found !== undefined) return found
  const least = span / ticks
  const unit = span >= 4_000 ? 3_600_000 : 10 ** Math.floor(Math.log10(least))
  return [1, 2, 5, 10, 24, 48, 168, 720, 8_760].map((n) => n * unit).find((step) => step >= least) ?? least
}

// ---------------------------------------------------------------------------------------------------------------------
// Drawing
// ---------------------------------------------------------------------------------------------------------------------

/** Contrast of at least 4.5 for text and 3 for shapes on either background. */
const style = `
.throttle-simulation{--back:#fff;--ink:#1f2328;--soft:#59636e;--grid:#e4e8ec;--wait:#9a6700;--run:#0969da;
--arrive:#6e7781;--bad:#cf222e;--cut:#8250df;--limit:#bc4c00;--band:#59636e;
font:12px ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){.throttle-simulation{--back:#0d1117;--ink:#f0f6fc;--soft:#9198a1;--grid:#252b33;
--wait:#d29922;--run:#4493f8;--arrive:#9198a1;--bad:#ff7b72;--cut:#ab7df8;--limit:#f0883e;--band:#9198a1}}
.throttle-simulation text{fill:var(--ink);paint-order:stroke;stroke:var(--back);stroke-width:3px;stroke-linejoin:round}
.throttle-simulation .name{font-weight:600;font-size:13px}
.throttle-simulation .axis,.throttle-simulation .scale,.throttle-simulation .key{fill:var(--soft);font-size:11px}
.throttle-simulation .back{fill:var(--back)}
.throttle-simulation .grid{stroke:var(--grid)}
.throttle-simulation .base{stroke:var(--soft);stroke-opacity:.5}
.throttle-simulation .edge{stroke:var(--soft);stroke-opacity:.55;stroke-dasharray:1 3}
.throttle-simulation .limit{fill:none;stroke:var(--limit);stroke-width:1.5;stroke-dasharray:5 3}
.throttle-simulation .limited{fill:var(--limit);font-size:11px}
.throttle-simulation .wait{stroke:var(--wait);stroke-width:1.5}
.throttle-simulation .arrive{fill:var(--wait)}
.throttle-simulation .run{fill:var(--run)}
.throttle-simulation .bad{stroke:var(--bad);stroke-width:2;fill:none}
.throttle-simulation .cut{stroke:var(--cut);stroke-width:1.5;fill:var(--back)}
.throttle-simulation .band{fill:var(--band);fill-opacity:.13}
.throttle-simulation .bandname{fill:var(--soft);font-size:11px}
.throttle-simulation .area{fill:currentColor;fill-opacity:.22}
.throttle-simulation .line{fill:none;stroke:currentColor;stroke-width:1.5;stroke-linejoin:round}
.throttle-simulation .arrivals{color:var(--arrive)}
.throttle-simulation .refused{color:var(--bad)}
.throttle-simulation .waiting{color:var(--wait)}
.throttle-simulation .running,.throttle-simulation .starts{color:var(--run)}
`.replaceAll("\n", "")

/** What XML may not contain, in no way of writing it: most control characters, and halves of characters. */
const forbidden = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu

const escaped = (text: string): string =>
  text.replace(forbidden, "\uFFFD").replace(
    /[&<>"]/g,
    (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;" })[sign]!
  )

const at = (value: number): string => String(Math.round(value * 100) / 100)

const line = (kind: string, x1: number, y1: number, x2: number, y2: number): string =>
  `<line class="${kind}" x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}"/>`

const label = (
  x: number,
  y: number,
  text: string,
  kind = "",
  anchor: "start" | "middle" | "end" = "start"
): string => `<text class="${kind}" x="${at(x)}" y="${at(y)}" text-anchor="${anchor}">${escaped(text)}</text>`

const wrapped = (text: string, most: number): ReadonlyArray<string> =>
  text.split(" ").reduce<ReadonlyArray<string>>((lines, word) => {
    const last = lines.at(-1)
    return last === undefined
      ? [word]
      : last.length + word.length < most
      ? [...lines.slice(0, -1), `${last} ${word}`]
      : [...lines, word]
  }, [])

/** The name of a panel in the gutter on its left. */
const beside = (text: string, y: number): string =>
  wrapped(text, 14).map((line, i) => label(margin, y + 14 * i, line)).join("")

const cross = (x: number, y: number): string => `<path class="bad" d="M${at(x - 3)} ${at(y - 3)}l6 6m0 -6l-6 6"/>`

const diamond = (x: number, y: number): string => `<path class="cut" d="M${at(x)} ${at(y - 4)}l4 4l-4 4l-4 -4z"/>`

const dot = (x: number, y: number): string => `<circle class="arrive" cx="${at(x)}" cy="${at(y)}" r="2.5"/>`

const bar = (x: number, y: number, width: number, height: number): string =>
  `<rect class="run" x="${at(x)}" y="${at(y - height / 2)}" width="${at(width)}" height="${at(height)}" rx="1.5"/>`

/** The least width of a bar: a run that takes no time is seen as well. */
const thinnest = 4

const callsOf = ({ right, x }: Frame, { calls }: CallsPanel, top: number): string => {
  const pitch = pitchOf(calls.length)
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

/** In each column of pixels the most there was, if there are more steps than can be told apart. */
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

/** Where a limit was in force, as far as the picture shows it. */
const inForce = ({ from, to }: Frame, limits: Series.LimitSteps): ReadonlyArray<Part> =>
  limits.flatMap(({ at: instant, value }, i) => {
    const begin = Math.max(from, instant)
    const next = limits[i + 1]
    const end = Math.min(to, next?.at ?? to)
    return value === undefined || (next === undefined ? end < begin : end <= begin) ? [] : [{ begin, end, value }]
  })

/** Behind the end of a limit's line, or where there is room for it. */
const limitLabel = ({ left, x }: Frame, text: string, end: number, y: number): string =>
  label(Math.max(x(end), left + 6 * text.length), y, text, "limited", "end")

const stepsOf = (frame: Frame, panel: StepsPanel, top: number, height: number, scale: number): string => {
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

/** Pauses as bands, updates and the edges of the clock as lines. */
const changesOf = ({ from, right, to, x }: Frame, run: Result, top: number, bottom: number): ReadonlyArray<string> => {
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

const legendOf = (panels: ReadonlyArray<CallsPanel | StepsPanel>, frame: Frame, y: number) => {
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
