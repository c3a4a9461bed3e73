/** The panels of a picture: which ones a simulation has, and their data. */
import * as Callers from "./callers.ts"
import type { Call, Result } from "./run.ts"
import * as Series from "./series.ts"
import * as Words from "./words.ts"

/**
 * A part of the picture: "calls" draws the calls one by one; "arrivals" and "refused" count arriving and rejected calls;
 * "waiting" and "running" count calls over time; "starts" counts the permits started in the last `per` of each part.
 *
 * @category reading
 * @since 0.1.0
 */
export type Panel = (typeof allPanels)[number]

/** The panels, in the order in which they are drawn. */
export const allPanels = ["calls", "arrivals", "refused", "waiting", "running", "starts"] as const

/** A panel that draws each call. */
export interface CallsPanel {
  readonly _tag: "Calls"
  readonly label: string
  readonly calls: ReadonlyArray<Call>
  /** Pixels from one call to the next. */
  readonly pitch: number
}

/** A panel that draws a number over time. */
export interface StepsPanel {
  readonly _tag: "Steps"
  readonly kind: "arrivals" | "refused" | "waiting" | "running" | "starts"
  readonly label: string
  readonly steps: Series.Steps
  /** The limit from each instant on; empty if there is none. */
  readonly limits: Series.LimitSteps
  readonly word: string
}

/** Panels with equal keys share a scale: those of one kind in several runs, and rejected beside arriving calls. */
export const comparable = ({ kind, label }: StepsPanel): string =>
  kind === "refused" || kind === "arrivals" ? "arrivals" : label

const mostRows = 40

/** A caller's name that fits beside a panel. Characters of other scripts than Latin may be wider. */
const short = (name: string) => Callers.shortened(name, /[^\u0020-\u024F]/.test(name) ? 9 : 12)

/** The panels of a simulation. `chosen`: all of them that may be drawn; undefined for those with content. */
export const panelsOf = (
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
  const callers = Callers.groupsOf(run)
  const pitch = pitchOf(run.calls.length)
  if (wants("calls", !isLong)) {
    if (callers.length === 0) panels.push({ _tag: "Calls", label: "calls", calls: run.calls, pitch })
    for (const { calls, name } of callers) {
      panels.push({ _tag: "Calls", label: `calls: ${short(name)}`, calls, pitch })
    }
  }
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
    // Where calls are not drawn one by one
    for (const { calls, name } of wants("calls", !isLong) ? [] : callers) {
      steps("waiting", `waiting: ${short(name)}`, Series.waiting({ ...run, calls }))
    }
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

/** Pixels from one call to the next, for so many calls in a simulation. */
const pitchOf = (calls: number): number => calls <= 12 ? 14 : calls <= 24 ? 11 : 8

/** Pixels. */
export const heightOf = (panel: CallsPanel | StepsPanel): number =>
  panel._tag === "Calls" ? Math.max(28, panel.pitch * panel.calls.length) : 56
