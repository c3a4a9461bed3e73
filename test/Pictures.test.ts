/**
 * The pictures of the docs are what the simulation draws now, and each is shown somewhere.
 */
import { assert, describe, it } from "@effect/vitest"
import { pictures } from "../docs/pictures/pictures.ts"
import { readFiles } from "./utils/files.ts"

const kept = readFiles(["docs/pictures"], /\.svg$/)
const pages = Object.values(readFiles(["README.md", "docs"], /\.md$/)).join("\n")

describe("pictures", () => {
  it("are kept one for each, and no other", () =>
    assert.sameMembers(Object.keys(kept), Object.keys(pictures).map((name) => `docs/pictures/${name}.svg`)))

  it.each(Object.entries(pictures))(
    "%s is as it would be drawn now (else: npm run docs:pictures)",
    (name, picture) => assert.isTrue(kept[`docs/pictures/${name}.svg`] === picture)
  )

  it.each(Object.keys(pictures))(
    "%s is shown, with words for those who cannot see it",
    (name) => assert.match(pages, new RegExp(`!\\[[^\\]]{20,}\\]\\((docs/)?pictures/${name}\\.svg\\)`))
  )
})
