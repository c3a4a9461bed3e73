import { assert, test } from "vitest"
import { isThere } from "../utils/redis.ts"

test("with CI=true no test is skipped for want of a redis-server", () => {
  assert(isThere || process.env.CI !== "true", "redis-server is not installed (Debian: apt-get install redis-server)")
})
