/**
 * Declares the kind `Window`, whose meters are `sliding.ts`, `fixed.ts` and `calendar.ts`.
 */
import type { CalendarRule } from "./calendar.ts"
import type { FixedRule } from "./fixed.ts"
import { type Kind, nanos } from "./kind.ts"
import type { SlidingRule } from "./sliding.ts"
import * as Words from "./words.ts"
import { lengthOf, type Unit } from "./zone.ts"

interface Common {
  readonly limit: number
  readonly unit?: string
}

export interface Timed extends Common {
  readonly kind: "sliding" | "fixed"
  readonly per: number
}

export interface Calendar extends Common {
  readonly kind: "calendar"
  readonly per: Unit
  readonly zone: string
}

/**
 * The kind `Window`: at most `limit` permits in any span of `per`, in each window of the wall clock, or in each day,
 * week or month of a time zone.
 */
export const windowPolicy: Kind<Timed | Calendar, CalendarRule | FixedRule | SlidingRule> = {
  words: (data) => {
    const most = `at most ${data.limit}${Words.unit(data)} in`
    switch (data.kind) {
      case "sliding":
        return `${most} any ${Words.duration(data.per, "")}`
      case "fixed":
        return `${most} each ${Words.duration(data.per, "")} of the clock`
      case "calendar":
        return `${most} each calendar ${data.per} of ${data.zone}`
    }
  },
  parts: (data) => {
    const { limit } = data
    return data.kind === "calendar"
      ? {
        meter: {
          rule: { kind: data.kind, limit, unit: data.per, zone: data.zone },
          pace: { permits: limit, per: nanos(lengthOf(data.per)) }
        }
      }
      : {
        meter: {
          rule: { kind: data.kind, limit, per: nanos(data.per) },
          pace: { permits: limit, per: nanos(data.per) }
        }
      }
  }
}
