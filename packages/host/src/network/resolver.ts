import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MagsError } from '@mags/protocol'
import { identifyProcess, isAlive, type ProcessIdentity } from '../recover/process-identity.ts'
import { run, startResident } from '../run.ts'
import type { DnsUpstream } from './dns-upstreams.ts'
import { formatRange, type Ipv4Range, rangesOverlap } from './ipv4-range.ts'

export interface ResolverPlan {
  readonly instance: string
  readonly netnsPath: string
  readonly logFile: string
  /** Address it listens on. */
  readonly address: string
  readonly uid: number
  readonly upstreams: readonly DnsUpstream[]
  readonly denied: readonly Ipv4Range[]
  readonly allowed: readonly Ipv4Range[]
}

/** Its record: the process, and the arguments it was started with. */
export interface RunningResolver {
  readonly process: ProcessIdentity
  readonly args: readonly string[]
}

/**
 * Arguments of dnsmasq(8). Names that resolve to a refused block are answered "no such name" (--bogus-nxdomain per block instead of --stop-dns-rebind, whose fixed list
 * knows neither the operator's exceptions nor carrier NAT). No AAAA: sandboxes have no IPv6, and without it programs do not try it first.
 */
export function resolverArgs(plan: ResolverPlan): string[] {
  const refused = plan.denied.filter((range) => !plan.allowed.some((allowed) => rangesOverlap(range, allowed)))
  return [
    ...['--keep-in-foreground', '--conf-file=/dev/null', '--pid-file', '--log-facility=-', '--no-hosts', '--no-resolv', '--no-poll'],
    resolverLabel(plan.instance),
    ...['--port=53', `--listen-address=${plan.address}`, '--bind-interfaces'],
    ...['--cache-size=1000', '--dns-forward-max=500', '--edns-packet-max=1232', '--bogus-priv', '--domain-needed', '--filter-AAAA'],
    ...refused.map((range) => `--bogus-nxdomain=${formatRange(range)}`),
    ...plan.upstreams.map((upstream) => `--server=${upstream.address}#${upstream.port}`),
  ]
}

/** Tells whose it is, to `ps` and to us; for dnsmasq a domain that it answers by itself, of a top level that does not exist (RFC 6761). */
function resolverLabel(instance: string): string {
  return `--local=/mags-${instance}.invalid/`
}

/** Every resolver of an instance, also one whose daemon was killed before it could write it down. */
export async function findResolvers(instance: string): Promise<ProcessIdentity[]> {
  const label = `\0${resolverLabel(instance)}\0`
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const commands = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')))
  const found = await Promise.all(pids.filter((_, place) => commands[place]?.includes(label)).map((pid) => identifyProcess(Number(pid))))
  return found.filter((each) => each !== undefined)
}

/** Oldest dnsmasq that knows --filter-AAAA. */
const oldestVersion = [2, 87] as const

export async function checkResolverVersion() {
  const { stdout } = await run('dnsmasq', ['--version'])
  const match = /version (\d+)\.(\d+)/.exec(stdout)
  const [major, minor] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)]
  if (major > oldestVersion[0] || (major === oldestVersion[0] && minor >= oldestVersion[1])) return
  throw new MagsError('not_available', `dnsmasq ${major}.${minor} is too old; sandboxes need ${oldestVersion.join('.')} or later (Debian 12 has 2.90).`)
}

/**
 * A constant program that runs its arguments. The daemon has a mount namespace of its own, full of pins and disks that must end with it; a process that outlives the
 * daemon therefore gets a copy in which only the system's own mounts are left. Mount points in mountinfo are escaped, proc_pid_mountinfo(5).
 */
const leaveMounts = `set -f
IFS='
'
points=
while IFS=' ' read -r _ _ _ _ point _; do
  case $point in / | /proc | /dev | /dev/* | /etc | /usr | /usr/* | /lib* | /bin | /sbin) ;; *) points="$(printf %b "$point")
$points" ;; esac
done </proc/self/mountinfo
umount -l $points 2>/dev/null || true
exec "$@"`

/**
 * Starts dnsmasq in the router namespace, without any privilege, and waits until it listens. It outlives the daemon and thereby keeps the namespace with its rules.
 * Rejects with its last words.
 */
export async function startResolver(plan: ResolverPlan): Promise<RunningResolver> {
  const args = resolverArgs(plan)
  const uid = String(plan.uid)
  const drop = ['setpriv', '--reuid', uid, '--regid', uid, '--clear-groups', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all']
  const leave = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', leaveMounts, 'sh']
  const enter = [`--net=${plan.netnsPath}`, ...leave, ...drop]
  const child = startResident('nsenter', [...enter, 'dnsmasq', ...args], { logFile: plan.logFile, detached: true, cwd: '/' })
  const ended = new Promise<Error | undefined>((resolve) => {
    child.once('error', resolve)
    child.once('exit', () => resolve(undefined))
  })
  const listening = child.pid !== undefined && (await waitForListener(child.pid, plan.address, ended))
  const identity = child.pid === undefined ? undefined : await identifyProcess(child.pid)
  if (listening && identity !== undefined) return { process: identity, args }
  child.kill('SIGKILL')
  const cause = child.pid === undefined ? await ended : undefined
  const words = await readFile(plan.logFile, 'utf8').catch(() => '')
  throw new MagsError('not_available', `The name server of the sandboxes did not start: ${words.trim().split('\n').slice(-3).join('; ')}`, { cause })
}

export async function stopResolver(process_: ProcessIdentity) {
  if (!(await isAlive(process_))) return
  // The group: dnsmasq answers TCP in children.
  for (const target of [-process_.pid, process_.pid]) {
    try {
      process.kill(target, 'SIGKILL')
    } catch {
      // Ended meanwhile.
    }
  }
  while (await isAlive(process_)) await delay(2)
}

async function waitForListener(pid: number, address: string, ended: Promise<unknown>): Promise<boolean> {
  // proc_net(5): address in hexadecimal, in the byte order of the machine, which is little-endian wherever this runs.
  const bytes = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))
  const wanted = `${bytes.reverse().join('').toUpperCase()}:0035`
  let over = false
  void ended.then(() => {
    over = true
  })
  const deadline = performance.now() + 10_000
  while (!over && performance.now() < deadline) {
    const table = await readFile(`/proc/${pid}/net/udp`, 'utf8').catch(() => '')
    if (table.includes(wanted)) return true
    await delay(5)
  }
  return false
}
