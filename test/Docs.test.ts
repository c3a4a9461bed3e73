/**
 * The docs lead somewhere: every link, every page, every export.
 */
import { assert, describe, it } from "@effect/vitest"
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { readFiles, root } from "./utils/files.ts"
import { broken, linksOf, published, reachable } from "./utils/links.ts"

const pages = readFiles(["README.md", "CHANGELOG.md", "docs"], /\.md$/)
const exists = (path: string) => existsSync(join(root, path))

describe("links", () => {
  it("lead to files and headings that are there", () => assert.deepStrictEqual(broken(pages, exists), []))

  it("lead from the README and from the index to every page", () => {
    for (const start of ["README.md", "docs/README.md"]) {
      assert.sameMembers([...reachable(pages, start)], Object.keys(pages), start)
    }
  })

  it("of the README work on npm: all are of this version, and to what is published of it", () => {
    const { files, version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    const links = linksOf(pages["README.md"]!).filter((link) => !/^#|^https:\/\/(effect\.website)/.test(link))
    assert.isAbove(links.length, 25)
    assert.deepStrictEqual(links.filter((link) => !link.startsWith(published(version))), [])
    // What npm always packs, and what `files` adds.
    const isPublished = (path: string) =>
      /^(LICENSE|README\.md)$/.test(path) ||
      files.some((pattern: string) =>
        new RegExp(`^${pattern.replaceAll(".", "\\.").replace("**/", "(.+/)?").replaceAll(/(?<!\))\*/g, "[^/]+")}$`)
          .test(path)
      )
    const paths = links.map((link) => link.slice(published(version).length).replace(/#.*/, ""))
    assert.deepStrictEqual(paths.filter((path) => !isPublished(path)), [])
  })

  it("are found broken", () => {
    const fence = "```"
    const page = `# One \`two\`, three
## A_b-c
## A_b-c
${fence}ts
# not a heading [no](link.md)
${fence}
[ok](#one-two-three) [ok](#a_b-c-1) [ok](other.md#x) \`[quoted](nowhere.md)\` ![ok](picture.svg) [ok](https://a.b/c)
[ok](https://unpkg.com/effect-throttle@0.1.0/a/other.md#x) ![ok](https://unpkg.com/effect-throttle@0.1.0/a/picture.svg)
[bad](#one) [bad](missing.md) [bad](other.md#y) ![bad](missing.svg) [bad](#not-a-heading-no)
[bad](https://unpkg.com/effect-throttle@0.1.0/other.md)`
    assert.deepStrictEqual(
      broken({ "a/page.md": page, "a/other.md": "# X" }, (path) => path === "a/picture.svg"),
      ["#one", "missing.md", "other.md#y", "missing.svg", "#not-a-heading-no", "/other.md"].map((target) =>
        `a/page.md → ${target}`
      )
    )
  })
})

describe("the README's buckets", () => {
  const readme = pages["README.md"]!
  const amount = (text = "") => Number(text.replaceAll(/[,_]/g, ""))
  const [, ...quotas] = /allows ([\d,]+) requests and ([\d,]+) tokens per minute/.exec(readme) ?? []
  const buckets = Array.from(
    readme.matchAll(/tokenBucket\(\{ capacity: ([\d_]+), refill: ([\d_]+), per: "1 minute"/g),
    ([, capacity, refill]) => ({ capacity: amount(capacity), refill: amount(refill) })
  )

  it("are those of its quotas", () => assert.strictEqual(buckets.length, quotas.length))

  it.each(buckets.map((bucket, i) => ({ ...bucket, quota: amount(quotas[i]) })))(
    "$capacity + $refill start no more than $quota in any minute, for a server that counts windows",
    ({ capacity, quota, refill }) => {
      // A tenth of the bucket a call, however many come, on timers that are 10 ms late.
      const cost = capacity / 10
      const calls = Simulation.steady({ rate: (2 * quota) / cost, per: "1 minute", duration: "3 minutes", cost })
      const policy = Throttle.tokenBucket({ capacity, refill, per: "1 minute" })
      const starts = Simulation.run(policy, calls, { late: 10 }).calls.flatMap(({ start }) => start ?? [])
      const most = Math.max(
        ...starts.map((from) => cost * starts.filter((at) => at >= from && at <= from + 60_000).length)
      )
      assert.isAtMost(most, quota)
      assert.isAtLeast(most, 0.85 * quota)
    }
  )
})

describe("the reference", () => {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  /**
   * The modules that can be imported, by name: "Timer" and "testing"; of an entry point that is made of namespaces, each of
   * them. (But the barrel, which is made of the others.)
   */
  const modules: ReadonlyMap<string, string> = new Map(
    Object.keys(exports).filter((name) => /^\.\/\w+$/.test(name)).flatMap((name) => {
      const source = join(root, exports[name].replace("./dist/", "src/").replace(/\.js$/, ".ts"))
      const namespaces = readFileSync(source, "utf8").matchAll(/^export \* as (\w+) from "(.*)"/gm)
      const found = Array.from(namespaces, ([, namespace = "", file = ""]) => [namespace, join(dirname(source), file)])
      return (found.length > 0 ? found : [[name.slice(2), source]]) as Array<[string, string]>
    })
  )
  const names = [...modules.keys()]
  /** A module's text, and those of the files that it passes on. */
  const textsOf = (file: string): ReadonlyArray<string> => {
    const text = readFileSync(file, "utf8")
    const others = text.matchAll(/^export (?:\*|(?:type )?\{[^}]*\}) from "(.*)"/gm)
    return [text, ...Array.from(others, ([, other = ""]) => textsOf(join(dirname(file), other))).flat()]
  }
  const sourceOf = (name: string) => modules.get(name)!

  it("has a page for each module", () =>
    assert.sameMembers(
      Object.keys(pages).filter((path) => path.startsWith("docs/api/")),
      ["README", ...names].map((name) => `docs/api/${name}.md`)
    ))

  it.each(names)("%s: what its doc comments say now (else: npm run docs:api)", (name) => {
    const page = pages[`docs/api/${name}.md`]!.replace(/\s+/g, " ")
    // Those of exports, and those of the forms of a call.
    const comments = textsOf(sourceOf(name)).flatMap((text) => text.match(/\/\*\*[^]*?\*\/(?=(\s*[<(])?)/g) ?? [])
      .filter((text) => /@category/.test(text))
    // Links, tables and tags are written otherwise there; every other line is the same.
    const lines = comments.flatMap((text) => text.split("\n").map((line) => line.replace(/^\s*\* ?/, "").trim()))
      .filter((line) => line.length > 20 && !/[|<>\\]|\{@|^@|^\/\*|\*\/$/.test(line))
    assert.isAbove(lines.length, 1)
    assert.deepStrictEqual(lines.filter((line) => !page.includes(line.replace(/\s+/g, " "))), [])
  })

  it.each(names)("%s: a heading for each export (else: npm run docs:api)", async (name) => {
    const page = pages[`docs/api/${name}.md`]!
    const source = readFileSync(sourceOf(name), "utf8")
    const isInternal = (name: string) => new RegExp(`@internal\\s+\\*/\\s*export const ${name}\\b`).test(source)
    const values = Object.keys(await import(sourceOf(name))).filter((name) => !isInternal(name))
    const types = Array.from(source.matchAll(/^export (?:interface|type) (\w+)/gm), ([, name]) => name!)
    const passedOn = Array.from(source.matchAll(/^export \{([^}]*)\}/gm), ([, names = ""]) => names.split(","))
    const expected = [...values, ...types, ...passedOn.flat().map((name) => name.replace("type", "").trim())]
    const headings = Array.from(page.matchAll(/^### (\w+)/gm), ([, name]) => name!)
    assert.deepStrictEqual(expected.filter((name) => !headings.includes(name)), [])
  })
})
