/**
 * Reads the data of a policy from the app's configuration.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { decode, PolicyData } from "./schema.ts"

/** JSON in one value, still to be decoded, or a structure of the provider. */
const Setting: Schema.Codec<unknown, unknown> = Schema.Union([Schema.fromJsonString(Schema.Json), PolicyData])

/** A `Config` of a policy's data. */
export const config = (name: string): Config.Config<PolicyData> =>
  Config.mapEffect(
    Config.schema(Setting, name),
    (setting) =>
      Effect.mapError(decode(setting), ({ issue }) =>
        new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([name], issue))))
  )
