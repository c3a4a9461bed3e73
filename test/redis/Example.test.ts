/** `npm run example:redis`, as it is run by a reader: with a Redis, and with a REDIS_URL that leads to none. */
import { assert } from "@effect/vitest"
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { mkdirSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { beforeAll, expect, test } from "vitest"
import { freePort, startTcpServer } from "../utils/redis-server.ts"
import { describeRedis } from "../utils/redis.ts"

const root = new URL("../../", import.meta.url)
const pathOf = (path: string) => fileURLToPath(new URL(path, root))
/** Where it finds the packages it imports. */
const folder = "node_modules/.tmp/example/"

beforeAll(async () => {
  mkdirSync(pathOf(folder), { recursive: true })
  await build({
    entryPoints: ["redis", "redis-worker"].map((name) => pathOf(`docs/examples/${name}.ts`)),
    outdir: pathOf(folder),
    bundle: true,
    platform: "node",
    format: "esm",
    packages: "external",
    alias: {
      "effect-throttle": pathOf("src/index.ts"),
      "effect-throttle/redis": pathOf("src/redis/index.ts")
    },
    logLevel: "error"
  })
})

const run = (url: string): Promise<{ readonly code: number | null; readonly lines: ReadonlyArray<string> }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [pathOf(`${folder}redis.js`)], { env: { ...process.env, REDIS_URL: url } })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => output += String(chunk))
    child.once("close", (code) => resolve({ code, lines: output.split("\n").filter((line) => line !== "") }))
  })

// Each starts a process of its own, and mostly waits for it.
describeRedis("the example with several processes", () => {
  test.concurrent("draws what each of them started", async () => {
    const server = await startTcpServer()
    try {
      const { code, lines } = await run(`redis://127.0.0.1:${server.address.port}`)
      assert.strictEqual(code, 0, lines.join("\n"))
      expect(lines.map((line) => line.split(" ")[0])).toEqual(["Three", "How", "A", "B", "C", "all", "The"])
    } finally {
      await server.close()
    }
  }, 60_000)

  test.concurrent("says in one line that REDIS_URL leads to nothing", async () => {
    const { code, lines } = await run(`redis://user:secret@127.0.0.1:${await freePort()}`)
    expect(lines).toEqual([expect.stringMatching(/^REDIS_URL leads to no Redis: .*ECONNREFUSED/)])
    assert.notInclude(lines[0], "secret")
    assert.strictEqual(code, 1)
  }, 60_000)

  test.concurrent.each(["localhost:6379", "6379", "http://localhost:6379"])(
    "says in one line that %s is no URL of a Redis",
    async (url) => {
      const { code, lines } = await run(url)
      expect(lines).toEqual([expect.stringMatching(/^REDIS_URL leads to no Redis: /)])
      assert.strictEqual(code, 1)
    },
    60_000
  )

  test.concurrent("says in one line that no Redis answers there", async () => {
    const silent = createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve))
    try {
      const address = silent.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const { code, lines } = await run(`redis://127.0.0.1:${port}`)
      expect(lines).toEqual(["REDIS_URL leads to no Redis: no answer within 5 seconds"])
      assert.strictEqual(code, 1)
    } finally {
      silent.close()
    }
  }, 60_000)
})
