/** What an editor shows: the language server of the installed TypeScript, asked as editors ask it. */
import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { root } from "./files.ts"

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: unknown
  readonly result?: unknown
}

export interface Editor {
  /** What is shown, in markdown, when the pointer rests on a character; lines and characters are counted from 0. */
  readonly hover: (file: string, line: number, character: number) => Promise<string>
  readonly close: () => void
}

export const openEditor = async (files: ReadonlyArray<string>): Promise<Editor> => {
  // The compiler itself, since its command would leave it behind when it is killed.
  const { default: getExePath } = await import(join(root, "node_modules/typescript/lib/getExePath.js"))
  const server: ChildProcess = spawn(getExePath(), ["--lsp", "--stdio"], { stdio: ["pipe", "pipe", "ignore"] })
  const send = (message: object) => {
    const text = JSON.stringify({ jsonrpc: "2.0", ...message })
    server.stdin!.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
  }
  const waiting = new Map<number, (result: unknown) => void>()
  let asked = 0
  const ask = (method: string, params: object) =>
    new Promise<unknown>((resolve) => {
      waiting.set(++asked, resolve)
      send({ id: asked, method, params })
    })
  const take = ({ id, method, params, result }: Message) => {
    if (id === undefined) return
    if (method === undefined) return waiting.get(id)?.(result)
    // It asks for settings: there are none.
    const { items = [] } = params as { readonly items?: ReadonlyArray<unknown> }
    send({ id, result: method === "workspace/configuration" ? items.map(() => null) : null })
  }
  let buffer = Buffer.alloc(0)
  server.stdout!.on("data", (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk])
    while (true) {
      const head = buffer.indexOf("\r\n\r\n")
      const length = Number(/Content-Length: (\d+)/.exec(buffer.toString("utf8", 0, Math.max(0, head)))?.[1])
      if (head < 0 || buffer.length < head + 4 + length) return
      const message = buffer.toString("utf8", head + 4, head + 4 + length)
      buffer = buffer.subarray(head + 4 + length)
      take(JSON.parse(message))
    }
  })

  const capabilities = { textDocument: { hover: { contentFormat: ["markdown"] } } }
  await ask("initialize", { processId: process.pid, rootUri: pathToFileURL(root).href, capabilities })
  send({ method: "initialized", params: {} })
  for (const file of files) {
    const textDocument = {
      uri: pathToFileURL(file).href,
      languageId: "typescript",
      version: 1,
      text: readFileSync(file, "utf8")
    }
    send({ method: "textDocument/didOpen", params: { textDocument } })
  }
  return {
    hover: async (file, line, character) => {
      const textDocument = { uri: pathToFileURL(file).href }
      const result = await ask("textDocument/hover", { textDocument, position: { line, character } })
      return (result as { readonly contents: { readonly value: string } } | null)?.contents.value ?? ""
    },
    close: () => void server.kill()
  }
}
