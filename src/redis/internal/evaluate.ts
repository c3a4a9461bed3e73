/**
 * Runs a script on the server: by EVALSHA, and by EVAL where the server does not have the script yet. Without SCRIPT, which
 * proxies and careful servers refuse, and which would not reach the right node of a cluster.
 */
import * as Digest from "effect/crypto/Digest"
import * as Effect from "effect/Effect"
import type { Redis, RedisError } from "effect/persistence/Redis"
import { detailOf } from "./detail.ts"

type Send = Redis["Service"]["send"]

export type Evaluate<A> = (
  keys: ReadonlyArray<string>,
  args: ReadonlyArray<string>
) => Effect.Effect<A, RedisError>

/** Whether an error reply comes from a script that was running; its end says where. */
export const isOfScript = (detail: string): boolean => /@user_script:\d+\.\s*$/.test(detail)

/** Whether the server refuses the command itself, so that nothing has run. */
const isCommandRefused = (detail: string): boolean => /^(ERR|NOPERM) /.test(detail) && !isOfScript(detail)

/** The name under which the server keeps a script. Scripts are ASCII: a character is a byte. */
const sha1 = (lua: string): Effect.Effect<string> =>
  Digest.Digest.use((digest) => digest.digestHex(Digest.sha1, Uint8Array.from(lua, (char) => char.charCodeAt(0)))).pipe(
    Effect.provide(Digest.layerWebCrypto)
  )

/** Runs scripts on one server, or one cluster. */
export const make = (send: Send): <A>(lua: string) => Evaluate<A> => {
  /** Undefined until the first answer. */
  let offersEvalSha: boolean | undefined
  return <A>(lua: string): Evaluate<A> => {
    let known: string | undefined
    const sha = Effect.suspend(() =>
      known === undefined
        ? Effect.tap(sha1(lua), (hex) => Effect.sync(() => void (known = hex)))
        : Effect.succeed(known)
    )
    return (keys, args) => {
      const rest = [String(keys.length), ...keys, ...args]
      const byText = Effect.suspend(() => send<A>("EVAL", lua, ...rest))
      const byTextAlone = Effect.tap(byText, () =>
        Effect.suspend(() => {
          if (offersEvalSha === false) return Effect.void
          offersEvalSha = false
          return Effect.annotateLogs(Effect.logWarning("throttle.store.eval"), {
            detail: `the server refuses EVALSHA, so each request carries the script (${lua.length} bytes)`
          })
        }))
      return Effect.suspend(() => {
        if (offersEvalSha === false) return byText
        return Effect.flatMap(sha, (sha) => send<A>("EVALSHA", sha, ...rest)).pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              offersEvalSha = true
            })
          ),
          Effect.catch((error) => {
            const detail = detailOf(error.cause)
            if (detail.startsWith("NOSCRIPT ")) return byText
            // Permissions may change while the program runs.
            const isNews = offersEvalSha === undefined || /evalsha/i.test(detail)
            return isNews && isCommandRefused(detail) ? byTextAlone : Effect.fail(error)
          })
        )
      })
    }
  }
}
