/**
 * What was chosen on the page: to and from the address, to the simulation and to the code that says the same.
 */
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import {
  arrivals,
  bounds,
  call,
  type Field,
  type Fields,
  type Kinds,
  type NumberField,
  policies,
  run,
  type Value,
  whole
} from "./fields.ts"

/** A policy or a pattern of arrivals. */
export interface Item {
  readonly kind: string
  readonly options: Options
}

export type Options = Readonly<Record<string, Value>>

export interface State {
  /** The parts of the policy: none for no limit. */
  readonly policies: ReadonlyArray<Item>
  readonly arrivals: ReadonlyArray<Item>
  /** How the policies are one. */
  readonly whole: Options
  readonly bounds: Options
  readonly run: Options
}

/** So many parts of a kind at most. */
export const mostItems = 5

// ---------------------------------------------------------------------------------------------------------------------
// To and from the address: policy=rate,limit:10,burst:5&arrivals=steady,rate:8&maxQueue=20
// ---------------------------------------------------------------------------------------------------------------------

/** What is allowed for a number, in words. */
export const allowed = ({ max, min, unit }: NumberField): string => {
  const shown = (value: number) => (unit === "s" ? value / 1_000 : value).toLocaleString("en")
  return `${unit === "s" ? "a number" : "a whole number"} from ${shown(min)} to ${shown(max)}${
    unit === "" ? "" : ` ${unit}`
  }`
}

/** What a text says for a field, if it is allowed there; else the nearest that is, or what the field is at first. */
export const read = (field: Field, text: string): Value => {
  switch (field.type) {
    case "number": {
      const value = Number(text)
      return text === "" || !Number.isFinite(value)
        ? field.initial
        : Math.min(field.max, Math.max(field.min, Math.round(value)))
    }
    case "choice":
      return field.choices.includes(text) ? text : field.initial
    case "switch":
      return text === "true"
    case "text":
      // Whole characters, of which some take two places in a string
      return Array.from(text.replace(/[\p{Cc}\p{Cs}]/gu, "")).slice(0, field.most).join("")
  }
}

export const initial = (fields: Fields): Options =>
  Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.initial]))

const settingsIn = (text: string): readonly [kind: string, settings: ReadonlyMap<string, string>] => {
  const [kind = "", ...settings] = text.split(",")
  return [
    kind,
    new Map(settings.map((setting) => {
      const [name = "", value] = setting.split(":")
      return [name, value === undefined ? "" : decoded(value)]
    }))
  ]
}

/** Texts may have commas and colons, which the address has between settings. */
const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const readItem = (kinds: Kinds, text: string): ReadonlyArray<Item> => {
  const [kind, given] = settingsIn(text)
  const fields = Object.hasOwn(kinds, kind) ? kinds[kind]!.fields : undefined
  if (fields === undefined) return []
  const options = Object.entries(fields).map(([name, field]) => [name, read(field, given.get(name) ?? "")])
  return [{ kind, options: { ...initial(fields), ...Object.fromEntries(options) } }]
}

const readSome = (fields: Fields, given: URLSearchParams): Options =>
  Object.fromEntries(
    Object.entries(fields).filter(([name]) => given.has(name)).map((
      [name, field]
    ) => [name, read(field, given.get(name)!)])
  )

const readItems = (kinds: Kinds, texts: ReadonlyArray<string>) =>
  texts.flatMap((text) => readItem(kinds, text)).slice(0, mostItems)

/** Whatever stands in the address gives a state: what makes no sense is left out. */
export const fromHash = (hash: string): State => {
  const given = new URLSearchParams(hash.replace(/^#/, ""))
  const some = [...given.keys()].length > 0
  return some
    ? {
      policies: readItems(policies, given.getAll("policy")),
      arrivals: readItems(arrivals, given.getAll("arrivals")),
      whole: { ...initial(whole), ...readSome(whole, given) },
      bounds: readSome(bounds, given),
      run: readSome(run, given)
    }
    : fromHash(examples[0]!.hash)
}

/**
 * What an address says that the page does not take as it is: numbers beyond what is allowed, words that it does not know, and
 * more parts than there may be.
 */
export const remarksOn = (hash: string): ReadonlyArray<string> => {
  const given = new URLSearchParams(hash.replace(/^#/, ""))
  const remark = (where: string, name: string, fields: Fields, text: string): ReadonlyArray<string> => {
    const field = fields[name]
    if (field === undefined) return [`${where}: there is no "${name}".`]
    const value = read(field, text)
    if (String(value) === text || (field.type === "number" && value === Number(text))) return []
    const rule = field.type === "number"
      ? ` must be ${allowed(field)}`
      : field.type === "text"
      ? ` must be at most ${field.most} characters`
      : ` must be one of ${(field.type === "choice" ? field.choices : ["true", "false"]).join(", ")}`
    return [`${where}: ${name}${rule}; "${text}" became ${value}.`]
  }
  const ofItems = (noun: string, kinds: Kinds, texts: ReadonlyArray<string>) => {
    const known = texts.filter((text) => readItem(kinds, text).length > 0)
    return [
      ...texts.flatMap((text) =>
        known.includes(text) || text === "none" ? [] : [`There is no ${noun} "${settingsIn(text)[0]}".`]
      ),
      ...known.flatMap((text, i) => {
        const [kind, settings] = settingsIn(text)
        return i < mostItems
          ? [...settings].flatMap(([name, text]) => remark(`${noun} ${i + 1}`, name, kinds[kind]!.fields, text))
          : []
      }),
      ...(known.length > mostItems ? [`Only the first ${mostItems} of ${known.length} are shown.`] : [])
    ]
  }
  const others: Fields = { ...whole, ...bounds, ...run }
  return [
    ...ofItems("policy", policies, given.getAll("policy")),
    ...ofItems("pattern", arrivals, given.getAll("arrivals")),
    ...[...given].flatMap(([name, text]) =>
      name === "policy" || name === "arrivals" ? [] : remark("the address", name, others, text)
    )
  ]
}

const writeItem = ({ kind, options }: Item) =>
  [kind, ...Object.entries(options).map(([name, value]) => `${name}:${encodeURIComponent(value)}`)].join(",")

/** Without what it would be anyway. */
const differing = (fields: Fields, options: Options): Options =>
  Object.fromEntries(Object.entries(options).filter(([name, value]) => fields[name]!.otherwise !== value))

export const toHash = (state: State): string => {
  const given = new URLSearchParams()
  for (const item of state.policies) given.append("policy", writeItem(item))
  for (const item of state.arrivals) given.append("arrivals", writeItem(item))
  for (const [name, value] of Object.entries(differing(whole, state.whole))) given.append(name, String(value))
  for (const [name, value] of Object.entries({ ...state.bounds, ...state.run })) given.append(name, String(value))
  // With neither part nor arrivals nor anything else chosen the address still has to say so.
  const text = given.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")
  return `#${text === "" ? "policy=none" : text}`
}

export const examples: ReadonlyArray<{ readonly name: string; readonly hash: string }> = [
  {
    name: "a rate with a burst",
    hash: "#policy=rate,limit:5,burst:4&arrivals=bursts,size:8,every:3000,duration:6000&runs=150"
  },
  {
    name: "a rush against two limits",
    hash:
      "#policy=rate,limit:10&policy=concurrency,limit:4&arrivals=poisson,rate:6,duration:20000&arrivals=bursts,size:30,every:8000,duration:16000,start:4000&maxQueue=25&runs=500"
  },
  {
    name: "the edge of a fixed window",
    hash: "#policy=window,limit:6,per:2000,kind:fixed&arrivals=bursts,size:6,every:400,duration:800,start:1700&runs=100"
  },
  {
    name: "a poller on the clock",
    hash: "#policy=spacing,interval:500,align:true&arrivals=steady,rate:3,duration:4000,start:200&runs=120"
  },
  {
    name: "95 % load",
    hash: "#policy=rate,limit:20&arrivals=poisson,rate:19,duration:60000"
  },
  {
    name: "more than the limit, and a bound",
    hash: "#policy=rate,limit:10&arrivals=ramp,from:2,to:20,duration:30000&maxWait=2000&runs=200"
  },
  {
    name: "a server says: not now",
    hash: "#policy=rate,limit:5&arrivals=steady,rate:4,duration:6000&runs=150&pauseAt=1500&pauseFor=1500"
  },
  {
    name: "a language model's quota",
    hash:
      "#policy=tokenBucket,capacity:50,refill:400,per:60000&policy=tokenBucket,capacity:10000,refill:75000,per:60000,unit:tokens&policy=concurrency,limit:20&arrivals=poisson,rate:2,duration:60000,amount:1000&runs=3000"
  },
  {
    name: "two limits, one after the other",
    hash:
      "#policy=rate,limit:5&policy=window,limit:8,per:4000,kind:fixed&arrivals=steady,rate:4,duration:10000&runs=150&together=chain"
  },
  {
    name: "a lower limit, tried in shadow",
    hash:
      "#policy=rate,limit:12,burst:5&policy=rate,limit:6,burst:2&arrivals=poisson,rate:8,duration:5000&runs=100&together=chain&shadow=true&maxQueue=3"
  },
  {
    name: "share fairly beside a flooder",
    hash:
      "#policy=rate,limit:10&arrivals=bursts,size:21,every:10000,duration:1000,caller:flooder&arrivals=steady,rate:2,duration:2000,start:300,caller:light&order=fair&compare=true&runs=60"
  },
  {
    name: "urgent first",
    hash:
      "#policy=rate,limit:10&arrivals=bursts,size:21,every:10000,duration:1000,caller:newsletter&arrivals=steady,rate:2,duration:2000,start:300,caller:reset,priority:1&order=priority&compare=true&runs=60"
  },
  {
    name: "callers who give up",
    hash: "#policy=concurrency,limit:2&arrivals=poisson,rate:8,duration:4000&runs=400&interruptAfter=1000"
  }
]

// ---------------------------------------------------------------------------------------------------------------------
// To options of the library, which both the simulation and the code are made from
// ---------------------------------------------------------------------------------------------------------------------

interface Call {
  readonly name: string
  readonly options: Readonly<Record<string, Value | object>>
}

const callOf = (kinds: Kinds, { kind, options }: Item): Call => ({
  name: kind,
  options: differing(kinds[kind]!.fields, options)
})

const partsOf = (state: State): ReadonlyArray<Call> => state.policies.map((item) => callOf(policies, item))

/** What a call of a pattern costs; undefined for one permit. */
const costOf = ({ amount = 0, of = "tokens", permits = 1 }: Options): number | Record<string, Value> | undefined =>
  amount !== 0
    ? { ...(permits === 1 ? {} : { permits }), [String(of)]: amount }
    : permits === 1
    ? undefined
    : permits as number

/** The caller of a pattern's calls; undefined if it has none. */
const callerOf = ({ caller: key = "", priority = 0, weight = 1 }: Options): Options | undefined => {
  const caller = {
    ...(key === "" ? {} : { key }),
    ...(weight === 1 ? {} : { weight }),
    ...(priority === 0 ? {} : { priority })
  }
  return Object.keys(caller).length === 0 ? undefined : caller
}

/** `ageing` stays out of the code where calls of a caller start by arrival anyway. */
const orderOf = ({ arrivals, whole: { ageing = 0, order = "arrival" } }: State): Options =>
  order === "arrival"
    ? {}
    : order === "fair" && arrivals.every(({ options: { priority = 0 } }) => priority === 0)
    ? { order }
    : { order, ageing }

const patternsOf = (state: State): ReadonlyArray<Call> =>
  state.arrivals.map((item) => {
    const { name, options } = callOf(arrivals, item)
    const own = Object.entries(options).filter(([name]) => !Object.hasOwn(call, name))
    const { interruptAfter } = state.run
    const cost = costOf(item.options)
    const caller = callerOf(item.options)
    return {
      name,
      options: {
        ...Object.fromEntries(own),
        ...(cost === undefined ? {} : { cost }),
        ...(caller === undefined ? {} : { caller }),
        ...(interruptAfter === undefined ? {} : { interruptAfter })
      }
    }
  })

const settingsOf = ({ run: { late, pauseAt = 0, pauseFor, runs } }: State) => ({
  ...(runs === undefined ? {} : { runs }),
  ...(late === undefined ? {} : { late }),
  ...(pauseFor === undefined ? {} : { changes: [{ at: pauseAt, pause: pauseFor }] })
})

// ---------------------------------------------------------------------------------------------------------------------
// To the simulation
// ---------------------------------------------------------------------------------------------------------------------

/** More than this would make the page wait. */
export const mostCalls = 5_000

/** The policies that calls pass, one after the other: one, but for a chain. */
interface Pass {
  readonly parts: ReadonlyArray<Call>
  /** The order of its queue, and the bounds of waiting in it. */
  readonly queue: Options
  readonly isShadow: boolean
}

const passesOf = (state: State): ReadonlyArray<Pass> => {
  const { whole: { shadow: isShadow, together } } = state
  const queue = { ...orderOf(state), ...state.bounds }
  const parts = partsOf(state)
  return together === "chain" && parts.length > 1
    ? parts.map((part, i) => ({ parts: [part], queue, isShadow: isShadow === true && i === parts.length - 1 }))
    : [{ parts, queue, isShadow: isShadow === true }]
}

const made = ({ isShadow, parts, queue }: Pass): Throttle.Policy<any> => {
  const make = ({ name, options }: Call): Throttle.Policy<any> => (Throttle as any)[name](options)
  const [first, ...others] = parts
  const policy = first === undefined
    ? Throttle.none
    : others.length === 0
    ? make({ ...first, options: { ...first.options, ...queue } })
    : Throttle.all(parts.map(make), queue)
  return isShadow ? Throttle.shadow(policy) : policy
}

/** Throws the library's own RangeError where things do not go together. */
export const policiesOf = (state: State): ReadonlyArray<Throttle.Policy<any>> => passesOf(state).map(made)

export const arrivalsOf = (state: State): ReadonlyArray<Simulation.Arrival> =>
  Simulation.merge(...patternsOf(state).map(({ name, options }) => (Simulation as any)[name](options)))

export const simulate = (state: State): Simulation.Result =>
  Simulation.run(policiesOf(state), arrivalsOf(state).slice(0, mostCalls), settingsOf(state) as Simulation.RunOptions)

/** Whether the same calls by arrival are to be shown too. */
export const compares = ({ whole: { compare, order } }: State): boolean => compare === true && order !== "arrival"

/** What would happen by arrival. */
export const simulateByArrival = (state: State): Simulation.Result => {
  const result = simulate({ ...state, whole: { ...state.whole, order: "arrival" } })
  return { ...result, name: `${result.name}, by arrival` }
}

// ---------------------------------------------------------------------------------------------------------------------
// To code
// ---------------------------------------------------------------------------------------------------------------------

const durations = new Set([
  "per",
  "interval",
  "ageing",
  "maxWait",
  "timeout",
  "duration",
  "start",
  "every",
  "interruptAfter",
  "runs",
  "late",
  "at",
  "pause"
])

/** A duration as one would write it. */
const words = (millis: number): string => {
  const [size, unit] = millis % 60_000 === 0 && millis > 0
    ? [60_000, "minute"]
    : millis % 1_000 === 0
    ? [1_000, "second"]
    : [1, "milli"]
  const count = millis / size
  return `"${count} ${unit}${count === 1 ? "" : "s"}"`
}

const valueCode = (name: string, value: unknown): string =>
  Array.isArray(value)
    ? `[${value.map((item) => optionsCode(item)).join(", ")}]`
    : typeof value === "number" && durations.has(name)
    ? words(value)
    : typeof value === "object" && value !== null
    ? optionsCode(value)
    : JSON.stringify(value)

const optionsCode = (options: object): string =>
  `{ ${Object.entries(options).map(([name, value]) => `${name}: ${valueCode(name, value)}`).join(", ")} }`

const callCode = (module: string, { name, options }: Call): string => `${module}.${name}(${optionsCode(options)})`

const policyCode = ({ isShadow, parts, queue }: Pass): string => {
  const [first, ...others] = parts
  const settings = Object.keys(queue).length === 0 ? "" : `, ${optionsCode(queue)}`
  const code = first === undefined
    ? "Throttle.none"
    : others.length === 0
    ? callCode("Throttle", { ...first, options: { ...first.options, ...queue } })
    : `Throttle.all([\n${parts.map((part) => `  ${callCode("Throttle", part)}`).join(",\n")}\n]${settings})`
  return isShadow ? `Throttle.shadow(${code})` : code
}

/**
 * The policies by name, and the function that an app would have; with a class for each, where calls have a cost, and with
 * the caller of the first calls that have one.
 */
const appCode = (state: State, names: ReadonlyArray<string>): string => {
  const cost = state.arrivals.map(({ options }) => costOf(options)).find((cost) => cost !== undefined)
  const caller = state.arrivals.map(({ options }) => callerOf(options)).find((caller) => caller !== undefined)
  const named = caller === undefined ? [] : [`Throttle.withCaller(${optionsCode(caller)})`]
  const piped = (steps: ReadonlyArray<string>) =>
    `export const fetchUser = (id: number) => Effect.succeed({ id }).pipe(${
      [...steps.toReversed(), ...named].join(", ")
    })`
  if (cost === undefined) return piped(names)
  const classes = names.map((_, i) => (names.length === 1 ? "Api" : `Api${i + 1}`))
  return [
    ...classes.map((name, i) => `class ${name} extends Throttle.Service<${name}>()("app/${name}", ${names[i]}) {}`),
    "",
    `// A cost is asked of a class, whose Layer is provided at the app's edge: ${
      classes.map((name) => `${name}.layer`).join(", ")
    }`,
    piped(classes.map((name) => `${name}.withPermits(${typeof cost === "number" ? cost : optionsCode(cost)})`))
  ].join("\n")
}

const arrivalsCode = (state: State): string => {
  const patterns = patternsOf(state).map((pattern) => callCode("Simulation", pattern))
  const all = patterns.length === 0
    ? "Simulation.list([])"
    : patterns.length === 1
    ? patterns[0]!
    : `Simulation.merge(\n${patterns.map((pattern) => `  ${pattern}`).join(",\n")}\n)`
  return arrivalsOf(state).length > mostCalls ? `${all}.slice(0, ${mostCalls})` : all
}

export const toCode = (state: State): string => {
  const settings = settingsOf(state)
  const options = Object.keys(settings).length === 0 ? "" : `, ${optionsCode(settings)}`
  const passes = passesOf(state)
  const names = passes.length === 1 ? ["policy"] : passes.map((_, i) => `policy${i + 1}`)
  return `import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"

// Made once, outside the function that uses it
${names.map((name, i) => `const ${name} = ${policyCode(passes[i]!)}`).join("\n")}

${appCode(state, names)}

// What this page shows
const arrivals = ${arrivalsCode(state)}
const result = Simulation.run(${names.length === 1 ? names[0] : `[${names.join(", ")}]`}, arrivals${options})

console.log(Simulation.text(result))
`
}
