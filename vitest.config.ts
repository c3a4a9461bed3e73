import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

// Vitest's reporters call Map.groupBy when a test fails. Node 20 has no such function, and the crash would hide the failure.
if (!("groupBy" in Map)) {
  Object.assign(Map, {
    groupBy<K, V>(items: Iterable<V>, keyOf: (item: V, index: number) => K): Map<K, Array<V>> {
      const groups = new Map<K, Array<V>>()
      let index = 0
      for (const item of items) {
        const key = keyOf(item, index++)
        const group = groups.get(key)
        if (group === undefined) groups.set(key, [item])
        else group.push(item)
      }
      return groups
    }
  })
}

// What the package exports, tests and examples import from the source: "effect-throttle/Timer" is src/Timer.ts.
const { exports } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"))
const alias = Object.entries<string | null>(exports).flatMap(([name, target]) =>
  target?.endsWith(".js")
    ? [{
      find: new RegExp(`^effect-throttle${name.slice(1)}$`),
      replacement: fileURLToPath(new URL(target.replace("/dist/", "/src/").replace(/\.js$/, ".ts"), import.meta.url))
    }]
    : []
)

export default defineConfig({
  resolve: { alias },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/utils/redis-setup.ts",
    setupFiles: "test/utils/setup.ts",
    // No file changes what another one imports, so a worker imports Effect and the source once, not once for each file: the
    // imports of 110 files took a tenth of the time of the suite.
    isolate: false,
    // Real time is compared with real time: more workers than processors would be noise.
    maxWorkers: "100%",
    // Sweeps over every step of the scheduler take seconds, on a busy machine several times as long.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // What examples and logging tests print is of interest only when they fail.
    silent: "passed-only",
    typecheck: {
      enabled: true,
      include: ["test/**/*.test-d.ts"],
      tsconfig: "test/tsconfig.types.json"
    },
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      reporter: ["text", "html"]
    }
  }
})
