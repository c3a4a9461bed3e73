/**
 * Policies as data: valid and invalid data, the errors, and the description of a policy.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Duration, Effect, Exit, Formatter, Option, Schema } from "effect"
import { Policy, Throttle } from "effect-throttle"

type Options = Record<string, unknown>

/** What a bad input may be: its value, and how the RangeError spells it. */
type Bad = readonly [value: unknown, got: string]

const nothings: ReadonlyArray<Bad> = [
  [null, "null"],
  [{}, "{}"],
  [[], "[]"],
  [true, "true"],
  [NaN, "NaN"]
]

const noNumbers: ReadonlyArray<Bad> = [
  ...nothings,
  [Infinity, "Infinity"],
  [-Infinity, "-Infinity"],
  [-1, "-1"],
  [1.5, "1.5"],
  [2 ** 53, "9007199254740992"],
  ["5", `"5"`],
  ["", `""`],
  [5n, "5n"],
  [[5], "[5]"],
  [{ value: 5 }, `{"value":5}`],
  [Symbol("five"), "Symbol(five)"],
  [() => 5, "a function"]
]

const noWords: ReadonlyArray<Bad> = [...nothings, [0, "0"], [1, "1"], ["", `""`], [[""], `[""]`]]

/** What may stand in an option, and a sample of what may not. */
const kinds = {
  positive: { allowed: "an integer ≥ 1", bad: [...noNumbers, [0, "0"], [0.999, "0.999"]] },
  natural: { allowed: "an integer ≥ 0", bad: [...noNumbers, [0.5, "0.5"]] },
  duration: {
    allowed: "a finite duration > 0",
    bad: [
      ...nothings,
      [0, "0"],
      [-1, "-1"],
      [-0.5, "-0.5"],
      [Infinity, "Infinity"],
      [-Infinity, "-Infinity"],
      [Number("1e400"), "Infinity"],
      [Number.MAX_VALUE, "1.7976931348623157e+308"],
      ["soon", `"soon"`],
      ["", `""`],
      ["5", `"5"`],
      ["second", `"second"`],
      ["1 fortnight", `"1 fortnight"`],
      ["-1 second", `"-1 second"`],
      ["0 seconds", `"0 seconds"`],
      ["NaN seconds", `"NaN seconds"`],
      ["Infinity", `"Infinity"`],
      ["-Infinity", `"-Infinity"`],
      [["1 second"], `["1 second"]`]
    ]
  },
  boolean: { allowed: "true or false", bad: [...noWords.filter(([value]) => value !== true), ["true", `"true"`]] },
  kind: {
    allowed: `"sliding", "fixed" or "calendar"`,
    bad: [...noWords, ["rolling", `"rolling"`], ["Fixed", `"Fixed"`]]
  },
  calendarUnit: {
    allowed: `"day", "week" or "month"`,
    bad: [...noWords, ["year", `"year"`], ["1 day", `"1 day"`], [86_400_000, "86400000"], ["Day", `"Day"`]]
  },
  zone: {
    allowed: `the name of a time zone, such as "America/Los_Angeles"`,
    bad: [...noWords, ["Mars/Olympus", `"Mars/Olympus"`], ["+01:00", `"+01:00"`], ["UTC ", `"UTC "`], [-8, "-8"]]
  },
  from: { allowed: `"start" or "end"`, bad: [...noWords, ["middle", `"middle"`], ["End", `"End"`]] },
  name: { allowed: "a non-empty string", bad: noWords }
} satisfies Record<string, { readonly allowed: string; readonly bad: ReadonlyArray<Bad> }>

type Kind = keyof typeof kinds

const bounds = { name: "name", unit: "name", maxQueue: "natural", maxWait: "duration", timeout: "duration" } as const
const { maxWait: _, ...boundsOfConcurrency } = bounds

interface Constructor {
  readonly tag: Policy.PolicyData["_tag"]
  readonly name: string
  readonly make: (options: any) => Throttle.Policy<any>
  /** The least that it takes. */
  readonly least: Options
  readonly options: Record<string, Kind>
}

const part = { _tag: "Rate", limit: 1 }

const constructors: ReadonlyArray<Constructor> = [
  {
    tag: "Rate",
    name: "rate",
    make: Throttle.rate,
    least: { limit: 30 },
    options: { limit: "positive", per: "duration", burst: "natural", ...bounds }
  },
  {
    tag: "TokenBucket",
    name: "tokenBucket",
    make: Throttle.tokenBucket,
    least: { capacity: 10, refill: 5 },
    options: { capacity: "positive", refill: "positive", per: "duration", ...bounds }
  },
  {
    tag: "Window",
    name: "window",
    make: Throttle.window,
    least: { limit: 3, per: 500 },
    options: { limit: "positive", per: "duration", kind: "kind", ...bounds }
  },
  {
    tag: "Window",
    name: "window",
    make: Throttle.window,
    least: { kind: "calendar", limit: 3, per: "week" },
    options: { limit: "positive", per: "calendarUnit", zone: "zone", ...bounds }
  },
  {
    tag: "Concurrency",
    name: "concurrency",
    make: Throttle.concurrency,
    least: { limit: 2 },
    options: { limit: "positive", ...boundsOfConcurrency }
  },
  {
    tag: "Spacing",
    name: "spacing",
    make: Throttle.spacing,
    least: { interval: 250 },
    options: { interval: "duration", align: "boolean", from: "from", ...bounds }
  },
  {
    tag: "None",
    name: "none",
    // `Throttle.none` takes no options; only data can give it some.
    make: (options) => Throttle.fromData({ _tag: "None", ...options }),
    least: {},
    options: bounds
  },
  {
    tag: "All",
    name: "all",
    make: ({ policies, ...options }) => Throttle.all(policies.map(Throttle.fromData), options),
    least: { policies: [part] },
    options: bounds
  }
]

/** What a constructor throws: always a RangeError, or the test fails. */
const thrown = (f: () => unknown): string => {
  try {
    f()
  } catch (error) {
    assert.instanceOf(error, RangeError)
    return (error as RangeError).message
  }
  return assert.fail("nothing was thrown")
}

/** The message of the SchemaError that `decode` fails with; the test fails for any other end. */
const refused = (input: unknown) =>
  Effect.gen(function*() {
    const exit = yield* Effect.exit(Throttle.decode(input))
    assert.isTrue(Exit.isFailure(exit), "was accepted")
    const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
    assert.instanceOf(error, Schema.SchemaError, `no SchemaError: ${exit}`)
    return error!.message
  })

/** The same object with one more key of its own, also for names that are special. */
const own = (object: object, key: string, value: unknown): Options =>
  Object.defineProperty({ ...object }, key, { value, enumerable: true, configurable: true, writable: true }) as Options

/** A policy in every shape, with every option somewhere. */
const policies: ReadonlyArray<Throttle.Policy<any>> = [
  Throttle.rate({ limit: 30 }),
  Throttle.rate({ limit: 1, per: "1 minute", burst: 3, name: "github", unit: "requests", maxQueue: 0 }),
  Throttle.tokenBucket({ capacity: 9, refill: 3, per: { minutes: 2 }, maxWait: "2 seconds" }),
  Throttle.window({ limit: 3, per: Duration.seconds(5), timeout: [1, 500_000_000] }),
  Throttle.window({ limit: 3, per: 1.5, kind: "fixed", maxQueue: 7, maxWait: 8, timeout: 9 }),
  Throttle.window({ kind: "calendar", limit: 3, per: "month", zone: "Asia/Beirut", maxWait: 8, unit: "tokens" }),
  Throttle.concurrency({ limit: 5, unit: "connections", maxQueue: 1, timeout: 2_000_000n }),
  Throttle.spacing({ interval: "250 millis" }),
  Throttle.spacing({ interval: 1_000, align: true, from: "end", name: "cron" }),
  Throttle.none,
  Throttle.all([]),
  Throttle.all([Throttle.rate({ limit: 2, maxQueue: 4 }), Throttle.all([Throttle.concurrency({ limit: 1 })])], {
    name: "openai",
    unit: "tokens",
    maxQueue: 3,
    maxWait: "1 second",
    timeout: "2 seconds"
  })
]

describe("data", () => {
  it("has the defaults filled in and durations in milliseconds", () => {
    const table: ReadonlyArray<readonly [Throttle.Policy<any>, Policy.PolicyData]> = [
      [Throttle.rate({ limit: 30 }), { _tag: "Rate", limit: 30, per: 1_000, burst: 0 }],
      [
        Throttle.rate({
          limit: 30,
          per: "1 minute",
          burst: 2,
          name: "a",
          unit: "b",
          maxQueue: 0,
          maxWait: 1,
          timeout: 2
        }),
        { _tag: "Rate", limit: 30, per: 60_000, burst: 2, name: "a", unit: "b", maxQueue: 0, maxWait: 1, timeout: 2 }
      ],
      [
        Throttle.tokenBucket({ capacity: 10, refill: 5 }),
        { _tag: "TokenBucket", capacity: 10, refill: 5, per: 1_000 }
      ],
      [Throttle.window({ limit: 3, per: "2 hours" }), { _tag: "Window", limit: 3, per: 7_200_000, kind: "sliding" }],
      [
        Throttle.window({ limit: 3, per: "500 micros", kind: "fixed" }),
        { _tag: "Window", limit: 3, per: 0.5, kind: "fixed" }
      ],
      [
        Throttle.window({ kind: "calendar", limit: 3, per: "day" }),
        { _tag: "Window", limit: 3, per: "day", kind: "calendar", zone: "UTC" }
      ],
      [Throttle.concurrency({ limit: 2 }), { _tag: "Concurrency", limit: 2 }],
      [
        Throttle.spacing({ interval: { seconds: 1, milliseconds: 5 } }),
        { _tag: "Spacing", interval: 1_005, align: false, from: "start" }
      ],
      [
        Throttle.spacing({ interval: 1, align: true, from: "end" }),
        { _tag: "Spacing", interval: 1, align: true, from: "end" }
      ],
      [Throttle.none, { _tag: "None" }],
      [Throttle.all([]), { _tag: "All", policies: [] }],
      [
        Throttle.all([Throttle.none, Throttle.concurrency({ limit: 2 })], { name: "both", timeout: "1 second" }),
        { _tag: "All", policies: [{ _tag: "None" }, { _tag: "Concurrency", limit: 2 }], name: "both", timeout: 1_000 }
      ]
    ]
    for (const [policy, data] of table) assert.deepStrictEqual(policy.data, data)
  })

  it.effect.each(policies.map((policy) => ({ policy, words: Throttle.describe(policy) })))(
    "$words: reads back as itself",
    ({ policy }) =>
      Effect.gen(function*() {
        const { data } = policy
        assert.deepStrictEqual(JSON.parse(JSON.stringify(data)), data, "is plain JSON")
        assert.deepStrictEqual(Throttle.fromData(data).data, data)
        assert.deepStrictEqual((yield* Throttle.decode(JSON.parse(JSON.stringify(data)))).data, data)
        assert.deepStrictEqual(yield* Policy.decode(data), data)
        assert.deepStrictEqual(yield* Schema.decodeEffect(Throttle.PolicyData)(data), data)
        assert.deepStrictEqual(yield* Schema.encodeEffect(Throttle.PolicyData)(data), data)
      })
  )

  it("of the constructor and of fromData is the same", () => {
    for (const { least, make, tag } of constructors) {
      assert.deepStrictEqual(make(least).data, Throttle.fromData({ _tag: tag, ...least } as any).data)
    }
  })

  it.effect("may be written with durations in words", () =>
    Effect.gen(function*() {
      const written = {
        _tag: "Window",
        limit: 3,
        per: "1 minute",
        maxWait: "250 millis",
        timeout: "1.5 seconds"
      } as const
      const data = { _tag: "Window", limit: 3, per: 60_000, kind: "sliding", maxWait: 250, timeout: 1_500 }
      assert.deepStrictEqual(Throttle.fromData(written).data, data as any)
      assert.deepStrictEqual((yield* Throttle.decode(written)).data, data as any)
    }))

  it("of the parts is part of the whole", () => {
    const inner = Throttle.all([Throttle.rate({ limit: 1 })], { maxQueue: 2 })
    const outer = Throttle.all([inner, Throttle.none])
    assert.deepStrictEqual(outer.data, { _tag: "All", policies: [inner.data, Throttle.none.data] })
  })

  it("is the constructor's own: changing the options afterwards changes nothing", () => {
    const options = { limit: 1, name: "before" }
    const parts = [Throttle.rate(options)]
    const whole = Throttle.all(parts)
    options.limit = 5
    parts.push(Throttle.rate(options))
    assert.deepStrictEqual(whole.data, {
      _tag: "All",
      policies: [{ _tag: "Rate", limit: 1, per: 1_000, burst: 0, name: "before" }]
    })
  })
})

describe("options", () => {
  for (const { least, make, options, tag } of constructors) {
    it(`${tag}${"kind" in least ? " of a calendar" : ""}: undefined is the same as missing`, () => {
      const undefineds = Object.fromEntries(Object.keys(options).map((option) => [option, undefined]))
      assert.deepStrictEqual(make({ ...undefineds, ...least }).data, make(least).data)
      assert.deepStrictEqual(Throttle.fromData({ _tag: tag, ...undefineds, ...least } as any).data, make(least).data)
    })
  }

  it.effect("burst and maxQueue may be 0, fractions of a millisecond are durations", () =>
    Effect.gen(function*() {
      const options = { limit: 1, per: 0.25, burst: 0, maxQueue: 0, maxWait: 0.5, timeout: 0.125 }
      const data = { _tag: "Rate", ...options } as const
      assert.deepStrictEqual(Throttle.rate(options).data, data)
      assert.deepStrictEqual((yield* Throttle.decode(data)).data, data)
    }))

  it("durations may be any Duration.Input", () => {
    const inputs: ReadonlyArray<Duration.Input> = [
      1_500,
      "1.5 seconds",
      "1500 millis",
      Duration.millis(1_500),
      1_500_000_000n,
      [1, 500_000_000],
      { seconds: 1, milliseconds: 500 }
    ]
    for (const input of inputs) {
      const { interval, maxWait, timeout } = Throttle.spacing({ interval: input, maxWait: input, timeout: input })
        .data as typeof Policy.Spacing.Type
      assert.deepStrictEqual({ interval, maxWait, timeout }, { interval: 1_500, maxWait: 1_500, timeout: 1_500 })
    }
  })
})

describe("bad input", () => {
  for (const { least, make, name, options, tag } of constructors) {
    describe("kind" in least ? `${tag} of a calendar` : tag, () => {
      for (const [option, kind] of Object.entries(options)) {
        const { allowed, bad } = kinds[kind]
        const required = option in least
        const cases: ReadonlyArray<Bad> = required ? [[undefined, "undefined"], ...bad] : bad

        it(`${option} must be ${allowed}`, () => {
          for (const [value, got] of cases) {
            const message = `Throttle.${name}: "${option}" must be ${allowed}, received ${got}`
            assert.strictEqual(thrown(() => make({ ...least, [option]: value })), message)
            const data = { _tag: tag, ...least, [option]: value } as any
            assert.strictEqual(thrown(() => Throttle.fromData(data)), message)
          }
        })

        it.effect(`${option} from outside must be ${allowed}`, () =>
          Effect.gen(function*() {
            for (const [value] of cases) {
              const message = yield* refused({ _tag: tag, ...least, [option]: value })
              assert.include(message, `["${option}"]`)
            }
          }))

        if (required) {
          it.effect(`${option} must be there`, () =>
            Effect.gen(function*() {
              const { [option]: _, ...rest } = least
              const message = `Throttle.${name}: "${option}" must be ${allowed}, received undefined`
              assert.strictEqual(thrown(() => make(rest)), message)
              assert.strictEqual(thrown(() => Throttle.fromData({ _tag: tag, ...rest } as any)), message)
              assert.include(yield* refused({ _tag: tag, ...rest }), `["${option}"]`)
            }))
        }
      }

      // Names that every object has are as unknown as any other.
      for (const option of ["lmit", "Limit", "", "toString", "constructor", "__proto__"]) {
        const given = own(least, option, 1)

        it(`rejects the unknown option ${JSON.stringify(option)}`, () => {
          const message = thrown(() => make(given))
          assert.isTrue(
            message.startsWith(`Throttle.${name}: unknown option ${JSON.stringify(option)}; the options are `),
            message
          )
          for (const known of Object.keys(options)) assert.include(message, known)
          assert.strictEqual(thrown(() => Throttle.fromData({ _tag: tag, ...given } as any)), message)
        })

        it.effect(`rejects the unknown option ${JSON.stringify(option)} in decoded data`, () =>
          Effect.gen(function*() {
            for (const nested of [false, true]) {
              const data = { _tag: tag, ...given }
              const message = yield* refused(nested ? { _tag: "All", policies: [part, data] } : data)
              assert.include(message, `[${JSON.stringify(option)}]`)
            }
          }))
      }

      if (tag !== "None") {
        it("options must be an object", () => {
          const make = tag === "All"
            ? (options: any) => Throttle.all([], options)
            : constructors.find((c) => c.tag === tag)!.make
          for (const [value, got] of [[null, "null"], [5, "5"], ["x", `"x"`], [true, "true"], [[], "[]"]] as const) {
            assert.strictEqual(
              thrown(() => make(value)),
              `Throttle.${name}: options must be an object, received ${got}`
            )
          }
        })
      }
    })
  }

  it("an inherited option is none", () => {
    const options = JSON.parse(`{ "_tag": "Rate", "__proto__": { "limit": 5 } }`)
    thrown(() => Throttle.rate(options))
    thrown(() => Throttle.fromData(options))
  })

  it("a constructor has no option _tag", () => {
    thrown(() => Throttle.rate({ limit: 1, _tag: "Window" } as any))
  })

  it("rate without options", () => {
    const rate = Throttle.rate as any
    assert.strictEqual(thrown(() => rate()), "Throttle.rate: options must be an object, received undefined")
  })

  it("burst, and the one beyond it, must be countable", () => {
    assert.strictEqual(
      thrown(() => Throttle.rate({ limit: 1, burst: Number.MAX_SAFE_INTEGER })),
      "Throttle.rate: burst is too large"
    )
  })

  it.effect("burst, and the one beyond it, must be countable from outside", () =>
    Effect.gen(function*() {
      assert.include(yield* refused({ _tag: "Rate", limit: 1, burst: Number.MAX_SAFE_INTEGER }), "burst is too large")
    }))

  const noData: ReadonlyArray<readonly [data: unknown, got: string]> = [
    [null, "null"],
    [undefined, "undefined"],
    [5, "5"],
    [NaN, "NaN"],
    ["Rate", `"Rate"`],
    [true, "true"],
    [[], "[]"],
    [{}, "{}"],
    [{ limit: 5 }, `{"limit":5}`],
    [() => 5, "a function"],
    [{ _tag: 5 }, "5"],
    [{ _tag: null, limit: 5 }, "null"],
    [{ _tag: ["Rate"], limit: 5 }, `["Rate"]`],
    [{ _tag: "", limit: 5 }, `""`],
    [{ _tag: "rate", limit: 5 }, `"rate"`],
    [{ _tag: "Rates", limit: 5 }, `"Rates"`],
    [{ _tag: "toString", limit: 5 }, `"toString"`],
    [{ _tag: "__proto__", limit: 5 }, `"__proto__"`]
  ]

  it("what is no policy's data", () => {
    for (const [data, got] of noData) {
      assert.strictEqual(
        thrown(() => Throttle.fromData(data as any)),
        `Throttle.fromData: "_tag" must be one of Rate, TokenBucket, Window, Concurrency, Spacing, None, All, Shadow, received ${got}`
      )
    }
  })

  it.effect("what is no policy's data from outside", () =>
    Effect.gen(function*() {
      for (const [data] of noData) {
        yield* refused(data)
        yield* refused({ _tag: "All", policies: [part, data] })
      }
    }))

  describe("parts", () => {
    it("of all must be policies", () => {
      const all = Throttle.all as any
      for (const bad of [undefined, null, 5, "rate", {}, Throttle.none]) {
        assert.strictEqual(
          thrown(() => all(bad)),
          `Throttle.all: "policies" must be an array of policies, received ${Formatter.format(bad)}`
        )
      }
      const table: ReadonlyArray<readonly [unknown, string]> = [
        [undefined, "undefined"],
        [null, "null"],
        [5, "5"],
        [{ _tag: "Rate", limit: 1 }, `{"_tag":"Rate","limit":1}`],
        [[Throttle.none], ""],
        [Throttle.rate, ""]
      ]
      for (const [bad, got] of table) {
        const message = thrown(() => all([Throttle.none, bad]))
        assert.include(message, `Throttle.all: "policies[1]" must be a policy, received ${got}`)
      }
    })

    it("of all are given once", () => {
      assert.include(thrown(() => Throttle.all([], { policies: [] } as any)), `unknown option "policies"`)
    })

    const nonsense: ReadonlyArray<unknown> = [
      undefined,
      null,
      5,
      "Rate",
      {},
      part,
      [null],
      [5],
      [[part]],
      [{}],
      [part, { _tag: "Nope" }],
      [{ _tag: "All" }],
      [{ _tag: "All", policies: [{ _tag: "All", policies: {} }] }],
      [{ _tag: "All", policies: [part, { _tag: "Rate", limit: 0 }] }],
      [{ _tag: "All", policies: [part, { _tag: "Rate", limit: 1, lmit: 2 }] }],
      [{ _tag: "All", policies: [part], maxWait: "soon" }]
    ]

    it("of data must be policies, however deep", () => {
      for (const policies of nonsense) thrown(() => Throttle.fromData({ _tag: "All", policies } as any))
      thrown(() => Throttle.fromData({ _tag: "All" } as any))
    })

    it.effect("from outside must be policies, however deep", () =>
      Effect.gen(function*() {
        for (const policies of nonsense) yield* refused({ _tag: "All", policies })
        yield* refused({ _tag: "All" })
      }))

    it.effect("decoded data: the error contains the path of the invalid value", () =>
      Effect.gen(function*() {
        const data = { _tag: "All", policies: [part, { _tag: "All", policies: [{ _tag: "Rate", limit: 0 }] }] }
        assert.include(
          yield* refused(data),
          `Expected an integer ≥ 1\n  at ["policies"][1]["policies"][0]["limit"]`
        )
      }))
  })

  describe("maxWait", () => {
    const busy = Throttle.concurrency({ limit: 1 })

    it("on concurrency alone is a RangeError that explains why", () => {
      const attempts: ReadonlyArray<readonly [where: string, () => unknown]> = [
        ["concurrency", () => Throttle.concurrency({ limit: 1, maxWait: "1 second" } as any)],
        ["concurrency", () => Throttle.fromData({ _tag: "Concurrency", limit: 1, maxWait: 5 } as any)],
        ["all", () => Throttle.all([busy], { maxWait: "1 second" })],
        ["all", () => Throttle.all([busy, busy], { maxWait: "1 second" })],
        ["all", () => Throttle.all([Throttle.all([busy])], { maxWait: "1 second" })],
        ["all", () => Throttle.fromData({ _tag: "All", policies: [busy.data], maxWait: 5 })]
      ]
      for (const [where, f] of attempts) assert.match(thrown(f), new RegExp(`^Throttle\\.${where}: .*maxWait`))
    })

    it("on concurrency and what does not limit is on concurrency alone", () => {
      thrown(() => Throttle.all([busy, Throttle.none], { maxWait: 5 }))
      thrown(() => Throttle.all([busy, Throttle.all([])], { maxWait: 5 }))
    })

    it.effect("on concurrency alone from outside", () =>
      Effect.gen(function*() {
        yield* refused({ _tag: "Concurrency", limit: 1, maxWait: 5 })
        yield* refused({ _tag: "All", policies: [busy.data], maxWait: 5 })
        yield* refused({ _tag: "All", policies: [part, { _tag: "All", policies: [busy.data], maxWait: 5 }] })
      }))

    it("on concurrency with a time-based part is allowed", () => {
      Throttle.all([busy, Throttle.rate({ limit: 1 })], { maxWait: 5 })
      Throttle.all([busy, Throttle.rate({ limit: 1, maxWait: 5 })])
      Throttle.all([busy, Throttle.all([Throttle.spacing({ interval: 1 })])], { maxWait: 5 })
      Throttle.all([], { maxWait: 5 })
      Throttle.fromData({ _tag: "None", maxWait: 5 })
    })
  })

  describe("depth", () => {
    const nested = (depth: number): any => {
      let data: object = { _tag: "None" }
      for (let i = 0; i < depth; i++) data = { _tag: "All", policies: [data] }
      return data
    }
    const circular: any = { _tag: "All", policies: [] }
    circular.policies.push(part, circular)

    it("100 levels are allowed", () => {
      assert.deepStrictEqual(Throttle.fromData(nested(100)).data, nested(100))
    })

    it.effect("100 levels are allowed in decoded data", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual((yield* Throttle.decode(nested(100))).data, nested(100))
      }))

    it("data that is too deep or circular is a RangeError", () => {
      const message = "Throttle.fromData: policies must be nested at most 100 deep"
      for (const data of [circular, nested(200), nested(10_000)]) {
        assert.strictEqual(thrown(() => Throttle.fromData(data)), message)
      }
    })

    it.effect("decoded data that is too deep or circular is a SchemaError", () =>
      Effect.gen(function*() {
        for (const data of [circular, nested(200), nested(10_000)]) {
          assert.include(yield* refused(data), "policies nested at most 100 deep")
        }
      }))

    it.effect("fromData and decode allow the same depth", () =>
      Effect.gen(function*() {
        for (const depth of [99, 100, 101, 102, 103]) {
          const inCode = Effect.try({ try: () => Throttle.fromData(nested(depth)), catch: (error) => error })
          const fromOutside = Throttle.decode(nested(depth))
          assert.strictEqual(
            Exit.isSuccess(yield* Effect.exit(inCode)),
            Exit.isSuccess(yield* Effect.exit(fromOutside)),
            `${depth} deep`
          )
        }
      }))

    it("what all builds, fromData reads", () => {
      let policy: Throttle.Policy<never> = Throttle.none
      try {
        for (let i = 0; i < 150; i++) policy = Throttle.all([policy])
      } catch (error) {
        assert.instanceOf(error, RangeError)
      }
      assert.deepStrictEqual(Throttle.fromData(policy.data).data, policy.data)
    })

    it("a part that is its own neighbour is not circular", () => {
      const twice = Throttle.all([Throttle.none, Throttle.none])
      assert.deepStrictEqual(Throttle.fromData({ _tag: "All", policies: [twice.data, twice.data] }).data, {
        _tag: "All",
        policies: [twice.data, twice.data]
      })
    })
  })
})

describe("describe", () => {
  const requests = Throttle.tokenBucket({ capacity: 500, refill: 500, per: "1 minute" })
  const tokens = Throttle.tokenBucket({ capacity: 90_000, refill: 60_000, per: "1 minute", unit: "tokens" })
  const five = Throttle.concurrency({ limit: 5 })

  const sentences: ReadonlyArray<readonly [sentence: string, policy: Throttle.Policy<any>]> = [
    ["30 per second", Throttle.rate({ limit: 30 })],
    ["30 per second", Throttle.rate({ limit: 30, name: "github", unit: "permits" })],
    ["30 requests per second, burst 10", Throttle.rate({ limit: 30, burst: 10, unit: "requests" })],
    ["1 per 2 minutes", Throttle.rate({ limit: 1, per: "2 minutes" })],
    ["1 per 90 seconds", Throttle.rate({ limit: 1, per: "1.5 minutes" })],
    ["1 per 1500 milliseconds", Throttle.rate({ limit: 1, per: 1_500 })],
    ["1 per 0.5 milliseconds", Throttle.rate({ limit: 1, per: 0.5 })],
    ["1 per hour", Throttle.rate({ limit: 1, per: "60 minutes" })],
    ["1 per day", Throttle.rate({ limit: 1, per: "24 hours" })],
    ["1 per 7 days", Throttle.rate({ limit: 1, per: "1 week" })],
    ["500 per minute, bucket of 500", requests],
    ["60000 tokens per minute, bucket of 90000", tokens],
    ["at most 3 in any millisecond", Throttle.window({ limit: 3, per: 1 })],
    ["at most 3 pages in any 2 seconds", Throttle.window({ limit: 3, per: 2_000, kind: "sliding", unit: "pages" })],
    ["at most 3 in each minute of the clock", Throttle.window({ limit: 3, per: "1 minute", kind: "fixed" })],
    ["at most 5 at once", five],
    ["at most 1 connections at once", Throttle.concurrency({ limit: 1, unit: "connections" })],
    ["1 second between starts", Throttle.spacing({ interval: "1 second" })],
    ["250 milliseconds between starts, on the clock", Throttle.spacing({ interval: 250, align: true })],
    ["1 minute from an end to the next start", Throttle.spacing({ interval: "1 minute", from: "end" })],
    [
      "10 seconds from an end to the next start, on the clock",
      Throttle.spacing({ interval: "10 seconds", from: "end", align: true })
    ],
    ["no limit", Throttle.none],
    ["no limit", Throttle.all([])],
    ["at most 5 at once (never waiting)", Throttle.concurrency({ limit: 5, maxQueue: 0 })],
    ["at most 5 at once (at most 9 waiting)", Throttle.concurrency({ limit: 5, maxQueue: 9 })],
    ["30 per second (waiting at most 1 second)", Throttle.rate({ limit: 30, maxWait: "1 second" })],
    ["at most 5 at once (timing out after 1 minute)", Throttle.concurrency({ limit: 5, timeout: "1 minute" })],
    [
      "30 per second, burst 2 (at most 1 waiting, waiting at most 250 milliseconds, timing out after 2 seconds)",
      Throttle.rate({ limit: 30, burst: 2, maxQueue: 1, maxWait: 250, timeout: 2_000 })
    ],
    ["30 per second, burst 10; at most 5 at once", Throttle.all([Throttle.rate({ limit: 30, burst: 10 }), five])],
    [
      "500 per minute, bucket of 500; 60000 tokens per minute, bucket of 90000; at most 5 at once (at most 1000 waiting)",
      Throttle.all([requests, tokens, five], { name: "openai", maxQueue: 1_000 })
    ],
    [
      "at most 5 at once; 1 per second (never waiting); no limit",
      Throttle.all([Throttle.all([five, Throttle.rate({ limit: 1, maxQueue: 0 })]), Throttle.none])
    ]
  ]

  it.each(sentences)("%s", (sentence, policy) => {
    assert.strictEqual(Throttle.describe(policy), sentence)
    assert.strictEqual(Throttle.describe(policy.data), sentence)
    assert.strictEqual(Policy.describe(policy.data), sentence)
  })
})

describe("isPolicy", () => {
  it("tells policies from what is none", () => {
    for (const policy of policies) assert.isTrue(Throttle.isPolicy(policy))
    for (const other of [undefined, null, 5, {}, () => 5, Throttle.rate, Throttle.none.data, Effect.void]) {
      assert.isFalse(Throttle.isPolicy(other))
    }
  })
})

describe("layerConfig", () => {
  /** How long the second call would wait on the throttle that this configuration gives. */
  const read = (provider: ConfigProvider.ConfigProvider, name = "GITHUB_THROTTLE") =>
    Effect.gen(function*() {
      yield* Throttle.wait()
      return Option.getOrUndefined(Option.map(yield* Throttle.estimateWait(), Duration.toMillis))
    }).pipe(
      Effect.provide(Throttle.layerConfig(Throttle.config(name))),
      Effect.provideService(ConfigProvider.ConfigProvider, provider)
    )
  const env = (env: Record<string, string>) => ConfigProvider.fromEnv({ env })
  const json = (data: unknown) => env({ GITHUB_THROTTLE: typeof data === "string" ? data : JSON.stringify(data) })

  const good: ReadonlyArray<readonly [name: string, ConfigProvider.ConfigProvider, next: number]> = [
    ["JSON", json({ _tag: "Rate", limit: 4 }), 250],
    ["JSON with words", json({ _tag: "Spacing", interval: "2 seconds" }), 2_000],
    ["JSON of parts", json({ _tag: "All", policies: [{ _tag: "Rate", limit: 4 }, { _tag: "Rate", limit: 2 }] }), 500],
    ["a structure", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "Rate", limit: 4 } }), 250],
    [
      "a structure of parts",
      ConfigProvider.fromUnknown({
        GITHUB_THROTTLE: {
          _tag: "All",
          policies: [{ _tag: "Rate", limit: 4 }, {
            _tag: "Spacing",
            interval: "2 seconds",
            align: false,
            from: "start"
          }]
        }
      }),
      2_000
    ],
    [
      "a structure whose leaves are text",
      ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "Rate", limit: "4" } }),
      250
    ]
  ]

  it.effect.each(good)("reads %s", ([, provider, next]) =>
    Effect.gen(function*() {
      assert.strictEqual(yield* read(provider), next)
    }))

  it.effect("reads a structure from the environment where the name is one word", () =>
    Effect.gen(function*() {
      const provider = env({
        GITHUB__tag: "All",
        GITHUB_policies_0__tag: "Rate",
        GITHUB_policies_0_limit: "4",
        GITHUB_policies_0_per: "2000",
        GITHUB_policies_1__tag: "Spacing",
        GITHUB_policies_1_interval: "2 seconds",
        GITHUB_policies_1_align: "false"
      })
      assert.strictEqual(yield* read(provider, "GITHUB"), 2_000)
    }))

  it.effect("its throttle keeps the bounds", () =>
    Effect.gen(function*() {
      const provider = json({ _tag: "Rate", limit: 4, maxQueue: 0 })
      const error = yield* Effect.flip(Effect.andThen(Throttle.wait(), Throttle.wait())).pipe(
        Effect.provide(Throttle.layerConfig(Throttle.config("GITHUB_THROTTLE"))),
        Effect.provideService(ConfigProvider.ConfigProvider, provider)
      )
      assert.strictEqual(error._tag === "ThrottleError" && error.reason._tag, "QueueFull")
    }))

  it.effect("a default applies where nothing is configured", () =>
    Effect.gen(function*() {
      const config = Throttle.config("GITHUB_THROTTLE").pipe(Config.withDefault(Throttle.rate({ limit: 2 })))
      const next = (provider: ConfigProvider.ConfigProvider) =>
        Effect.andThen(Throttle.wait(), Throttle.estimateWait()).pipe(
          Effect.provide(Throttle.layerConfig(config)),
          Effect.provideService(ConfigProvider.ConfigProvider, provider)
        )
      assert.deepStrictEqual(yield* next(env({})), Option.some(Duration.millis(500)))
      assert.deepStrictEqual(yield* next(json({ _tag: "Rate", limit: 4 })), Option.some(Duration.millis(250)))
    }))

  it.effect("a default does not hide a policy that is invalid", () =>
    Effect.gen(function*() {
      const config = Throttle.config("GITHUB_THROTTLE").pipe(Config.withDefault(Throttle.none))
      const read = Effect.provideService(config, ConfigProvider.ConfigProvider, json({ _tag: "Rate", limit: 0 }))
      assert.instanceOf(yield* Effect.flip(read), Config.ConfigError)
    }))

  it.effect("a policy is read beside other settings, under a path", () =>
    Effect.gen(function*() {
      const config = Config.all({ throttle: Throttle.config("throttle"), url: Config.String("url") })
      const provider = ConfigProvider.fromUnknown({ api: { throttle: { _tag: "Rate", limit: 4 }, url: "http://a" } })
      const { throttle, url } = yield* Effect.provideService(
        Config.nested(config, "api"),
        ConfigProvider.ConfigProvider,
        provider
      )
      assert.strictEqual(url, "http://a")
      assert.strictEqual(Throttle.describe(throttle), "4 per second")
    }))

  const deep = `{"_tag":"All","policies":[`.repeat(10_000) + `{"_tag":"None"}` + "]}".repeat(10_000)

  const bad: ReadonlyArray<readonly [name: string, ConfigProvider.ConfigProvider]> = [
    ["nothing", env({})],
    ["another name", env({ GITLAB_THROTTLE: `{"_tag":"None"}` })],
    ["an empty value", json("")],
    ["no JSON", json("soon")],
    ["half of JSON", json(`{"_tag":"Rate","limit":`)],
    ["JSON of no policy", json("5")],
    ["JSON of null", json("null")],
    ["an unknown tag", json({ _tag: "Rates", limit: 5 })],
    ["a bad limit", json({ _tag: "Rate", limit: 0 })],
    ["a limit that is a string", json({ _tag: "Rate", limit: "5" })],
    ["a bad duration", json({ _tag: "Rate", limit: 5, per: "soon" })],
    ["a limit beyond all numbers", json(`{"_tag":"Rate","limit":1e400}`)],
    ["a bad part", json({ _tag: "All", policies: [part, { _tag: "Rate" }] })],
    ["an unknown option", json({ _tag: "Rate", limit: 5, lmit: 6 })],
    ["an unknown option of a part", json({ _tag: "All", policies: [{ _tag: "Rate", limit: 5, lmit: 6 }] })],
    ["JSON that is too deep", json(deep)],
    ["a structure without a tag", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { limit: 5 } })],
    ["a structure with a bad limit", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "Rate", limit: "NaN" } })],
    ["a structure with a negative limit", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "Rate", limit: -1 } })],
    [
      "a structure with a bad duration",
      ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "Rate", limit: 1, per: "Infinity" } })
    ],
    ["a structure with a bad part", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: { _tag: "All", policies: [{}] } })],
    ["a list", ConfigProvider.fromUnknown({ GITHUB_THROTTLE: [{ _tag: "Rate", limit: 1 }] })]
  ]

  it.effect.each(bad)("fails with a ConfigError for %s", ([, provider]) =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(read(provider))
      assert.isTrue(Exit.isFailure(exit), "was accepted")
      const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
      assert.instanceOf(error, Config.ConfigError, `no ConfigError: ${exit}`)
      assert.include(error!.message, "GITHUB_THROTTLE")
    }))
})
