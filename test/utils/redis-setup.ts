/** Starts a redis-server for the tests of effect-throttle/redis, or says loudly that they are skipped. */
import type { TestProject } from "vitest/node"
import { isInstalled, startServer } from "./redis-server.ts"

declare module "vitest" {
  export interface ProvidedContext {
    /** The unix socket of the suite's redis-server; undefined where there is none. */
    redisSocket: string | undefined
  }
}

export default async (project: TestProject) => {
  if (!isInstalled()) {
    process.stderr.write(
      "\n*** SKIPPED: the tests in test/redis that need a server. Install redis-server (Debian and Ubuntu: " +
        "apt-get install redis-server) and run npm test again. ***\n\n"
    )
    project.provide("redisSocket", undefined)
    return
  }
  const server = await startServer()
  project.provide("redisSocket", server.address.path)
  return server.close
}
