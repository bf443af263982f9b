import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** What of ours this machine holds right now, in words that compare: links, rule tables, control groups, processes, mounts, run folders. */
export function takenFromHost(): string[] {
  return [...links(), ...tables(), ...groups(), ...processes(), ...mounts(), ...folders('/run/mags')].sort()
}

/** What is there now and was not before. */
export function leakedSince(before: readonly string[]): string[] {
  return takenFromHost().filter((thing) => !before.includes(thing))
}

const lines = (text: string) => text.split('\n').filter((line) => line !== '')

function links() {
  return readdirSync('/sys/class/net')
    .filter((name) => name.startsWith('mags'))
    .map((name) => `link ${name}`)
}

function tables() {
  return lines(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }))
    .filter((line) => line.includes('mags'))
    .map((line) => `rules ${line}`)
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

/** Agents, machines, mounters and resolvers: by the program they run. */
function processes() {
  const ours = /\/(agent|mounter|qemu-system-x86_64|dnsmasq)( \(deleted\))?$/
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const program = readlinkSync(`/proc/${pid}/exe`)
        return ours.test(program) ? [`process ${pid} ${program}`] : []
      } catch {
        return []
      }
    })
}

function mounts() {
  return lines(readFileSync('/proc/self/mountinfo', 'utf8'))
    .map((line) => line.split(' ')[4] ?? '')
    .filter((target) => /mags/.test(target))
    .map((target) => `mount ${target}`)
}
