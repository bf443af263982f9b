import { checkAddressPrefixes, run } from '@mags/host'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, ok, warning } from './finding.ts'

/** The addresses that jobs can lease: whether this machine can have them routed to it. Whether the routers before it do so cannot be seen from here. */
export function checkAddresses({ addressPrefixes, instance }: ServerConfig): Check {
  return {
    part: 'addresses',
    async run() {
      if (addressPrefixes.length === 0) return ok('jobs get no addresses of their own (MAGS_IP_PREFIXES is not set)')
      await checkAddressPrefixes(addressPrefixes)
      for (const prefix of addressPrefixes) {
        const { stdout } = await run('ip', ['-j', prefix.includes(':') ? '-6' : '-4', 'route', 'show', prefix.replace(/\/(32|128)$/, '')])
        const rows = JSON.parse(stdout.trim() || '[]') as { dev?: string }[]
        const other = rows.find(({ dev }) => dev !== `mags${instance}`)
        if (other !== undefined)
          return warning(`${prefix} is routed to ${other.dev} on this machine`, 'take that route away, or another prefix for MAGS_IP_PREFIXES')
      }
      return ok(`jobs can lease addresses of ${addressPrefixes.join(', ')}; the routers before this machine must send them here (docs/ip-leases.md)`)
    },
  }
}
