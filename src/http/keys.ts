/**
 * Whom a request is counted for.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import { HttpServerRequest } from "effect/http/HttpServerRequest"
import * as Option from "effect/Option"
import * as Address from "./internal/address.ts"

/**
 * Options of {@link clientAddress}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientAddressOptions {
  /**
   * How many proxies of yours a request passes on its way to this server, each of which appends to `X-Forwarded-For` the
   * address it was asked from. A whole number. Default: 0, the header is not read.
   */
  readonly trustedProxies?: number | undefined
  /** So many leading bits of an IPv6 address tell clients apart. A whole number from 1 to 128. Default: 64. */
  readonly ipv6Prefix?: number | undefined
}

/** Where there is no address, as with a request that came through a Unix socket: all such share a budget. */
const unknown = "unknown"

/** As a socket writes an IPv4 address: to read it as an address takes 1 µs. */
const ipv4 = /^(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)$/

/**
 * The address of the client, as a key.
 *
 * **When to use**
 *
 * For clients that are not known by anything better. It is the default.
 *
 * **Details**
 *
 * Without trusted proxies it is the address of the connection, and what a client writes into `X-Forwarded-For` changes
 * nothing. With n of them it is the n-th address from the right, the one that the outermost proxy of yours has seen:
 * whatever a client invents stands further left. If there are fewer, or that one is no address, it is the address of the
 * connection. The header `Forwarded` is not read: a proxy that appends to one of the two passes the other on as the
 * client wrote it. Where proxies are better known by their networks than by their number, leave this at 0 and let
 * `HttpMiddleware.xForwardedHeaders` of effect/http find the address.
 *
 * IPv6 addresses are cut to their first 64 bits, since whoever has one address has at least those 2^64. IPv4 addresses
 * written as IPv6 ones are IPv4 addresses.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * // Behind one load balancer
 * const PerClient = HttpThrottle.middleware({
 *   policy: Throttle.rate({ limit: 100, per: "1 minute", burst: 20 }),
 *   key: HttpThrottle.clientAddress({ trustedProxies: 1 })
 * })
 * ```
 *
 * @see {@link header} for a key that a header gives
 * @category keys
 * @since 0.1.0
 */
export const clientAddress = (options: ClientAddressOptions = {}): Effect.Effect<string, never, HttpServerRequest> => {
  const { ipv6Prefix = 64, trustedProxies = 0 } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`HttpThrottle.clientAddress: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  if (!Number.isSafeInteger(trustedProxies) || trustedProxies < 0) {
    throw bad("trustedProxies", "a whole number of at least 0", trustedProxies)
  }
  if (!Number.isSafeInteger(ipv6Prefix) || ipv6Prefix < 1 || ipv6Prefix > 128) {
    throw bad("ipv6Prefix", "a whole number from 1 to 128", ipv6Prefix)
  }
  const keyOf = (address: string | undefined) =>
    address === undefined ? undefined : Address.toKey(address.trim(), ipv6Prefix)
  return Effect.map(HttpServerRequest, (request) => {
    if (trustedProxies === 0) {
      const address = Option.getOrUndefined(request.remoteAddress)
      return ipv4.exec(address ?? "")?.[1] ?? keyOf(address) ?? unknown
    }
    const forwarded = request.headers["x-forwarded-for"]?.split(",").at(-trustedProxies)
    return keyOf(forwarded) ?? keyOf(Option.getOrUndefined(request.peerAddress)) ?? unknown
  })
}

/**
 * The value of a header, as a key; where the header is missing or empty, another key.
 *
 * **When to use**
 *
 * For a header that the client cannot choose: one that a proxy of yours sets, or a token that has been checked before.
 *
 * **Details**
 *
 * The key is the header's name and its value, so a client that writes somebody's address into the header does not spend
 * that one's budget. `orElse` is {@link clientAddress} by default.
 *
 * **Gotchas**
 *
 * Who can choose the value can choose a new one for each request, and so has a new budget each time. Only a `global`
 * policy limits such a client.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const PerTenant = HttpThrottle.middleware({
 *   policy: Throttle.rate({ limit: 10, burst: 20 }),
 *   key: HttpThrottle.header("x-tenant"),
 *   global: Throttle.rate({ limit: 1_000, burst: 1_000 })
 * })
 * ```
 *
 * @see {@link clientAddress} for the key that needs no header
 * @category keys
 * @since 0.1.0
 */
export const header = <R = HttpServerRequest>(
  name: string,
  orElse: Effect.Effect<string, never, R> = clientAddress() as Effect.Effect<string, never, any>
): Effect.Effect<string, never, R | HttpServerRequest> => {
  if (typeof name !== "string" || name === "") {
    throw new RangeError(`HttpThrottle.header: name must be a non-empty string, got ${Formatter.format(name)}`)
  }
  const lowerCased = name.toLowerCase()
  return Effect.flatMap(HttpServerRequest, ({ headers }): Effect.Effect<string, never, R> => {
    const value = Object.hasOwn(headers, lowerCased) ? headers[lowerCased] : undefined
    return value === undefined || value === "" ? orElse : Effect.succeed(`${lowerCased}:${value}`)
  })
}
