/**
 * The contents of a bucket in layers, the oldest at the bottom: an immutable ordered map from a key to an amount, with
 * sums.
 *
 * It is a treap, so each operation takes O(log n). The priorities that balance the tree are hashes of the keys, which
 * are consecutive numbers.
 */
export interface Layers {
  readonly key: number
  readonly amount: number
  /** The total amount of this subtree. */
  readonly sum: number
  readonly left: Layers | undefined
  readonly right: Layers | undefined
  /**
   * Whether all amounts below this node count as 0, whatever the nodes contain, so that a large tree is emptied in one
   * step.
   */
  readonly isEmpty: boolean
}

const make = (key: number, amount: number, left: Layers | undefined, right: Layers | undefined): Layers => ({
  key,
  amount,
  sum: amount + (left?.sum ?? 0) + (right?.sum ?? 0),
  left,
  right,
  isEmpty: false
})

const empty = (layers: Layers | undefined): Layers | undefined =>
  layers === undefined || layers.sum === 0 ? layers : { ...layers, amount: 0, sum: 0, isEmpty: true }

const leftOf = ({ isEmpty, left }: Layers): Layers | undefined => isEmpty ? empty(left) : left
const rightOf = ({ isEmpty, right }: Layers): Layers | undefined => isEmpty ? empty(right) : right

const priority = (key: number): number => Math.imul(key ^ (key >>> 15), 0x9e3779b1) >>> 0

/** Joins two trees. Requires all keys of `low` to be less than those of `high`. */
const merge = (low: Layers | undefined, high: Layers | undefined): Layers | undefined => {
  if (low === undefined) return high
  if (high === undefined) return low
  return priority(low.key) > priority(high.key)
    ? make(low.key, low.amount, leftOf(low), merge(rightOf(low), high))
    : make(high.key, high.amount, merge(low, leftOf(high)), rightOf(high))
}

/** Adds an amount to the layer of a key. Requires a new key to be greater than all others. */
export const pour = (layers: Layers | undefined, key: number, amount: number): Layers => {
  if (layers === undefined) return make(key, amount, undefined, undefined)
  if (layers.key === key) return make(key, layers.amount + amount, leftOf(layers), rightOf(layers))
  if (key < layers.key) return make(layers.key, layers.amount, pour(leftOf(layers), key, amount), rightOf(layers))
  return priority(key) > priority(layers.key)
    ? make(key, amount, layers, undefined)
    : make(layers.key, layers.amount, leftOf(layers), pour(rightOf(layers), key, amount))
}

/** Removes an amount from the top. */
export const drain = (layers: Layers | undefined, amount: number): Layers | undefined => {
  if (layers === undefined || amount <= 0) return layers
  if (amount >= layers.sum) return empty(layers)
  const right = rightOf(layers)
  const rest = amount - (right?.sum ?? 0)
  if (rest < 0) return make(layers.key, layers.amount, leftOf(layers), drain(right, amount))
  const missing = rest - layers.amount
  return missing < 0
    ? make(layers.key, -missing, leftOf(layers), empty(right))
    : make(layers.key, 0, drain(leftOf(layers), missing), empty(right))
}

/** Removes an amount from the layer of a key and, as far as it is not enough, from the layers below it. */
export const drainFrom = (layers: Layers | undefined, key: number, amount: number): Layers | undefined => {
  if (layers === undefined || amount <= 0) return layers
  const [left, right] = [leftOf(layers), rightOf(layers)]
  if (layers.key > key) return make(layers.key, layers.amount, drainFrom(left, key, amount), right)
  const rest = amount - sumTo(right, key)
  if (rest < 0) return make(layers.key, layers.amount, left, drainFrom(right, key, amount))
  const missing = rest - layers.amount
  return make(layers.key, Math.max(0, -missing), drain(left, missing), drainFrom(right, key, amount - rest))
}

/** Returns the total amount of the layers up to a key. */
export const sumTo = (layers: Layers | undefined, key: number): number => {
  let sum = 0
  while (layers !== undefined && layers.sum > 0) {
    if (layers.key > key) layers = layers.left
    else {
      sum += layers.amount + (layers.left?.sum ?? 0)
      layers = layers.right
    }
  }
  return sum
}

/** Returns the largest key up to this one; 0 if there is none. */
export const keyUpTo = (layers: Layers | undefined, key: number): number => {
  let found = 0
  while (layers !== undefined) {
    if (layers.key > key) layers = layers.left
    else {
      found = layers.key
      layers = layers.right
    }
  }
  return found
}

/** Merges the layer of a key into the next one above it; into a new layer `top` if there is none. */
export const lift = (layers: Layers | undefined, key: number, top: number): Layers | undefined => {
  let above = top
  let amount = 0
  for (let node = layers; node !== undefined;) {
    if (node.key > key) above = node.key
    if (node.key === key) amount = node.amount
    node = node.key > key ? leftOf(node) : rightOf(node)
  }
  const rest = without(layers, key)
  return amount === 0 ? rest : pour(rest, above, amount)
}

const without = (layers: Layers | undefined, key: number): Layers | undefined => {
  if (layers === undefined) return undefined
  const [left, right] = [leftOf(layers), rightOf(layers)]
  if (layers.key === key) return merge(left, right)
  return layers.key > key
    ? make(layers.key, layers.amount, without(left, key), right)
    : make(layers.key, layers.amount, left, without(right, key))
}

/** Multiplies every amount by a factor. */
export const scale = (layers: Layers | undefined, factor: number): Layers | undefined =>
  layers && make(layers.key, layers.amount * factor, scale(leftOf(layers), factor), scale(rightOf(layers), factor))
