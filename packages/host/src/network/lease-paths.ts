import { readdir, readFile, writeFile } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'
import { run, runAny } from '../run.ts'
import { gatewayMac, type SlotPlan } from './address-plan.ts'
import { type AddressPrefixes, isInPrefixes } from './address-prefixes.ts'
import { uplinkAddresses } from './host-rules.ts'
import { formatRange, type Ipv4Range } from './ipv4-range.ts'
import { gatewayAddress6, type SlotLease } from './lease-rules.ts'
import { runAnyInNamespace, runInNamespace } from './namespace.ts'

/** The ends of the link between host and router in IPv6. Neighbours are set for good, so nobody has to be asked and nobody's answer believed. */
const uplink6 = { host: 'fe80::5:1', router: 'fe80::5:2' } as const

export interface LeasePathDeps {
  /** The host's end of the uplink. */
  readonly link: string
  readonly routerNetnsPath: string
  readonly subnet: Ipv4Range
  readonly uplink: Ipv4Range
  readonly prefixes: AddressPrefixes
}

/** A constant program without arguments: no interface makes addresses or routes of its own accord. */
const routerSetup6 = `set -e
cd /proc/sys/net/ipv6/conf
for each in br0 up0; do
  echo 1 >$each/addr_gen_mode
  echo 0 >$each/accept_ra
  echo 0 >$each/accept_dad
  echo 0 >$each/disable_ipv6
done
echo 1 >all/forwarding`

/**
 * Leads what is sent to the operator's prefixes to the router: one route for each on the host, and for each address that a sandbox of an earlier daemon still has out of another prefix. They go with the link.
 * Throws MagsError `bad_request` when the machine has such a route already, or would lose its own way by forwarding IPv6.
 */
export async function openLeasePaths(deps: LeasePathDeps, leases: readonly SlotLease[]) {
  const addresses = leases.flatMap(leasedAddresses)
  const others = addresses.filter((address) => !isInPrefixes(deps.prefixes, address))
  const wanted = {
    inet: [...deps.prefixes.ipv4.map(formatRange), ...others.filter((address) => !address.includes(':'))],
    inet6: [...deps.prefixes.ipv6.map(withoutWholeLength), ...others.filter((address) => address.includes(':'))],
  }
  if (wanted.inet6.length > 0) await openUplink6(deps)
  await setRoutes(deps, 'inet', wanted.inet)
  await setRoutes(deps, 'inet6', wanted.inet6)
}

/** A job that began under other prefixes keeps its addresses; when its sandbox is made anew they need routes of their own. Throws as `openLeasePaths`. */
export async function openOldPath(deps: LeasePathDeps, lease: SlotLease) {
  for (const address of leasedAddresses(lease)) {
    if (isInPrefixes(deps.prefixes, address)) continue
    if (address.includes(':')) await openUplink6(deps)
    await addRoute(deps, address.includes(':') ? 'inet6' : 'inet', address)
  }
}

/** Takes the route of an address that is in none of the prefixes any more. */
export async function closeOldPath({ link, prefixes }: Pick<LeasePathDeps, 'link' | 'prefixes'>, lease: SlotLease) {
  const others = leasedAddresses(lease).filter((address) => !isInPrefixes(prefixes, address))
  for (const address of others) await runAny('ip', ['route', 'delete', address, 'dev', link])
}

/** Gives a sandbox its IPv6 address: both it and the router know each other's hardware address beforehand. `netnsPath`: of a container; the agent of a virtual machine does there what is done here. */
export async function addAddress6(deps: Pick<LeasePathDeps, 'routerNetnsPath' | 'subnet'>, netnsPath: string | undefined, slot: SlotPlan, address: string) {
  const inside = `addr replace ${address}/128 dev eth0 nodad
neigh replace ${gatewayAddress6} lladdr ${gatewayMac(deps.subnet)} dev eth0 nud permanent
route replace default via ${gatewayAddress6} dev eth0
`
  const router = `route replace ${address}/128 dev br0\nneigh replace ${address} lladdr ${slot.mac} dev br0 nud permanent\n`
  if (netnsPath !== undefined)
    await runInNamespace(netnsPath, 'sh', ['-c', 'set -e; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra; exec ip -6 -batch -'], { input: inside })
  await runInNamespace(deps.routerNetnsPath, 'ip', ['-6', '-batch', '-'], { input: router })
}

/** Takes it back; what is gone already is no error. `netnsPath`: of a container's namespace that will have another sandbox. */
export async function removeAddress6(routerNetnsPath: string, netnsPath: string | undefined, address: string) {
  const force = ['-6', '-force', '-batch', '-']
  const inside = `addr delete ${address}/128 dev eth0\nroute delete default dev eth0\n`
  if (netnsPath !== undefined) await runAnyInNamespace(netnsPath, 'ip', force, { input: inside, background: true })
  await runAnyInNamespace(routerNetnsPath, 'ip', force, { input: `route delete ${address}/128 dev br0\nneigh delete ${address} dev br0\n`, background: true })
}

export const leasedAddresses = ({ ipv4, ipv6 }: SlotLease): string[] => [ipv4, ipv6].filter((address) => address !== undefined)

async function openUplink6({ link, routerNetnsPath }: LeasePathDeps) {
  await allowForwarding6()
  await runInNamespace(routerNetnsPath, 'sh', ['-c', routerSetup6])
  await writeFile(`/proc/sys/net/ipv6/conf/${link}/accept_ra`, '0')
  await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, '0')
  const [hostMac, routerMac] = await Promise.all([
    readFile(`/sys/class/net/${link}/address`, 'utf8'),
    runInNamespace(routerNetnsPath, 'ip', ['-j', 'link', 'show', 'up0']).then(({ stdout }) => (JSON.parse(stdout) as { address: string }[])[0]?.address ?? ''),
  ])
  const routerLines = `addr replace ${gatewayAddress6}/64 dev br0 nodad
addr replace ${uplink6.router}/64 dev up0 nodad
neigh replace ${uplink6.host} lladdr ${hostMac.trim()} dev up0 nud permanent
route replace default via ${uplink6.host} dev up0
`
  await runInNamespace(routerNetnsPath, 'ip', ['-6', '-batch', '-'], { input: routerLines })
  const hostLines = `addr replace ${uplink6.host}/64 dev ${link} nodad\nneigh replace ${uplink6.router} lladdr ${routerMac} dev ${link} nud permanent\n`
  await run('ip', ['-6', '-batch', '-'], { input: hostLines })
}

/** A machine that forwards takes no router advertisements unless `accept_ra` is 2 (ip-sysctl), and would lose a default route that it has from one. */
async function allowForwarding6() {
  const root = '/proc/sys/net/ipv6/conf'
  const read = async (name: string) => (await readFile(`${root}/${name}`, 'utf8')).trim()
  const forwarding = await read('all/forwarding').catch(() => undefined)
  if (forwarding === '1') return
  if (forwarding === undefined) throw new MagsError('bad_request', 'MAGS_IP_PREFIXES has an IPv6 prefix, but the kernel of this machine has no IPv6.')
  const { stdout } = await run('ip', ['-j', '-6', 'route', 'show', 'default'])
  const advertised = (JSON.parse(stdout.trim() || '[]') as { dev?: string; protocol?: string }[]).filter(({ protocol }) => protocol === 'ra')
  const names = await readdir(root)
  for (const { dev = '' } of advertised) {
    if (!names.includes(dev) || (await read(`${dev}/accept_ra`)) === '2') continue
    const command = `sysctl -w net.ipv6.conf.${dev}.accept_ra=2 net.ipv6.conf.all.forwarding=1`
    throw new MagsError(
      'bad_request',
      `MAGS_IP_PREFIXES has an IPv6 prefix, and this machine has its default route from router advertisements, which it must go on taking: ${command}`,
    )
  }
  await writeFile(`${root}/all/forwarding`, '1')
}

async function setRoutes(deps: LeasePathDeps, family: 'inet' | 'inet6', wanted: readonly string[]) {
  const { link, uplink } = deps
  const gateway = routerAddress(uplink, family)
  // It fails where the kernel has no IPv6; then there is nothing to take away.
  const { stdout } = await runAny('ip', ['-j', '-f', family, 'route', 'show', 'dev', link])
  const rows = JSON.parse(stdout.trim() || '[]') as { dst?: string; gateway?: string }[]
  const present = rows.flatMap((row) => (row.gateway === gateway && row.dst !== undefined ? [row.dst] : []))
  for (const prefix of present) if (!wanted.includes(prefix)) await run('ip', ['-f', family, 'route', 'delete', prefix, 'dev', link])
  for (const prefix of wanted) if (!present.includes(prefix)) await addRoute(deps, family, prefix)
}

async function addRoute({ link, uplink }: LeasePathDeps, family: 'inet' | 'inet6', prefix: string) {
  const added = await runAny('ip', ['-f', family, 'route', 'add', prefix, 'via', routerAddress(uplink, family), 'dev', link])
  if (added.code === 0) return
  if (!added.stderr.includes('File exists')) throw new Error(`no route for ${prefix}: ${added.stderr.trim()}`)
  throw new MagsError(
    'bad_request',
    `MAGS_IP_PREFIXES: this machine routes ${prefix} elsewhere already (ip route show ${prefix}); take that away, or use another prefix`,
  )
}

const routerAddress = (uplink: Ipv4Range, family: 'inet' | 'inet6') => (family === 'inet' ? uplinkAddresses(uplink).router : uplink6.router)

/** As `ip` shows it. */
const withoutWholeLength = (prefix: string) => prefix.replace(/\/128$/, '')
