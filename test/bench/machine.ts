import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { arch, cpus, platform, totalmem } from "node:os"
import { dirname, join } from "node:path"

const libraries = [
  "effect",
  "p-limit",
  "p-queue",
  "p-throttle",
  "bottleneck",
  "limiter",
  "rate-limiter-flexible",
  "async-sema",
  "cockatiel"
]

/** The version of an installed package, whether or not it exports its package.json. */
const version = (name: string): string => {
  const paths = createRequire(import.meta.url).resolve.paths(name) ?? []
  for (const path of paths) {
    try {
      return JSON.parse(readFileSync(join(path, name, "package.json"), "utf8")).version
    } catch {
      // not in this folder
    }
  }
  throw new Error(`${name} is not installed; looked in ${paths.map(dirname).join(", ")}`)
}

export const describe = (): ReadonlyArray<string> => [
  `Machine: ${cpus()[0]!.model.trim()}, ${cpus().length} cores, ${
    Math.round(totalmem() / 2 ** 30)
  } GiB; ${platform()} ${arch()}`,
  `Node ${process.version}`,
  libraries.map((name) => `${name} ${version(name)}`).join(", ")
]
