import { chai } from "vitest"

// The sweeps assert millions of times. chai puts a proxy around each assertion, so that a misspelt property of it is found,
// which the compiler does as well: without them test/Update.test.ts needs a fifth less time.
chai.config.useProxy = false
