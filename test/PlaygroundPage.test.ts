/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
/**
 * The playground and the pictures in a real browser: bundled as they are published, looked at as their readers do.
 */
import { build } from "esbuild"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { examples } from "../docs/playground/state.ts"
import { isMissing, launch } from "./utils/browser.ts"
import { readFiles, root } from "./utils/files.ts"

const page = ["main.ts", "style.css", "index.html"].map((name) => join(root, "docs/playground", name))
const types: Readonly<Record<string, string>> = {
  js: "text/javascript",
  css: "text/css",
  html: "text/html; charset=utf-8",
  svg: "image/svg+xml"
}
const pictures = readFiles(["docs/pictures"], /\.svg$/)

describe.skipIf(isMissing)("in a browser", { timeout: 30_000 }, () => {
  let browser: Browser
  let server: Server
  let address: string

  beforeAll(async () => {
    const { outputFiles } = await build({
      entryPoints: page,
      outdir: "/",
      bundle: true,
      format: "esm",
      minify: true,
      loader: { ".html": "copy" },
      alias: {
        "effect-throttle": join(root, "src/index.ts"),
        "effect-throttle/simulation": join(root, "src/simulation/index.ts")
      },
      write: false
    })
    const files = new Map<string, string | Uint8Array>([
      ...outputFiles.map(({ contents, path }) => [path, contents] as const),
      ...Object.entries(pictures).map(([path, text]) => [`/${path}`, text] as const)
    ])
    server = createServer(({ url = "/" }, response) => {
      const path = url === "/" ? "/index.html" : url
      const found = files.get(path)
      response.writeHead(found === undefined ? 404 : 200, { "content-type": types[path.split(".").at(-1)!] ?? "" })
      response.end(found)
    })
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
    browser = await launch()
  }, 60_000)

  afterAll(async () => {
    await browser?.close()
    server?.close()
  })

  /** Opens the page, and fails with the errors that it logs. */
  const visit = async (hash: string, look: (page: Page) => Promise<void>, options: BrowserContextOptions = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
    const complaints: Array<string> = []
    try {
      const page = await context.newPage()
      page.setDefaultTimeout(10_000)
      page.on("pageerror", (error) => complaints.push(String(error)))
      page.on("console", (message) => message.type() === "error" && complaints.push(message.text()))
      await page.goto(address + hash)
      await page.locator("#picture svg, #problem:not([hidden])").first().waitFor()
      await look(page)
      assert.deepStrictEqual(complaints, [])
    } finally {
      await context.close()
    }
  }

  const number = (page: Page, name: string) =>
    page.locator("#numbers div", { hasText: name }).locator("dd").first().textContent()

  it("shows who starts when, in a picture, in numbers, in words, in a table and as code", () =>
    visit(
      "#policy=concurrency,limit:2&arrivals=bursts,size:6,every:9000,duration:1000&runs=500&maxQueue=3",
      async (page) => {
        assert.strictEqual(
          await page.locator("#picture svg title").textContent(),
          "at most 2 at once (at most 3 waiting)"
        )
        assert.strictEqual(await number(page, "started"), "5 of 6")
        assert.strictEqual(await number(page, "refused"), "1")
        assert.strictEqual(await number(page, "wait, longest"), "1.00 s")
        assert.include(
          (await page.locator("#words").textContent())!,
          "6 calls in 1.5 s: 5 started; refused: 1 QueueFull."
        )
        await page.locator("#status", { hasText: "6 calls in 1.5 s: 5 started; refused: 1 QueueFull." }).waitFor()
        await page.getByText("All calls as a table").click()
        assert.strictEqual(await page.locator("#calls tbody tr").count(), 6)
        assert.strictEqual(await page.locator("#calls tbody tr").last().textContent(), "60.00 s–0.00 s0.00 sQueueFull")
        assert.include(
          (await page.locator("#code").textContent())!,
          "const policy = Throttle.concurrency({ limit: 2, maxQueue: 3 })"
        )
      }
    ))

  it("follows a slider moved by keys, and keeps what was chosen in the address", () =>
    visit("#policy=rate,limit:5&arrivals=bursts,size:6,every:9000,duration:1000", async (page) => {
      assert.strictEqual(await number(page, "wait, longest"), "1.00 s")
      await page.getByRole("slider", { name: "policy 1: limit" }).focus()
      for (let i = 0; i < 5; i++) await page.keyboard.press("ArrowRight")
      await page.locator("#numbers", { hasText: "0.50 s" }).waitFor()
      assert.strictEqual(await page.getByRole("spinbutton", { name: "policy 1: limit" }).inputValue(), "10")
      assert.include((await page.locator("#code").textContent())!, "Throttle.rate({ limit: 10 })")
      await page.waitForFunction(() => location.hash.includes("limit:10"))
      await page.reload()
      await page.locator("#picture svg").waitFor()
      assert.strictEqual(await number(page, "wait, longest"), "0.50 s")
    }))

  it("says in words, with each picture, what that picture shows", () =>
    visit("#policy=rate,limit:5&arrivals=bursts,size:6,every:9000,duration:1000", async (page) => {
      const shown = await page.evaluate(async () => {
        const slider = document.querySelector<HTMLInputElement>("[aria-label='policy 1: limit, slider']")!
        const words = document.querySelector("#words")!
        const seen: Array<readonly [string, string]> = []
        new MutationObserver(() => {
          const longest = document.querySelectorAll("#numbers dd")[3]?.textContent ?? ""
          seen.push([longest, words.textContent ?? ""])
        }).observe(document.querySelector("#picture")!, { childList: true })
        for (const value of ["10", "20", "50"]) {
          slider.value = value
          slider.dispatchEvent(new Event("input"))
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
        }
        return seen
      })
      assert.deepStrictEqual(shown.map(([longest]) => longest), ["0.50 s", "0.25 s", "0.10 s"])
      assert.deepStrictEqual(shown.map(([, words]) => /the longest ([\d.]+ m?s)/.exec(words)?.[1]), [
        "500 ms",
        "250 ms",
        "100 ms"
      ])
    }))

  it("takes numbers beyond the slider, and says what is allowed where one is not", () =>
    visit("#policy=rate,limit:5&arrivals=bursts,size:6,every:9000,duration:1000", async (page) => {
      const box = page.getByRole("spinbutton", { name: "policy 1: limit" })
      const why = page.locator("#policies-0-limit-why")
      await box.fill("500")
      await page.locator("#code", { hasText: "limit: 500" }).waitFor()
      assert.strictEqual(await page.getByRole("slider", { name: "policy 1: limit" }).inputValue(), "500")
      assert.isFalse(await why.isVisible())
      await box.fill("5000000")
      assert.strictEqual(await why.textContent(), "It must be a whole number from 1 to 1,000,000: 500 is used.")
      assert.isTrue(await why.isVisible())
      await box.fill("60")
      assert.isFalse(await why.isVisible())
    }))

  it("says what of an address it does not take as it is, until something else is chosen", () =>
    visit("#policy=rate,limit:1e9&arrivals=bursts,size:6,every:9000,duration:1000", async (page) => {
      const remarks = page.locator("#remarks")
      assert.match((await remarks.textContent())!, /limit must be a whole number from 1 to 1,000,000; "1e9" became/)
      await page.getByRole("spinbutton", { name: "policy 1: limit" }).fill("5")
      assert.isFalse(await remarks.isVisible())
    }))

  it("has units, costs, policies one after the other, and shadow", () =>
    visit("#policy=rate,limit:5&policy=concurrency,limit:2&arrivals=steady,rate:6", async (page) => {
      const code = () => page.locator("#code").textContent()
      await page.getByLabel("several policies").selectOption("chain")
      await page.locator("#code", { hasText: "const policy2 = Throttle.concurrency({ limit: 2 })" }).waitFor()
      await page.getByRole("checkbox", { name: "in shadow" }).check()
      await page.locator("#code", { hasText: "const policy2 = Throttle.shadow(" }).waitFor()
      await page.getByRole("checkbox", { name: "in shadow" }).uncheck()
      await page.getByLabel("several policies").selectOption("all")
      await page.locator("#policies-0-unit").selectOption("tokens")
      await page.getByRole("spinbutton", { name: "pattern 1: and besides" }).fill("3")
      await page.locator("#code", { hasText: "withPermits({ tokens: 3 })" }).waitFor()
      assert.include((await code())!, "Throttle.rate({ limit: 5, unit: \"tokens\" })")
      // Three tokens of a rate with a capacity of one can never be granted.
      assert.include((await page.locator("#words").textContent())!, "PermitsExceedCapacity")
    }))

  it("names callers in the picture, in words and in the table, and compares an order with that of arrival", () =>
    visit(examples.find(({ name }) => name.startsWith("share fairly"))!.hash, async (page) => {
      const texts = () => page.locator("#picture text").allTextContents()
      const names = [
        "10 per second (fair among callers)",
        "calls: light",
        "calls: flooder",
        "10 per second, by arrival"
      ]
      for (const name of names) assert.include(await texts(), name)
      assert.include(
        (await page.locator("#words").textContent())!,
        "By caller: light 4 calls, half waited up to 100 ms, the longest 100 ms; flooder 21 calls"
      )
      assert.match(
        (await page.locator("#picture desc").textContent())!,
        /fair among callers.*by arrival.*light 4 calls/
      )
      await page.getByText("All calls as a table").click()
      assert.strictEqual(
        await page.locator("#calls tbody tr").first().textContent(),
        "1flooder0.00 s0.00 s0.06 s0.00 sdone"
      )
      await page.getByRole("checkbox", { name: "the same calls by arrival" }).uncheck()
      await page.waitForFunction(() => !document.querySelector("#picture")!.textContent!.includes("by arrival"))
      // A long name is shortened, and stays beside the calls
      await page.locator("#arrivals-1-caller").fill("ACME-INDUSTRIES-EU")
      const beside = page.locator("#picture text", { hasText: "ACME-I…" })
      await beside.waitFor()
      const name = await beside.evaluate((text: SVGTextElement) => text.getBBox().x + text.getBBox().width)
      const first = await page.locator("#picture .run").first().evaluate((bar: SVGRectElement) => bar.getBBox().x)
      assert.isBelow(name, first)
      await page.locator("#arrivals-1-caller").fill("<b>&me")
      await page.locator("#picture text", { hasText: "calls: <b>&me" }).waitFor()
      await page.waitForFunction(() => location.hash.includes("me"))
      await page.reload()
      await page.locator("#picture text", { hasText: "calls: <b>&me" }).waitFor()
      assert.strictEqual(await page.locator("#arrivals-1-caller").inputValue(), "<b>&me")
    }))

  it("has controls of an order where they mean something, and keeps the focus on it", () =>
    visit("#policy=rate,limit:5&arrivals=bursts,size:9,every:9000,duration:1000", async (page) => {
      const order = page.getByLabel("order: who starts first")
      const shown = async () => {
        const all = {
          ageing: "#whole-ageing",
          compare: "#whole-compare",
          weight: "#arrivals-0-weight",
          priority: "#arrivals-0-priority"
        }
        const counts = await Promise.all(Object.values(all).map((id) => page.locator(id).count()))
        return Object.keys(all).filter((_, i) => counts[i]! > 0)
      }
      assert.deepStrictEqual(await shown(), [])
      await order.selectOption("priority")
      assert.deepStrictEqual(await shown(), ["ageing", "compare", "priority"])
      assert.strictEqual(await page.evaluate(() => document.activeElement?.id), "whole-order")
      await page.locator("#code", { hasText: `order: "priority", ageing: "10 seconds"` }).waitFor()
      await page.getByRole("spinbutton", { name: "ageing" }).fill("60")
      await page.locator("#code", { hasText: `ageing: "1 minute"` }).waitFor()
      await order.selectOption("fair")
      assert.deepStrictEqual(await shown(), ["ageing", "compare", "weight", "priority"])
      await page.getByRole("checkbox", { name: "maxWait: the longest wait foreseen" }).check()
      await page.getByRole("alert").filter({ hasText: `"maxWait"` }).waitFor()
      await order.selectOption("arrival")
      await page.locator("#picture svg").waitFor()
      assert.deepStrictEqual(await shown(), [])
    }))

  it("takes numbers that are typed, and marks those that are not allowed", () =>
    visit("#policy=rate,limit:5&arrivals=bursts,size:6,every:9000,duration:1000", async (page) => {
      const box = page.getByRole("spinbutton", { name: "policy 1: limit" })
      await box.fill("50")
      await page.locator("#numbers", { hasText: "0.10 s" }).waitFor()
      await box.fill("0")
      assert.strictEqual(await box.getAttribute("aria-invalid"), "true")
      await box.fill("")
      assert.strictEqual(await box.getAttribute("aria-invalid"), "true")
      await box.fill("7.6")
      assert.strictEqual(await box.getAttribute("aria-invalid"), "true")
      assert.include((await page.locator("#code").textContent())!, "limit: 50")
      await box.fill("5")
      assert.strictEqual(await box.getAttribute("aria-invalid"), "false")
    }))

  it("combines policies, patterns and bounds, and the focus stays where one is", () =>
    visit("#policy=rate,limit:5&arrivals=steady,rate:6", async (page) => {
      const focused = () => page.evaluate(() => document.activeElement?.id)
      await page.getByRole("button", { name: "Add a policy" }).click()
      assert.strictEqual(await focused(), "policies-1-kind")
      await page.getByLabel("kind of policy 2").selectOption("concurrency")
      assert.strictEqual(await focused(), "policies-1-kind")
      await page.getByRole("button", { name: "Add a pattern" }).click()
      await page.getByRole("checkbox", { name: "maxQueue: so many may wait" }).check()
      assert.strictEqual(await focused(), "bounds-maxQueue-on")
      await page.locator("#code", { hasText: "Throttle.concurrency" }).waitFor()
      const code = (await page.locator("#code").textContent())!
      for (
        const part of ["Throttle.all([", "Throttle.concurrency({ limit: 3 })", "{ maxQueue: 10 }", "Simulation.merge("]
      ) {
        assert.include(code, part)
      }
      await page.getByRole("button", { name: "Remove policy 1" }).click()
      assert.strictEqual(await focused(), "policies-add")
      await page.locator("#code", { hasText: "const policy = Throttle.concurrency({ limit: 3, maxQueue: 10 })" })
        .waitFor()
    }))

  it("says what the library says where things do not go together", () =>
    visit("#policy=concurrency,limit:2&arrivals=steady,rate:6&maxWait=1000", async (page) => {
      assert.match(
        (await page.getByRole("alert").textContent())!,
        /^Throttle.concurrency: "maxWait" needs a time-based part/
      )
      await page.getByRole("checkbox", { name: "maxWait: the longest wait foreseen" }).uncheck()
      await page.locator("#picture svg").waitFor()
      assert.isFalse(await page.locator("#problem").isVisible())
    }))

  it("shows every example", () =>
    visit("", async (page) => {
      for (const { hash, name } of examples) {
        await page.getByLabel("Begin with").selectOption(name)
        await page.waitForFunction((start) => location.hash.startsWith(start), hash.slice(0, 15))
        assert.isFalse(await page.locator("#problem").isVisible(), name)
        assert.notStrictEqual(await number(page, "started"), "0 of 0", name)
      }
      const chosen = () => page.getByLabel("Begin with").inputValue()
      assert.strictEqual(await chosen(), examples.at(-1)!.hash)
      await page.evaluate((hash) => void (location.hash = hash), examples[2]!.hash)
      await page.waitForFunction(() => document.querySelector("#code")!.textContent!.includes("fixed"))
      assert.strictEqual(await chosen(), examples[2]!.hash)
      await page.getByRole("spinbutton", { name: "policy 1: limit" }).fill("9")
      assert.strictEqual(await chosen(), "")
    }))

  it("says whether something was copied, also where there is no clipboard", () =>
    visit(examples[0]!.hash, async (page) => {
      await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }))
      for (const name of ["Copy the code", "Copy a link to this"]) {
        await page.evaluate(() => void (document.querySelector("#copied")!.textContent = ""))
        await page.getByRole("button", { name }).click()
        await page.locator("#copied", { hasText: "The browser does not allow that here" }).waitFor()
      }
    }))

  it("can be used by keys and by those who do not see it", () =>
    visit(examples[1]!.hash, async (page) => {
      const nameless = await page.evaluate(() =>
        Array.from(document.querySelectorAll("input, select, button"), (element) => {
          const { labels, textContent } = element as HTMLInputElement
          const name = element.getAttribute("aria-label") ?? labels?.[0]?.textContent ?? ""
          return name !== "" || (element.tagName === "BUTTON" && textContent !== "") ? "" : element.outerHTML
        }).filter((html) => html !== "")
      )
      assert.deepStrictEqual(nameless, [])
      const ids = await page.evaluate(() => Array.from(document.querySelectorAll("[id]"), ({ id }) => id))
      assert.strictEqual(new Set(ids).size, ids.length)
      // Every control is reached by Tab, and shows that it is
      const controls = await page.locator("input:enabled, select:enabled, button:enabled, summary").count()
      const reached = new Set<string>()
      for (let i = 0; i < controls + 5; i++) {
        await page.keyboard.press("Tab")
        const [id, outline] = await page.evaluate(() => {
          const { activeElement: active } = document
          if (active === null || active === document.body) return ["", "none"]
          const all = Array.from(document.querySelectorAll("*"))
          return [`${active.tagName}${all.indexOf(active)}`, getComputedStyle(active).outlineStyle]
        })
        if (id === "") continue
        if (/^(INPUT|SELECT|BUTTON|SUMMARY)/.test(id!)) reached.add(id!)
        assert.strictEqual(outline, "solid", id)
      }
      assert.strictEqual(reached.size, controls)
    }))

  it.each(["light", "dark"] as const)(
    "has contrast in %s colours",
    (colorScheme) =>
      visit(
        "#policy=rate,limit:5&arrivals=bursts,size:9,every:9000,duration:1000&maxQueue=5&runs=200",
        async (page) => {
          const ratios = await page.evaluate(() => {
            const light = (color: string) => {
              const [r = 0, g = 0, b = 0] = (color.match(/[\d.]+/g) ?? []).map((part) => {
                const share = Number(part) / 255
                return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
              })
              return 0.2126 * r + 0.7152 * g + 0.0722 * b
            }
            const ratio = (a: string, b: string) => {
              const [x, y] = [light(a), light(b)].toSorted((p, q) => q - p) as [number, number]
              return (x + 0.05) / (y + 0.05)
            }
            const behind = (element: Element | null): string => {
              if (element === null) return getComputedStyle(document.body).backgroundColor
              const { backgroundColor } = getComputedStyle(element)
              return backgroundColor === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : backgroundColor
            }
            const back = getComputedStyle(document.querySelector("#picture .back")!).fill
            const texts = Array.from(
              document.querySelectorAll("h1, h2, p, label, legend, dt, dd, code, button, select, summary")
            )
              .map((element) => [element.tagName, ratio(getComputedStyle(element).color, behind(element))] as const)
            const inPicture = Array.from(document.querySelectorAll("#picture text"))
              .map((element) => [`text ${element.textContent}`, ratio(getComputedStyle(element).fill, back)] as const)
            const shapes = Array.from(
              document.querySelectorAll("#picture .run, #picture .wait, #picture .bad, #picture .limit")
            )
              .map((element) => {
                const { fill, stroke } = getComputedStyle(element)
                return [
                  `shape ${element.getAttribute("class")}`,
                  ratio(stroke === "none" ? fill : stroke, back) * 1.5
                ] as const
              })
            return [...texts, ...inPicture, ...shapes]
          })
          assert.isAbove(ratios.length, 50)
          for (const [what, ratio] of ratios) assert.isAtLeast(ratio, 4.5, what)
        },
        { colorScheme }
      )
  )

  it.each<[string, BrowserContextOptions]>([
    ["a desk", {}],
    ["a phone", { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }]
  ])("fits %s: no control of any example is cut off", (_, options) =>
    visit("", async (page) => {
      for (const { name } of examples) {
        await page.getByLabel("Begin with").selectOption(name)
        const cutOff = await page.evaluate(() =>
          Array.from(document.querySelectorAll("input, select, button, #words, .item"), (element) => {
            const { left, right } = element.getBoundingClientRect()
            const box = element.closest(".chosen, .seen, .said")!.getBoundingClientRect()
            return left >= box.left && right <= box.right ? "" : element.outerHTML
          }).filter((html) => html !== "")
        )
        assert.deepStrictEqual(cutOff, [], name)
      }
    }, options))

  it("fits a phone: nothing is cut off, fingers hit, and the picture stays in sight", () =>
    visit(examples[1]!.hash, async (page) => {
      assert.isAtMost(await page.evaluate(() => document.documentElement.scrollWidth), 390)
      const small = await page.evaluate(() =>
        Array.from(document.querySelectorAll("input, select, button"), (element) => {
          const { height, width } = element.getBoundingClientRect()
          return height < 18 || width < 18 ? element.outerHTML : ""
        }).filter((html) => html !== "")
      )
      assert.deepStrictEqual(small, [])
      await page.getByRole("checkbox", { name: "timers are late by" }).focus()
      // The sentence too, in letters that can be read.
      const words = await page.locator("#words").evaluate((element) => {
        const { bottom, height, top, width } = element.getBoundingClientRect()
        const { color, fontSize } = getComputedStyle(element)
        return { top, bottom, height, width, color, size: parseFloat(fontSize), text: element.textContent }
      })
      assert.match(words.text!, /calls in .* started/)
      assert.isAtLeast(words.top, 0)
      assert.isAtMost(words.bottom, 844)
      assert.isAbove(words.height, 14)
      assert.isAbove(words.width, 250)
      assert.isAtLeast(words.size, 13)
      const { bottom, top } = await page.locator("#picture").evaluate((element) =>
        element.getBoundingClientRect().toJSON()
      )
      assert.isAtLeast(top, 0)
      // A hint points to results that are out of sight, until they have been seen.
      await page.locator("#more", { hasText: "The picture goes on" }).waitFor()
      const isInSight = await page.locator("#more").evaluate((element) => {
        const { bottom, top } = element.getBoundingClientRect()
        return top >= 0 && bottom <= innerHeight
      })
      assert.isTrue(isInSight)
      await page.locator("#picture").evaluate((element) => element.scrollTo(0, element.scrollHeight))
      await page.locator("#more:empty").waitFor({ state: "attached" })
      assert.isFalse(await page.locator("#picture.goes-on").count() > 0)
      const control = await page.getByRole("checkbox", { name: "timers are late by" }).evaluate((element) =>
        element.getBoundingClientRect().top
      )
      assert.isAbove(control, bottom)
    }, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }))

  it("shows the pictures of the docs: no text lies over another or is cut off", async () => {
    const page = await browser.newPage()
    for (const path of Object.keys(pictures)) {
      await page.goto(address + path)
      const problems = await page.evaluate(() => {
        const svg = document.documentElement as unknown as SVGSVGElement
        const { height, width } = svg.viewBox.baseVal
        const texts = Array.from(
          svg.querySelectorAll("text"),
          (text) => ({ text: text.textContent, box: text.getBBox() })
        )
        const isOver = (a: DOMRect, b: DOMRect) =>
          a.x < b.x + b.width && b.x < a.x + a.width && a.y + 2 < b.y + b.height - 2 && b.y + 2 < a.y + a.height - 2
        return texts.length === 0 ? ["nothing is drawn"] : texts.flatMap(({ box, text }, i) => [
          ...(box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height
            ? [`${text} is cut off`]
            : []),
          ...texts.slice(i + 1).filter((other) => isOver(box, other.box)).map((other) =>
            `${text} lies over ${other.text}`
          )
        ])
      })
      assert.deepStrictEqual(problems, [], path)
    }
    await page.close()
  })
})
