/**
 * `npm run docs:pictures`: writes the pictures of the docs.
 */
import { writeFileSync } from "node:fs"
import { pictures } from "./pictures.ts"

const folder = new URL("../../docs/pictures/", import.meta.url)
for (const [name, picture] of Object.entries(pictures)) writeFileSync(new URL(`${name}.svg`, folder), picture)
console.log(`${Object.keys(pictures).length} pictures in docs/pictures`)
