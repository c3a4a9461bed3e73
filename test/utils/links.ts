/** The links of markdown, and what they may point at. */
import { posix } from "node:path"
import type { Files } from "./files.ts"

/** Markdown without its fences and code spans, which only quote. */
const prose = (markdown: string): string =>
  markdown.replace(/^( *)(`{3,})[^\n]*\n[\s\S]*?^\1\2[ \t]*$/gm, "").replace(/(`+)(?!`)[^\n]*?[^`]\1(?!`)/g, "`code`")

/** The anchors that GitHub gives the headings of a page, and those written out. */
export const anchorsOf = (markdown: string): ReadonlySet<string> => {
  const seen = new Map<string, number>()
  const anchors = new Set<string>()
  const outside = markdown.replace(/^( *)(`{3,})[^\n]*\n[\s\S]*?^\1\2[ \t]*$/gm, "")
  for (const [, heading = ""] of outside.matchAll(/^#{1,6} +(.+?) *$/gm)) {
    const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/[`*\\]/g, "")
    const slug = text.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
    const times = seen.get(slug) ?? 0
    seen.set(slug, times + 1)
    anchors.add(times === 0 ? slug : `${slug}-${times}`)
  }
  for (const [, id = ""] of outside.matchAll(/<a id="([^"]+)"/g)) anchors.add(id)
  return anchors
}

/**
 * Where the README's links point, so that they work where the package is looked at on npm: to the files of its version as
 * unpkg serves them.
 */
export const published = (version: string): string => `https://unpkg.com/effect-throttle@${version}/`

/** All links and pictures of a page. */
export const linksOf = (markdown: string): ReadonlyArray<string> =>
  Array.from(prose(markdown).matchAll(/\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)/g), ([, target = ""]) => target)

/** Those but to other hosts; what unpkg serves of this package is a file of the repository, written with "/" first. */
const targetsOf = (markdown: string): ReadonlyArray<string> =>
  linksOf(markdown).map((target) => target.replace(/^https:\/\/unpkg\.com\/effect-throttle@[^/]+(?=\/)/, ""))
    .filter((target) => !/^[a-z]+:/.test(target))

/** Which file of the repository a target is, as seen from a page. */
const fileOf = (page: string, file: string): string =>
  file === "" ? page : file.startsWith("/") ? file.slice(1) : posix.join(posix.dirname(page), file)

/** The links that lead nowhere: to no file, or to no heading of it. `exists` knows the files that are no pages. */
export const broken = (pages: Files, exists: (path: string) => boolean): ReadonlyArray<string> => {
  const anchors = new Map(Object.entries(pages).map(([path, text]) => [path, anchorsOf(text)]))
  return Object.entries(pages).flatMap(([path, text]) =>
    targetsOf(text).filter((target) => {
      const [file = "", anchor] = target.split("#")
      const to = fileOf(path, file)
      return anchor === undefined ? !(to in pages) && !exists(to) : anchors.get(to)?.has(anchor) !== true
    }).map((target) => `${path} → ${target}`)
  )
}

/** The pages to which a page leads, over however many links. */
export const reachable = (pages: Files, from: string): ReadonlySet<string> => {
  const found = new Set([from])
  for (const path of found) {
    for (const target of targetsOf(pages[path] ?? "")) {
      const to = fileOf(path, target.replace(/#.*/, ""))
      if (to in pages) found.add(to)
    }
  }
  return found
}
