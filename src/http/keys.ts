/**
 * Whom a request is counted for.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import type * as Headers from "effect/http/Headers"
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
   * The number of your own proxies that a request passes on its way to this server, each of which appends to
   * `X-Forwarded-For` the address it was asked from. An integer. Default: 0, the header is not read.
   */
  readonly trustedProxies?: number | undefined
  /**
   * The header in which the platform in front of this server writes the client's address, such as `cf-connecting-ip`.
   * Clients that reach the server past the platform can choose its value. Default: none.
   */
  readonly header?: string | undefined
  /** The number of leading bits of an IPv6 address that are the key. An integer from 1 to 128. Default: 64. */
  readonly ipv6Prefix?: number | undefined
}

const octet = "(?:\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])"

/** An IPv4 address as a socket writes it. Anything else is parsed, which takes microseconds. */
const ipv4 = new RegExp(`^(?:::ffff:)?(${octet}(?:\\.${octet}){3})$`)

/**
 * The address of the client, as a key.
 *
 * **When to use**
 *
 * For clients that have no better identity. It is the default.
 *
 * **Details**
 *
 * By default it is the address of the connection, and a client's own `X-Forwarded-For` changes nothing. With
 * `trustedProxies: n` it is the n-th address from the right in `X-Forwarded-For`, the one that your outermost proxy has
 * seen: what a client invents stands further left. With `header` it is the address in that header. If the header has no
 * address there, it is the address of the connection. The header `Forwarded` is not read: a proxy that appends to one of
 * the two headers passes the other on as the client wrote it. Where proxies are known by their networks rather than by
 * their number, use neither option and let `HttpMiddleware.xForwardedHeaders` of effect/http find the address.
 *
 * IPv6 addresses are cut to their first 64 bits, because a client has at least one such network. IPv4 addresses inside
 * IPv6 ones are IPv4 addresses: mapped (`::ffff:0:0/96`), translated by a NAT64 (`64:ff9b::/96`) and by SIIT
 * (`::ffff:0:0:0/96`). Those of a local NAT64 (`64:ff9b:1::/48`) are not cut.
 *
 * A request without an address has the key "unknown", so all such requests share a budget: those of
 * `HttpRouter.toWebHandler`, which is given no address, and those that come through a Unix socket. The middleware warns
 * once when it happens; docs/http.md has the remedy for each platform.
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
 *
 * // On Cloudflare
 * const OnCloudflare = HttpThrottle.middleware({
 *   policy: Throttle.rate({ limit: 100, per: "1 minute", burst: 20 }),
 *   key: HttpThrottle.clientAddress({ header: "cf-connecting-ip" })
 * })
 * ```
 *
 * @see {@link header} for a key that a header gives
 * @category keys
 * @since 0.1.0
 */
export const clientAddress = (options: ClientAddressOptions = {}): Effect.Effect<string, never, HttpServerRequest> => {
  const { header, ipv6Prefix = 64, trustedProxies = 0 } = options
  const bad = (option: string, allowed: string, received: unknown) =>
    new RangeError(`HttpThrottle.clientAddress: "${option}" must be ${allowed}, received ${Formatter.format(received)}`)
  if (!Number.isSafeInteger(trustedProxies) || trustedProxies < 0) {
    throw bad("trustedProxies", "an integer ≥ 0", trustedProxies)
  }
  if (!Number.isSafeInteger(ipv6Prefix) || ipv6Prefix < 1 || ipv6Prefix > 128) {
    throw bad("ipv6Prefix", "an integer from 1 to 128", ipv6Prefix)
  }
  if (header !== undefined && (typeof header !== "string" || header === "")) {
    throw bad("header", "a non-empty string", header)
  }
  if (header !== undefined && trustedProxies > 0) {
    throw new RangeError("HttpThrottle.clientAddress: \"header\" and \"trustedProxies\" exclude each other")
  }
  const keyOf = (address: string | undefined) =>
    address === undefined ? undefined : Address.toKey(address.trim(), ipv6Prefix)
  const written = header !== undefined
    ? ({ headers }: HttpServerRequest) => valueOf(headers, header.toLowerCase())
    : trustedProxies > 0
    ? ({ headers }: HttpServerRequest) => headers["x-forwarded-for"]?.split(",").at(-trustedProxies)
    : undefined
  return Effect.map(HttpServerRequest, (request) => {
    if (written === undefined) {
      const address = Option.getOrUndefined(request.remoteAddress)
      return ipv4.exec(address ?? "")?.[1] ?? keyOf(address) ?? Address.unknown
    }
    return keyOf(written(request)) ?? keyOf(Option.getOrUndefined(request.peerAddress)) ?? Address.unknown
  })
}

/** A name from outside may be one of an object's own properties, such as "constructor". */
const valueOf = (headers: Headers.Headers, lowerCased: string): string | undefined =>
  Object.hasOwn(headers, lowerCased) ? headers[lowerCased] : undefined

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
export const header: {
  /**
   * The value of a header, as a key: the header's name and its value; where it is missing or empty, the client's address.
   * Throws a `RangeError` for a name that is no text.
   */
  (name: string): Effect.Effect<string, never, HttpServerRequest>
  /**
   * The value of a header, as a key: the header's name and its value; where it is missing or empty, another key. Throws a
   * `RangeError` for a name that is no text.
   */
  <R>(name: string, orElse: Effect.Effect<string, never, R>): Effect.Effect<string, never, R | HttpServerRequest>
} = <R>(
  name: string,
  orElse: Effect.Effect<string, never, R | HttpServerRequest> = clientAddress()
): Effect.Effect<string, never, R | HttpServerRequest> => {
  if (typeof name !== "string" || name === "") {
    throw new RangeError(`HttpThrottle.header: "name" must be a non-empty string, received ${Formatter.format(name)}`)
  }
  const lowerCased = name.toLowerCase()
  return Effect.flatMap(HttpServerRequest, ({ headers }): Effect.Effect<string, never, R | HttpServerRequest> => {
    const value = valueOf(headers, lowerCased)
    return value === undefined || value === "" ? orElse : Effect.succeed(`${lowerCased}:${value}`)
  })
}
