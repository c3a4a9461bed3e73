/**
 * The calendar of a time zone: where its days, weeks and months begin.
 *
 * Instants are milliseconds of Unix time. Time zones come from `Intl`, since `DateTime` would add 2.5 kB to every
 * bundle, and meters import nothing.
 */
export const units = ["day", "week", "month"] as const

/** A unit of the calendar. Weeks begin on Monday, as in ISO 8601. */
export type Unit = typeof units[number]

const day = 86_400_000

/** The length of a unit in milliseconds; of a month the longest. */
export const lengthOf = (unit: Unit): number => (unit === "day" ? 1 : unit === "week" ? 7 : 31) * day

/** Whether a value is the name of a time zone. Offsets such as "+01:00", which only some engines know, are none. */
export const isZone = (name: unknown): name is string => {
  if (typeof name !== "string" || !/^[a-z]/i.test(name)) return false
  try {
    return formatterOf(name) !== undefined
  } catch {
    return false
  }
}

const formatterOf = (zone: string): Intl.DateTimeFormat =>
  new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    calendar: "gregory",
    numberingSystem: "latn",
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric"
  })

/** Units of a calendar, numbered. Unit `n` lasts from `startOf(n)` to before `startOf(n + 1)`. */
export interface Calendar {
  /** Returns the number of the unit that contains an instant. */
  readonly unitAt: (millis: number) => number
  /** Returns the first instant of a unit. */
  readonly startOf: (n: number) => number
}

/**
 * Makes the calendar of a time zone.
 *
 * A unit begins at the first instant at which a clock on the wall there shows its date or a later one. So a day whose
 * midnight is skipped begins when the clock is set forward, and one whose midnight comes twice begins at the first. A
 * date that is skipped has no instant: it is never the unit of one.
 */
export const calendarOf = (unit: Unit, zone: string): Calendar => {
  const formatter = formatterOf(zone)

  /** The date and time that a clock shows there, as numbers. */
  const shownAt = (millis: number) => {
    const shown = { year: 0, month: 0, day: 0, hour: 0, minute: 0, second: 0 }
    for (const { type, value } of formatter.formatToParts(Math.floor(millis))) {
      if (type in shown) shown[type as keyof typeof shown] = Number(value)
    }
    return shown
  }

  /** The time that a clock shows there, less Unix time. */
  const offsetAt = (millis: number): number => {
    const at = Math.floor(Math.max(-latest, Math.min(millis, latest)) / 1e3) * 1e3
    const { day: date, hour, minute, month, second, year } = shownAt(at)
    return dayNumber(year, month, date) * day + ((hour * 60 + minute) * 60 + second) * 1e3 - at
  }

  /** The first instant after `from`, up to `to`, with another offset than at `from`. At `to` it is another one. */
  const changeBetween = (from: number, to: number): number => {
    const offset = offsetAt(from)
    while (to - from > 1) {
      const middle = Math.floor((from + to) / 2)
      if (offsetAt(middle) === offset) from = middle
      else to = middle
    }
    return to
  }

  /** The first instant at which a clock there shows a time, or a later one. */
  const firstAt = (shown: number): number => {
    // No zone is a day ahead of Unix time.
    let from = shown - day
    for (;;) {
      const offset = offsetAt(from)
      const at = Math.max(from, shown - offset)
      if (offsetAt(at) === offset) return at
      from = changeBetween(from, at)
    }
  }

  const begin = (n: number): number => firstAt(firstDay(unit, n) * day)

  // The latest result: all states of a meter ask for the same unit, until it is over.
  let known = { n: 0, start: 0, end: 0 }
  const find = (millis: number): void => {
    const { day: date, month, year } = shownAt(millis)
    let n = unit === "month"
      ? monthNumber(year, month)
      : unit === "week"
      ? Math.floor((dayNumber(year, month, date) + 3) / 7)
      : dayNumber(year, month, date)
    // A clock that is set back over midnight shows the former date again.
    while (begin(n + 1) <= millis) n++
    known = { n, start: begin(n), end: begin(n + 1) }
  }
  return {
    unitAt: (millis) => {
      if (millis < known.start || millis >= known.end) find(millis)
      return known.n
    },
    startOf: (n) => n === known.n ? known.start : n === known.n + 1 ? known.end : begin(n)
  }
}

/** Beyond this instant, about the year 255,000, offsets stay what they are: `Intl` knows no date there. */
const latest = 8e15

/** The number of the first day of a unit. Day 0 is 1970-01-01, a Thursday; week 0 is its week, month 0 its month. */
const firstDay = (unit: Unit, n: number): number =>
  unit === "day"
    ? n
    : unit === "week"
    ? 7 * n - 3
    : dayNumber(1970 + Math.floor(n / 12), n - 12 * Math.floor(n / 12) + 1, 1)

const monthNumber = (year: number, month: number): number => (year - 1970) * 12 + month - 1

/** The number of a date of the Gregorian calendar. Years are counted from March, so that leap days are last in theirs. */
const dayNumber = (year: number, month: number, date: number): number => {
  const march = month > 2 ? month - 3 : month + 9
  const y = month > 2 ? year : year - 1
  return 365 * y + Math.floor(y / 4) - Math.floor(y / 100) + Math.floor(y / 400) + Math.floor((153 * march + 2) / 5) +
    date - 1 - 719_468
}
