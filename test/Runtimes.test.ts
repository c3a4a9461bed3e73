/**
 * The core runs wherever JavaScript does: without anything of Node's, in a browser's page and in its worker, and in the
 * other runtimes that are installed here.
 */
import { build } from "esbuild"
import { execFile, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { createContext, runInContext } from "node:vm"
import type { Browser } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { isMissing, launch } from "./utils/browser.ts"
import { root } from "./utils/files.ts"

/** On the live clock: what starts when, what holds permits, and a client; the answer is data. */
const program = `
import { Duration, Effect, Fiber } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import { HttpThrottle } from "effect-throttle/http"
import { HttpClient, HttpClientResponse } from "effect/http"

const paced = Throttle.rate({ limit: 100, burst: 2 })
const polite = HttpThrottle.client(Throttle.concurrency({ limit: 2 }))
const server = HttpClient.make((request) => Effect.succeed(HttpClientResponse.fromWeb(request, new Response("hello"))))

const program = Effect.gen(function*() {
  const [took] = yield* Effect.timed(
    Effect.forEach(Array.from({ length: 13 }, () => Effect.void), paced, { concurrency: "unbounded" })
  )
  const two = yield* Throttle.make(Throttle.all([Throttle.concurrency({ limit: 2 }), Throttle.spacing({ interval: 1 })]))
  const waiting = yield* Effect.forkChild(two.withPermits(Effect.never, 2), { startImmediately: true })
  const calls = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(two.withPermit(Effect.sleep(1))))
  yield* Fiber.interrupt(waiting)
  yield* Effect.forEach(calls, Fiber.join)
  const keys = yield* ThrottleMap.make({ lookup: () => paced })
  yield* Effect.void.pipe(keys.withPermit("a"))
  const simulated = Simulation.run(Throttle.rate({ limit: 10 }), Simulation.steady({ rate: 5, duration: "1 minute" }))
  return {
    // Ten of thirteen wait, 10 ms each: not early, and not for ever.
    inTime: Duration.toMillis(took) >= 99 && Duration.toMillis(took) < 5000,
    admitted: (yield* two.statistics).admitted,
    keys: (yield* keys.statistics).keys,
    simulated: Simulation.summary(simulated).started,
    text: yield* Effect.flatMap(polite(server).get("http://a.example/"), ({ text }) => text)
  }
})
globalThis.answer = Effect.runPromise(Effect.scoped(program))
`

const expected = { inTime: true, admitted: 4, keys: 1, simulated: 300, text: "hello" }

let bundle: string

beforeAll(async () => {
  const alias = {
    "effect-throttle": join(root, "src/index.ts"),
    "effect-throttle/simulation": join(root, "src/simulation/index.ts"),
    "effect-throttle/http": join(root, "src/http/index.ts")
  }
  const stdin = { contents: program, resolveDir: root }
  // On a neutral platform an import of one of Node's modules is an error.
  const { outputFiles } = await build({ stdin, bundle: true, platform: "neutral", format: "iife", alias, write: false })
  bundle = outputFiles[0]!.text
}, 60_000)

it("without anything of Node's: only what the web has as well", async () => {
  const web = [
    "AbortController",
    "AbortSignal",
    "Headers",
    "ReadableStream",
    "Response",
    "TextDecoder",
    "TextEncoder",
    "URL",
    "URLSearchParams",
    "clearTimeout",
    "console",
    "performance",
    "queueMicrotask",
    "setTimeout"
  ] as const
  const context = createContext(Object.fromEntries(web.map((name) => [name, globalThis[name]])))
  assert.strictEqual(
    runInContext("typeof process + typeof Buffer + typeof setImmediate", context),
    "undefined".repeat(3)
  )
  runInContext(bundle, context)
  assert.deepStrictEqual({ ...await context["answer"] }, expected)
})

describe.skipIf(isMissing)("in a browser", () => {
  let browser: Browser
  beforeAll(async () => void (browser = await launch()), 60_000)
  afterAll(() => browser?.close())

  it("on a page", async () => {
    const page = await browser.newPage()
    await page.addScriptTag({ content: bundle })
    assert.deepStrictEqual(await page.evaluate("answer"), expected)
  })

  it("in a worker", async () => {
    const page = await browser.newPage()
    const code = `${bundle}\nanswer.then(postMessage, (error) => postMessage(String(error)))`
    const started = `new Promise((resolve, reject) => {
      const worker = new Worker(URL.createObjectURL(new Blob([${JSON.stringify(code)}], { type: "text/javascript" })))
      worker.onmessage = ({ data }) => resolve(data)
      worker.onerror = ({ message }) => reject(message)
    })`
    assert.deepStrictEqual(await page.evaluate(started), expected)
  })
})

describe("in another runtime", () => {
  const folder = mkdtempSync(join(tmpdir(), "effect-throttle-"))
  afterAll(() => rmSync(folder, { recursive: true }))

  // They are large, so they are not dependencies: these tests run where they are on the PATH.
  const runtimes = [["bun", "run"], ["deno", "run", "--no-prompt"]] as const
  for (const [command, ...args] of runtimes) {
    it.skipIf(spawnSync(command, ["--version"]).status !== 0)(command, async () => {
      const file = join(folder, "program.mjs")
      writeFileSync(file, `${bundle}\nconsole.log(JSON.stringify(await answer))\n`)
      const { stdout } = await promisify(execFile)(command, [...args, file], { timeout: 20_000 })
      assert.deepStrictEqual(JSON.parse(stdout), expected)
    })
  }
})
