import { createSocket } from 'node:dgram'
import { createServer, type Socket } from 'node:net'
import { type FromForwarder, Lines, type ToForwarder } from './messages.ts'
import { NameDesk } from './name-desk.ts'
import { Upstream } from './upstream.ts'

/**
 * The program that answers names of sandboxes whose policy has domains: `run-forwarder <label> <address> <port>`. It runs in the router's namespace without any
 * privilege, knows only what the daemon tells it on standard input, and ends with it.
 */
const [, address = '', port = ''] = process.argv.slice(2)
const resolverPort = 53
const mostTcp = 256
const tcpIdleMs = 10_000
const mostTcpQuestions = 64
const longestQuestionBytes = 4096

const tell = (message: FromForwarder) => process.stdout.write(`${JSON.stringify(message)}\n`)
const waiting = new Map<number, (addresses: readonly string[] | undefined) => void>()
let lastId = 0

const upstream = await Upstream.open(address, resolverPort)
const desk = new NameDesk({
  ask: (question) => upstream.ask(question),
  grant: (sandbox, name, addresses, seconds) => {
    const { promise, resolve } = Promise.withResolvers<readonly string[] | undefined>()
    const id = ++lastId
    waiting.set(id, resolve)
    tell({ kind: 'grant', id, address: sandbox, name, addresses, seconds })
    return promise.finally(() => waiting.delete(id))
  },
  onRefused: (sandbox, name) => tell({ kind: 'refused', address: sandbox, name }),
})

function obey(message: ToForwarder) {
  if (message.kind === 'granted') return waiting.get(message.id)?.(message.addresses)
  if (message.kind === 'set') desk.set(message.address, message.domains)
  else desk.setDefault(message.domains)
  tell({ kind: 'done', id: message.id })
}

const lines = new Lines()
process.stdin.setEncoding('utf8')
process.stdin.on('data', (text: string) => {
  for (const line of lines.push(text)) obey(JSON.parse(line) as ToForwarder)
})
process.stdin.on('end', () => process.exit(0))
process.stdout.on('error', () => process.exit(0))

const datagrams = createSocket('udp4')
datagrams.on('message', async (packet, from) => {
  const answer = await desk.answer(packet, from.address, 'udp')
  if (answer !== undefined) datagrams.send(answer, from.port, from.address, () => undefined)
})
datagrams.on('error', (error) => {
  throw error
})
await new Promise<void>((resolve) => datagrams.bind(Number(port), address, resolve))

/** One question after another; each is answered before the next is read. */
async function serve(socket: Socket) {
  socket.setTimeout(tcpIdleMs, () => socket.destroy())
  socket.on('error', () => undefined)
  let rest = Buffer.alloc(0)
  let asked = 0
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      const packet = rest.subarray(2, 2 + rest.readUInt16BE(0))
      rest = rest.subarray(2 + packet.length)
      const answer = await desk.answer(packet, socket.remoteAddress ?? '', 'tcp')
      asked += 1
      if (answer === undefined || asked > mostTcpQuestions || socket.destroyed) return
      socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]))
    }
    if (rest.length > longestQuestionBytes + 2 || (rest.length >= 2 && rest.readUInt16BE(0) > longestQuestionBytes)) return
  }
}

const server = createServer((socket) => {
  serve(socket)
    .catch(() => undefined)
    .finally(() => socket.destroySoon())
})
server.maxConnections = mostTcp
await new Promise<void>((resolve) => server.listen(Number(port), address, resolve))
tell({ kind: 'ready' })
