/**
 * Tables, for a terminal and for docs/benchmarks.md.
 */
export interface Row {
  readonly what: string
  readonly figures: ReadonlyArray<string>
  /** What it must keep to, where there is such a bar, and whether it does. */
  readonly bar?: string
  readonly holds?: boolean
  /** The figure that the bar is for. */
  readonly judged?: string
}

export interface Section {
  readonly title: string
  /** How it was measured, in a sentence or two. */
  readonly about: string
  /** What the figures are. */
  readonly columns: ReadonlyArray<string>
  readonly rows: ReadonlyArray<Row>
}

const verdict = (row: Row): string => row.holds === undefined ? "" : row.holds ? "holds" : "does not hold"

const cells = ({ columns, rows }: Section): ReadonlyArray<ReadonlyArray<string>> => {
  const barred = rows.some((row) => row.bar !== undefined)
  return [
    ["", ...columns, ...(barred ? ["bar", ""] : [])],
    ...rows.map((row) => [
      row.what,
      ...columns.map((_, i) => row.figures[i] ?? ""),
      ...(barred ? [row.bar ?? "", verdict(row)] : [])
    ])
  ]
}

export const terminal = (section: Section): string => {
  const table = cells(section)
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  const isFigure = (column: number) => column > 0 && column <= section.columns.length
  const line = (row: ReadonlyArray<string>) =>
    row
      .map((cell, i) => isFigure(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!))
      .join("  ")
      .trimEnd()
  return `\n${section.title}\n${section.about}\n\n${table.map((row) => `  ${line(row)}`).join("\n")}\n`
}

export const markdown = (section: Section): string => {
  const [head, ...rows] = cells(section)
  const line = (row: ReadonlyArray<string>) => `| ${row.join(" | ")} |`
  const aligned = head!.map((_, i) => i > 0 && i <= section.columns.length ? "--:" : "---")
  return `## ${section.title}\n\n${section.about}\n\n${[head!, aligned, ...rows].map(line).join("\n")}\n`
}

/** Every bar of every section. */
export const summary = (sections: ReadonlyArray<Section>): Section => ({
  title: "All bars",
  about: "Every row above that has a bar, and the figure that the bar is for.",
  columns: ["figure"],
  rows: sections.flatMap(({ rows, title }) =>
    rows.flatMap((row) =>
      row.bar === undefined ? [] : [{ ...row, what: `${title}: ${row.what}`, figures: [row.judged ?? ""] }]
    )
  )
})

export const ns = (nanos: number): string => nanos.toFixed(0)
export const us = (micros: number): string => micros.toFixed(2)
export const ratio = (x: number): string => x.toFixed(2)
export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
export const count = (n: number): string => n.toLocaleString("en-US")

const judged =
  (words: string, holds: (figure: number, bar: number) => boolean) =>
  (what: string, figures: ReadonlyArray<string>, figure: number, bar: number, unit = ""): Row => ({
    what,
    figures,
    bar: `${words} ${bar}${unit}`,
    holds: holds(figure, bar),
    judged: Number.isInteger(figure) ? count(figure) : figure.toFixed(figure < 1 ? 4 : 2)
  })

/** A row with a figure that must not exceed, or not fall below, a number. */
export const atMost = judged("at most", (figure, bar) => figure <= bar)
export const atLeast = judged("at least", (figure, bar) => figure >= bar)
