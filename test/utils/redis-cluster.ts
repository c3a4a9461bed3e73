/** A cluster of three redis-servers without replicas: nodes are stopped, hung, and given other slots. */
import { spawnSync } from "node:child_process"
import { freePort, type Server, startTcpServer } from "./redis-server.ts"

export type Node = Server<{ readonly host: string; readonly port: number }> & {
  readonly id: string
  /** Of the 16,384 slots, the first and the last. */
  readonly slots: readonly [number, number]
}

export interface Cluster {
  readonly nodes: ReadonlyArray<Node>
  /** Runs redis-cli against a node. */
  readonly command: (node: Pick<Node, "address">, ...args: ReadonlyArray<string>) => string
  /** The node that holds a key. */
  readonly nodeOf: (key: string) => Node
  readonly close: () => Promise<void>
}

const command = ({ address }: Pick<Node, "address">, ...args: ReadonlyArray<string>): string => {
  const { error, status, stderr, stdout } = spawnSync("redis-cli", [
    "-h",
    address.host,
    "-p",
    String(address.port),
    ...args
  ])
  if (error !== undefined) throw error
  const text = stdout.toString().trim()
  if (status !== 0 || /^(ERR|MOVED|CLUSTERDOWN) /.test(text)) {
    throw new Error(`${args.join(" ")}: ${text}${stderr.toString()}`)
  }
  return text
}

export const startCluster = async (): Promise<Cluster> => {
  const starts: ReadonlyArray<readonly [number, number]> = [[0, 5_460], [5_461, 10_922], [10_923, 16_383]]
  const nodes: Array<Node> = []
  const close = async () => {
    for (const node of nodes) await node.close()
  }
  try {
    const buses: Array<number> = []
    for (const slots of starts) {
      const bus = await freePort()
      const server = await startTcpServer(
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        String(bus),
        "--cluster-node-timeout",
        "1000",
        // The other slots are served while a node is down.
        "--cluster-require-full-coverage",
        "no"
      )
      const node = { ...server, id: command(server, "CLUSTER", "MYID"), slots }
      nodes.push(node)
      buses.push(bus)
      command(node, "CLUSTER", "ADDSLOTSRANGE", String(slots[0]), String(slots[1]))
    }
    nodes.forEach(({ address }, i) =>
      command(nodes[0]!, "CLUSTER", "MEET", address.host, String(address.port), String(buses[i]))
    )
    for (let tries = 0; !nodes.every((node) => isComplete(node)); tries++) {
      if (tries > 200) throw new Error("the cluster does not come together")
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  } catch (error) {
    await close()
    throw error
  }
  return {
    nodes,
    command,
    nodeOf: (key) => {
      const slot = Number(command(nodes.find((node) => node.isUp())!, "CLUSTER", "KEYSLOT", key))
      return nodes.find(({ slots: [from, to] }) => slot >= from && slot <= to)!
    },
    close
  }
}

const isComplete = (node: Node): boolean => {
  const info = command(node, "CLUSTER", "INFO")
  return info.includes("cluster_state:ok") && info.includes("cluster_slots_ok:16384") && info.includes("cluster_size:3")
}
