import { join } from 'node:path'
import type { SlotPlan } from './address-plan.ts'
import { createNamespace, runAnyInNamespace, runInNamespace, unpinNamespaces } from './namespace.ts'

export interface SlotLinkDeps {
  /** Folder of the pins; `router` is among them. */
  readonly netnsDir: string
  readonly gateway: string
  readonly prefixLength: number
  readonly mtu: number
}

/**
 * A constant program without arguments. The namespace belongs to the host's user namespace, so root of a sandbox has no capabilities over it: it may bind ports below
 * 1024 and ping only because these two settings say that anybody may.
 */
const containerSetup =
  'set -e; echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start; echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range; exec ip -batch -'

/** Namespaces made at once: more than this only makes them wait for the kernel's one network lock. */
const concurrency = 4

/** Makes namespaces with a configured `eth0` each, and puts the other ends on the bridge. On failure nothing of them stays. */
export async function makeContainerLinks(deps: SlotLinkDeps, plans: readonly SlotPlan[]) {
  try {
    for (let start = 0; start < plans.length; start += concurrency) {
      const results = await Promise.allSettled(plans.slice(start, start + concurrency).map((plan) => makeNamespace(deps, plan)))
      for (const result of results) if (result.status === 'rejected') throw result.reason
    }
    await runRouterBatch(
      deps,
      plans.flatMap((plan) => portLines(deps, plan)),
    )
    await tellPorts(deps, plans)
  } catch (error) {
    await deleteLinks(deps, plans)
    throw error
  }
}

/** Makes taps that only root may open, on the bridge. On failure nothing of them stays. */
export async function makeTapLinks(deps: SlotLinkDeps, plans: readonly SlotPlan[]) {
  try {
    const make = (plan: SlotPlan) => [`tuntap add dev ${plan.link} mode tap user 0 vnet_hdr`, ...portLines(deps, plan)]
    await runRouterBatch(deps, plans.flatMap(make))
    await tellPorts(deps, plans)
  } catch (error) {
    await deleteLinks(deps, plans)
    throw error
  }
}

/** Removes both ends of each link and the pins. Links that are gone already are no error. */
export async function deleteLinks(deps: SlotLinkDeps, plans: readonly SlotPlan[]) {
  const input = plans.map((plan) => `link delete ${plan.link}\n`).join('')
  const result = await runAnyInNamespace(join(deps.netnsDir, 'router'), 'ip', ['-force', '-batch', '-'], { input, background: true })
  const others = result.stderr.split('\n').filter((line) => line !== '' && !/Cannot find device|Command failed/.test(line))
  if (others.length > 0) throw new Error(`links of sandboxes could not be removed: ${others.join('; ')}`)
  const containers = plans.filter((plan) => plan.kind === 'container')
  await unpinNamespaces(containers.map((plan) => join(deps.netnsDir, String(plan.index))))
}

async function makeNamespace(deps: SlotLinkDeps, plan: SlotPlan) {
  const input = `link set lo up
link add eth0 mtu ${deps.mtu} address ${plan.mac} type veth peer name ${plan.link} mtu ${deps.mtu} netns ${join(deps.netnsDir, 'router')}
link set eth0 addrgenmode none
addr add ${plan.address}/${deps.prefixLength} dev eth0
link set eth0 up
route add default via ${deps.gateway}
`
  await createNamespace(join(deps.netnsDir, String(plan.index)), 'sh', ['-c', containerSetup], { input, background: true })
}

/**
 * Isolated ports never exchange frames; the bridge learns nothing from them and the router asks nobody for their address. What is sent to one is not shown to the others: a bridge floods what it knows no port for,
 * and a guest hears all that comes to its port.
 */
function portLines(deps: SlotLinkDeps, plan: SlotPlan): string[] {
  return [
    `link set ${plan.link} mtu ${deps.mtu} master br0`,
    `link set ${plan.link} type bridge_slave isolated on learning off flood off mcast_flood off bcast_flood off`,
    `link set ${plan.link} up`,
    `neigh replace ${plan.address} lladdr ${plan.mac} dev br0 nud permanent`,
  ]
}

/** Which port each hardware address is behind, bridge(8). */
async function tellPorts(deps: SlotLinkDeps, plans: readonly SlotPlan[]) {
  const input = plans.map((plan) => `fdb replace ${plan.mac} dev ${plan.link} master static\n`).join('')
  await runInNamespace(join(deps.netnsDir, 'router'), 'bridge', ['-batch', '-'], { input, background: true })
}

async function runRouterBatch(deps: SlotLinkDeps, lines: readonly string[]) {
  await runInNamespace(join(deps.netnsDir, 'router'), 'ip', ['-batch', '-'], { input: `${lines.join('\n')}\n`, background: true })
}
