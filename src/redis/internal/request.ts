/**
 * Sends a request of a throttle to the store: the calls it asks for, with all that is to be reported, and what comes of the
 * answer. Here nanoseconds become the store's microseconds, and back.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Restore } from "../../internal/backend.ts"
import type { Demand } from "../../internal/demand.ts"
import type { Decision, Request, Return, Run, Together } from "../ThrottleStore.ts"
import * as Client from "./client.ts"
import { release, startRenewer } from "./leases.ts"
import { type Grant, isSame, type Lease, type Limiter, now, run, signal } from "./limiter.ts"
import { haveSameMeters, micros, nanos } from "./rules.ts"

/** Nanoseconds after which what may have changed elsewhere is asked for again: 250 ms. */
export const recheck = 250e6

/** How long a place in the store's queue lasts: four times as long. */
const patience = 4 * recheck

/** What is asked for beside the calls. Durations are nanoseconds. */
interface Options extends Partial<Pick<Request, "waited" | "since" | "isDry" | "asksLeft" | "joins">> {
  readonly maxWait?: number
  readonly settleWithin?: number
}

/** An answer of the store, with durations in nanoseconds. `wait` is Infinity in a pause without an end. */
export interface Answer extends Omit<Decision, "slot">, Pick<Limiter, "slot"> {
  readonly receivedAt: number
  /** Those of the calls that may start at once. */
  readonly grants: ReadonlyArray<Grant>
}

/** Sends a request. To be called in a region that cannot be interrupted except where `restore` says. */
export const send = (
  limiter: Limiter,
  demands: ReadonlyArray<Demand>,
  options: Options,
  restore: Restore
): Effect.Effect<Answer, Client.Failure> =>
  Effect.suspend(() => {
    const { client, key, timeout } = limiter.settings
    const request = requestOf(limiter, demands, options)
    const sentAt = now(limiter)
    const answerOf = (decision: Decision) => receive(limiter, demands, request, decision, sentAt)
    const onUnwanted = (decision: Decision) => discard(limiter, answerOf(decision))
    const answered = Client.send(client, key, timeout, client.store.decide(request), onUnwanted, restore)
    return Effect.map(
      Effect.onExitPrimitive(answered, (exit) => {
        if (Exit.isFailure(exit)) releaseAgain(limiter, request.releases)
        return undefined
      }),
      answerOf
    )
  })

/** A level in a request for several: its limiter, the demand of the call there, and what is asked beside. */
export interface Level {
  readonly limiter: Limiter
  readonly demand: Demand
  readonly options: Options
}

/** Answers for several levels, in their order. */
export interface Answers extends Omit<Together, "decisions"> {
  readonly answers: ReadonlyArray<Answer>
}

/** Sends one request for a call of several levels, with the reports of each; all grant it, or none. As {@link send}. */
export const sendTogether = (
  levels: ReadonlyArray<Level>,
  restore: Restore
): Effect.Effect<Answers, Client.Failure> =>
  Effect.suspend(() => {
    const { client, key } = levels[0]!.limiter.settings
    const timeout = Math.max(...levels.map(({ limiter }) => limiter.settings.timeout))
    const requests = levels.map(({ demand, limiter, options }) => requestOf(limiter, [demand], options))
    const sentAt = levels.map(({ limiter }) => now(limiter))
    const answersOf = ({ blocked, decisions, isGranted }: Together): Answers => ({
      blocked,
      isGranted,
      answers: decisions.map((decision, i) => {
        const { demand, limiter } = levels[i]!
        return receive(limiter, [demand], requests[i]!, decision, sentAt[i]!, true)
      })
    })
    const onUnwanted = (together: Together) =>
      answersOf(together).answers.forEach((answer, i) => discard(levels[i]!.limiter, answer))
    const request = client.store.decideTogether!(requests)
    return Effect.map(
      Effect.onExitPrimitive(Client.send(client, key, timeout, request, onUnwanted, restore), (exit) => {
        if (Exit.isFailure(exit)) levels.forEach(({ limiter }, i) => releaseAgain(limiter, requests[i]!.releases))
        return undefined
      }),
      answersOf
    )
  })

/** Reports releases once more, since the store may not know of them. A pump at work looks at them by itself. */
const releaseAgain = (limiter: Limiter, releases: ReadonlyArray<string>): void => {
  limiter.releases.unshift(...releases)
  const { state } = limiter.pump
  if (releases.length > 0 && (state === "idle" || state === "resting")) signal(limiter)
}

/** Returns what an answer has granted too late. */
export const discard = (limiter: Limiter, { grants, slot }: Answer): void => {
  const unwanted = slot === undefined ? grants : [...grants, slot.grant]
  limiter.unwanted.push(...unwanted)
  for (const { lease } of unwanted) if (lease !== undefined) release(limiter, lease)
  if (unwanted.length === 0) return
  if (limiter.phase !== "closed") return signal(limiter)
  const request = requestOf(limiter, [], { joins: true })
  run(limiter)(Effect.ignore(limiter.settings.client.store.decide(request)))
}

const requestOf = (
  limiter: Limiter,
  demands: ReadonlyArray<Demand>,
  { asksLeft = false, isDry = false, joins = false, maxWait = -1, settleWithin = 0, since, waited = 0 }: Options
): Request => {
  const { channel, client, key, ttl } = limiter.settings
  const returns = returnsOf(limiter)
  const { releases, rules, settlements } = limiter
  limiter.releases = []
  limiter.settlements = []
  const firstLease = client.nextLease
  client.nextLease += demands.length
  return {
    key,
    rules,
    returns,
    settlements,
    releases,
    runs: runsOf(demands),
    waited,
    since,
    maxWait: micros(maxWait),
    isDry,
    asksLeft,
    owner: client.owner,
    joins,
    channel,
    ttl: micros(ttl),
    patience: micros(patience),
    firstLease,
    settleWithin: micros(settleWithin)
  }
}

const runsOf = (demands: ReadonlyArray<Demand>): ReadonlyArray<Run> => {
  const runs: Array<{ count: number; readonly demand: Demand }> = []
  for (const demand of demands) {
    const last = runs.at(-1)
    if (last !== undefined && isSame(last.demand, demand)) last.count++
    else runs.push({ count: 1, demand })
  }
  return runs.map(({ count, demand: { meters, pools } }) => ({ count, meters, pools }))
}

/** The grants of the newest decision that no call needs. (Older ones cannot come back.) The leases of all are released. */
const returnsOf = (limiter: Limiter): Return | undefined => {
  const all = [...limiter.unused, ...limiter.unwanted]
  limiter.unused = []
  limiter.unwanted = []
  for (const { lease } of all) if (lease !== undefined) release(limiter, lease)
  const known = all.filter((grant) => haveSameMeters(grant.demand.plan, limiter.plan))
  for (const { at, demand, isOfLevels, version } of known) {
    if (isOfLevels) limiter.settlements.push({ version, at, isUndone: true, more: demand.meters.map((cost) => -cost) })
  }
  const returned = known.filter(({ isOfLevels }) => !isOfLevels)
  const version = Math.max(...returned.map((grant) => grant.version))
  const newest = returned.filter((grant) => grant.version === version)
  if (newest.length === 0) return undefined
  const slot = newest.find(({ isSlot }) => isSlot)
  const grants = newest.filter(({ isSlot }) => !isSlot)
  const total = limiter.rules.meters.map((_, i) => grants.reduce((sum, { demand }) => sum + demand.meters[i]!, 0))
  return {
    version,
    slot: slot && { at: slot.at, meters: slot.demand.meters },
    grants: grants.length === 0 ? undefined : { at: grants[0]!.at, meters: total }
  }
}

const receive = (
  limiter: Limiter,
  demands: ReadonlyArray<Demand>,
  { returns, rules, settleWithin }: Request,
  decision: Decision,
  sentAt: number,
  isOfLevels = false
): Answer => {
  const { granted, hasReturned, isPaused, nextExpiry, now: at, slot, version, wait } = decision
  const standing = limiter.slot?.grant
  const receivedAt = now(limiter)
  limiter.silentSince = undefined
  // What came back has changed the key, but not the slot.
  if (hasReturned && standing !== undefined && standing.version === returns?.version) standing.version = version
  const maySettle = settleWithin > 0 || rules.meters.length === 0
  let leases = 0
  const grantOf = (demand: Demand, at: number, isSlot: boolean): Grant => ({
    demand,
    at,
    version,
    isSlot,
    maySettle,
    isOfLevels,
    lease: demand.holdsPermits
      ? lease(limiter, decision.leases[leases]!, decision.fence + leases++, demand, sentAt)
      : undefined
  })
  return {
    ...decision,
    wait: wait !== undefined ? nanos(wait) : isPaused ? Infinity : undefined,
    nextExpiry: nextExpiry === undefined ? undefined : nanos(nextExpiry),
    receivedAt,
    grants: demands.slice(0, granted).map((demand) => grantOf(demand, at, false)),
    slot: slot && { grant: grantOf(demands[granted]!, slot.at, true), due: receivedAt + nanos(slot.wait) }
  }
}

/** A lease that the store has granted. It counts from the request, which was sent before the store began to count. */
const lease = (limiter: Limiter, name: string, fence: number, demand: Demand, sentAt: number): Lease => {
  const lease: Lease = {
    key: limiter.settings.key,
    name,
    fence,
    demand,
    until: sentAt + limiter.settings.ttl,
    lost: Deferred.makeUnsafe(),
    fiber: undefined,
    endedBy: undefined
  }
  limiter.leases.add(lease)
  startRenewer(limiter)
  return lease
}
