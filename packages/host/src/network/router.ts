import { mkdir, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Logger } from 'pino'
import { isAlive, type ProcessIdentity } from '../recover/process-identity.ts'
import { readRecord, writeRecord } from '../recover/record-file.ts'
import { run, runAny } from '../run.ts'
import { gatewayAddress, gatewayMac, slotOfLink } from './address-plan.ts'
import type { AddressPrefixes } from './address-prefixes.ts'
import { egressRecordsDir, sweepEgressRecords } from './egress-records.ts'
import { renderHostRules, uplinkAddresses } from './host-rules.ts'
import { formatRange, type Ipv4Range, parseRange } from './ipv4-range.ts'
import { leasedAddresses, openLeasePaths } from './lease-paths.ts'
import type { SlotLease } from './lease-rules.ts'
import { listElements } from './list-elements.ts'
import { createNamespace, isPinned, pinNamespaceOf, runAnyInNamespace, runInNamespace, unpinNamespaces } from './namespace.ts'
import { recoverEgress } from './network-egress.ts'
import { findResolvers, type RunningResolver, resolverArgs, startResolver, stopResolver } from './resolver.ts'
import { type LiveSlot, type RouterRules, renderRouterRules, type SlotState } from './router-rules.ts'
import { defaultEgressName, namesSet, slotEgressName } from './slot-egress-rules.ts'
import { hostNames, linkExists } from './sweep-networks.ts'

export interface RouterPlan extends RouterRules {
  readonly instance: string
  readonly runDir: string
  readonly mtu: number
  /** A free /30, used when the router is made anew. */
  readonly uplink: Ipv4Range
  /** What sandboxes can have addresses out of. */
  readonly prefixes: AddressPrefixes
  readonly logger: Logger
}

/** `network.json` in the run folder: enough to find the router again, or to remove it. */
export interface RouterRecord {
  readonly subnet: string
  readonly uplink: string
  readonly mtu: number
  /** Inode of the namespace: what `/proc/<pid>/ns/net` of a process in it says. */
  readonly inode?: number
  readonly resolver?: RunningResolver
}

/** The router as it runs, with the slots found in it when it is an earlier daemon's. */
export interface OpenedRouter {
  readonly record: RouterRecord & { readonly resolver: RunningResolver }
  readonly slots: readonly LiveSlot[]
}

export const routerPaths = (runDir: string) => ({
  record: join(runDir, 'network.json'),
  netnsDir: join(runDir, 'netns'),
  router: join(runDir, 'netns', 'router'),
  log: join(runDir, 'resolver.log'),
  forwarderLog: join(runDir, 'names.log'),
})

/**
 * A constant program without arguments: settings of the router namespace, then its rules from standard input; links come after both. Port 53 is opened to every uid
 * because the resolver has no privileges; frames between bridge ports are the bridge table's business alone; settings that a kernel lacks are skipped.
 */
const routerSetup = `set -e
cd /proc/sys/net
put() { if [ -e "$2" ]; then echo "$1" >"$2"; fi; }
echo 1 >ipv4/ip_forward
put 1 ipv6/conf/all/disable_ipv6
put 1 ipv6/conf/default/disable_ipv6
echo 53 >ipv4/ip_unprivileged_port_start
exec nft -f -`

/** Settings of modules that are loaded only once rules and bridge exist. */
const routerTuning = `put() { if [ -e "$2" ]; then echo "$1" >"$2"; fi; }
cd /proc/sys/net
put 0 bridge/bridge-nf-call-iptables
put 0 bridge/bridge-nf-call-arptables
put 0 bridge/bridge-nf-call-ip6tables
put 7200 netfilter/nf_conntrack_tcp_timeout_established`

/** Finds the router of an earlier daemon and brings its rules up to date, or makes one. */
export async function openRouter(plan: RouterPlan): Promise<OpenedRouter> {
  const paths = routerPaths(plan.runDir)
  await mkdir(paths.netnsDir, { recursive: true, mode: 0o700 })
  const record = await readRecord<RouterRecord>(paths.record)
  if (record !== undefined && (await rebindRouter(plan, record))) {
    plan.logger.info({ uplink: record.uplink }, 'network of an earlier daemon taken over')
    return refreshRouter(plan, record)
  }
  await removeRouter(plan.instance, plan.runDir)
  return makeRouter(plan)
}

async function makeRouter(plan: RouterPlan): Promise<OpenedRouter> {
  const paths = routerPaths(plan.runDir)
  const { link } = hostNames(plan.instance)
  const addresses = uplinkAddresses(plan.uplink)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => removeRouter(plan.instance, plan.runDir))
  await mkdir(paths.netnsDir, { recursive: true, mode: 0o700 })
  const base: RouterRecord = { subnet: formatRange(plan.subnet), uplink: formatRange(plan.uplink), mtu: plan.mtu }
  await writeRecord(paths.record, base)
  await createNamespace(paths.router, 'sh', ['-c', routerSetup], { input: renderRouterRules(plan, []) })
  const found: RouterRecord = { ...base, inode: (await stat(paths.router)).ino }
  await writeRecord(paths.record, found)
  const hostLines = [
    `link add ${link} mtu ${plan.mtu} type veth peer name up0 mtu ${plan.mtu} netns ${paths.router}`,
    `link set ${link} addrgenmode none`,
    `addr add ${addresses.host}/30 dev ${link}`,
  ]
  await run('ip', ['-batch', '-'], { input: `${hostLines.join('\n')}\n` })
  const routerLines = [
    'link set lo up',
    `link add br0 address ${gatewayMac(plan.subnet)} type bridge stp_state 0 mcast_snooping 0`,
    `addr add ${gatewayAddress(plan.subnet)}/${plan.subnet.prefixLength} dev br0`,
    'link set br0 up',
    `addr add ${addresses.router}/30 dev up0`,
    'link set up0 up',
    `route add default via ${addresses.host}`,
  ]
  await runInNamespace(paths.router, 'ip', ['-batch', '-'], { input: `${routerLines.join('\n')}\n` })
  await runInNamespace(paths.router, 'sh', ['-c', routerTuning])
  // Both are waited for even if one fails: undoing must not overtake the other.
  const [host, resolver] = await Promise.allSettled([openHostSide(plan, plan.uplink), withResolver(plan, found)])
  if (host.status === 'rejected') throw host.reason
  if (resolver.status === 'rejected') throw resolver.reason
  undo.move()
  return { record: resolver.value, slots: [] }
}

/** The table is loaded after the link exists (a sweep of another daemon removes tables without link) and before it is up. */
async function openHostSide(plan: RouterPlan, uplink: Ipv4Range, leases: readonly SlotLease[] = []) {
  const { link, table } = hostNames(plan.instance)
  await run('nft', ['-f', '-'], { input: renderHostRules({ ...plan, link, table, uplink, leased: leases.flatMap(leasedAddresses) }) })
  await writeFile('/proc/sys/net/ipv4/ip_forward', '1')
  await run('ip', ['link', 'set', link, 'up'])
  await openLeasePaths({ ...plan, link, uplink, routerNetnsPath: routerPaths(plan.runDir).router }, leases)
}

async function refreshRouter(plan: RouterPlan, record: RouterRecord): Promise<OpenedRouter> {
  const paths = routerPaths(plan.runDir)
  const subnet = parseRange(record.subnet)
  const { slots, states } = await listSlots(plan, paths.router, subnet)
  await sweepEgressRecords(plan.runDir, new Set(slots.filter(({ egress }) => egress !== undefined).map(({ link }) => link)))
  await runInNamespace(paths.router, 'ip', ['link', 'set', 'lo', 'up'])
  await runInNamespace(paths.router, 'nft', ['-f', '-'], { input: renderRouterRules({ ...plan, subnet }, slots, states) })
  await openHostSide(
    { ...plan, subnet },
    parseRange(record.uplink),
    slots.flatMap(({ lease }) => lease ?? []),
  )
  return { record: await withResolver({ ...plan, subnet }, record), slots }
}

/** The resolver of the record if it lives and has the arguments it would be started with today, else a new one. */
export async function withResolver(plan: RouterPlan, record: RouterRecord): Promise<OpenedRouter['record']> {
  const paths = routerPaths(plan.runDir)
  const { uplink: _, ...rules } = plan
  const resolverPlan = { ...rules, netnsPath: paths.router, logFile: paths.log, address: gatewayAddress(plan.subnet), uid: plan.resolverUid }
  const earlier = record.resolver
  if (earlier !== undefined && (await isAlive(earlier.process))) {
    if (JSON.stringify(earlier.args) === JSON.stringify(resolverArgs(resolverPlan))) return { ...record, resolver: earlier }
    await stopResolver(earlier.process)
  }
  const opened = { ...record, resolver: await startResolver(resolverPlan) }
  try {
    await writeRecord(paths.record, opened)
  } catch (error) {
    await stopResolver(opened.resolver.process)
    throw error
  }
  return opened
}

/** Pins the namespace of the record again, through an old pin that is still there or any process in it. False when it is gone or not whole. */
async function rebindRouter(plan: RouterPlan, record: RouterRecord): Promise<boolean> {
  const { router } = routerPaths(plan.runDir)
  if (record.inode === undefined || record.resolver === undefined || !(await linkExists(hostNames(plan.instance).link))) return false
  const pinned = (await isPinned(router)) && (await stat(router)).ino === record.inode
  if (!pinned) {
    const holder = await findHolder(record.inode, record.resolver.process)
    if (holder === undefined) return false
    await pinNamespaceOf(holder, router)
  }
  const shown = await runAnyInNamespace(router, 'ip', ['-br', 'link'])
  return shown.code === 0 && /^up0\b/m.test(shown.stdout) && /^br0\b/m.test(shown.stdout)
}

async function findHolder(inode: number, likely: ProcessIdentity): Promise<number | undefined> {
  const isInside = (pid: string) =>
    readlink(`/proc/${pid}/ns/net`).then(
      (name) => name === `net:[${inode}]`,
      () => false,
    )
  if ((await isAlive(likely)) && (await isInside(String(likely.pid)))) return likely.pid
  for (const name of await readdir('/proc')) if (/^\d+$/.test(name) && (await isInside(name))) return Number(name)
  return undefined
}

/** The slots of a router taken over, with their policies and counters; what they hold of it is put back by the rules that replace the present ones. */
async function listSlots(plan: RouterPlan, router: string, subnet: Ipv4Range) {
  const list = (kind: 'set' | 'map', name: string) => listElements(router, kind, name)
  const [links, generations, stale, sent, policies, leasedOut, leases6, sent6, defaults] = await Promise.all([
    runInNamespace(router, 'ip', ['-j', 'link', 'show', 'master', 'br0']),
    list('map', 'generations'),
    list('set', 'stale'),
    list('set', 'sent'),
    list('map', 'policies'),
    list('map', 'leased_out'),
    list('map', 'leases6'),
    list('set', 'sent6'),
    list('set', namesSet(defaultEgressName)),
  ])
  const rows = JSON.parse(links.stdout.trim() || '[]') as { ifname?: string }[]
  const numbers = new Map(generations.map(({ key, value }) => [key[0], Number(value)]))
  const governed = new Set(policies.map(({ key }) => key[0]))
  const highest = Math.max(0, ...numbers.values())
  const slots: LiveSlot[] = []
  const states = new Map<string, SlotState>([[defaultEgressName, { sentBytes: 0, grants: readGrants(defaults) }]])
  // A link without a generation was being made or removed; it gets one of its own, which no connection has.
  for (const [place, each] of rows.flatMap((row) => slotOfLink(subnet, row.ifname ?? '') ?? []).entries()) {
    const generation = numbers.get(each.address) ?? highest + 1 + place
    const marks = stale.filter(({ key }) => key[0] === each.address).map(({ key }) => Number(key[1]))
    const slot: LiveSlot = { ...each, generation, stale: marks }
    const egress = await recoverEgress(plan.runDir, slot, governed.has(each.address), plan, plan.logger)
    const ipv4 = leasedOut.find(({ key }) => key[0] === each.address)?.value
    const ipv6 = leases6.find(({ value }) => value === each.address)?.key[0]
    const lease = { ...(typeof ipv4 === 'string' ? { ipv4 } : {}), ...(typeof ipv6 === 'string' ? { ipv6 } : {}) }
    slots.push({ ...slot, ...(egress === undefined ? {} : { egress }), ...(leasedAddresses(lease).length === 0 ? {} : { lease }) })
    const sentBytes = sent.find(({ key }) => key[0] === each.address)?.bytes ?? 0
    const grants = egress === undefined ? [] : readGrants(await list('set', namesSet(slotEgressName(generation))))
    const sentBytes6 = sent6.find(({ key }) => key[0] === ipv6)?.bytes ?? 0
    states.set(each.link, { sentBytes, sentBytes6, grants })
  }
  return { slots, states }
}

/** The names are not in the kernel; the addresses last until their time is over. */
function readGrants(elements: Awaited<ReturnType<typeof listElements>>) {
  return elements.flatMap(({ key, expiresSeconds }) =>
    expiresSeconds === undefined ? [] : [{ name: '', address: String(key[0]), secondsLeft: Math.max(1, expiresSeconds) }],
  )
}

/** Removes everything of an instance, whatever state it is in; what processes still hold of its namespaces dies with them. */
export async function removeRouter(instance: string, runDir: string) {
  const paths = routerPaths(runDir)
  const { link, table } = hostNames(instance)
  for (const resolver of await findResolvers(instance)) await stopResolver(resolver)
  // The link may go with its namespace at any moment; what counts is that it is gone.
  const deleted = await runAny('ip', ['link', 'delete', link])
  if (deleted.code !== 0 && (await linkExists(link))) throw new Error(`the link ${link} could not be removed: ${deleted.stderr.trim()}`)
  await runAny('nft', ['delete', 'table', 'inet', table])
  await unpinAll(runDir)
  await rm(paths.netnsDir, { recursive: true, force: true })
  await rm(paths.forwarderLog, { force: true })
  await rm(egressRecordsDir(runDir), { recursive: true, force: true })
  await rm(paths.record, { force: true })
}

export async function unpinAll(runDir: string) {
  const { netnsDir } = routerPaths(runDir)
  const names = await readdir(netnsDir).catch(() => [])
  await unpinNamespaces(names.map((name) => join(netnsDir, name)))
}
