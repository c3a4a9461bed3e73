/**
 * The heap in use, without the garbage.
 */
import { Effect } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/**
 * Bytes in use. Earlier test files of the same process leave garbage that takes several turns of the event loop to
 * collect, so it collects until nothing more is freed.
 */
export const heapUsed: Effect.Effect<number> = Effect.promise(async () => {
  setFlagsFromString("--expose-gc")
  const collect: () => void = runInNewContext("gc")
  let least = Infinity
  for (let unchanged = 0; unchanged < 3;) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    collect()
    const { heapUsed } = process.memoryUsage()
    unchanged = heapUsed < least - 100_000 ? 0 : unchanged + 1
    least = Math.min(least, heapUsed)
  }
  return least
})
