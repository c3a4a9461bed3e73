/**
 * The meter of a window of the calendar: that of a fixed window, with the edges of a time zone's days, weeks or months.
 */
import { type FixedState, inWindows } from "./fixed.ts"
import { grain, type Meter } from "./meter.ts"
import { calendarOf, lengthOf, type Unit } from "./zone.ts"

export interface CalendarRule {
  readonly kind: "calendar"
  readonly limit: number
  readonly unit: Unit
  readonly zone: string
}

/**
 * The shortest window: 2 hours, in nanoseconds. A wall clock that is set back by an hour at midnight opens no window
 * twice, and the rest of a day of which a machine has slept more than half is a window.
 */
export const shortest = 7_200e9

/** Counts in the days, weeks or months of a time zone, each with `limit` permits. */
export const calendar = ({ limit, unit, zone }: CalendarRule): Meter<FixedState, number> => {
  const { startOf, unitAt } = calendarOf(unit, zone)
  return inWindows(limit, {
    name: `${unit} ${zone}`,
    length: lengthOf(unit) * 1e6,
    shortest,
    edge: (at, n, wall) => {
      const now = wall(at)
      return at + (startOf(unitAt(now + grain / 1e6) + n) - now) * 1e6
    }
  })
}
