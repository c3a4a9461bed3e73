/** The innermost message of an error: clients wrap what the network or the server said. */
export const detailOf = (cause: unknown): string =>
  cause instanceof Error
    ? cause.cause === undefined ? cause.message || cause.name : detailOf(cause.cause)
    : String(cause)
