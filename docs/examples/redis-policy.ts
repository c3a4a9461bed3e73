/** The limit that the workers share. */
import { Throttle } from "effect-throttle"

export const limited = Throttle.rate({ limit: 30, burst: 5 })
