/**
 * What a declaration file leaves without a comment, as the compiler writes it: a line for each declaration and member,
 * four spaces for each level.
 */
export const undocumented = (text: string): { readonly looked: number; readonly without: ReadonlyArray<string> } => {
  const lines = text.split("\n")
  const without: Array<string> = []
  let looked = 0
  /** Inside of what: members of an interface of operations need comments, of any other only its calls do. */
  let block = ""
  for (const [i, line] of lines.entries()) {
    const opened = /^export (?:declare )?(?:const|interface|class|function|type) (\w+)/.exec(line)
    if (opened !== null) block = line.endsWith("{") ? opened[1]! : ""
    if (line.startsWith("}")) block = ""
    const isCall = block !== "" && /^ {4}[(<]/.test(line)
    const isOperation = /^(Operations|ServiceClass|Throttle|ThrottleMap|Permit|Timer)$/.test(block) &&
      /^ {4}\w/.test(line)
    if (opened === null && !isCall && !isOperation) continue
    looked++
    if (!isDocumented(lines, i)) without.push(line.trim())
  }
  return { looked, without }
}

/** Whether a comment that says something, and not only tags, ends right above. */
const isDocumented = (lines: ReadonlyArray<string>, at: number): boolean => {
  if (!lines[at - 1]?.endsWith("*/")) return false
  let start = at - 1
  while (!lines[start]!.includes("/**")) start--
  const words = lines.slice(start, at).join("\n").replace(/\/\*\*|\*\//g, "").replace(/^ *\* ?/gm, "").trim()
  return words !== "" && !words.startsWith("@")
}
