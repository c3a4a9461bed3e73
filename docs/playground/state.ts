/**
 * What was chosen on the page: to and from the address, to the simulation and to the code that says the same.
 */
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"
import {
  arrivals,
  bounds,
  type Field,
  type Fields,
  type Kinds,
  type NumberField,
  policies,
  run,
  type Value
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
  readonly bounds: Options
  readonly run: Options
}

/** So many parts of a kind at most. */
export const mostItems = 5

// ---------------------------------------------------------------------------------------------------------------------
// To and from the address: policy=rate,limit:10,burst:5&arrivals=steady,rate:8&maxQueue=20
// ---------------------------------------------------------------------------------------------------------------------

/** The nearest value that the field's slider has. */
const snapped = ({ min, step }: NumberField, value: number): number => min + Math.round((value - min) / step) * step

/** What a text says for a field, if it is allowed there; else what the field is at first. */
const read = (field: Field, text: string): Value => {
  switch (field.type) {
    case "number": {
      const value = Number(text)
      return text === "" || !Number.isFinite(value)
        ? field.initial
        : Math.min(field.max, Math.max(field.min, snapped(field, value)))
    }
    case "choice":
      return field.choices.includes(text) ? text : field.initial
    case "switch":
      return text === "true"
  }
}

export const initial = (fields: Fields): Options =>
  Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.initial]))

const readItem = (kinds: Kinds, text: string): ReadonlyArray<Item> => {
  const [kind = "", ...settings] = text.split(",")
  const fields = Object.hasOwn(kinds, kind) ? kinds[kind]!.fields : undefined
  if (fields === undefined) return []
  const given = new Map(settings.map((setting) => setting.split(":") as [string, string]))
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
      bounds: readSome(bounds, given),
      run: readSome(run, given)
    }
    : fromHash(examples[0]!.hash)
}

const writeItem = ({ kind, options }: Item) =>
  [kind, ...Object.entries(options).map(([name, value]) => `${name}:${value}`)].join(",")

export const toHash = (state: State): string => {
  const given = new URLSearchParams()
  for (const item of state.policies) given.append("policy", writeItem(item))
  for (const item of state.arrivals) given.append("arrivals", writeItem(item))
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
    name: "callers who give up",
    hash: "#policy=concurrency,limit:2&arrivals=poisson,rate:8,duration:4000&runs=400&interruptAfter=1000"
  }
]

// ---------------------------------------------------------------------------------------------------------------------
// To options of the library, which both the simulation and the code are made from
// ---------------------------------------------------------------------------------------------------------------------

/** Without what the library would take anyway. */
const given = (fields: Fields, options: Options): Options =>
  Object.fromEntries(Object.entries(options).filter(([name, value]) => fields[name]!.otherwise !== value))

interface Call {
  readonly name: string
  readonly options: Options
}

const callOf = (kinds: Kinds, { kind, options }: Item): Call => ({
  name: kind,
  options: given(kinds[kind]!.fields, options)
})

const partsOf = (state: State): ReadonlyArray<Call> => state.policies.map((item) => callOf(policies, item))

const patternsOf = (state: State): ReadonlyArray<Call> =>
  state.arrivals.map((item) => {
    const { name, options } = callOf(arrivals, item)
    const { interruptAfter } = state.run
    return { name, options: interruptAfter === undefined ? options : { ...options, interruptAfter } }
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

/** Throws the library's own RangeError where things do not go together. */
export const policyOf = (state: State): Throttle.Policy<any> => {
  const parts = partsOf(state)
  const make = ({ name, options }: Call): Throttle.Policy<any> => (Throttle as any)[name](options)
  const [first, ...others] = parts
  if (first === undefined) return Throttle.none
  return others.length === 0
    ? make({ ...first, options: { ...first.options, ...state.bounds } })
    : Throttle.all(parts.map(make), state.bounds)
}

export const arrivalsOf = (state: State): ReadonlyArray<Simulation.Arrival> =>
  Simulation.merge(...patternsOf(state).map(({ name, options }) => (Simulation as any)[name](options)))

export const simulate = (state: State): Simulation.Result =>
  Simulation.run(policyOf(state), arrivalsOf(state).slice(0, mostCalls), settingsOf(state) as Simulation.RunOptions)

// ---------------------------------------------------------------------------------------------------------------------
// To code
// ---------------------------------------------------------------------------------------------------------------------

const durations = new Set([
  "per",
  "interval",
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
    : JSON.stringify(value)

const optionsCode = (options: object): string =>
  `{ ${Object.entries(options).map(([name, value]) => `${name}: ${valueCode(name, value)}`).join(", ")} }`

const callCode = (module: string, { name, options }: Call): string => `${module}.${name}(${optionsCode(options)})`

const policyCode = (state: State): string => {
  const parts = partsOf(state)
  const [first, ...others] = parts
  if (first === undefined) return "Throttle.none"
  if (others.length === 0) return callCode("Throttle", { ...first, options: { ...first.options, ...state.bounds } })
  const bounds = Object.keys(state.bounds).length === 0 ? "" : `, ${optionsCode(state.bounds)}`
  return `Throttle.all([\n${parts.map((part) => `  ${callCode("Throttle", part)}`).join(",\n")}\n]${bounds})`
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
  return `import { Effect } from "effect"
import { Throttle } from "effect-throttle"
import * as Simulation from "effect-throttle/simulation"

// Made once, outside the function that uses it
const policy = ${policyCode(state)}

export const fetchUser = (id: number) => Effect.succeed({ id }).pipe(policy)

// What this page shows
const arrivals = ${arrivalsCode(state)}
const result = Simulation.run(policy, arrivals${options})

console.log(Simulation.text(result))
`
}
