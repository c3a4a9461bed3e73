/**
 * A real Chromium, where one is installed.
 */
import { existsSync, writeSync } from "node:fs"
import { type Browser, chromium } from "playwright-core"

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]

const executablePath = [process.env["CHROMIUM"] ?? "", ...places].find((place) => existsSync(place))

/** Whether to leave out the tests in a browser. Where CI=true says that all must run, they fail instead. */
export const isMissing = executablePath === undefined && process.env["CI"] !== "true"

if (isMissing) writeSync(2, "\n!!! NO CHROMIUM: the playground and the pictures are not tested in a browser !!!\n\n")

export const launch = (): Promise<Browser> => {
  if (executablePath === undefined) throw new Error(`no Chromium at ${places.join(", ")} nor where CHROMIUM says`)
  // It sees nothing but pages of our own on loopback, and in a container its sandbox has no rights to be built.
  return chromium.launch({ executablePath, args: ["--no-sandbox"] })
}
