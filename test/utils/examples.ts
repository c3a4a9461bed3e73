/** Takes the TypeScript examples out of markdown and doc comments. */

export interface Example {
  /** Where it stands: the file, and the line of its first line of code. */
  readonly path: string
  readonly line: number
  /** Starts with as many empty lines as stand above the example in its file, so that line numbers are the same. */
  readonly code: string
  /** Compiled only, for it is not meant to run: tagged `ts no-run`. */
  readonly run: boolean
  /** Has tests of its own, so it is imported where tests are declared. */
  readonly tests: boolean
}

/** The doc comments of a source file as markdown; every other line becomes empty, so that lines keep their number. */
const docComments = (source: string): string => {
  let inside = false
  return source.split("\n").map((line) => {
    if (!inside) {
      inside = /^\s*\/\*\*(?!.*\*\/)/.test(line)
      return ""
    }
    if (line.includes("*/")) inside = false
    return inside ? line.replace(/^\s*\* ?/, "") : ""
  }).join("\n")
}

/**
 * The examples of a file: its fences "ts", "ts no-run" (compiled only); "ts no-check" is left out.
 * Fences of another language are passed over together with what they quote.
 */
export const examplesOf = (path: string, text: string): ReadonlyArray<Example> => {
  const found: Array<Example> = []
  const lines = (path.endsWith(".ts") ? docComments(text) : text).split("\n")
  for (let at = 0; at < lines.length; at++) {
    const fence = /^( *)(`{3,})(\S*)(.*)$/.exec(lines[at] ?? "")
    if (fence === null) continue
    const [, indent = "", ticks = "", language = "", tag = ""] = fence
    const start = at + 1
    do at++
    while (at < lines.length && lines[at]?.trim() !== ticks)
    if (at === lines.length) throw new Error(`${path}:${start} opens a fence that nothing closes`)
    if (language !== "ts") continue
    if (!["", "no-run", "no-check"].includes(tag.trim())) {
      throw new Error(`${path}:${start} has the unknown tag "${tag.trim()}": use no-run or no-check`)
    }
    if (tag.trim() === "no-check") continue
    const body = lines.slice(start, at).map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line))
      // What an example leaves to run by itself is waited for, so that its failure is the example's.
      .map((line) => line.replace(/^(?=Effect\.runPromise(Exit)?\()/, "await "))
      .join("\n")
    const run = tag.trim() !== "no-run"
    if (run && /\brun(Promise|PromiseExit)\b/.test(body) && !/\bawait\b/.test(body)) {
      throw new Error(`${path}:${start} does not await what it runs, so its failure would be lost`)
    }
    found.push({
      path,
      line: start + 1,
      code: `${"\n".repeat(start)}${body}\n`,
      run,
      tests: /from "(@effect\/)?vitest"/.test(body)
    })
  }
  return found
}
