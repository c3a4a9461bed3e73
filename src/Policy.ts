/**
 * Policies as data: their schemas, decoding, and their description in words.
 *
 * The rules for options hold for data from outside, which fails with a `SchemaError`, and for the constructors of
 * `Throttle`, which throw a `RangeError`.
 *
 * @since 0.1.0
 * @module
 */
export {
  type AllData,
  type AllEncoded,
  CalendarWindow,
  Concurrency,
  decode,
  None,
  PolicyData,
  type PolicyEncoded,
  Rate,
  type ShadowData,
  type ShadowEncoded,
  Spacing,
  TokenBucket,
  Window
} from "./internal/data/schema.ts"
export { describe } from "./internal/data/words.ts"
