/**
 * Where a command goes in a Redis Cluster.
 */

/** A text's bytes in UTF-8, with the replacement character for halves of surrogate pairs. */
const bytesOf = (text: string): ReadonlyArray<number> => {
  const bytes: Array<number> = []
  const escaped = encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\ufffd"))
  for (let i = 0; i < escaped.length; i++) {
    const isEscape = escaped[i] === "%"
    bytes.push(isEscape ? Number.parseInt(escaped.slice(i + 1, i + 3), 16) : escaped.charCodeAt(i))
    if (isEscape) i += 2
  }
  return bytes
}

/** The hash slot of a key: CRC-16/XMODEM of the text in its first braces if that is not empty, otherwise of all of it. */
export const slotOf = (key: string): number => {
  const tag = /\{([^}]+)\}/.exec(key.slice(Math.max(0, key.indexOf("{"))))
  let crc = 0
  for (const byte of bytesOf(tag === null || tag.index > 0 ? key : tag[1]!)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021
  }
  return crc & 0x3fff
}

/** Commands that name no key. */
const keyless: ReadonlySet<string> = new Set([
  "ACL",
  "CLIENT",
  "CLUSTER",
  "COMMAND",
  "CONFIG",
  "DBSIZE",
  "ECHO",
  "FLUSHALL",
  "FLUSHDB",
  "FUNCTION",
  "INFO",
  "KEYS",
  "MEMORY",
  "PING",
  "PUBLISH",
  "PUBSUB",
  "SCAN",
  "SCRIPT",
  "TIME",
  "WAIT"
])

/** The first key of a command, by which its node is chosen; undefined where it has none. */
export const firstKeyOf = (command: string, args: ReadonlyArray<string>): string | undefined => {
  const name = command.toUpperCase()
  if (/^(EVAL|EVALSHA|FCALL)(_RO)?$/.test(name)) return Number(args[1]) > 0 ? args[2] : undefined
  return keyless.has(name) ? undefined : args[0]
}
