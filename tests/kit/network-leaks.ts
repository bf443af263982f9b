import { readdir, readFile } from 'node:fs/promises'
import { runIn } from './namespace-program.ts'

/** Everything of an instance's network that is visible on the host: links, tables, processes, mounts, files. Empty when nothing leaked. */
export async function findNetworkLeaks(instance: string, runDir: string): Promise<string[]> {
  const links = (await readdir('/sys/class/net')).filter((name) => name === `mags${instance}`)
  const tables = (await runIn('host', 'nft', 'list', 'tables')).split('\n').filter((line) => line.endsWith(`mags_${instance}`))
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').filter((line) => line.includes(runDir))
  const files = (await readdir(runDir).catch(() => [])).filter((name) => name !== 'resolver.log')
  const processes = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes(`mags-${instance}.invalid`)) processes.push(`${pid} dnsmasq`)
  }
  return [...links, ...tables, ...mounts, ...files, ...processes]
}
