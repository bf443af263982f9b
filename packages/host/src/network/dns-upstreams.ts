import { readFile } from 'node:fs/promises'
import { MagsError } from '@mags/protocol'
import { formatAddress, parseRange } from './ipv4-range.ts'

/** A name server our resolver asks. */
export interface DnsUpstream {
  readonly address: string
  readonly port: number
}

/** resolv.conf, and the file in which systemd-resolved names the real servers when resolv.conf only points at its own stub. */
const systemFiles: readonly string[] = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']

/**
 * The name servers to ask: those given (`1.1.1.1` or `1.1.1.1#5353`), else the first file of `files` that has one outside of loopback.
 * IPv6 servers are left out: the router namespace speaks IPv4 only. Throws `not_available` when nothing is left.
 */
export async function findDnsUpstreams(given: readonly string[], files: readonly string[] = systemFiles): Promise<DnsUpstream[]> {
  if (given.length > 0) return given.map(parseUpstream)
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '')
    const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map((match) => match[1] ?? '')
    const usable = servers.filter((server) => /^\d+\.\d+\.\d+\.\d+$/.test(server) && !server.startsWith('127.') && server !== '0.0.0.0')
    if (usable.length > 0) return usable.slice(0, 3).map(parseUpstream)
  }
  throw new MagsError(
    'not_available',
    `No name server that sandboxes could use: ${files.join(' and ')} name only servers on loopback or IPv6. Set MAGS_DNS_SERVERS to the IPv4 addresses of your name servers.`,
  )
}

function parseUpstream(text: string): DnsUpstream {
  const [address = '', port = '53', ...rest] = text.trim().split('#')
  const range = parseRange(address)
  const number = Number(port)
  if (rest.length > 0 || range.prefixLength !== 32 || !Number.isInteger(number) || number < 1 || number > 65535) {
    throw new MagsError('bad_request', `MAGS_DNS_SERVERS: "${text}" is not an address such as 1.1.1.1 or 1.1.1.1#5353.`)
  }
  if (address.startsWith('127.')) {
    throw new MagsError(
      'bad_request',
      `MAGS_DNS_SERVERS: ${address} is a loopback address; sandboxes have their own. Give an address that other machines can reach.`,
    )
  }
  return { address: formatAddress(range.first), port: number }
}
