/**
 * Several processes and one Redis: what they start together, who gets how much of it, and what is left of a process that
 * is killed.
 */
import { NodeRedis } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import { build } from "esbuild"
import { type ChildProcess, fork } from "node:child_process"
import { mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"
import { startTcpServer } from "../utils/redis-server.ts"
import type { Message, Orders } from "../utils/redis-worker.ts"
import { describeRedis, send, uniqueKey } from "../utils/redis.ts"

const root = new URL("../../", import.meta.url)
/** Where it finds the packages it imports. */
const script = fileURLToPath(new URL("node_modules/.tmp/redis-worker.mjs", root))

interface Worker {
  readonly process: ChildProcess
  readonly messages: Array<Message>
  readonly tell: (word: string) => void
  readonly until: <T extends Message["_tag"]>(tag: T, nth?: number) => Promise<Extract<Message, { _tag: T }>>
}

const until = async (what: string, isSo: () => boolean): Promise<void> => {
  const limit = performance.now() + 40_000
  while (!isSo()) {
    if (performance.now() > limit) throw new Error(`in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

const now = () => Number(process.hrtime.bigint()) / 1e6

describeRedis("several processes", () => {
  let server: Awaited<ReturnType<typeof startTcpServer>>
  const running = new Set<ChildProcess>()

  beforeAll(async () => {
    mkdirSync(new URL("node_modules/.tmp/", root), { recursive: true })
    await build({
      entryPoints: [fileURLToPath(new URL("test/utils/redis-worker.ts", root))],
      outfile: script,
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
      alias: {
        "effect-throttle": fileURLToPath(new URL("src/index.ts", root)),
        "effect-throttle/redis": fileURLToPath(new URL("src/redis/index.ts", root))
      },
      logLevel: "error"
    })
    server = await startTcpServer()
  })

  afterAll(async () => {
    for (const one of running) one.kill("SIGKILL")
    await server.close()
  })

  const start = async (orders: Omit<Orders, "port">): Promise<Worker> => {
    const child = fork(script, [JSON.stringify({ ...orders, port: server.address.port })], { stdio: "ignore" })
    running.add(child)
    child.once("exit", () => running.delete(child))
    const messages: Array<Message> = []
    child.on("message", (message: Message) => messages.push(message))
    const worker: Worker = {
      process: child,
      messages,
      tell: (word) => void child.send(word),
      until: async (tag, nth = 0) => {
        const found = () => messages.filter(({ _tag }) => _tag === tag)[nth]
        await until(tag, () => found() !== undefined || messages.some(({ _tag }) => _tag === "Failed"))
        const message = found()
        if (message === undefined) throw new Error(JSON.stringify(messages))
        return message as never
      }
    }
    await worker.until("Ready")
    return worker
  }

  const evalCalls = Effect.suspend(() =>
    send("INFO", "commandstats").pipe(
      Effect.map((info) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(String(info))?.[1] ?? 0)),
      Effect.provide(NodeRedis.layer({ socket: server.address }))
    )
  )

  it.live(
    "four, saturated for 5 s, one with its clock 30 s off, and a fifth that is killed while it waits",
    () =>
      Effect.gen(function*() {
        const policy = Throttle.rate({ limit: 100, burst: 19 }).data
        const key = uniqueKey("four")
        const all = yield* Effect.promise(() =>
          Promise.all([0, 0, 0, 30_000, 0].map((clockOff) => start({ key, policy, clockOff, waiters: 50 })))
        )
        const before = yield* evalCalls
        const began = now()
        for (const { tell } of all) tell("go")
        yield* Effect.sleep("2 seconds")
        all[4]!.process.kill("SIGKILL")
        const killed = now()
        yield* Effect.sleep("3 seconds")
        const ended = now()
        const four = all.slice(0, 4)
        for (const { tell } of four) tell("stop")
        const done = yield* Effect.promise(() => Promise.all(four.map(({ until }) => until("Done"))))
        const calls = (yield* evalCalls) - before

        // Since the fifth is gone, the four have all of it but the slot that it had reserved.
        const counts = done.map(({ starts }) => starts.filter((at) => at > killed + 100).length)
        const late = counts.reduce((sum, count) => sum + count)
        const seconds = (ended - killed - 100) / 1_000
        assert.isAtMost(late, 100 * seconds + 20, "the bound")
        assert.isAtLeast(late, 100 * seconds * 0.6, "what may start, starts")
        const [least, most] = [Math.min(...counts), Math.max(...counts)]
        assert.isAtMost(most - least, 0.25 * most, `fair: ${counts.join(", ")}`)

        // What was granted in any span is bounded; a start may be late by what a busy machine makes it.
        const starts = done.flatMap(({ starts }) => starts).toSorted((a, b) => a - b)
        const lateness = 150
        for (let i = 0; i < starts.length; i++) {
          for (let j = i; j < Math.min(starts.length, i + 200); j++) {
            const most = 20 + (starts[j]! - starts[i]! + 10 + lateness) / 10
            assert.isAtMost(j - i + 1, most, `${j - i + 1} starts in ${starts[j]! - starts[i]!} ms`)
          }
        }
        const total = starts.length + 100 * (killed - began) / 1_000 / 5
        console.log({ counts, calls, starts: starts.length, callsAStart: (calls / total).toFixed(3) })
        assert.isAtMost(calls / total, 1.3, "requests to Redis a start")
      }),
    90_000
  )

  it.live(
    "a process that is killed gives its permits back when its lease ends; one that waits holds up nobody",
    () =>
      Effect.gen(function*() {
        const key = uniqueKey("killed")
        const policy = Throttle.concurrency({ limit: 1 }).data
        const ttl = 1_500
        const orders = { key, policy, waiters: 1, leaseTtl: ttl }
        const holder = yield* Effect.promise(() => start({ ...orders, runs: 60_000 }))
        holder.tell("go")
        yield* Effect.promise(() => holder.until("Started"))
        // First in the line of the store, and killed there
        const waiting = yield* Effect.promise(() => start({ ...orders, runs: 60_000 }))
        waiting.tell("go")
        yield* Effect.sleep("300 millis")
        const next = yield* Effect.promise(() => start({ ...orders, runs: 20 }))
        next.tell("go")
        yield* Effect.sleep("300 millis")
        waiting.process.kill("SIGKILL")
        holder.process.kill("SIGKILL")
        const killed = now()
        const { at } = yield* Effect.promise(() => next.until("Started"))
        console.log({ freeAfter: (at - killed).toFixed(0), ttl })
        assert.isAbove(at - killed, 0)
        // Its place in line ends within a second, while the lease has not ended yet
        assert.isAtMost(at - killed, ttl + 50 + 400)
      }),
    90_000
  )

  it.live("permits go from one process to the next without delay, and in turn", () =>
    Effect.gen(function*() {
      const key = uniqueKey("turns")
      const policy = Throttle.concurrency({ limit: 1 }).data
      const all = yield* Effect.promise(() =>
        Promise.all([1, 2, 3].map(() => start({ key, policy, waiters: 10, runs: 5 })))
      )
      const before = yield* evalCalls
      for (const { tell } of all) tell("go")
      yield* Effect.sleep("2500 millis")
      for (const { tell } of all) tell("stop")
      yield* Effect.promise(() => Promise.all(all.map(({ until }) => until("Done"))))
      const calls = (yield* evalCalls) - before
      const spans = all.flatMap(({ messages }, who) => {
        const starts = messages.flatMap((message) => message._tag === "Started" ? [message.at] : [])
        const ends = messages.flatMap((message) => message._tag === "Ended" ? [message.at] : [])
        return starts.map((at, i) => ({ who, at, end: ends[i] ?? Infinity }))
      }).toSorted((a, b) => a.at - b.at)
      const gaps: Array<number> = []
      for (let i = 1; i < spans.length; i++) {
        const gap = spans[i]!.at - spans[i - 1]!.end
        assert.isAtLeast(gap, -0.5, "one at a time")
        gaps.push(gap)
      }
      gaps.sort((a, b) => a - b)
      const [p50, p95] = [0.5, 0.95].map((p) => gaps[Math.floor(gaps.length * p)]!)
      const counts = [0, 1, 2].map((who) => spans.filter((span) => span.who === who).length)
      console.log({ p50, p95, counts, callsAStart: (calls / spans.length).toFixed(2) })
      assert.isAbove(spans.length, 50)
      assert.isBelow(p50!, 100)
      assert.isAtMost(Math.max(...counts) - Math.min(...counts), Math.max(5, 0.3 * Math.max(...counts)), counts.join())
      assert.isAtMost(calls / spans.length, 4)
    }), 90_000)
})
