import { execFile } from "node:child_process"
import { writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { root } from "./files.ts"

/** What the compiler complains about in these files, all of one folder below test; nothing if all is well. */
export const compile = (files: ReadonlyArray<string>): Promise<string> => {
  if (files.length === 0) return Promise.resolve("")
  const folder = dirname(files[0]!)
  // An example may show a value without using it.
  const compilerOptions = { noUnusedLocals: false, noUnusedParameters: false }
  const project = join(folder, "tsconfig.json")
  const names = files.map((file) => basename(file))
  writeFileSync(project, JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, files: names, include: [] }))
  const tsc = join(root, "node_modules/typescript/bin/tsc")
  return new Promise((resolve) =>
    execFile(
      process.execPath,
      [tsc, "--pretty", "false", "-p", project],
      { cwd: folder },
      (error, stdout, stderr) => resolve(error === null ? "" : stdout + stderr || String(error))
    )
  )
}
