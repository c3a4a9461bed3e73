/** The types of levels that are not written in place. */
import { describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, type Layer, Schema } from "effect"
import { Throttle, ThrottleMap } from "effect-throttle"
import { HttpThrottle } from "effect-throttle/http"
import type { HttpRouter } from "effect/http"

class User extends Context.Service<User, { readonly id: string; readonly org: string }>()("test/User") {}
class Orgs
  extends ThrottleMap.Service<Orgs>()("test/Orgs", { lookup: (_org: string) => Throttle.rate({ limit: 1 }) })
{}

const policy = Throttle.rate({ limit: 1 })
const org = Effect.map(User, ({ org }) => org)

describe("levels", () => {
  it("annotated as a list of levels whose maps may fail keep their services and errors", () => {
    class NoOrgs extends Schema.TaggedError<NoOrgs>()("NoOrgs", {}) {}
    const orgs: Effect.Effect<ThrottleMap.ThrottleMap<string>, NoOrgs, Orgs> = Orgs
    const levels: ReadonlyArray<HttpThrottle.Level<User, NoOrgs, Orgs>> = [{ key: org, throttles: orgs }]
    const m = HttpThrottle.middleware({ policy, levels }, { global: true })
    expectTypeOf<Layer.Error<typeof m>>().toEqualTypeOf<NoOrgs>()
    expectTypeOf<Layer.Services<typeof m>>().toEqualTypeOf<
      HttpRouter.HttpRouter | Orgs | HttpRouter.Request.From<"GlobalRequires", User>
    >()
  })
})
