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
  /** Starts a replica, which takes a node's place when that is stopped. */
  readonly addReplica: (of: Node) => Promise<Node>
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

const startNode = async (slots: readonly [number, number]): Promise<Node & { readonly bus: number }> => {
  const bus = await freePort()
  const options = {
    "cluster-enabled": "yes",
    "cluster-port": String(bus),
    "cluster-node-timeout": "1000",
    // The other slots are served while a node is down.
    "cluster-require-full-coverage": "no"
  }
  const server = await startTcpServer(...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]))
  return { ...server, id: command(server, "CLUSTER", "MYID"), slots, bus }
}

const until = async (what: string, isSo: () => boolean): Promise<void> => {
  for (let tries = 0; !isSo(); tries++) {
    if (tries > 200) throw new Error(`in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const isComplete = (node: Node): boolean => {
  const info = command(node, "CLUSTER", "INFO")
  return ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_size:3"].every((line) => info.includes(line))
}

export const startCluster = async (): Promise<Cluster> => {
  const nodes: Array<Node> = []
  const replicas: Array<Node> = []
  const close = async () => {
    for (const node of [...nodes, ...replicas]) await node.close()
  }
  const meet = ({ address, bus }: Node & { readonly bus: number }) =>
    command(nodes[0]!, "CLUSTER", "MEET", address.host, String(address.port), String(bus))
  try {
    for (const slots of [[0, 5_460], [5_461, 10_922], [10_923, 16_383]] as const) {
      const node = await startNode(slots)
      nodes.push(node)
      command(node, "CLUSTER", "ADDSLOTSRANGE", String(slots[0]), String(slots[1]))
      if (node !== nodes[0]) meet(node)
    }
    await until("the cluster is complete", () => nodes.every(isComplete))
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
    addReplica: async (of) => {
      const replica = await startNode(of.slots)
      replicas.push(replica)
      meet(replica)
      await until("the replica knows its node", () => command(replica, "CLUSTER", "NODES").includes(of.id))
      command(replica, "CLUSTER", "REPLICATE", of.id)
      await until(
        "the replica is up to date",
        () => command(replica, "INFO", "replication").includes("master_link_status:up")
      )
      return replica
    },
    close
  }
}
