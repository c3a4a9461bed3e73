/** The shapes of pictures, as SVG elements. */
import { margin } from "./frame.ts"

/** Characters that XML cannot contain, even escaped: most control characters, and lone surrogates. */
const forbidden = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu

export const escaped = (text: string): string =>
  text.replace(forbidden, "\uFFFD").replace(
    /[&<>"]/g,
    (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;" })[sign]!
  )

export const at = (value: number): string => String(Math.round(value * 100) / 100)

export const line = (kind: string, x1: number, y1: number, x2: number, y2: number): string =>
  `<line class="${kind}" x1="${at(x1)}" y1="${at(y1)}" x2="${at(x2)}" y2="${at(y2)}"/>`

export const label = (
  x: number,
  y: number,
  text: string,
  kind = "",
  anchor: "start" | "middle" | "end" = "start"
): string => `<text class="${kind}" x="${at(x)}" y="${at(y)}" text-anchor="${anchor}">${escaped(text)}</text>`

export const wrapped = (text: string, most: number): ReadonlyArray<string> =>
  text.split(" ").reduce<ReadonlyArray<string>>((lines, word) => {
    const last = lines.at(-1)
    return last === undefined
      ? [word]
      : last.length + word.length < most
      ? [...lines.slice(0, -1), `${last} ${word}`]
      : [...lines, word]
  }, [])

/** The name of a panel in the gutter on its left. */
export const beside = (text: string, y: number): string =>
  wrapped(text, 14).map((line, i) => label(margin, y + 14 * i, line)).join("")

export const cross = (x: number, y: number): string =>
  `<path class="bad" d="M${at(x - 3)} ${at(y - 3)}l6 6m0 -6l-6 6"/>`

export const diamond = (x: number, y: number): string =>
  `<path class="cut" d="M${at(x)} ${at(y - 4)}l4 4l-4 4l-4 -4z"/>`

export const dot = (x: number, y: number): string => `<circle class="arrive" cx="${at(x)}" cy="${at(y)}" r="2.5"/>`

export const bar = (x: number, y: number, width: number, height: number): string =>
  `<rect class="run" x="${at(x)}" y="${at(y - height / 2)}" width="${at(width)}" height="${at(height)}" rx="1.5"/>`
