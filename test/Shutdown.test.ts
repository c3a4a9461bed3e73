/** `npm run example:shutdown` as a process of its own, over the loopback interface, ended by SIGTERM. */
import { assert } from "@effect/vitest"
import { build } from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync } from "node:fs"
import { get } from "node:http"
import { fileURLToPath } from "node:url"
import { beforeAll, test } from "vitest"

const root = new URL("../", import.meta.url)
const pathOf = (path: string) => fileURLToPath(new URL(path, root))
/** Where it finds the packages it imports. */
const folder = "node_modules/.tmp/shutdown/"

beforeAll(async () => {
  mkdirSync(pathOf(folder), { recursive: true })
  await build({
    entryPoints: [pathOf("docs/examples/shutdown.ts")],
    outdir: pathOf(folder),
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
    alias: { "effect-throttle": pathOf("src/index.ts"), "effect-throttle/http": pathOf("src/http/index.ts") },
    logLevel: "error"
  })
})

/** Starts the server. `until` waits for text in its output, `ended` for its exit code. */
const start = () => {
  const child: ChildProcess = spawn(process.execPath, [pathOf(`${folder}shutdown.js`)], {
    env: { ...process.env, PORT: "0" }
  })
  let output = ""
  let look = () => {}
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on("data", (chunk) => {
      output += String(chunk)
      look()
    })
  }
  const until = (text: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve) => {
      look = () => {
        const found = text.exec(output)
        if (found !== null) resolve(found)
      }
      look()
    })
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
  return { child, until, ended, output: () => output }
}

interface Answer {
  readonly status: number
  readonly body: string
}

const request = (port: number): Promise<Answer> =>
  new Promise((resolve, reject) => {
    get({ host: "127.0.0.1", port, path: "/report", agent: false }, (response) => {
      let body = ""
      response.setEncoding("utf8").on("data", (chunk) => body += chunk)
      response.on("end", () => resolve({ status: response.statusCode!, body }))
    }).on("error", reject)
  })

test("SIGTERM: requests under way are answered, newcomers get 503, and the process ends with 0 in time", async () => {
  const { child, ended, output, until } = start()
  try {
    const [, port] = await until(/127\.0\.0\.1:(\d+)/)
    const underWay = Promise.all(Array.from({ length: 5 }, () => request(Number(port))))
    // Each takes a second.
    await new Promise((resolve) => setTimeout(resolve, 500))
    const at = performance.now()
    child.kill("SIGTERM")
    await until(/draining/)
    const newcomer = await request(Number(port))
    assert.strictEqual(newcomer.status, 503)
    assert.include(newcomer.body, "temporary-reduced-capacity")
    for (const answer of await underWay) assert.deepStrictEqual(answer, { status: 200, body: "the report" })
    assert.strictEqual(await ended, 0, output())
    assert.isBelow(performance.now() - at, 5_000)
    assert.include(output(), "drained, 0 requests interrupted")
  } finally {
    child.kill("SIGKILL")
  }
}, 30_000)
