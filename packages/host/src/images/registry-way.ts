import { lookup } from 'node:dns/promises'
import { chmod, chown } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { pipeline } from 'node:stream'
import ipaddr from 'ipaddr.js'

export interface RegistryWayDeps {
  /** Addresses of a name; the system's resolver by default. */
  readonly resolve?: (host: string) => Promise<readonly string[]>
  readonly isAllowed?: (address: string) => boolean
}

export interface RegistryWay extends AsyncDisposable {
  /** The host that it was last asked for and did not connect to because of where it is. */
  refused(): string | undefined
}

/** Outside of this machine and its own networks (RFC 6890): what it asks at a public address of its own passes no firewall. */
export function isPublicAddress(address: string): boolean {
  const asked = ipaddr.process(address.replace(/%.*$/, ''))
  return asked.range() === 'unicast' && !ownAddresses().includes(asked.toString())
}

function ownAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((all = []) => all.map(({ address }) => ipaddr.process(address.replace(/%.*$/, '')).toString()))
}

export async function addressesOf(host: string): Promise<readonly string[]> {
  if (ipaddr.isValid(host)) return [host]
  return (await lookup(host, { all: true })).map(({ address }) => address)
}

/**
 * The only way out for a program that talks to registries: an HTTP proxy (CONNECT, RFC 9110 9.3.6, and plain requests) on a unix socket. It looks the name up itself and connects to the very address it has looked at, so that neither a redirect
 * nor a name that changes its address leads into the networks of this machine.
 */
export async function openRegistryWay(socketPath: string, uid: number, deps: RegistryWayDeps = {}): Promise<RegistryWay> {
  const sockets = new Set<Socket>()
  let refused: string | undefined
  const findAddress = async (host: string) => {
    const addresses = await (deps.resolve ?? addressesOf)(host)
    const found = addresses.find(deps.isAllowed ?? isPublicAddress)
    if (found === undefined) refused = host
    return found
  }
  const server = createServer((incoming, response) => void forward(incoming, response, findAddress).catch(() => response.destroy()))
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('connect', (incoming, client: Socket, head: Buffer) => {
    tunnel(incoming.url ?? '', client, head, findAddress, sockets).catch((error: Error) =>
      client.end(`HTTP/1.1 502 ${error.message.replace(/[^ -~]/g, ' ').slice(0, 200)}\r\n\r\n`),
    )
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socketPath, resolve))
  await chown(socketPath, uid, uid)
  await chmod(socketPath, 0o600)
  return {
    refused: () => refused,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

type FindAddress = (host: string) => Promise<string | undefined>

async function tunnel(target: string, client: Socket, head: Buffer, findAddress: FindAddress, sockets: Set<Socket>): Promise<void> {
  client.on('error', () => client.destroy())
  const { hostname, port } = new URL(`http://${target}`)
  const host = await findAddress(bare(hostname))
  if (host === undefined) return void client.end('HTTP/1.1 403 in a private network\r\n\r\n')
  const upstream = connect({ host, port: Number(port || 443) })
  sockets.add(upstream)
  upstream.on('close', () => {
    sockets.delete(upstream)
    client.destroy()
  })
  await new Promise<void>((resolve, reject) => upstream.once('connect', resolve).once('error', reject))
  upstream.on('error', () => client.destroy())
  client.on('close', () => upstream.destroy())
  client.write('HTTP/1.1 200 connected\r\n\r\n')
  upstream.write(head)
  upstream.pipe(client).pipe(upstream)
}

async function forward(incoming: IncomingMessage, response: ServerResponse, findAddress: FindAddress): Promise<void> {
  const { hostname, port, pathname, search, protocol } = new URL(incoming.url ?? '')
  const host = protocol === 'http:' ? await findAddress(bare(hostname)) : undefined
  if (host === undefined) return void response.writeHead(403).end('in a private network')
  const { method, headers } = incoming
  const to = { host, port: Number(port || 80), path: `${pathname}${search}`, method, headers: endToEnd(headers), agent: false }
  const outgoing = request(to, (answer) => {
    // A status or header that cannot be passed on is thrown here, and must not end this process.
    try {
      response.writeHead(answer.statusCode ?? 502, endToEnd(answer.headers))
    } catch {
      return void response.destroy()
    }
    pipeline(answer, response, () => undefined)
  })
  outgoing.on('error', () => response.destroy())
  // Also when it was no answer.
  outgoing.on('close', () => response.headersSent || response.destroy())
  response.on('close', () => outgoing.destroy())
  pipeline(incoming, outgoing, () => undefined)
}

const betweenNeighbours = [
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

/** Without those that are between two neighbours only (RFC 9110, 7.6.1). */
function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !betweenNeighbours.includes(name)))
}

const bare = (hostname: string) => hostname.replace(/^\[(.*)\]$/, '$1')
