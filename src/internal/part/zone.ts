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

/** Writes an instant as six numbers: month, day, year, hour, minute, second. */
const formatterOf = (zone: string): Intl.DateTimeFormat =>
  new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric"
  })

/** Units of a calendar, numbered. Unit `n` lasts from its start to before that of `n + 1`. */
export interface Calendar {
  /** Returns the number of the unit that contains an instant. */
  readonly unitAt: (millis: number) => number
  /** Returns the first instant of a unit. */
  readonly startOf: (n: number) => number
  /** Returns the first instants of so many units. */
  readonly startsOf: (n: number, count: number) => ReadonlyArray<number>
}

/**
 * Makes the calendar of a time zone.
 *
 * A unit begins at the first instant at which a clock in the zone shows its first date or a later one. So a day whose
 * midnight is skipped begins when the clock is set forward, and one whose midnight comes twice begins at the first. A
 * date that is skipped has no instant: it is never the unit of one.
 */
export const calendarOf = (unit: Unit, zone: string): Calendar => {
  // The present unit, and the instants at which it and later ones begin. All states of a meter ask for the same ones
  // until the next unit is over.
  let present = 0
  const starts = new Map<number, number>()
  const find = (instant: number): void => {
    const millis = Math.max(-latest, Math.min(instant, latest))
    const clock = clockOf(zone)
    const start = (n: number) => clock.firstAt(firstDay(unit, n) * day)
    let n = unitOf(unit, clock.shownAt(millis))
    // A clock that is set back over midnight shows the former date again.
    while (start(n + 1) <= millis) n++
    present = n
    starts.clear()
    for (const k of [n, n + 1, n + 2]) starts.set(k, start(k))
  }
  const startsOf = (n: number, count: number): ReadonlyArray<number> => {
    const clock = clockOf(zone)
    return Array.from({ length: count }, (_, i) => clock.firstAt(firstDay(unit, n + i) * day))
  }
  return {
    unitAt: (millis) => {
      if (!(millis >= starts.get(present)! && millis < starts.get(present + 2)!)) find(millis)
      return millis < starts.get(present + 1)! ? present : present + 1
    },
    startOf: (n) => {
      let start = starts.get(n)
      if (start === undefined) starts.set(n, start = startsOf(n, 1)[0]!)
      return start
    },
    startsOf
  }
}

interface ZoneClock {
  /** Returns the time that it shows, in milliseconds, as if it were Unix time. */
  readonly shownAt: (millis: number) => number
  /** Returns the first instant at which it shows a time, or a later one. */
  readonly firstAt: (shown: number) => number
}

/** Makes a clock in a time zone. Its formatter takes 22 kB and 0.1 ms, so it is kept only while edges are searched. */
const clockOf = (zone: string): ZoneClock => {
  const formatter = formatterOf(zone)
  /** The time that it shows, less Unix time. Whole seconds. */
  const offsetAt = (millis: number): number => {
    const at = Math.floor(Math.max(-latest, Math.min(millis, latest)) / 1e3) * 1e3
    const [month, date, year, hour, minute, second] = formatter.format(at).match(/\d+/g)!.map(Number)
    return dayNumber(year!, month!, date!) * day + ((hour! * 60 + minute!) * 60 + second!) * 1e3 - at
  }
  /** The first instant after `from`, up to `to`, with another offset than `from`. `to` has another one. */
  const changeBetween = (from: number, to: number): number => {
    const offset = offsetAt(from)
    while (to - from > 1) {
      const middle = Math.floor((from + to) / 2)
      if (offsetAt(middle) === offset) from = middle
      else to = middle
    }
    return to
  }
  return {
    shownAt: (millis) => millis + offsetAt(millis),
    firstAt: (shown) => {
      // No zone is a day ahead of Unix time.
      let from = shown - day
      for (;;) {
        const offset = offsetAt(from)
        const at = Math.max(from, shown - offset)
        if (offsetAt(at) === offset) return at
        from = changeBetween(from, at)
      }
    }
  }
}

/** Beyond this instant, about the year 255,000, offsets stay what they are: `Intl` knows no date there. */
const latest = 8e15

/** The number of the unit that contains a date. */
const unitOf = (unit: Unit, shown: number): number => {
  const date = Math.floor(shown / day)
  if (unit === "day") return date
  if (unit === "week") return Math.floor((date + 3) / 7)
  // By its mean length it is at most one off.
  let n = Math.floor(date / 30.436_875) - 1
  while (firstDay(unit, n + 1) <= date) n++
  return n
}

/** The number of the first day of a unit. Day 0 is 1970-01-01, a Thursday; week 0 is its week, month 0 its month. */
const firstDay = (unit: Unit, n: number): number =>
  unit === "day"
    ? n
    : unit === "week"
    ? 7 * n - 3
    : dayNumber(1970 + Math.floor(n / 12), n - Math.floor(n / 12) * 12 + 1, 1)

/** The number of a date of the Gregorian calendar. Years are counted from March, so that leap days are last in theirs. */
const dayNumber = (year: number, month: number, date: number): number => {
  const march = month > 2 ? month - 3 : month + 9
  const y = month > 2 ? year : year - 1
  return 365 * y + Math.floor(y / 4) - Math.floor(y / 100) + Math.floor(y / 400) + Math.floor((153 * march + 2) / 5) +
    date - 719_469
}
