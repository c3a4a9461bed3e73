/**
 * Addresses as keys.
 */
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"

/** The address that a proxy or a socket wrote: also in brackets, with a port, with an interface. */
const parse = (text: string): NetAddress.IpAddress | undefined => {
  const [bare = ""] = text.replace(/^\[([^\]]*)\]$/, "$1").split("%", 1)
  const address = Result.getOrElse(NetAddress.ipFromString(bare), () => undefined)
  if (address !== undefined) return NetAddress.toCanonical(address)
  const withPort = Result.getOrElse(NetAddress.inetAddressFromString(text), () => undefined)
  return withPort === undefined ? undefined : NetAddress.toCanonical(withPort.address)
}

/** An IPv4 address as it is, the network of an IPv6 address; undefined for what is no address. */
export const toKey = (text: string, ipv6Prefix: number): string | undefined => {
  const address = parse(text)
  if (address === undefined) return undefined
  // A text of its own: a part of a header would keep the whole header in memory.
  return NetAddress.isIpv4Address(address) || ipv6Prefix === 128
    ? NetAddress.formatIp(address)
    : IpNetwork.format(IpNetwork.fromAddressUnsafe(address, ipv6Prefix))
}
