/** The same function, asked once for each value. Forgets with the value. */
export const memoised = <A extends object, B>(f: (value: A) => B): (value: A) => B => {
  const known = new WeakMap<A, { readonly result: B }>()
  return (value) => {
    let found = known.get(value)
    if (found === undefined) known.set(value, found = { result: f(value) })
    return found.result
  }
}
