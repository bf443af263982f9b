import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { get } from 'node:http'
import { connect, createServer } from 'node:net'

/**
 * A program that stands in for what runs in a sandbox, started in its network namespace by `namespace-program.ts`. Each command prints one line per result.
 */
const [command = '', ...args] = process.argv.slice(2)
const say = (line: string) => process.stdout.write(`${line}\n`)
/** For what is to come; a machine may be busy. */
const patienceMs = 10_000
/** For what is not to come: two packets and half a second (a SYN without answer is sent again after one, RFC 6298). */
const shortPatienceMs = 1_500

const commands: Record<string, (...values: string[]) => void> = {
  /** Prints `connected`, an error code, or `timeout`. */
  connect: (host, port, localAddress) => attempt(patienceMs, host, port, localAddress),
  /** The same for what is to be refused, by an answer or by none. */
  try: (host, port, localAddress) => attempt(shortPatienceMs, host, port, localAddress),
  /** Says `ready`, and then who connected; sends every byte back. */
  listen(host = '', port = '') {
    const server = createServer((socket) => {
      say(`from ${socket.remoteAddress?.replace('::ffff:', '')}`)
      socket.on('error', () => undefined)
      socket.pipe(socket)
    })
    server.listen(Number(port), host, () => say('ready'))
  },
  /** Keeps one connection open: says `connected`, sends each line of its input, prints what comes back. */
  talk(host = '', port = '') {
    const socket = connect({ host, port: Number(port) }, () => say('connected'))
    socket.on('error', (error) => say(error.message))
    process.stdin.pipe(socket)
    socket.pipe(process.stdout)
  },
  /** Sends one datagram. */
  send(host = '', port = '', localAddress = '', text = '') {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.bind({ address: localAddress }, () => socket.send(text, Number(port), host, () => socket.close(() => say('sent'))))
  },
  /** Says `ready`, then the text of every datagram. */
  receive(host = '', port = '') {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.on('message', (bytes) => say(bytes.toString()))
    socket.bind(Number(port), host, () => say('ready'))
  },
  async resolve(server = '', name = '', type = 'A', timeoutMs = '2500') {
    const resolver = new Resolver({ timeout: Number(timeoutMs), tries: 2 })
    resolver.setServers([server])
    const found = await resolver.resolve(name, type).catch((error: NodeJS.ErrnoException) => error.code)
    say(Array.isArray(found) ? found.join(' ') : String(found))
  },
  /** Prints the status of a plain HTTP request to a name, resolved by this server. */
  async fetch(server = '', name = '', path = '/') {
    const resolver = new Resolver()
    resolver.setServers([server])
    const [address = ''] = await resolver.resolve4(name)
    get({ host: address, path, headers: { host: name } }, (response) => {
      say(String(response.statusCode))
      response.destroy()
    })
  },
  /** A name server with one answer for every name: `10-1-2-3.test` is 10.1.2.3. Says `ready`, then every name asked. */
  answer(host = '', port = '') {
    const socket = createSocket('udp4')
    socket.on('message', (query, from) => {
      const end = query.indexOf(0, 12)
      const label = query.subarray(13, 13 + (query[12] ?? 0)).toString()
      say(label)
      const isAddress = query.readUInt16BE(end + 1) === 1
      const header = Buffer.from([query[0] ?? 0, query[1] ?? 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0])
      const data = isAddress ? label.split('-').map(Number) : [0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 1]
      const record = Buffer.from([0xc0, 12, 0, isAddress ? 1 : 28, 0, 1, 0, 0, 0, 1, 0, data.length, ...data])
      socket.send(Buffer.concat([header, query.subarray(12, end + 5), record]), from.port, from.address)
    })
    socket.bind(Number(port), host, () => say('ready'))
  },
}

function attempt(timeoutMs: number, host = '', port = '', localAddress = '') {
  const socket = connect({ host, port: Number(port), ...(localAddress === '' ? {} : { localAddress }) })
  const finish = (result: string) => {
    say(result)
    process.exit(0)
  }
  // What has come meanwhile counts first: immediates are behind it.
  setTimeout(() => setImmediate(finish, 'timeout'), timeoutMs)
  socket.once('connect', () => finish('connected'))
  socket.once('error', (error: NodeJS.ErrnoException) => finish(error.code ?? error.message))
}

commands[command]?.(...args)
