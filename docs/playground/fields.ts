/**
 * What can be chosen on the page, as data: kinds of policies and arrivals, and the numbers of each.
 */

export type Value = number | string | boolean

interface Common {
  readonly label: string
  /** What it is at first. */
  readonly initial: Value
  /** What the library takes if it is not given: then it stays out of the code. */
  readonly otherwise?: Value
  /** The orders of the queue in which it means something; without this in all of them. */
  readonly orders?: ReadonlyArray<string>
}

export interface NumberField extends Common {
  readonly type: "number"
  readonly initial: number
  /** What is allowed; the slider goes as far as `reach`, or as the number that was typed. */
  readonly min: number
  readonly max: number
  readonly reach: number
  readonly step: number
  /** What the page shows it in; the state has milliseconds. */
  readonly unit: "" | "ms" | "s"
  /** The setting without which it means nothing. */
  readonly only?: string
}

export interface ChoiceField extends Common {
  readonly type: "choice"
  readonly initial: string
  readonly choices: ReadonlyArray<string>
  /** What the page calls them, where that is something else. */
  readonly names?: Readonly<Record<string, string>>
}

export interface SwitchField extends Common {
  readonly type: "switch"
  readonly initial: boolean
}

/** Some words, at most `most` characters. */
export interface TextField extends Common {
  readonly type: "text"
  readonly initial: string
  readonly most: number
}

export type Field = NumberField | ChoiceField | SwitchField | TextField

export type Fields = Readonly<Record<string, Field>>

export interface Kind {
  readonly about: string
  readonly fields: Fields
}

export type Kinds = Readonly<Record<string, Kind>>

const number = (label: string, initial: number, reach: number, more: Partial<NumberField> = {}): NumberField => ({
  type: "number",
  label,
  initial,
  min: 1,
  max: 1_000_000,
  reach,
  step: 1,
  unit: "",
  ...more
})

const hour = 3_600_000

/** In milliseconds; the page shows seconds. */
const seconds = (label: string, initial: number, reach: number, more: Partial<NumberField> = {}) =>
  number(label, initial, reach, { min: 100, max: hour, step: 100, unit: "s", ...more })

const millis = (label: string, initial: number, reach: number, more: Partial<NumberField> = {}) =>
  number(label, initial, reach, { step: 10, min: 10, max: hour, unit: "ms", ...more })

const per = (initial = 1_000) => seconds("per", initial, 60_000, { otherwise: 1_000 })

const units = ["tokens", "bytes", "points"]

/** What a policy counts. */
const unit: ChoiceField = {
  type: "choice",
  label: "unit: what it counts",
  choices: ["permits", ...units],
  initial: "permits",
  otherwise: "permits"
}

export const policies: Kinds = {
  rate: {
    about: "One start every per / limit; burst more at once on credit.",
    fields: {
      limit: number("limit", 5, 100),
      per: per(),
      burst: number("burst", 0, 50, { min: 0, otherwise: 0 }),
      unit
    }
  },
  tokenBucket: {
    about: "A bucket that starts full and refills continuously.",
    fields: { capacity: number("capacity", 10, 100), refill: number("refill", 5, 100), per: per(), unit }
  },
  window: {
    about: "At most limit starts in any per, or in each per of the clock.",
    fields: {
      limit: number("limit", 5, 100),
      per: seconds("per", 1_000, 60_000),
      kind: { type: "choice", label: "kind", choices: ["sliding", "fixed"], initial: "sliding", otherwise: "sliding" },
      unit
    }
  },
  concurrency: {
    about: "At most limit calls run at once.",
    fields: { limit: number("limit", 3, 50), unit }
  },
  spacing: {
    about: "At least interval between starts, or from an end to the next start.",
    fields: {
      interval: millis("interval", 250, 5_000),
      from: { type: "choice", label: "from", choices: ["start", "end"], initial: "start", otherwise: "start" },
      align: { type: "switch", label: "align to the clock", initial: false, otherwise: false },
      unit
    }
  }
}

/** How several policies are one, who goes first, and whether they are in force. */
export const whole: Fields = {
  together: {
    type: "choice",
    label: "several policies",
    choices: ["all", "chain"],
    names: { all: "all: one line, at one instant", chain: "one after the other: a line each" },
    initial: "all",
    otherwise: "all"
  },
  order: {
    type: "choice",
    label: "order: who starts first",
    choices: ["arrival", "priority", "fair"],
    names: {
      arrival: "arrival: first come, first served",
      priority: "priority: urgent calls first",
      fair: "fair: callers share, by weight"
    },
    initial: "arrival",
    otherwise: "arrival"
  },
  ageing: seconds("ageing: the wait that a step of priority is worth", 10_000, 60_000, {
    otherwise: 10_000,
    orders: ["priority", "fair"]
  }),
  compare: {
    type: "switch",
    label: "below it the same calls by arrival",
    initial: false,
    otherwise: false,
    orders: ["priority", "fair"]
  },
  shadow: {
    type: "switch",
    label: "in shadow: only counts; of a chain the last",
    initial: false,
    otherwise: false
  }
}

const duration = seconds("for", 5_000, 60_000, { max: 120_000 })
const start = seconds("from", 0, 30_000, { min: 0, max: 120_000, otherwise: 0 })

/** As many calls as a page can draw in the time between two movements of a slider. */
const rate = (label: string, initial: number, more: Partial<NumberField> = {}) =>
  number(label, initial, 50, { max: 200, ...more })

/** What each call costs, in permits and in another unit, and whose it is. */
export const call: Fields = {
  permits: number("each costs, in permits", 1, 20, { min: 0, otherwise: 1 }),
  amount: number("and besides", 0, 2_000, { min: 0, otherwise: 0 }),
  of: { type: "choice", label: "of the unit", choices: units, initial: "tokens", otherwise: "tokens" },
  caller: { type: "text", label: "caller: whose calls", most: 20, initial: "", otherwise: "" },
  weight: number("weight: its share", 1, 10, { max: 1_000, otherwise: 1, orders: ["fair"] }),
  priority: number("priority: more is more urgent", 0, 5, {
    min: -5,
    max: 1_000,
    otherwise: 0,
    orders: ["priority", "fair"]
  })
}

export const arrivals: Kinds = {
  poisson: {
    about: "Independent of each other, as many users together.",
    fields: {
      rate: rate("per second", 6),
      duration,
      start,
      seed: number("seed", 1, 99, { otherwise: 1 }),
      ...call
    }
  },
  steady: {
    about: "At an even pace.",
    fields: { rate: rate("per second", 6), duration, start, ...call }
  },
  bursts: {
    about: "Many at once, and again after a while.",
    fields: {
      size: number("size", 10, 100, { max: 200 }),
      every: seconds("every", 2_000, 30_000),
      duration,
      start,
      ...call
    }
  },
  ramp: {
    about: "From one rate to another.",
    fields: {
      from: rate("per second, at first", 2, { min: 0 }),
      to: rate("per second, at last", 10, { min: 0 }),
      duration,
      start,
      ...call
    }
  }
}

/** Of the whole policy, or of each that stand one after the other; each may be left away. */
export const bounds: Fields = {
  maxQueue: number("maxQueue: so many may wait", 10, 100, { min: 0 }),
  maxQueuePerCaller: number("maxQueuePerCaller: so many of each caller may wait", 5, 100),
  maxWait: seconds("maxWait: the longest wait foreseen", 1_000, 20_000),
  timeout: seconds("timeout: the longest wait", 1_000, 20_000)
}

/** Of the calls and of what happens meanwhile; each may be left away. */
export const run: Fields = {
  runs: millis("each call runs for", 300, 5_000),
  interruptAfter: seconds("callers give up after", 2_000, 20_000),
  late: number("timers are late by", 2, 20, { unit: "ms" }),
  pauseFor: seconds("the throttle pauses for", 1_000, 30_000),
  pauseAt: seconds("the pause begins at", 2_000, 30_000, { min: 0, only: "pauseFor" })
}
