/**
 * What the store is asked and told in one step, and what its answer grants.
 */
import type { Ask } from "../../internal/ask.ts"
import { type Decision, leaseOf, type Request, type Return, type Run } from "../ThrottleStore.ts"
import { release, startRenewer } from "./leases.ts"
import { type Grant, isSame, type Lease, type Limiter } from "./state.ts"

/** Milliseconds after which something that may change elsewhere is looked at again. */
export const recheck = 250

/** How long a place in the store's line lasts: four looks. */
const patience = 4 * recheck * 1e3

export const requestOf = (
  limiter: Limiter,
  asks: ReadonlyArray<Ask>,
  more: Partial<Request>
): Request => {
  const { channel, client, key, ttl } = limiter.settings
  const returns = returnsOf(limiter)
  const { releases, settlements } = limiter
  limiter.releases = []
  limiter.settlements = []
  const firstLease = client.nextLease
  client.nextLease += asks.length
  return {
    key,
    rules: limiter.rules,
    returns,
    settlements,
    releases,
    runs: runsOf(asks),
    waited: 0,
    since: undefined,
    maxWait: -1,
    isDry: false,
    owner: client.owner,
    joins: true,
    channel,
    ttl: ttl / 1e3,
    patience,
    firstLease,
    settleWithin: 0,
    ...more
  }
}

const runsOf = (asks: ReadonlyArray<Ask>): ReadonlyArray<Run> => {
  const runs: Array<{ count: number; readonly ask: Ask }> = []
  for (const ask of asks) {
    const last = runs[runs.length - 1]
    if (last !== undefined && isSame(last.ask, ask)) last.count++
    else runs.push({ count: 1, ask })
  }
  return runs.map(({ ask, count }) => ({ count, timings: ask.timings, gates: ask.holdings }))
}

const add = (all: ReadonlyArray<Grant>, length: number): ReadonlyArray<number> =>
  Array.from({ length }, (_, i) => all.reduce((total, { ask }) => total + ask.timings[i]!, 0))

/** What nobody wants, of the newest decision: of older ones nothing can come back. Their leases are released. */
const returnsOf = (limiter: Limiter): Return | undefined => {
  const all = [...limiter.surplus, ...limiter.unwanted]
  limiter.surplus = []
  limiter.unwanted = []
  for (const { lease } of all) if (lease !== undefined) release(limiter, lease)
  const version = Math.max(...all.map((grant) => grant.version!))
  const newest = all.filter((grant) => grant.version === version && grant.ask.plan === limiter.plan)
  if (newest.length === 0) return undefined
  const parts = limiter.rules.timings.length
  const slot = newest.find((grant) => grant.isSlot)
  const grants = newest.filter((grant) => !grant.isSlot)
  return {
    version,
    slot: slot === undefined ? undefined : { at: slot.at, timings: slot.ask.timings },
    grants: grants.length === 0 ? undefined : { at: grants[0]!.at, timings: add(grants, parts) }
  }
}

/** What did not reach the store: releases may be told again, since nothing comes of a second time. */
export const retell = (limiter: Limiter, { releases }: Request): void => {
  limiter.releases.unshift(...releases)
}

export const grantsOf = (
  limiter: Limiter,
  asks: ReadonlyArray<Ask>,
  request: Request,
  decision: Decision,
  sent: number
): ReadonlyArray<Grant> => {
  let { fence } = decision
  const grants = asks.slice(0, decision.granted + (decision.slot === undefined ? 0 : 1))
  return grants.map((ask, i) => {
    const isSlot = i === decision.granted
    let lease: Lease | undefined
    if (ask.holds) {
      lease = {
        name: leaseOf(request.rules, request.owner, request.firstLease + i, ask.holdings),
        fence: fence++,
        ask,
        until: sent + limiter.settings.ttl,
        isLost: false,
        onLost: undefined,
        fiber: undefined
      }
      limiter.leases.add(lease)
      startRenewer(limiter)
    }
    return { ask, at: isSlot ? decision.slot!.at : decision.now, version: decision.version, isSlot, lease }
  })
}

/** What came back has changed the key, but not what the slot here stands for. */
export const hear = (limiter: Limiter, { returns }: Request, { hasReturned, version }: Decision): void => {
  limiter.unheardSince = undefined
  const grant = limiter.slot?.grant
  if (hasReturned && grant !== undefined && grant.version === returns?.version) grant.version = version
}
