/**
 * The contents of a bucket in layers, the oldest at the bottom: an ordered map from a number to an amount, with sums.
 *
 * It is an immutable treap, so that each operation takes O(log n) steps. The priorities that balance the tree are a hash
 * of the keys, which are consecutive numbers.
 */
export interface Layers {
  readonly key: number
  readonly amount: number
  /** The amounts of the whole tree. */
  readonly sum: number
  readonly left: Layers | undefined
  readonly right: Layers | undefined
  /** Whether all amounts below this node are 0, whatever the nodes say: a large tree is emptied in one step. */
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

/** All keys of `low` lie below those of `high`. */
const merge = (low: Layers | undefined, high: Layers | undefined): Layers | undefined => {
  if (low === undefined) return high
  if (high === undefined) return low
  return priority(low.key) > priority(high.key)
    ? make(low.key, low.amount, leftOf(low), merge(rightOf(low), high))
    : make(high.key, high.amount, merge(low, leftOf(high)), rightOf(high))
}

/** Adds an amount to the layer of a key, which is made if it is not there and lies above all others. */
export const pour = (layers: Layers | undefined, key: number, amount: number): Layers => {
  if (layers === undefined) return make(key, amount, undefined, undefined)
  if (layers.key === key) return make(key, layers.amount + amount, leftOf(layers), rightOf(layers))
  if (key < layers.key) return make(layers.key, layers.amount, pour(leftOf(layers), key, amount), rightOf(layers))
  return priority(key) > priority(layers.key)
    ? make(key, amount, layers, undefined)
    : make(layers.key, layers.amount, leftOf(layers), pour(rightOf(layers), key, amount))
}

/** Takes an amount from the top. */
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

/** Takes an amount from the layer of a key, and what is missing there from the layers below it. */
export const drainFrom = (layers: Layers | undefined, key: number, amount: number): Layers | undefined => {
  if (layers === undefined || amount <= 0) return layers
  const [left, right] = [leftOf(layers), rightOf(layers)]
  if (layers.key > key) return make(layers.key, layers.amount, drainFrom(left, key, amount), right)
  const rest = amount - sumTo(right, key)
  if (rest < 0) return make(layers.key, layers.amount, left, drainFrom(right, key, amount))
  const missing = rest - layers.amount
  return make(layers.key, Math.max(0, -missing), drain(left, missing), drainFrom(right, key, amount - rest))
}

/** The amounts up to a key. */
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

/** The largest key up to this one; 0 where there is none. */
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

/** Makes the layer of a key part of the next one above it; `top` is the key of that where there is none. */
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

/** Every amount times a factor. */
export const scale = (layers: Layers | undefined, factor: number): Layers | undefined =>
  layers && make(layers.key, layers.amount * factor, scale(leftOf(layers), factor), scale(rightOf(layers), factor))
