/** Whom a request is counted for: addresses as sockets and proxies write them, and headers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { HttpThrottle } from "effect-throttle/http"
import { HttpMiddleware, HttpServerRequest, HttpServerResponse } from "effect/http"
import { IpNetwork } from "effect/net"

const request = (from: string | undefined, headers: Record<string, string> = {}) => {
  const remoteAddress = Option.fromUndefinedOr(from)
  return HttpServerRequest.fromWeb(new Request("http://localhost/", { headers }))
    .modify({ remoteAddress, peerAddress: remoteAddress })
}

const keyOf = (
  key: Effect.Effect<string, never, HttpServerRequest.HttpServerRequest>,
  from: string | undefined,
  headers?: Record<string, string>
) => Effect.runSync(Effect.provideService(key, HttpServerRequest.HttpServerRequest, request(from, headers)))

describe("clientAddress", () => {
  it.each<[from: string | undefined, key: string]>([
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["::ffff:c000:201", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:0DB8:0001:0002::", "2001:db8:1:2::/64"],
    ["fe80::1%eth0", "fe80::/64"],
    ["::1", "::/64"],
    // IPv4 inside IPv6: mapped, translated by a NAT64 (RFC 6052, RFC 8215) or by SIIT (RFC 2765).
    ["::ffff:102:304", "1.2.3.4"],
    ["::FFFF:102:304", "1.2.3.4"],
    ["0:0:0:0:0:ffff:102:304", "1.2.3.4"],
    ["64:ff9b::808:808", "8.8.8.8"],
    ["64:ff9b::8.8.8.8", "8.8.8.8"],
    ["64:FF9B:0:0:0:0:0808:0808", "8.8.8.8"],
    ["::ffff:0:1.2.3.4", "1.2.3.4"],
    // Where the local prefix ends is known to its network alone, so no two addresses of it are one client.
    ["64:ff9b:1::8.8.8.8", "64:ff9b:1::808:808"],
    ["64:ff9b:1:808:8:800::", "64:ff9b:1:808:8:800::"],
    // Beside these prefixes: a network like others.
    ["64:ff9b:0:1::808:808", "64:ff9b:0:1::/64"],
    ["64:ff9b:0:0:1::808:808", "64:ff9b::/64"],
    ["2001:db8:1234:5678::1.2.3.4", "2001:db8:1234:5678::/64"],
    ["::1.2.3.4", "::/64"],
    ["2002:102:304::1", "2002:102:304::/64"],
    // What is no address is no key.
    ["999.1.1.1", "unknown"],
    ["1.2.3.4.5", "unknown"],
    ["010.0.0.1", "unknown"],
    ["127.1", "unknown"],
    ["0x7f.0.0.1", "unknown"],
    ["::ffff:999.1.1.1", "unknown"],
    ["1::2::3", "unknown"],
    ["", "unknown"],
    [undefined, "unknown"]
  ])("of the connection %s is %s", (from, key) => {
    assert.strictEqual(keyOf(HttpThrottle.clientAddress(), from), key)
  })

  it("whoever has a /64 has one key, and no more of the key can be chosen", () => {
    const keys = Array.from(
      { length: 100 },
      (_, i) => keyOf(HttpThrottle.clientAddress(), `2001:db8::${i.toString(16)}`)
    )
    assert.deepStrictEqual([...new Set(keys)], ["2001:db8::/64"])
  })

  it("cut elsewhere, or not at all", () => {
    const address = "2001:db8:1:2:3:4:5:6"
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ ipv6Prefix: 48 }), address), "2001:db8:1::/48")
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ ipv6Prefix: 128 }), address), address)
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ ipv6Prefix: 48 }), "192.0.2.1"), "192.0.2.1")
  })

  it.each<[trustedProxies: number, forwarded: string | undefined, key: string]>([
    // What a client writes itself counts for nothing.
    [0, "203.0.113.9", "192.0.2.1"],
    [1, "203.0.113.9", "203.0.113.9"],
    [1, "1.1.1.1, 2.2.2.2, 203.0.113.9", "203.0.113.9"],
    [2, "1.1.1.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"],
    [1, " 203.0.113.9 ", "203.0.113.9"],
    [1, "203.0.113.9:4711", "203.0.113.9"],
    [1, "[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"],
    [1, "[2001:db8:1:2::9]", "2001:db8:1:2::/64"],
    [1, "2001:db8:1:2::9", "2001:db8:1:2::/64"],
    [1, "::ffff:203.0.113.9", "203.0.113.9"],
    [1, "[::ffff:203.0.113.9]:4711", "203.0.113.9"],
    [1, "64:ff9b::cb00:7109", "203.0.113.9"],
    [1, "[64:ff9b::cb00:7109]:4711", "203.0.113.9"],
    // Who came past the proxies, or through fewer, is known by the connection.
    [1, undefined, "192.0.2.1"],
    [1, "", "192.0.2.1"],
    [3, "1.1.1.1, 203.0.113.9", "192.0.2.1"],
    // What is no address is no key either.
    [1, "unknown", "192.0.2.1"],
    [1, "203.0.113.999", "192.0.2.1"],
    [1, "_hidden", "192.0.2.1"],
    [1, "__proto__", "192.0.2.1"],
    [1, "1.1.1.1,", "192.0.2.1"],
    [1, ",,,,,,,,", "192.0.2.1"],
    [1, "[::1", "192.0.2.1"],
    [1, "[", "192.0.2.1"],
    [1, "%", "192.0.2.1"],
    [1, "1".repeat(5_000), "192.0.2.1"],
    [1, ",".repeat(15_000), "192.0.2.1"]
  ])("behind %s trusted proxies, X-Forwarded-For: %s", (trustedProxies, forwarded, key) => {
    const headers: Record<string, string> = forwarded === undefined ? {} : { "x-forwarded-for": forwarded }
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ trustedProxies }), "192.0.2.1", headers), key)
  })

  it.each<[header: string | undefined, key: string]>([
    ["203.0.113.9", "203.0.113.9"],
    ["203.0.113.9:4711", "203.0.113.9"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["64:ff9b::cb00:7109", "203.0.113.9"],
    // Requests that did not come through the platform, and values that are no single address.
    [undefined, "192.0.2.1"],
    ["", "192.0.2.1"],
    ["somebody", "192.0.2.1"],
    ["203.0.113.9, 203.0.113.10", "192.0.2.1"]
  ])("in a header of the platform's: %s is %s", (header, key) => {
    const headers: Record<string, string> = header === undefined ? {} : { "cf-connecting-ip": header }
    assert.strictEqual(
      keyOf(HttpThrottle.clientAddress({ header: "CF-Connecting-IP" }), "192.0.2.1", headers),
      key
    )
  })

  it("in a header, where there is no connection's address either, is unknown", () => {
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ header: "cf-connecting-ip" }), undefined), "unknown")
  })

  it("Forwarded is not read", () => {
    const headers = { forwarded: "for=203.0.113.9" }
    assert.strictEqual(keyOf(HttpThrottle.clientAddress({ trustedProxies: 1 }), "192.0.2.1", headers), "192.0.2.1")
  })

  it("follows what effect/http finds out from the networks of proxies", async () => {
    const app = Effect.map(HttpThrottle.clientAddress(), (key) => HttpServerResponse.text(key)).pipe(
      HttpMiddleware.xForwardedHeaders({ trustedProxies: [IpNetwork.fromStringUnsafe("10.0.0.0/8")] })
    )
    const of = async (from: string) => {
      const asked = request(from, { "x-forwarded-for": "6.6.6.6, 203.0.113.9" })
      const response = await Effect.runPromise(Effect.provideService(app, HttpServerRequest.HttpServerRequest, asked))
      return HttpServerResponse.toWeb(response).text()
    }
    assert.strictEqual(await of("10.0.0.1"), "203.0.113.9")
    assert.strictEqual(await of("192.0.2.1"), "192.0.2.1")
  })

  it.each<[options: HttpThrottle.ClientAddressOptions, message: string]>([
    [{ trustedProxies: -1 }, "HttpThrottle.clientAddress: \"trustedProxies\" must be an integer ≥ 0, received -1"],
    [
      { trustedProxies: 1.5 },
      "HttpThrottle.clientAddress: \"trustedProxies\" must be an integer ≥ 0, received 1.5"
    ],
    [{ ipv6Prefix: 0 }, "HttpThrottle.clientAddress: \"ipv6Prefix\" must be an integer from 1 to 128, received 0"],
    [{ ipv6Prefix: 129 }, "HttpThrottle.clientAddress: \"ipv6Prefix\" must be an integer from 1 to 128, received 129"],
    [{ header: "" }, "HttpThrottle.clientAddress: \"header\" must be a non-empty string, received \"\""],
    [
      { header: "cf-connecting-ip", trustedProxies: 1 },
      "HttpThrottle.clientAddress: \"header\" and \"trustedProxies\" exclude each other"
    ]
  ])("%j is refused", (options, message) => {
    assert.throws(() => HttpThrottle.clientAddress(options), RangeError, message)
  })
})

describe("header", () => {
  it("is the name and the value, or the address where there is none", () => {
    const key = HttpThrottle.header("X-Tenant")
    assert.strictEqual(keyOf(key, "192.0.2.1", { "x-tenant": "acme" }), "x-tenant:acme")
    assert.strictEqual(keyOf(key, "192.0.2.1"), "192.0.2.1")
    assert.strictEqual(keyOf(key, "192.0.2.1", { "x-tenant": "" }), "192.0.2.1")
  })

  it("somebody's address as a value is not that one's key", () => {
    assert.strictEqual(
      keyOf(HttpThrottle.header("x-tenant"), "192.0.2.1", { "x-tenant": "192.0.2.2" }),
      "x-tenant:192.0.2.2"
    )
  })

  it("may fall back on any other key", () => {
    const key = HttpThrottle.header("x-tenant", Effect.succeed("nobody"))
    assert.strictEqual(keyOf(key, "192.0.2.1"), "nobody")
  })

  it("has no value that is not in the request", () => {
    for (const name of ["__proto__", "constructor", "toString", "toJSON"]) {
      assert.strictEqual(keyOf(HttpThrottle.header(name), "192.0.2.1"), "192.0.2.1")
    }
  })

  it("needs a name", () => {
    assert.throws(
      () => HttpThrottle.header(""),
      RangeError,
      `HttpThrottle.header: "name" must be a non-empty string, received ""`
    )
  })
})
