/**
 * The docs lead somewhere: every link, every page, every export.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { readFiles, root } from "./utils/files.ts"
import { broken, reachable } from "./utils/links.ts"

const pages = readFiles(["README.md", "CHANGELOG.md", "docs"], /\.md$/)
const exists = (path: string) => existsSync(join(root, path))

describe("links", () => {
  it("lead to files and headings that are there", () => assert.deepStrictEqual(broken(pages, exists), []))

  it("lead from the README and from the index to every page", () => {
    for (const start of ["README.md", "docs/README.md"]) {
      assert.sameMembers([...reachable(pages, start)], Object.keys(pages), start)
    }
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
[bad](#one) [bad](missing.md) [bad](other.md#y) ![bad](missing.svg) [bad](#not-a-heading-no)`
    assert.deepStrictEqual(
      broken({ "a/page.md": page, "a/other.md": "# X" }, (path) => path === "a/picture.svg"),
      ["#one", "missing.md", "other.md#y", "missing.svg", "#not-a-heading-no"].map((target) => `a/page.md → ${target}`)
    )
  })
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
