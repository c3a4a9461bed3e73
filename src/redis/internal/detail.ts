/**
 * The innermost message of an error: clients wrap what the network or the server said. Node gives one without a message where
 * it has tried several addresses.
 */
export const detailOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  if (cause.cause !== undefined) return detailOf(cause.cause)
  if (cause instanceof AggregateError && cause.message === "" && cause.errors.length > 0) {
    return detailOf(cause.errors[0])
  }
  return cause.message || cause.name
}
