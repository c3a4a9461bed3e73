/** What a program ships that uses the library, without Effect: minified by esbuild, and compressed with gzip. */
import { build } from "esbuild"
import { gzipSync } from "node:zlib"
import { atMost, count, type Section } from "../report.ts"

const bundled = async (program: string) => {
  const { metafile, outputFiles } = await build({
    stdin: { contents: program, resolveDir: new URL("..", import.meta.url).pathname },
    bundle: true,
    minify: true,
    format: "esm",
    external: ["effect", "effect/*"],
    write: false,
    metafile: true,
    outdir: "out"
  })
  const [output] = Object.values(metafile.outputs)
  const meters = Object.entries(output!.inputs)
    .filter(([path, { bytesInOutput }]) => /meter\/(rate|window|spacing)\.js$/.test(path) && bytesInOutput > 0)
    .map(([path]) => path.replace(/^.*\/(\w+)\.js$/, "$1"))
  const { contents } = outputFiles[0]!
  return { minified: contents.length, zipped: gzipSync(contents, { level: 9 }).length, meters }
}

const programs = {
  "everything": `export * from "effect-throttle"`,
  "`Throttle`, all of it": `export * from "effect-throttle/Throttle"`,
  "only `rate`":
    `import * as Throttle from "effect-throttle/Throttle"\nexport const limited = Throttle.rate({ limit: 10 })`,
  "only `concurrency`":
    `import * as Throttle from "effect-throttle/Throttle"\nexport const limited = Throttle.concurrency({ limit: 10 })`
}

export const section = async (): Promise<Section> => ({
  title: "Bundle",
  about: "Bytes without Effect, by esbuild, gzip level 9.",
  columns: ["minified", "gzipped", "meters in it"],
  rows: await Promise.all(
    Object.entries(programs).map(async ([what, program]) => {
      const { meters, minified, zipped } = await bundled(program)
      const figures = [count(minified), count(zipped), meters.length === 0 ? "none" : meters.join(", ")]
      return what === "everything" ? { what, figures } : atMost(what, figures, zipped, 8_000, " bytes")
    })
  )
})
