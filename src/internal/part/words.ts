/**
 * Durations and units in words.
 */
const units: ReadonlyArray<readonly [millis: number, name: string]> = [
  [86_400_000, "day"],
  [3_600_000, "hour"],
  [60_000, "minute"],
  [1_000, "second"],
  [1, "millisecond"]
]

/**
 * Returns milliseconds in the largest unit that divides them: "second", "2 seconds", "0.5 milliseconds". `one`: the
 * prefix of a single unit.
 */
export const duration = (millis: number, one: "" | "1 "): string => {
  const [size, unit] = units.find(([size]) => millis % size === 0) ?? [1, "millisecond"]
  const count = millis / size
  return count === 1 ? `${one}${unit}` : `${count} ${unit}s`
}

/** Returns the unit of a policy as a word after a number: empty for permits. */
export const unit = (data: { readonly unit?: string }): string =>
  data.unit === undefined || data.unit === "permits" ? "" : ` ${data.unit}`
