/** Numbers and times in words. */
import * as Callers from "./callers.ts"
import type { Result } from "./run.ts"
import { type Summary, summary } from "./summary.ts"

/** At most three significant digits, without trailing zeros. */
export const number = (value: number): string =>
  value >= 1_000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)))

/** Short, for an axis: "84k". */
export const short = (value: number): string =>
  value >= 1e6 ? `${number(value / 1e6)}M` : value >= 1e4 ? `${number(value / 1e3)}k` : number(value)

/** Milliseconds in a readable unit. */
export const time = (millis: number): string =>
  millis === 0
    ? "0 s"
    // 999.6 ms are 1 s.
    : Number(millis.toPrecision(3)) < 1_000
    ? `${number(millis)} ms`
    : millis < 600_000
    ? `${number(millis / 1_000)} s`
    : millis < 36_000_000
    ? `${number(millis / 60_000)} min`
    : `${number(millis / 3_600_000)} h`

/** Lines of at most so many characters, broken between words; a longer word stays whole. */
export const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let rest = text
  while (rest.length > width) {
    const space = rest.lastIndexOf(" ", width)
    const end = space > 0 ? space : rest.indexOf(" ")
    if (end < 0) break
    lines.push(rest.slice(0, end))
    rest = rest.slice(end + 1)
  }
  return [...lines, rest]
}

/** An instant on an axis, in the unit in which each tick of the axis is an integer. */
export const tick = (instant: number, ticks: ReadonlyArray<number>): string => {
  const last = ticks.at(-1) ?? 0
  const step = (ticks[1] ?? last) - (ticks[0] ?? 0)
  const [size, unit] = last <= 600_000 || step % 60_000 !== 0
    ? [1_000, "s"]
    : last <= 36_000_000 || step % 3_600_000 !== 0
    ? [60_000, "min"]
    : [3_600_000, "h"]
  return `${Number((instant / size).toPrecision(12))} ${unit}`
}

const counted = (n: number, one: string): string => `${number(n)} ${one}${n === 1 ? "" : "s"}`

const refusals = ({ refused }: Summary): ReadonlyArray<string> =>
  Object.entries(refused).filter(([, n]) => n > 0).map(([reason, n]) => `${number(n)} ${reason}`)

/** The characters of a caller's name that leave a sentence readable. */
const mostSigns = 30

const ofCaller = ({ calls, name }: Callers.Group, result: Result): string => {
  const { started, wait } = summary({ ...result, calls })
  const all = started === calls.length ? "" : `, ${number(started)} started`
  const waits = started === 0
    ? ""
    : wait.max === 0
    ? ", no wait"
    : `, half waited up to ${time(wait.p50)}, the longest ${time(wait.max)}`
  return `${Callers.shortened(name, mostSigns)} ${counted(calls.length, "call")}${all}${waits}`
}

/**
 * Describes a simulation in a few sentences, with the waits of each caller where calls have different callers.
 *
 * **When to use**
 *
 * Where a picture cannot be seen: as its text alternative, in a log.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import * as Simulation from "effect-throttle/simulation"
 *
 * const result = Simulation.run(Throttle.rate({ limit: 1, maxQueue: 1 }), Simulation.list([0, 0, 0]))
 *
 * console.log(Simulation.describe(result))
 * // 3 calls in 1 s: 2 started; refused: 1 QueueFull. Waits: half up to 0 s, nine of ten up to 1 s, the longest 1 s. …
 * ```
 *
 * @see {@link summary} for the numbers
 * @category reading
 * @since 0.1.0
 */
export const describe = (result: Result): string => {
  const all = summary(result)
  const { calls, interrupted, longestLine, mostRunning, started, wait } = all
  if (calls === 0) return "No calls."
  const left = calls - started
  const forever = result.calls.filter(({ outcome }) => outcome === "waiting").length
  const fates = [
    `${number(started)} started`,
    ...(refusals(all).length === 0 ? [] : [`refused: ${refusals(all).join(", ")}`]),
    ...(interrupted === 0 ? [] : [`${number(interrupted)} interrupted`]),
    ...(forever === 0 ? [] : [`${number(forever)} waiting for ever`])
  ]
  const callers = Callers.groupsOf(result).map((group) => ofCaller(group, result))
  const waits = longestLine === 0
    ? "Nobody waited."
    : wait.max === 0
    ? "Those who started did not wait."
    : `Waits: half up to ${time(wait.p50)}, nine of ten up to ${time(wait.p90)}, the longest ${time(wait.max)}.`
  const most = [
    ...(longestLine === 0 ? [] : [`${number(longestLine)} waiting`]),
    ...(mostRunning === 0 ? [] : [`${number(mostRunning)} running`])
  ]
  return [
    `${counted(calls, "call")} in ${time(all.duration)}: ${left === 0 ? "all started" : fates.join("; ")}.`,
    ...(left === 0 && interrupted > 0 ? [`${number(interrupted)} interrupted.`] : []),
    ...(started === 0 ? [] : [waits]),
    ...(most.length === 0 ? [] : [`At most ${most.join(" and ")} at once.`]),
    ...(callers.length === 0 ? [] : [`By caller: ${callers.join("; ")}.`])
  ].join(" ")
}
