import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/**
 * What this machine still holds of one daemon, in words: its link, rule table, control groups, run folder, mounts, and processes that speak of it in their command line, control group or open
 * files. Others that run at the same time do not count.
 *
 * @param instance six hex digits, in the daemon's first log line
 */
export function leftOf({ instance, dataDir }: { instance: string; dataDir: string }): string[] {
  const names = [instance, dataDir]
  const isOurs = (text: string) => names.some((name) => text.includes(name))
  return [...links(), ...tables(), ...groups(), ...processes(isOurs), ...mounts(), ...folders('/run/mags')].filter((thing) => isOurs(thing)).sort()
}

const lines = (text: string) => text.split('\n').filter((line) => line !== '')

function links() {
  return readdirSync('/sys/class/net').map((name) => `link ${name}`)
}

function tables() {
  return lines(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).map((line) => `rules ${line}`)
}

function groups() {
  const roots = lines(readFileSync('/proc/self/mounts', 'utf8'))
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'cgroup' || type === 'cgroup2')
    .map(([, target]) => target ?? '')
  return roots.flatMap((root) => folders(`${root}/mags`))
}

function folders(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `folder ${dir}/${entry.name}`)
  } catch {
    return []
  }
}

function processes(isOurs: (text: string) => boolean) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      const found = [read(`/proc/${pid}/cmdline`), read(`/proc/${pid}/cgroup`), ...openFiles(pid)].find(isOurs)
      return found === undefined ? [] : [`process ${pid} (${read(`/proc/${pid}/comm`).trim()}): ${found.replaceAll('\0', ' ').slice(0, 300)}`]
    })
}

function openFiles(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
  } catch {
    return []
  }
}

function read(path: string) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function mounts() {
  return lines(readFileSync('/proc/self/mountinfo', 'utf8')).map((line) => `mount ${line.split(' ')[4]}`)
}
