/**
 * Structured field values (RFC 9651), as far as the RateLimit fields use them: lists and dictionaries of items with
 * parameters. Strict: a value that is not well-formed is no value at all.
 */

/** Numbers and booleans are what they say, strings and tokens their text. Nobody here needs the others decoded. */
export type Bare = number | string | boolean

export interface Item {
  readonly value: Bare
  readonly parameters: ReadonlyMap<string, Bare>
}

/** The rest of the text, after what was read of it. */
interface Read<A> {
  readonly value: A
  readonly rest: string
}

const key = /^[a-z*][a-z0-9_\-.*]*/
const number = /^-?(?:\d{1,12}\.\d{1,3}(?!\d)|\d{1,15}(?![\d.]))/
const string = /^"((?:[ !#-[\]-~]|\\["\\])*)"/
const token = /^[A-Za-z*][\w!#$%&'*+\-.^`|~:/]*/
const bytes = /^:([A-Za-z0-9+/]*={0,2}):/
const boolean = /^\?([01])/
const date = /^@-?\d{1,15}(?![\d.])/
const displayString = /^%"(?:[ !#$&-~]|%[0-9a-f]{2})*"/
const separator = /^[ \t]*,[ \t]*/

const readBare = (text: string): Read<Bare> | undefined => {
  const read = <A extends Bare>(pattern: RegExp, of: (match: RegExpExecArray) => A): Read<A> | undefined => {
    const match = pattern.exec(text)
    return match === null ? undefined : { value: of(match), rest: text.slice(match[0].length) }
  }
  return read(number, ([digits]) => Number(digits)) ??
    read(string, ([, inside]) => inside!.replace(/\\(.)/g, "$1")) ??
    read(token, ([name]) => name) ??
    read(bytes, ([, encoded]) => encoded!) ??
    read(boolean, ([, bit]) => bit === "1") ??
    read(date, ([text]) => text) ??
    read(displayString, ([text]) => text)
}

/** `;a=1;b`: a parameter without a value is true. */
const readParameters = (text: string): Read<ReadonlyMap<string, Bare>> | undefined => {
  const parameters = new Map<string, Bare>()
  let rest = text
  while (rest.startsWith(";")) {
    rest = rest.slice(1).replace(/^ +/, "")
    const name = key.exec(rest)?.[0]
    if (name === undefined) return undefined
    rest = rest.slice(name.length)
    const value: Read<Bare> | undefined = rest.startsWith("=") ? readBare(rest.slice(1)) : { value: true, rest }
    if (value === undefined) return undefined
    parameters.set(name, value.value)
    rest = value.rest
  }
  return { value: parameters, rest }
}

const readItem = (text: string): Read<Item> | undefined => {
  const bare = readBare(text)
  const parameters = bare && readParameters(bare.rest)
  return parameters && { value: { value: bare!.value, parameters: parameters.value }, rest: parameters.rest }
}

const readMember = (text: string): Read<readonly [string, Item]> | undefined => {
  const name = key.exec(text)?.[0]
  if (name === undefined) return undefined
  const rest = text.slice(name.length)
  if (rest.startsWith("=")) {
    const item = readItem(rest.slice(1))
    return item && { value: [name, item.value], rest: item.rest }
  }
  const parameters = readParameters(rest)
  return parameters && { value: [name, { value: true, parameters: parameters.value }], rest: parameters.rest }
}

/** All of a field's members, separated by commas. */
const members = <A>(text: string, read: (text: string) => Read<A> | undefined): ReadonlyArray<A> | undefined => {
  const found: Array<A> = []
  let rest = text.trim()
  for (;;) {
    const member = read(rest)
    if (member === undefined) return undefined
    found.push(member.value)
    if (member.rest === "") return found
    const comma = separator.exec(member.rest)?.[0]
    if (comma === undefined) return undefined
    rest = member.rest.slice(comma.length)
  }
}

/** A list of items; undefined where it is empty or malformed. */
export const list = (text: string): ReadonlyArray<Item> | undefined => members(text, readItem)

/**
 * The dictionaries of a field that several hops have each written one in: a name that comes again begins another. Undefined
 * where it is empty or malformed.
 */
export const dictionaries = (text: string): ReadonlyArray<ReadonlyMap<string, Item>> | undefined => {
  const found: Array<Map<string, Item>> = []
  for (const [name, item] of members(text, readMember) ?? []) {
    let last = found.at(-1)
    if (last === undefined || last.has(name)) found.push(last = new Map())
    last.set(name, item)
  }
  return found.length === 0 ? undefined : found
}
