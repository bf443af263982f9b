import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ImageCatalogue, openNetwork, run } from '@mags/host'
import { pino } from 'pino'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, ok, warning } from './finding.ts'

/** Asks from a sandbox's place, by the sandboxes' resolver, for the address of a name and then connects to it. */
const tryOut = `
const { Resolver } = require('node:dns/promises')
const { connect } = require('node:net')
const [server, name, port] = process.argv.slice(1)
const resolver = new Resolver({ timeout: 3000, tries: 2 })
resolver.setServers([server])
resolver.resolve4(name).then(
  ([address]) => {
    const socket = connect({ host: address, port: Number(port), timeout: 5000 })
    const end = (words) => { console.log(words); process.exit(0) }
    socket.on('connect', () => end('ok'))
    socket.on('timeout', () => end('connect: no answer from ' + address))
    socket.on('error', (error) => end('connect: ' + error.message))
  },
  (error) => { console.log('dns: ' + error.message); process.exit(0) },
)`

/** Where the default image gets its packages from: what users of a sandbox miss first. */
async function packageSource(config: ServerConfig): Promise<URL> {
  const { rootfsDir } = (await ImageCatalogue.open(join(config.systemDir, 'images'))).get(config.defaults.image)
  const dir = join(rootfsDir, 'etc/apt/sources.list.d')
  const files = [join(rootfsDir, 'etc/apt/sources.list'), ...(await readdir(dir).catch(() => [])).map((name) => join(dir, name))]
  for (const file of files) {
    const address = /https?:\/\/\S+/.exec(await readFile(file, 'utf8').catch(() => ''))?.[0]
    if (address !== undefined) return new URL(address)
  }
  throw new Error(`the image ${config.defaults.image} names no package source`)
}

/** Builds a whole sandbox network beside the daemon's, with its rules, and looks out of it. */
export function checkNetwork(config: ServerConfig): Check {
  return {
    part: 'network',
    async run() {
      await using undo = new AsyncDisposableStack()
      // Always the same one for this server's folder: what a doctor that was killed left is taken over, and freed at the end.
      const instance = createHash('sha256').update(`doctor ${config.instance}`).digest('hex').slice(0, 6)
      const runDir = `/run/mags/${instance}`
      await mkdir(runDir, { recursive: true, mode: 0o700 })
      undo.defer(() => rm(runDir, { recursive: true, force: true }))
      // Its routes for leased addresses are the running daemon's.
      const network = await openNetwork({ ...config, addressPrefixes: [], instance, runDir, logger: pino({ level: 'silent' }) })
      undo.defer(() => network.close({ keep: false }))
      const source = await packageSource(config)
      const port = source.port || (source.protocol === 'https:' ? '443' : '80')
      const slot = await network.createContainerSlot(0)
      const answer = await run('nsenter', [`--net=${slot.netnsPath}`, process.execPath, '-e', tryOut, network.resolver, source.hostname, port])
      const words = answer.stdout.trim()
      if (words === 'ok') return ok(`sandboxes get addresses like ${slot.address}, names through ${network.resolver}, and reach ${source.hostname}`)
      if (words.startsWith('dns'))
        return warning(`rules load, but names do not resolve: ${words}`, 'set MAGS_DNS_SERVERS to name servers this machine can reach')
      return warning(
        `rules load and names resolve, but ${source.hostname} is not reached: ${words}`,
        "look for another firewall on this machine whose FORWARD policy drops ('nft list ruleset'), or a network without a way out",
      )
    },
  }
}
