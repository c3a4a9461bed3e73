/**
 * `npm run example:redis`: three processes share one limit through Redis; their starts on one timeline. It uses the Redis
 * at REDIS_URL, or starts a `redis-server` that it finds on the PATH.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Throttle } from "effect-throttle"
import { type ChildProcess, fork } from "node:child_process"
import { limited } from "./redis-policy.ts"
import { redisUrl, whyUnreachable } from "./redis-server.ts"
import * as Terminal from "./terminal.ts"

const workers = ["A", "B", "C"]
const millis = 3_000
/** A line with its prefix and suffix. */
const columns = Math.min(60, Terminal.width() - 9)

const print = (line: string) => Effect.sync(() => Terminal.print(line))

interface Worker {
  readonly process: ChildProcess
  readonly starts: Array<number>
}

/** A worker that is connected and waits for the start. */
const start = (url: string, key: string) =>
  Effect.acquireRelease(
    Effect.callback<Worker>((resume) => {
      const child = fork(new URL("redis-worker.js", import.meta.url), [url, key, String(millis)])
      const worker: Worker = { process: child, starts: [] }
      child.on("message", (message) => {
        if (message === "ready") resume(Effect.succeed(worker))
        else worker.starts.push(Number(message))
      })
      child.once("exit", () => resume(Effect.die("a worker has ended before it was ready")))
    }),
    ({ process }) => Effect.sync(() => void process.kill())
  )

const ended = ({ process }: Worker) =>
  Effect.callback<void>((resume) => void process.once("exit", () => resume(Effect.void)))

/** Counts the starts in each column. */
const timeline = (starts: ReadonlyArray<number>, began: number): string => {
  const counts = Array.from({ length: columns }, () => 0)
  for (const at of starts) counts[Math.min(columns - 1, Math.floor((at - began) / millis * columns))]!++
  return counts.map((count) => count === 0 ? "·" : count > 9 ? "#" : String(count)).join("")
}

const example = Effect.gen(function*() {
  const url = yield* redisUrl
  if (url === undefined) {
    yield* print(
      "There is no Redis here. Set REDIS_URL, such as redis://localhost:6379, or install redis-server (Debian and " +
        "Ubuntu: apt-get install redis-server; macOS: brew install redis), and run this again."
    )
    return yield* Effect.sync(() => {
      process.exitCode = 1
    })
  }
  const why = yield* whyUnreachable(url)
  if (why !== undefined) {
    yield* Console.log(`REDIS_URL leads to no Redis: ${why}`)
    return yield* Effect.sync(() => process.exit(1))
  }
  yield* print(`Three processes of 20 fibers each share "${Throttle.describe(limited)}" for ${millis / 1_000} s.`)
  yield* print(`How many start in each ${Math.round(millis / columns)} ms:\n`)
  const key = `example-${process.pid}`
  const all = yield* Effect.forEach(workers, () => start(url, key), { concurrency: "unbounded" })
  for (const { process } of all) process.send("go")
  yield* Effect.forEach(all, ended, { concurrency: "unbounded" })
  const starts = all.flatMap(({ starts }) => starts)
  const began = Math.min(...starts)
  for (const [i, name] of workers.entries()) {
    yield* print(`${name}    ${timeline(all[i]!.starts, began)} ${all[i]!.starts.length}`)
  }
  yield* print(`all  ${timeline(starts, began)} ${starts.length}`)
  yield* print(`\nThe policy allows ${6 + Math.floor(30 * millis / 1_000)} in ${millis / 1_000} s.`)
})

NodeRuntime.runMain(Effect.scoped(example))
