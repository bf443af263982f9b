import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'
import { run } from '../run.ts'
import { type Ipv4Range, parseRange, rangesOverlap } from './ipv4-range.ts'

export interface HostRoutes {
  /** Every block the machine has a route or an address for, except the default route. */
  readonly blocks: readonly Ipv4Range[]
  /** The blocks the machine is attached to directly. */
  readonly networks: readonly Ipv4Range[]
  /** The MTU of the default route, or of its device; 1500 without a default route. */
  readonly mtu: number
}

interface RouteRow {
  readonly dst?: string
  readonly dev?: string
  readonly scope?: string
  readonly metric?: number
  readonly metrics?: readonly { readonly mtu?: number }[]
}

/** The IPv4 routes of the namespace the daemon runs in. */
export async function readHostRoutes(): Promise<HostRoutes> {
  const { stdout } = await run('ip', ['-j', '-4', 'route', 'show', 'table', 'all'])
  const rows = JSON.parse(stdout === '' ? '[]' : stdout) as RouteRow[]
  const isBlock = (row: RouteRow) => row.dst !== undefined && row.dst !== 'default'
  const toBlock = (row: RouteRow) => parseRange(row.dst ?? '')
  const [main] = rows.filter((row) => row.dst === 'default' && row.dev !== undefined).sort((one, other) => (one.metric ?? 0) - (other.metric ?? 0))
  return {
    blocks: rows.filter(isBlock).map(toBlock),
    networks: rows.filter((row) => isBlock(row) && row.scope === 'link').map(toBlock),
    mtu: main?.metrics?.find((each) => each.mtu !== undefined)?.mtu ?? (await deviceMtu(main?.dev)),
  }
}

/** The addresses of this machine and of the routers it knows, of both families, without those of links alone. */
export async function readHostAddresses(): Promise<{ readonly address: string; readonly what: string }[]> {
  const [addresses, routes, routes6] = await Promise.all([
    run('ip', ['-j', 'addr', 'show']),
    run('ip', ['-j', '-4', 'route', 'show', 'table', 'all']),
    run('ip', ['-j', '-6', 'route', 'show', 'table', 'all']),
  ])
  const parse = (json: string): unknown => JSON.parse(json.trim() || '[]')
  const links = parse(addresses.stdout) as { readonly addr_info?: readonly { readonly local?: string; readonly scope?: string }[] }[]
  const own = links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local, scope }) => (local === undefined || scope === 'link' ? [] : [local])))
  const rows = [routes, routes6].flatMap(({ stdout }) => parse(stdout) as { readonly gateway?: string }[])
  const gateways = rows.flatMap(({ gateway }) => gateway ?? [])
  return [
    ...own.map((address) => ({ address, what: 'an address of this machine' })),
    ...gateways.map((address) => ({ address, what: 'a router of this machine' })),
  ]
}

async function deviceMtu(device: string | undefined): Promise<number> {
  if (device === undefined) return 1500
  const mtu = Number(await readFile(`/sys/class/net/${device}/mtu`, 'utf8'))
  // A loopback-like default device may have 65536; Ethernet frames into the sandbox do not get larger than this.
  return Math.min(Math.max(mtu, 576), 9000)
}

/**
 * A free /30 for the link between host and router, from the benchmark block 198.18.0.0/15 (RFC 2544), which neither LANs nor VPNs use. The search starts at
 * a place that depends on the instance, so that two daemons that start at once do not choose the same.
 */
export function chooseUplink(instance: string, blocks: readonly Ipv4Range[]): Ipv4Range {
  const all = parseRange('198.18.0.0/15')
  const count = 2 ** 15
  const start = createHash('sha256').update(instance).digest().readUInt16BE(0) % count
  for (let step = 0; step < count; step++) {
    const range = { first: all.first + 4 * ((start + step) % count), prefixLength: 30 }
    if (!blocks.some((block) => rangesOverlap(block, range))) return range
  }
  throw new MagsError('not_available', 'Every /30 of 198.18.0.0/15 is routed on this machine; remove such routes so that sandboxes can have an uplink.')
}
