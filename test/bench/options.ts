/** What `npm run bench -- …` takes. */
import { parseArgs } from "node:util"

export const help = (sections: ReadonlyArray<string>): string =>
  `npm run bench [-- options]

Measures speed and memory beside the alternatives, prints a table for each section, and writes docs/benchmarks.md
(about 7 minutes).

  --quick         fewer rounds and shorter runs (about 2 minutes); writes nothing
  --only=a,b      only these sections; writes nothing
  --help, -h      this text

Sections: ${sections.join(", ")}.`

export interface Options {
  readonly help: boolean
  /** The sections to run; undefined for all. */
  readonly only: ReadonlyArray<string> | undefined
}

/** Throws for an option or a section that there is none of. */
export const parse = (args: ReadonlyArray<string>, sections: ReadonlyArray<string>): Options => {
  // What --quick means the sections ask themselves, in processes of their own.
  const { values } = parseArgs({
    args: [...args],
    options: { help: { type: "boolean", short: "h" }, quick: { type: "boolean" }, only: { type: "string" } }
  })
  const only = values.only?.split(",")
  for (const name of only ?? []) {
    if (!sections.includes(name)) {
      throw new RangeError(`--only: there is no section ${JSON.stringify(name)}; there are ${sections.join(", ")}`)
    }
  }
  return { help: values.help === true, only }
}
