/**
 * The playground's page: controls made from the tables in fields.ts, and what the simulation says of them.
 */
import { describe, type Result, type Summary, summary, svg } from "effect-throttle/simulation"
import {
  arrivals,
  bounds,
  type Field,
  type Fields,
  type Kinds,
  type NumberField,
  policies,
  run,
  type Value,
  whole
} from "./fields.ts"
import {
  allowed,
  arrivalsOf,
  compares,
  examples,
  fromHash,
  initial,
  type Item,
  mostCalls,
  mostItems,
  read,
  remarksOn,
  simulate,
  simulateByArrival,
  type State,
  toCode,
  toHash
} from "./state.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Making elements
// ---------------------------------------------------------------------------------------------------------------------

const find = (id: string): HTMLElement => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no #${id}`)
  return found
}

/** An element with attributes, listeners (`onInput` and the like) and what is in it. */
const make = <Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string | number | boolean | ((event: Event) => void)>> = {},
  ...children: ReadonlyArray<Node | string>
): HTMLElementTagNameMap[Name] => {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2).toLowerCase(), value)
    else if (value !== false) made.setAttribute(key, value === true ? "" : String(value))
  }
  made.append(...children)
  return made
}

const select = (
  attributes: Parameters<typeof make>[1],
  options: ReadonlyArray<readonly [value: string, text: string]>,
  chosen: string
): HTMLSelectElement => {
  const made = make("select", attributes, ...options.map(([value, text]) => make("option", { value }, text)))
  made.value = chosen
  return made
}

// ---------------------------------------------------------------------------------------------------------------------
// Controls
// ---------------------------------------------------------------------------------------------------------------------

/** Which part of the state a control belongs to, and how it says that it was moved. */
type Moved = (value: Value) => void

const shown = ({ unit }: NumberField, value: number): string => String(unit === "s" ? value / 1_000 : value)

/** In seconds at most a millisecond counts: 1.1 s are 1,100 ms, and not a little more. */
const meant = ({ unit }: NumberField, text: string): number =>
  unit === "s" ? Math.round(Number(text) * 1_000) : Number(text)

/** A slider and a box for the same number. `id` is that of the box. */
const numberControl = (
  id: string,
  label: string,
  field: NumberField,
  value: number,
  moved: Moved
): ReadonlyArray<Node> => {
  const limits = { min: shown(field, field.min), step: shown(field, field.step) }
  const slider = make("input", { type: "range", "aria-label": `${label}, slider`, ...limits })
  const box = make("input", {
    type: "number",
    id,
    "aria-label": label,
    "aria-describedby": `${id}-why`,
    ...limits,
    step: "any",
    max: shown(field, field.max)
  })
  const why = make("p", { id: `${id}-why`, class: "why", role: "status" })
  let used = value
  const slide = () => {
    // As far as is of use, and as far as was typed.
    slider.max = shown(field, Math.max(field.reach, used))
    slider.value = shown(field, used)
  }
  const tell = (isAllowed: boolean) => {
    box.setAttribute("aria-invalid", String(!isAllowed))
    why.textContent = isAllowed ? "" : `It must be ${allowed(field)}: ${shown(field, used)} is used.`
  }
  slide()
  box.value = shown(field, value)
  slider.addEventListener("input", () => {
    box.value = slider.value
    used = meant(field, slider.value)
    tell(true)
    moved(used)
  })
  box.addEventListener("input", () => {
    const number = meant(field, box.value)
    const isAllowed = box.value !== "" && Number.isInteger(number) && number >= field.min && number <= field.max
    if (isAllowed) {
      used = number
      slide()
      moved(used)
    }
    tell(isAllowed)
  })
  return [slider, make("span", { class: "number" }, box, field.unit), why]
}

const control = (id: string, where: string, field: Field, value: Value, moved: Moved): HTMLElement => {
  const { label } = field
  switch (field.type) {
    case "number":
      return make(
        "div",
        { class: "field" },
        make("label", { for: id }, label),
        ...numberControl(id, `${where}: ${label}`, field, value as number, moved)
      )
    case "choice": {
      const choices = field.choices.map((choice) => [choice, field.names?.[choice] ?? choice] as const)
      const onChange = (event: Event) => moved((event.target as HTMLSelectElement).value)
      return make(
        "div",
        { class: "field" },
        make("label", { for: id }, label),
        select({ id, class: "wide", onChange }, choices, value as string)
      )
    }
    case "switch": {
      const box = make("input", { type: "checkbox", id, checked: value === true })
      box.addEventListener("change", () => moved(box.checked))
      return make("div", { class: "check" }, box, make("label", { for: id }, label))
    }
    case "text": {
      const box = make("input", { type: "text", id, class: "wide", maxlength: field.most, autocomplete: "off" })
      box.value = String(value)
      box.addEventListener("input", () => moved(read(field, box.value)))
      return make("div", { class: "field" }, make("label", { for: id }, label), box)
    }
  }
}

/** The fields that mean something in the order that was chosen. */
const fieldsIn = ({ whole: { order } }: State, fields: Fields): ReadonlyArray<readonly [name: string, field: Field]> =>
  Object.entries(fields).filter(([, { orders }]) => orders === undefined || orders.includes(String(order)))

/** One policy or pattern: its kind, its numbers, and a button that takes it away. */
const itemControl = (
  group: "policies" | "arrivals",
  kinds: Kinds,
  item: Item,
  i: number,
  state: () => State
): HTMLElement => {
  const id = `${group}-${i}`
  const noun = `${group === "policies" ? "policy" : "pattern"} ${i + 1}`
  const change = (items: ReadonlyArray<Item>, focus: string) => {
    set({ ...state(), [group]: items })
    rebuild()
    document.getElementById(focus)?.focus()
  }
  const onChange = (event: Event) => {
    const kind = (event.target as HTMLSelectElement).value
    change(state()[group].with(i, { kind, options: initial(kinds[kind]!.fields) }), `${id}-kind`)
  }
  const remove = () => change(state()[group].toSpliced(i, 1), `${group}-add`)
  const { about, fields } = kinds[item.kind]!
  return make(
    "fieldset",
    { class: "item" },
    make("legend", {}, noun),
    make(
      "div",
      { class: "head" },
      select(
        { id: `${id}-kind`, "aria-label": `kind of ${noun}`, onChange },
        Object.keys(kinds).map((kind) => [kind, kind] as const),
        item.kind
      ),
      make("button", { type: "button", "aria-label": `Remove ${noun}`, onClick: remove }, "Remove")
    ),
    make("p", {}, about),
    ...fieldsIn(state(), fields).map(([name, field]) =>
      control(`${id}-${name}`, noun, field, item.options[name]!, (value) => {
        const before = state()[group][i]!
        set({
          ...state(),
          [group]: state()[group].with(i, { ...before, options: { ...before.options, [name]: value } })
        })
      })
    )
  )
}

const itemsControl = (group: "policies" | "arrivals", kinds: Kinds, state: () => State): ReadonlyArray<Node> => {
  const items = state()[group]
  const add = () => {
    const [kind, { fields }] = Object.entries(kinds)[0]!
    set({ ...state(), [group]: [...state()[group], { kind, options: initial(fields) }] })
    rebuild()
    document.getElementById(`${group}-${items.length}-kind`)?.focus()
  }
  const noun = group === "policies" ? "policy" : "pattern"
  return [
    ...items.map((item, i) => itemControl(group, kinds, item, i, state)),
    make(
      "button",
      { type: "button", id: `${group}-add`, onClick: add, disabled: items.length >= mostItems },
      `Add a ${noun}`
    )
  ]
}

/** How several policies are one, and who goes first. */
const wholeControl = (state: () => State): ReadonlyArray<Node> =>
  fieldsIn(state(), whole).map(([name, field]) => {
    const id = `whole-${name}`
    return control(id, "the whole", field, state().whole[name]!, (value) => {
      set({ ...state(), whole: { ...state().whole, [name]: value } })
      if (name !== "order") return
      rebuild()
      document.getElementById(id)?.focus()
    })
  })

/** Settings that may be left away: a box to tick, and then the number. */
const settingsControl = (group: "bounds" | "run", fields: Fields, state: () => State): ReadonlyArray<Node> =>
  Object.entries(fields).flatMap(([name, field]) => {
    if ("only" in field && field.only !== undefined && !Object.hasOwn(state()[group], field.only)) return []
    const id = `${group}-${name}`
    const isOn = Object.hasOwn(state()[group], name)
    const put = (value: Value) => set({ ...state(), [group]: { ...state()[group], [name]: value } })
    const box = make("input", { type: "checkbox", id: `${id}-on`, checked: isOn })
    box.addEventListener("change", () => {
      const { [name]: _, ...others } = state()[group]
      set({ ...state(), [group]: box.checked ? { ...others, [name]: field.initial } : others })
      rebuild()
      document.getElementById(`${id}-on`)?.focus()
    })
    const value = state()[group][name]
    return make(
      "div",
      { class: "field" },
      make("div", { class: "check wide" }, box, make("label", { for: `${id}-on` }, field.label)),
      ...(isOn ? numberControl(id, field.label, field as NumberField, value as number, put) : [])
    )
  })

// ---------------------------------------------------------------------------------------------------------------------
// What it says
// ---------------------------------------------------------------------------------------------------------------------

const seconds = (millis: number | undefined): string =>
  millis === undefined || !Number.isFinite(millis) ? "–" : `${(millis / 1_000).toFixed(2)} s`

const numbersOf = (all: Summary): ReadonlyArray<readonly [name: string, value: string, isMore?: true]> => [
  ["started", `${all.started} of ${all.calls}`],
  ["refused", String(Object.values(all.refused).reduce((sum, n) => sum + n, 0))],
  ["wait, half", seconds(all.wait.p50)],
  ["wait, longest", seconds(all.wait.max)],
  ["wait, mean", seconds(all.wait.mean), true],
  ["wait, 9 of 10", seconds(all.wait.p90), true],
  ["wait, 99 of 100", seconds(all.wait.p99), true],
  ["interrupted", String(all.interrupted), true],
  ["longest line", String(all.longestLine), true],
  ["most running", String(all.mostRunning), true],
  ["starts per second", all.throughput.toFixed(2), true]
]

const mostRows = 200

const tableOf = ({ calls }: Result): HTMLElement => {
  const hasCallers = calls.some(({ caller }) => caller !== undefined)
  const columns = ["call", ...(hasCallers ? ["caller"] : []), "arrives", "starts", "ends", "waits", "outcome"]
  const cells = ({ arrival, caller = "–", end, outcome, start, wait }: Result["calls"][number], i: number) =>
    [
      String(i + 1),
      ...(hasCallers ? [caller] : []),
      seconds(arrival),
      seconds(start),
      seconds(end),
      seconds(wait),
      outcome
    ].map((cell) => make("td", {}, cell))
  return make(
    "table",
    {},
    make(
      "caption",
      {},
      calls.length > mostRows ? `The first ${mostRows} of ${calls.length} calls` : "In the order of arrival"
    ),
    make("thead", {}, make("tr", {}, ...columns.map((column) => make("th", { scope: "col" }, column)))),
    make("tbody", {}, ...calls.slice(0, mostRows).map((call, i) => make("tr", {}, ...cells(call, i))))
  )
}

/** The last thing that was asked for so long: what somebody hears who does not see is not each step of a slider. */
const afterwards = (millis: number): (f: () => void) => void => {
  let timer: ReturnType<typeof setTimeout> | undefined
  return (f) => {
    clearTimeout(timer)
    timer = setTimeout(f, millis)
  }
}

const say = afterwards(400)
const keep = afterwards(250)

/** Says, and shows by its edge, that the picture goes on below what is in sight. */
const tellMore = (): void => {
  const picture = find("picture")
  const goesOn = picture.scrollHeight - picture.scrollTop - picture.clientHeight > 4
  picture.classList.toggle("goes-on", goesOn)
  find("more").textContent = goesOn ? "↓ The picture goes on: scroll it." : ""
}

/** At once for those who see it, with the picture; when the slider rests for those who hear it. */
const inWords = (text: string): void => {
  find("words").textContent = text
  say(() => void (find("status").textContent = text))
}

const show = (state: State): void => {
  find("code").textContent = toCode(state)
  keep(() => history.replaceState(null, "", toHash(state)))
  const problem = find("problem")
  const tell = (text: string | undefined) => {
    problem.hidden = text === undefined
    if (problem.textContent !== (text ?? "")) problem.textContent = text ?? ""
  }
  const picture = find("picture")
  try {
    const result = simulate(state)
    const width = Math.max(320, Math.floor(picture.clientWidth))
    picture.innerHTML = svg(compares(state) ? [result, simulateByArrival(state)] : result, { width })
    tellMore()
    find("numbers").replaceChildren(
      ...numbersOf(summary(result)).map(([name, value, isMore]) =>
        make("div", { class: isMore === true ? "more" : "" }, make("dt", {}, name), make("dd", {}, value))
      )
    )
    find("calls").replaceChildren(tableOf(result))
    inWords(compares(state) ? `In the order "${state.whole.order}": ${describe(result)}` : describe(result))
    const more = arrivalsOf(state).length
    tell(more > mostCalls ? `Only the first ${mostCalls} of ${more} calls are shown.` : undefined)
  } catch (error) {
    // What does not go together the library says itself.
    picture.replaceChildren()
    tellMore()
    find("numbers").replaceChildren()
    find("calls").replaceChildren()
    inWords("")
    tell(error instanceof Error ? error.message : String(error))
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The page
// ---------------------------------------------------------------------------------------------------------------------

let state = fromHash(location.hash)
let frame = 0

/** With the next picture of the screen, however often a slider moves until then. */
const draw = (): void => {
  cancelAnimationFrame(frame)
  frame = requestAnimationFrame(() => show(state))
}

const set = (next: State): void => {
  state = next
  // What the address said is no longer what is shown.
  find("remarks").replaceChildren()
  example.value = examples.find(({ hash }) => toHash(fromHash(hash)) === toHash(next))?.hash ?? ""
  draw()
}

const rebuild = (): void => {
  const now = () => state
  find("policies").replaceChildren(...itemsControl("policies", policies, now))
  find("whole").replaceChildren(...wholeControl(now))
  find("bounds").replaceChildren(...settingsControl("bounds", bounds, now))
  find("arrivals").replaceChildren(...itemsControl("arrivals", arrivals, now))
  find("run").replaceChildren(...settingsControl("run", run, now))
}

const load = (hash: string): void => {
  const remarks = remarksOn(hash)
  set(fromHash(hash))
  rebuild()
  find("remarks").replaceChildren(...remarks.map((remark) => make("li", {}, remark)))
}

const copy = async (text: string, what: string) => {
  // Where a page does not come from this machine or by HTTPS there is no clipboard.
  const done = await Promise.resolve().then(() => navigator.clipboard.writeText(text)).then(() => true, () => false)
  find("copied").textContent = done ? `${what} copied.` : "The browser does not allow that here: copy it by hand."
}

const example = find("example") as HTMLSelectElement
example.append(
  make("option", { value: "" }, "choose an example"),
  ...examples.map(({ hash, name }) => make("option", { value: hash }, name))
)
example.addEventListener("change", () => {
  if (example.value !== "") load(example.value)
})
find("copy-code").addEventListener("click", () => void copy(toCode(state), "The code"))
find("copy-link").addEventListener(
  "click",
  () => void copy(location.href.replace(/#.*$/, "") + toHash(state), "The link")
)
document.querySelector("form")?.addEventListener("submit", (event) => event.preventDefault())
addEventListener("hashchange", () => load(location.hash))
addEventListener("resize", draw)
find("picture").addEventListener("scroll", tellMore)
load(location.hash)
