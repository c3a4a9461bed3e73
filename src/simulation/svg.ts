/** A picture of simulations as SVG. */
import * as Predicate from "effect/Predicate"
import * as Options from "../internal/options.ts"
import * as Drawing from "./drawing.ts"
import * as Frame from "./frame.ts"
import { allPanels, comparable, heightOf, type Panel, panelsOf, type StepsPanel } from "./panels.ts"
import * as Rules from "./rules.ts"
import type { Result } from "./run.ts"
import * as Series from "./series.ts"
import { beside, escaped, label, line, wrapped } from "./shapes.ts"
import { style } from "./style.ts"
import * as Words from "./words.ts"

/**
 * Options of {@link svg}.
 *
 * @category options
 * @since 0.1.0
 */
export interface SvgOptions {
  /** The panels to draw. Default: each panel with content. */
  readonly panels?: ReadonlyArray<Panel> | undefined
  /** Pixels: a finite number ≥ 320. Default: 720. */
  readonly width?: number | undefined
  /** The prefix of the ids of its title and description; pictures in one page need different ones. Default: "simulation". */
  readonly id?: string | undefined
}

const rules = {
  panels: Rules.someOf(...allPanels),
  width: Rules.width,
  id: Rules.string
}

/**
 * Draws one simulation, or several below each other on one time axis.
 *
 * **Details**
 *
 * Returns an SVG document, for a file or inside HTML. It follows the reader's choice of light or dark colours, shows
 * outcomes by shape and colour, and has a title and a description. Up to 40 calls are drawn one by one: a thin line while a
 * call waits, a bar while it runs, a cross for a rejection, a diamond for an interruption. A dashed line is a limit: permits
 * held at once, permits per `per`, or `maxQueue`. A rate with a burst may exceed its line for a while.
 *
 * Where calls have different callers, each caller has a panel of its own with its name; of more than eight callers those
 * with the fewest calls share one.
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
  const { id = "simulation", panels, width = 720 } = Options.readAll("Simulation.svg", rules, options)
  const runs = Predicate.hasProperty(results, "calls") ? [results as Result] : results as ReadonlyArray<Result>
  const frame = Frame.frameOf(runs, width)
  const drawn = runs.map((run) => panelsOf(run, panels, Frame.stepOf(frame.to - frame.from, 120)))
  // Comparable panels have the same scale.
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
    const lines = wrapped(run.name, Math.floor((width - 2 * Frame.margin) / 7.6))
    lines.forEach((line, n) => blocks.push(label(Frame.margin, top + 13 + 18 * n, line, "name")))
    top += 18 * lines.length + (run.changes.length > 0 ? 18 : 8)
    const above = top
    const panels = drawn[i]!.map((panel) => {
      const height = heightOf(panel)
      const name = frame.isNarrow ? label(Frame.margin, top + 12, panel.label) : beside(panel.label, top + 12)
      if (frame.isNarrow) top += 20
      const drawing = panel._tag === "Calls"
        ? Drawing.callsOf(frame, panel, top)
        : Drawing.stepsOf(frame, panel, top, height, scaleOf(panel))
      top += height + Frame.gap
      return `${name}\n${drawing}`
    })
    blocks.push(...Drawing.changesOf(frame, run, above, top - Frame.gap), ...panels)
    top += 14
  })
  const grid = frame.ticks.map((at) => line("grid", frame.x(at), 40, frame.x(at), top - 18))
  const axis = frame.ticks.map((at, i) =>
    label(frame.x(at), top, Words.tick(at, frame.ticks), "axis", i === 0 ? "start" : "middle")
  )
  const legend = Drawing.legendOf(drawn.flat(), frame, top + 22)
  const height = top + 12 + legend.height
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
