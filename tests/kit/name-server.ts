import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'

/**
 * A name server for tests: `name-server <address> <port>`. Each line of its input is a zone that replaces the one before, as JSON: `{"name": ["A 5 11.22.33.44", "CNAME 5 other.test"]}`
 * (type, seconds, value). Says `ready`, `zone <number>` and every question as `<name> <type>`. Answers all records of the chain at once, as resolvers do.
 */
const [address = '', port = ''] = process.argv.slice(2)
const say = (line: string) => process.stdout.write(`${line}\n`)
const types: Record<string, number> = { A: 1, CNAME: 5, TXT: 16, AAAA: 28 }
const largestUdpBytes = 1232
let zone: Record<string, string[]> = {}
let zones = 0

function encodeName(name: string): Buffer {
  return Buffer.concat([...name.split('.').map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])), Buffer.from([0])])
}

function encodeRecord(name: string, [type = '', seconds = '', ...rest]: string[]): Buffer {
  const value = rest.join(' ')
  const text = Buffer.from(value)
  const shapes: Record<string, () => Buffer> = {
    A: () => Buffer.from(value.split('.').map(Number)),
    CNAME: () => encodeName(value),
    TXT: () => Buffer.concat([Buffer.from([text.length]), text]),
  }
  const data = shapes[type]?.()
  const head = Buffer.alloc(10)
  head.writeUInt16BE(types[type] ?? 0, 0)
  head.writeUInt16BE(1, 2)
  head.writeUInt32BE(Number(seconds), 4)
  head.writeUInt16BE(data?.length ?? 0, 8)
  return Buffer.concat([encodeName(name), head, data ?? Buffer.alloc(0)])
}

function answer(query: Buffer): Buffer {
  const labels: string[] = []
  let at = 12
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.subarray(at + 1, at + 1 + length).toString())
    at += 1 + length
  }
  const asked = labels.join('.').toLowerCase()
  const type = query.readUInt16BE(at + 1)
  say(`${asked} ${Object.entries(types).find(([, code]) => code === type)?.[0] ?? type}`)
  const records: Buffer[] = []
  let name = asked
  for (let link = 0; link < 20; link++) {
    const rows = (zone[name] ?? []).map((row) => row.split(' '))
    const alias = rows.find(([kind]) => kind === 'CNAME')
    records.push(...rows.filter(([kind]) => kind === 'CNAME' || types[kind ?? ''] === type).map((row) => encodeRecord(name, row)))
    if (alias === undefined) break
    name = alias[2] ?? ''
  }
  const header = Buffer.from([query[0] ?? 0, query[1] ?? 0, 0x81, zone[asked] === undefined ? 0x83 : 0x80, 0, 1, 0, records.length, 0, 0, 0, 0])
  return Buffer.concat([header, query.subarray(12, at + 5), ...records])
}

const datagrams = createSocket('udp4')
datagrams.on('message', (query, from) => {
  const whole = answer(query)
  const end = query.indexOf(0, 12) + 5
  const cut = Buffer.concat([whole.subarray(0, 12), whole.subarray(12, end)])
  cut.writeUInt16BE(0x8380, 2)
  cut.writeUInt16BE(0, 6)
  datagrams.send(whole.length > largestUdpBytes ? cut : whole, from.port, from.address)
})
const server = createServer((socket) => {
  socket.on('error', () => undefined)
  socket.on('data', (bytes) => {
    const whole = answer(bytes.subarray(2))
    socket.write(Buffer.concat([Buffer.from([whole.length >> 8, whole.length & 255]), whole]))
  })
})
createInterface({ input: process.stdin }).on('line', (line) => {
  zone = JSON.parse(line) as typeof zone
  zones += 1
  say(`zone ${zones}`)
})
datagrams.bind(Number(port), address, () => server.listen(Number(port), address, () => say('ready')))
