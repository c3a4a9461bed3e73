import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { fileURLToPath } from "node:url"

/** Texts by path; paths are relative to the repository and written with "/". */
export type Files = Readonly<Record<string, string>>

export const root: string = fileURLToPath(new URL("../../", import.meta.url))

// The folder of generated examples is left alone: another test writes and removes it meanwhile.
const below = (path: string): ReadonlyArray<string> =>
  statSync(root + path).isDirectory()
    ? readdirSync(root + path).filter((name) => name !== "examples-generated").flatMap((name) =>
      below(`${path}/${name}`)
    )
    : [path]

/** The files at or below the given paths whose names match; what does not exist is left out. */
export const readFiles = (paths: ReadonlyArray<string>, name: RegExp): Files =>
  Object.fromEntries(
    paths.filter((path) => existsSync(root + path)).flatMap(below).filter((path) => name.test(path)).map(
      (path) => [path, readFileSync(root + path, "utf8")]
    )
  )
