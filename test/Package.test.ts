/**
 * The package as a user gets it: packed, installed into an empty project beside nothing but `effect`, type-checked, run
 * and bundled there.
 */
import * as esbuild from "esbuild"
import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, posix } from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { examplesOf } from "./utils/examples.ts"
import { readFiles, root } from "./utils/files.ts"
import { broken } from "./utils/links.ts"

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
const readme = readFileSync(join(root, "README.md"), "utf8")

/** A project that has just installed the package. */
const project = mkdtempSync(join(tmpdir(), "effect-throttle-"))
afterAll(() => rmSync(project, { recursive: true }))

const run = (command: string, args: ReadonlyArray<string>, cwd: string): string => {
  try {
    return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })
  } catch (error) {
    const { stderr, stdout } = error as { readonly stderr: string; readonly stdout: string }
    throw new Error(`${command} ${args.join(" ")}\n${stdout}\n${stderr}`, { cause: error })
  }
}
const tsc = (...args: ReadonlyArray<string>) =>
  run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), ...args], project)

let packed: ReadonlyArray<string>

beforeAll(() => {
  run("npm", ["run", "-s", "build"], root)
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", project], root))
  packed = files.map(({ path }: { readonly path: string }) => path)
  writeFileSync(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }))
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]
  run("npm", ["install", ...quiet, `./${filename}`, `effect@${manifest.devDependencies.effect}`], project)
}, 120_000)

describe("what is packed", () => {
  test("is what is built, its source, and the texts a user reads: nothing else", () => {
    const allowed =
      /^(dist\/.*\.(js|d\.ts)(\.map)?|src\/.*\.ts|docs\/(.*\.md|examples\/.*\.ts|pictures\/.*\.svg)|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/
    expect(packed.filter((path) => !allowed.test(path))).toEqual([])
    expect(packed).toEqual(expect.arrayContaining(["README.md", "LICENSE", "CHANGELOG.md"]))
  })

  test("has whatever its pages link to", () => {
    const pages = readFiles(["README.md", "CHANGELOG.md", "docs"], /\.md$/)
    expect(Object.keys(pages).filter((page) => !packed.includes(page))).toEqual([])
    expect(broken(pages, (path) => packed.includes(path))).toEqual([])
  })

  test("each file of the source once, built, and nothing built that has no source any more", () => {
    const stems = (pattern: RegExp) =>
      packed.flatMap((path) => pattern.exec(path)?.[1] ?? []).toSorted((a, b) => a.localeCompare(b))
    const sources = stems(/^src\/(.*)\.ts$/)
    expect(sources).toContain("internal/limiter")
    expect(stems(/^dist\/(.*)\.js$/)).toEqual(sources)
    expect(stems(/^dist\/(.*)\.d\.ts$/)).toEqual(sources)
  })

  test("whatever package.json exports is there, with its types", () => {
    for (const target of Object.values<string | null>(manifest.exports)) {
      if (target === null) continue
      const path = target.slice(2)
      expect(packed).toContain(path)
      if (path.endsWith(".js")) expect(packed).toContain(path.replace(/\.js$/, ".d.ts"))
    }
  })

  test("maps lead to a source that is there", () => {
    const maps = packed.filter((path) => path.endsWith(".map"))
    expect(maps.length).toBeGreaterThan(20)
    const home = join(project, "node_modules/effect-throttle")
    for (const map of maps) {
      const { sources } = JSON.parse(readFileSync(join(home, map), "utf8"))
      for (const source of sources) expect(packed).toContain(posix.join(dirname(map), source))
    }
  })
})

describe("in an empty project", () => {
  const installed = () => readdirSync(join(project, "node_modules")).filter((name) => !name.startsWith("."))

  test("nothing is installed but it, effect, and what effect needs itself", () => {
    expect(installed()).toEqual(expect.arrayContaining(["effect", "effect-throttle"]))
    const { dependencies = {}, peerDependencies } = JSON.parse(
      readFileSync(join(project, "node_modules/effect-throttle/package.json"), "utf8")
    )
    expect(dependencies).toEqual({})
    expect(Object.keys(peerDependencies)).toEqual(["effect"])
    expect(existsSync(join(project, "node_modules/@effect"))).toBe(false)
  })

  test("every entry point type-checks without skipLibCheck's help, and loads", () => {
    const names = Object.entries<string | null>(manifest.exports)
      .filter(([, target]) => target?.endsWith(".js"))
      .map(([name]) => `effect-throttle${name.slice(1)}`)
    expect(names.length).toBeGreaterThan(6)
    const imports = names.map((name, i) => `import * as _${i} from "${name}"`)
    const used = names.map((_, i) => `Object.keys(_${i}).length`)
    writeFileSync(join(project, "entries.ts"), [...imports, `console.log(JSON.stringify([${used}]))`].join("\n"))
    const options = ["--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022"]
    tsc(...options, "--lib", "es2023,dom", "--types", "", "entries.ts")
    const sizes: ReadonlyArray<number> = JSON.parse(run(process.execPath, ["entries.js"], project))
    for (const [i, size] of sizes.entries()) expect([names[i], size > 0]).toEqual([names[i], true])
  })

  test("the README's first example compiles and runs", () => {
    const example = examplesOf("README.md", readme).find(({ code }) => code.includes("console.log(users)"))!
    writeFileSync(join(project, "first.ts"), example.code)
    tsc("--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2023,dom", "--types", "", "first.ts")
    expect(run(process.execPath, ["first.js"], project)).toBe("[ { id: 1 }, { id: 2 }, { id: 3 } ]\n")
  })

  test("what is internal stays closed", () => {
    const inside = ["effect-throttle", "internal", "limiter"].join("/")
    const program = `import(${JSON.stringify(inside)}).catch((error) => console.log(error.code))`
    writeFileSync(join(project, "closed.js"), program)
    expect(run(process.execPath, ["closed.js"], project)).toBe("ERR_PACKAGE_PATH_NOT_EXPORTED\n")
  })
})

describe("bundled", () => {
  const bytes = async (contents: string): Promise<number> => {
    const { outputFiles } = await esbuild.build({
      stdin: { contents, resolveDir: project },
      bundle: true,
      minify: true,
      write: false,
      format: "esm",
      external: ["effect", "effect/*"],
      // That a bare import is left out is what one of the bundles is about.
      logLevel: "silent"
    })
    return outputFiles[0]!.contents.length
  }

  test("with effect, for platforms that have none of Node's modules", async () => {
    const names = Object.entries<string | null>(manifest.exports)
      .filter(([, target]) => target?.endsWith(".js"))
      .map(([name]) => `effect-throttle${name.slice(1)}`)
    const contents = names.map((name, i) => `export * as _${i} from "${name}"`).join("\n")
    const { metafile } = await esbuild.build({
      stdin: { contents, resolveDir: project },
      bundle: true,
      write: false,
      metafile: true,
      format: "esm",
      // An import that cannot be resolved there is an error.
      platform: "neutral"
    })
    expect(Object.values(metafile.outputs).flatMap(({ imports }) => imports)).toEqual([])
    expect(Object.keys(metafile.inputs).some((path) => path.endsWith("dist/redis/RedisThrottle.js"))).toBe(true)
  })

  test("what is not used is not there", async () => {
    const everything = await bytes(`export * from "effect-throttle"`)
    const rate = await bytes(`export { Throttle } from "effect-throttle"`)
    const error = await bytes(`export { ThrottleError } from "effect-throttle/ThrottleError"`)
    const timer = await bytes(`import * as Timer from "effect-throttle/Timer"; export const timed = Timer.timed`)
    expect(await bytes(`import "effect-throttle"`)).toBe(0)
    expect(rate).toBeLessThan(everything)
    expect(error).toBeLessThan(everything / 5)
    expect(timer).toBeLessThan(everything / 5)
  })
})
