/**
 * What is left of a server's limit, by the fields of its answers. Pure functions, which import nothing. Times are integer
 * nanoseconds on the monotonic clock, rates are requests per nanosecond.
 *
 * Fields describe the past: what was left when the server answered, not what is left when the answer arrives. So each
 * request remembers what was thought to be left when it was sent (`Mark`), and its answer corrects that by the
 * difference.
 *
 * Whether a limit refills continuously ("bucket") or all at once ("window") is mostly not said. When nothing is left, one
 * request is sent as a probe at the instant at which a bucket would have room for it.
 */

export interface Quota {
  /** Identifies the limit among those of other answers; undefined while none has been read. */
  readonly name: string | undefined
  /** What is left at `leftAt`; Infinity while that is not known. Below 0 where more were sent than the server has room for. */
  readonly left: number
  readonly leftAt: number
  /** Requests that the limit allows in its window. */
  readonly size: number
  /** The most that was ever left. */
  readonly full: number
  /** The average rate that the limit allows; 0 while it is not known. */
  readonly pace: number
  /** When the server says that there is more; Infinity while it does not. */
  readonly ends: number
  readonly kind: "unknown" | "bucket" | "window"
  /** The sum of the corrections to `left` since the window began. */
  readonly fix: number
  /** Counts the windows. */
  readonly era: number
  /** When `left` fell below 1. */
  readonly emptyAt: number
  /** The least that an answer of this window said is left. */
  readonly least: number
  /** The order of the request that is sent as a probe; 0 for none. */
  readonly probing: number
  /** The order of the newest request whose answer said what is left. */
  readonly newest: number
}

/** What a request remembers of the quota at its start, itself counted. */
export interface Mark {
  readonly left: number
  readonly fix: number
  readonly era: number
}

/** What an answer says of the limit. Times are nanoseconds from now. */
export interface Fields {
  readonly name: string
  readonly remaining: number
  /** Until there is more; Infinity where it does not say. */
  readonly reset: number
  /** As `reset`, with the pause's jitter and no more than the longest pause. */
  readonly pause: number
  /** The longest pause. */
  readonly longest: number
  readonly size?: number | undefined
  readonly window?: number | undefined
}

export const unknown: Quota = {
  name: undefined,
  left: Infinity,
  leftAt: 0,
  size: 0,
  full: 0,
  pace: 0,
  ends: Infinity,
  kind: "unknown",
  fix: 0,
  era: 0,
  emptyAt: 0,
  least: Infinity,
  probing: 0,
  newest: 0
}

/** Less than this beside a whole number is the noise of a fraction. */
const grain = 1e-6

/** What is left now. */
export const leftAt = (quota: Quota, now: number): number => {
  const { ends, full, kind, left, pace, size } = quota
  if (kind === "bucket") return Math.min(Math.max(full, left), left + (now - quota.leftAt) * pace)
  return kind === "window" && left < 1 && now >= ends ? size : left
}

/**
 * The earliest instant at which a request may start; Infinity while an answer has to come first. `ahead` counts those that
 * will start before it.
 */
export const readyAt = (quota: Quota, now: number, inFlight: number, ahead: number): number => {
  const left = leftAt(quota, now)
  if (left - ahead >= 1 - grain) return now
  const { ends, kind, pace } = quota
  if (kind === "bucket" && pace > 0) return now + Math.ceil((1 + ahead - left) / pace)
  if (ahead > 0) return Infinity
  // Only one is sent to find out, and none before it that could take what it would get. But an answer may take longer than
  // the limit takes to reset.
  if (quota.probing > 0 || (kind === "unknown" && inFlight > 0)) return Math.max(now, overdueAt(quota))
  const at = kind === "unknown" && pace > 0 ? Math.min(ends, quota.emptyAt + Math.ceil(1 / pace)) : ends
  if (at < Infinity) return Math.max(now, at)
  // Without an instant to wait for, and without an answer to come, one has to go.
  return inFlight === 0 ? now : Math.max(now, overdueAt(quota))
}

/** Servers state whole seconds. */
const second = 1e9

/** When a request starts though nothing is left and an answer is still to come; Infinity where the limit's time is not known. */
const overdueAt = ({ emptyAt, ends, pace, size }: Quota): number =>
  Math.max(emptyAt + second, ends < Infinity ? ends : pace > 0 ? emptyAt + Math.ceil(size / pace) : Infinity)

/** When a request may start behind so many, if the limit is a bucket; at its end, if it is a window. */
export const expectedAt = (quota: Quota, now: number, before: number): number => {
  const { emptyAt, ends, kind, pace } = quota
  if (kind !== "unknown") return readyAt(quota, now, 0, before)
  if (leftAt(quota, now) - before >= 1 - grain) return now
  return Math.max(now, pace > 0 ? Math.min(ends, emptyAt + Math.ceil((1 + before) / pace)) : ends)
}

/** Counts a request that starts. `inFlight`: how many others are on their way. */
export const start = (quota: Quota, now: number, order: number, inFlight: number): Quota => {
  if (quota.left === Infinity) return quota
  const left = leftAt(quota, now)
  const isEmpty = left < 1 - grain
  const isProbe = quota.kind === "unknown" && isEmpty
  const isNew = quota.kind === "window" && quota.left < 1 && now >= quota.ends
  return moved(
    isNew
      ? { ...quota, ends: Infinity, fix: 0, era: quota.era + 1, least: Infinity }
      : isEmpty && inFlight > 0
      ? extended(quota, now)
      : quota,
    now,
    left,
    left - 1,
    {
      probing: isProbe ? order : quota.probing
    }
  )
}

/** No answer has come in time, and one request has started all the same: the next one does after the same time. */
const extended = (quota: Quota, now: number): Quota => {
  const { emptyAt, ends } = quota
  return { ...quota, emptyAt: now, ends: ends < Infinity ? now + Math.max(second, ends - emptyAt) : ends }
}

export const markOf = ({ era, fix, left }: Quota): Mark => ({ left, fix, era })

/** The quota with so many left. */
const moved = (quota: Quota, now: number, before: number, left: number, rest: Partial<Quota>): Quota => ({
  ...quota,
  ...rest,
  left,
  leftAt: now,
  emptyAt: left < 1 && !(before < 1) ? now : quota.emptyAt
})

/**
 * What an accepted probe shows of the kind of limit. That some was left where none was said to be shows nothing. Where more
 * remains than a bucket can have got, a window has begun meanwhile.
 */
export const accepted = (quota: Quota, now: number, order: number, remaining: number): Quota => {
  if (quota.probing !== order) return quota
  const { emptyAt, least, pace } = quota
  const isWindow = remaining > 1 + (now - emptyAt) * pace
  return { ...quota, probing: 0, ...(least < 1 ? { kind: isWindow ? "window" : "bucket", leftAt: now } : undefined) }
}

/** A request was accepted by an answer without fields: the limit does not count it. */
export const uncounted = (quota: Quota, order: number, mark: Mark): Quota => ({
  ...lost(quota, order),
  ...(mark.left < Infinity && mark.era === quota.era ? { left: quota.left + 1, fix: quota.fix + 1 } : undefined)
})

/** `Retry-After-Ms` has whole milliseconds. */
const millisecond = 1e6

/**
 * What a refused request shows of it. A bucket is also what will have room for one (`named`) before the limit as a whole
 * resets, within the time of one request.
 */
export const refused = (quota: Quota, now: number, order: number, named: number | undefined): Quota => {
  const { ends, kind, pace, probing } = quota
  const isSoon = named !== undefined && pace > 0 && named <= 1 / pace + millisecond && now + named < ends
  if (kind === "unknown" && isSoon) return { ...quota, probing: 0, kind: "bucket", leftAt: now }
  return probing === order ? { ...quota, probing: 0, kind: "window" } : quota
}

/** A probe that has no answer. */
export const lost = (quota: Quota, order: number): Quota => quota.probing === order ? { ...quota, probing: 0 } : quota

/** A request that is answered: its number, what it remembers, and how many started after it and are on their way besides. */
export interface Answered {
  readonly order: number
  readonly mark: Mark
  readonly since: number
  readonly others: number
}

/** What an answer's fields say. */
export const read = (quota: Quota, now: number, answered: Answered, fields: Fields): Quota => {
  const { mark, order, others, since } = answered
  const { longest } = fields
  const known = quota.name === fields.name ? quota : { ...unknown, era: quota.era + 1, name: fields.name }
  const next = described(known, now, fields)
  const { remaining } = fields
  const before = leftAt(known, now)
  // The newest such answer counts.
  if (mark.left === Infinity || known !== quota) {
    if (order < known.newest) return next
    const left = leftBy(remaining - since, known, next, remaining, others)
    return moved(next, now, before, atLeast(left, next, longest), { newest: order })
  }
  if (mark.era !== known.era) return next
  const thought = mark.left + known.fix - mark.fix
  const error = differenceTo(remaining, thought, next.kind)
  const left = atLeast(leftBy(before + error, known, next, remaining, others), next, longest)
  return moved(next, now, before, left, { fix: known.fix + left - before, newest: Math.max(order, known.newest) })
}

/** No request waits longer than the longest pause for a bucket. */
const atLeast = (left: number, { kind, pace }: Quota, longest: number): number =>
  kind === "bucket" ? Math.max(left, 1 - longest * pace) : left

/** What is known of the limit besides what is left. */
const described = (known: Quota, now: number, fields: Fields): Quota => {
  const { longest, remaining, reset, window } = fields
  const size = fields.size ?? Math.max(known.size, remaining + 1)
  const isEmpty = remaining < 1
  const stated = window !== undefined && window > 0
    ? size / window
    // Of a limit that was never seen with anything left, 1 is no size.
    : isEmpty && reset > 0 && reset < Infinity && (fields.size !== undefined || size > 1)
    ? size / reset
    : known.pace
  const pace = stated > 0 ? Math.max(stated, 1 / longest) : 0
  const isBucket = known.kind === "unknown" && isEmpty && pace > 0 && reset > 0 && reset <= 1 / pace + 1
  return {
    ...known,
    size,
    full: Math.max(known.full, remaining + 1),
    pace,
    least: Math.min(known.least, remaining),
    ends: reset === Infinity ? known.ends : now + Math.ceil(fields.pause),
    ...(isBucket ? { kind: "bucket", probing: 0, leftAt: now } : undefined)
  }
}

/**
 * Servers need not handle requests in the order in which they were sent, so estimates go astray by as many as are on their
 * way. Where nothing comes back in between, the least that was said is what counts, as if all that are on their way were
 * handled after it.
 */
const leftBy = (left: number, known: Quota, next: Quota, remaining: number, others: number): number =>
  next.kind === "bucket" || remaining > known.least ? left : remaining - others

/** A bucket holds fractions, and says how many are whole. */
const differenceTo = (remaining: number, thought: number, kind: Quota["kind"]): number => {
  if (kind !== "bucket" || thought < remaining) return remaining - thought
  return thought < remaining + 1 ? 0 : remaining + 1 - thought
}
