/**
 * Turns addresses into keys.
 */
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"

/** The key of all requests without an address: from `toWebHandler`, and from a Unix socket. */
export const unknown = "unknown"

/** Parses an address as a proxy or a socket writes it: also in brackets, with a port, with an interface. */
const parse = (text: string): NetAddress.IpAddress | undefined => {
  const [bare = ""] = text.replace(/^\[([^\]]*)\]$/, "$1").split("%", 1)
  const address = Result.getOrElse(NetAddress.ipFromString(bare), () => undefined)
  if (address !== undefined) return address
  return Result.getOrElse(NetAddress.inetAddressFromString(text), () => undefined)?.address
}

/**
 * Prefixes (96 bits) that are followed by an IPv4 address: mapped, and translated by a NAT64 (RFC 6052) or by SIIT
 * (RFC 2765). Cut to 64 bits, all IPv4 clients would be one.
 */
const ofIpv4: ReadonlySet<string> = new Set(["0:0:0:0:0:ffff", "64:ff9b:0:0:0:0", "0:0:0:0:ffff:0"])

/** The prefix of NAT64s inside a network (RFC 8215). Only that network knows which bits are the IPv4 address. */
const ofTranslators = "64:ff9b:1"

/** An IPv4 address, or the network of an IPv6 address; undefined for a text that is no address. */
export const toKey = (text: string, ipv6Prefix: number): string | undefined => {
  const address = parse(text)
  if (address === undefined) return undefined
  // The result is a string of its own: a substring of a header would keep the whole header in memory.
  if (NetAddress.isIpv4Address(address)) return NetAddress.formatIp(address)
  const segments = NetAddress.ipv6ToSegments(address)
  const starts = (count: number) => segments.slice(0, count).map((segment) => segment.toString(16)).join(":")
  if (ofIpv4.has(starts(6))) {
    return segments.slice(6).flatMap((segment) => [segment >>> 8, segment & 255]).join(".")
  }
  return ipv6Prefix === 128 || starts(3) === ofTranslators
    ? NetAddress.formatIp(address)
    : IpNetwork.format(IpNetwork.fromAddressUnsafe(address, ipv6Prefix))
}
