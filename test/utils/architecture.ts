/**
 * The rules of the architecture, as pure functions from files to violations.
 * Architecture.test.ts applies them to src, and tries each of them on files that violate it.
 */
import { posix } from "node:path"
import type { Files } from "./files.ts"

/** Text without its comments. Strings stay, since imports are strings. */
const code = (text: string): string =>
  text.replace(
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    (_, literal: string | undefined) => literal ?? ""
  )

interface Import {
  /** The imported file, or the specifier of a package. */
  readonly from: string
  /** The text between `import` and `from`. */
  readonly what: string
}

const importsOf = (path: string, text: string): ReadonlyArray<Import> => {
  const statement = /\b(?:import|export)\s+(?:type\s+)?([\w$*{},\s]+?)\s*\bfrom\s*["']([^"']+)["']/g
  const bare = /\bimport\s*\(?\s*["']([^"']+)["']/g
  const source = code(text)
  return [
    ...Array.from(source.matchAll(statement), ([, what = "", from = ""]) => ({ what, from })),
    ...Array.from(source.matchAll(bare), ([, from = ""]) => ({ what: "*", from }))
  ].map(({ from, what }) => ({
    what,
    from: from.startsWith(".") ? posix.join(posix.dirname(path), from) : from
  }))
}

const everyImport = (files: Files) =>
  Object.entries(files).flatMap(([path, text]) => importsOf(path, text).map((imported) => ({ path, ...imported })))

/**
 * Which files of src a file of src may import. The first entry whose pattern matches a file applies to it.
 * index → public modules → internal. Internal modules know the errors (ThrottleError), and no other public module.
 */
const mayImport: ReadonlyArray<readonly [file: RegExp, files: RegExp]> = [
  [/^src\/index\.ts$/, /^src\/[A-Z]\w*\.ts$/],
  [/^src\/(Policy|ThrottleError)\.ts$/, /^src\/internal\/data\//],
  [/^src\/[A-Z]\w*\.ts$/, /^src\/([A-Z]\w*\.ts$|internal\/)/],
  [/^src\/internal\/part\//, /^src\/internal\/part\//],
  // Orders and limits are chosen by a limiter; none of them knows what makes it start calls.
  [/^src\/internal\/queue\//, /^src\/internal\/(queue\/|(caller|demand|heap|list|plan)\.ts$)/],
  [/^src\/internal\/limit\//, /^src\/internal\/limit\//],
  [/^src\/internal\/data\//, /^src\/internal\/((data|part)\/|options\.ts$)/],
  [/^src\/internal\/(agenda|heap|list|options|pauses|time)\.ts$/, /^$/],
  [/^src\/internal\/bounds\.ts$/, /^src\/internal\/(heap|options)\.ts$/],
  [/^src\/internal\/caller\.ts$/, /^src\/internal\/options\.ts$/],
  // The decision is a function of the plan, the pools and the demand.
  [
    /^src\/internal\/(budget|demand|plan|pool)\.ts$/,
    /^src\/internal\/((budget|demand|plan|pool)\.ts$|(data|limit|part)\/)/
  ],
  // Admission and waiting calls use a backend by its interface.
  [
    /^src\/internal\/(admission|backend|scheduler|waiter)\.ts$/,
    /^src\/(ThrottleError\.ts$|internal\/(?!(control|keyed\/.*|limiter|local|shadow|throttle)\b))/
  ],
  [/^src\/internal\/(counts|metrics|observe)\.ts$/, /^src\/(ThrottleError|internal\/(counts|metrics|observe))\.ts$/],
  [/^src\/internal\/keyed\//, /^src\/(ThrottleError\.ts$|internal\/)/],
  [/^src\/internal\//, /^src\/(ThrottleError\.ts$|internal\/(?!keyed\/))/],
  // Simulations use a throttle as its users do; the agenda is a heap.
  [
    /^src\/simulation\//,
    /^src\/(simulation\/(?!index\.ts)|(Throttle|ThrottleError|internal\/(agenda|caller|options))\.ts$)/
  ],
  // Entry points (http, redis, testing): they use the core, the core does not know them.
  [/^src\/[a-z]\w*\//, /^src\/(?!index\.ts)/]
]

/** Imports run in one direction, and each file has an entry in the table. */
export const direction = (src: Files): ReadonlyArray<string> => [
  ...Object.keys(src).filter((path) => !mayImport.some(([file]) => file.test(path))).map((path) =>
    `${path} has no place in the architecture`
  ),
  ...everyImport(src).filter(({ from, path }) =>
    from.startsWith("src/") && mayImport.find(([file]) => file.test(path))?.[1].test(from) === false
  ).map(({ from, path }) => `${path} must not import ${from}`)
]

/** No file imports itself by way of others, types included. */
export const cycles = (src: Files): ReadonlyArray<string> => {
  const next = (path: string) => importsOf(path, src[path] ?? "").map(({ from }) => from).filter((from) => from in src)
  const done = new Set<string>()
  const visit = (path: string, trail: ReadonlyArray<string>): ReadonlyArray<string> => {
    if (trail.includes(path)) return [[...trail.slice(trail.indexOf(path)), path].join(" → ")]
    if (done.has(path)) return []
    const found = next(path).flatMap((from) => visit(from, [...trail, path]))
    done.add(path)
    return found
  }
  return Object.keys(src).flatMap((path) => visit(path, []))
}

/** Meters are plain arithmetic: they import nothing from outside their folder, not even Effect. */
export const pureMeters = (src: Files): ReadonlyArray<string> =>
  everyImport(src)
    .filter(({ from, path }) => path.startsWith("src/internal/part/") && !from.startsWith("src/internal/part/"))
    .map(({ from, path }) => `${path} must not import ${from}`)

/**
 * Effect is the only package that is imported, and the core imports only modules that Effect marks stable, so a minor
 * release of Effect cannot break it. `effectSource` returns the source of a module of Effect.
 */
export const stableOnly = (
  src: Files,
  effectSource: (module: string) => string | undefined
): ReadonlyArray<string> => {
  const isStable = (module: string) => effectSource(module)?.split("*/", 1)[0]?.includes("@stability stable") === true
  const names = (what: string) =>
    what.replace(/[{}]/g, "").split(",").map((name) => name.replace(/^\s*type\s/, "").trim().split(/\s/, 1)[0] ?? "")
      .filter((name) => name !== "")
      // The functions that "effect" itself exports (pipe, flow, …) are those of the module Function.
      .map((name) => (/^[a-z]/.test(name) ? "Function" : name))
  return everyImport(src).filter(({ from }) => !from.startsWith("src/")).flatMap(({ from, path, what }) => {
    if (!/^effect(\/|$)/.test(from)) return [`${path} must not import ${from}`]
    if (/^src\/[a-z]\w*\//.test(path) && !path.startsWith("src/internal/")) return []
    const modules = from === "effect" ? names(what) : [from.slice("effect/".length)]
    return modules.filter((module) => !isStable(module)).map((module) =>
      `${path} imports effect's ${module}, which is not marked stable`
    )
  })
}

/** Time comes from Effect's Clock alone. */
export const noOtherClock = (src: Files): ReadonlyArray<string> =>
  Object.entries(src).flatMap(([path, text]) =>
    Array.from(
      code(text).matchAll(/\bDate\s*\.\s*now\b|\bnew\s+Date\b|\bperformance\s*\.\s*now\b|\bset(Timeout|Interval)\b/g),
      ([found]) => `${path} uses ${found}`
    )
  )

/** No module has state. The formatter puts top-level declarations at the start of a line. */
export const noModuleState = (src: Files): ReadonlyArray<string> =>
  Object.entries(src).flatMap(([path, text]) =>
    Array.from(code(text).matchAll(/^(?:export\s+)?(?:let|var)\s.*$/gm), ([line]) => `${path} holds state: ${line}`)
  )

/** package.json exports every public module by its name, and nothing internal. */
export const closedExports = (exports: Readonly<Record<string, unknown>>, src: Files): ReadonlyArray<string> => [
  ...(exports["./internal/*"] === null ? [] : [`"./internal/*" is not closed`]),
  ...Object.entries(exports).filter(([, target]) => JSON.stringify(target).includes("/internal/")).map(([name]) =>
    `"${name}" lets internal out`
  ),
  ...Object.keys(exports).filter((name) => name.includes("*") && exports[name] !== null).map((name) =>
    `"${name}" exports by pattern`
  ),
  ...Object.keys(src).flatMap((path) => /^src\/([A-Z]\w*)\.ts$/.exec(path)?.[1] ?? [])
    .filter((name) => exports[`./${name}`] !== `./dist/${name}.js`)
    .map((name) => `"./${name}" is not exported`)
]

/** No file imports an internal module by the package's name. Tests may do so by a relative path. */
export const noInternalByName = (files: Files): ReadonlyArray<string> =>
  Object.entries(files)
    .filter(([, text]) => /(?:\bfrom|\bimport)\s*\(?\s*["']effect-throttle\/internal/.test(text))
    .map(([path]) => `${path} imports internal`)

/** No file of src has more than 400 lines of code; comments and empty lines do not count. */
export const shortFiles = (src: Files): ReadonlyArray<string> =>
  Object.entries(src).flatMap(([path, text]) => {
    const lines = code(text).split("\n").filter((line) => line.trim() !== "").length
    return lines <= 400 ? [] : [`${path} has ${lines} lines of code`]
  })

/** No export of a public module is marked as internal: it belongs to src/internal. */
export const nothingMarkedInternal = (src: Files): ReadonlyArray<string> =>
  Object.entries(src)
    .filter(([path, text]) => !path.includes("/internal/") && text.includes("@internal"))
    .map(([path]) => `${path} marks an export as internal`)
