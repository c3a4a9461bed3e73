/**
 * The limit that does not learn.
 */
import type { Limit } from "./limit.ts"

/** A limit that changes only by an update. */
export const constant = (limit: number): Limit => ({ initial: limit })
