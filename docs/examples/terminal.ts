/**
 * What the examples print, made to fit the terminal: text wrapped between words, tables, and a line that changes.
 */
import { Effect } from "effect"

/** The output: `process.stdout`, or a replacement in a test. */
export interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly write: (text: string) => unknown
}

/** The width in characters: at least 40, and 80 if it is unknown. */
export const width = ({ columns }: Output = process.stdout): number => Math.max(40, columns || 80)

/** Prints lines, wrapped. */
export const print = (...lines: ReadonlyArray<string>): void =>
  console.log(lines.flatMap((line) => wrap(line, width())).join("\n"))

/** Breaks a text between words; further lines are indented to the first word. */
export const wrap = (text: string, width: number): ReadonlyArray<string> =>
  text.split("\n").flatMap((line) => {
    const indent = /^ */.exec(line)![0]
    const lines: Array<string> = []
    let rest = line
    while (rest.length > width) {
      const space = rest.lastIndexOf(" ", width)
      // A word that is too long is not broken.
      const end = space > indent.length ? space : rest.indexOf(" ", indent.length)
      if (end < 0) break
      lines.push(rest.slice(0, end))
      rest = indent + rest.slice(end).trimStart()
    }
    return [...lines, rest]
  })

/**
 * How rows of a table are written whose columns are so wide: the first to the left, the others to the right. Where they do
 * not fit, each row is a paragraph in which the cells have the names of the head, and there is no head.
 */
export const rows = (head: ReadonlyArray<string>, widths: ReadonlyArray<number>, width: number): {
  readonly head: ReadonlyArray<string>
  readonly row: (cells: ReadonlyArray<string>) => ReadonlyArray<string>
} => {
  const line = (cells: ReadonlyArray<string>) => [
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ").trimEnd()
  ]
  if (widths.reduce((sum, width) => sum + width + 2, -2) <= width) return { head: line(head), row: line }
  return {
    head: [],
    row: ([title = "", ...cells]) => [
      ...wrap(title, width),
      ...wrap(`  ${cells.map((cell, i) => `${head[i + 1]!}: ${cell}`).join(", ")}`, width)
    ]
  }
}

/** A table, as {@link rows} write it. */
export const table = (
  head: ReadonlyArray<string>,
  body: ReadonlyArray<ReadonlyArray<string>>,
  width: number
): ReadonlyArray<string> => {
  const widths = head.map((cell, i) => Math.max(cell.length, ...body.map((row) => row[i]!.length)))
  const written = rows(head, widths, width)
  return [...written.head, ...body.flatMap(written.row)]
}

/**
 * Runs an effect that shows how far it is in one line, which changes on a terminal and is written once, at the end, elsewhere.
 * However the effect ends, by Ctrl-C too, what is printed next begins a line of its own.
 */
export const withLine = <A, E, R>(
  run: (show: (line: string) => void) => Effect.Effect<A, E, R>,
  output: Output = process.stdout
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let last: string | undefined
    const show = (line: string) => {
      last = line
      // One that is broken could not be taken back.
      if (output.isTTY === true) output.write(`\r\x1b[2K${line.slice(0, width(output) - 1)}`)
    }
    const end = Effect.sync(() => {
      if (last !== undefined) output.write(output.isTTY === true ? "\n" : `${last}\n`)
    })
    return Effect.ensuring(run(show), end)
  })
