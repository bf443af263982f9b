import { connect } from 'node:net'
import ssh2, { type Client, type ClientChannel } from 'ssh2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openSshWorld, type SshWorld } from './testing/ssh-world.ts'

let world: SshWorld
beforeAll(async () => {
  world = await openSshWorld({ channelsPerConnection: 8, unreadBytes: 6 * 1024 * 1024, rekeysPerMinute: 3 })
})
afterAll(() => world[Symbol.asyncDispose]())

/** What of ssh2's client is bent here. */
interface Protocol {
  rekey(): void
  session(channel: number, window: number, packetSize: number): void
  exec(channel: number, command: string, wantReply: boolean): void
  channelData(channel: number, bytes: Buffer): void
  channelWindowAdjust(channel: number, bytes: number): void
  directTcpip(channel: number, window: number, packetSize: number, target: object): void
}

const protocolOf = (client: Client) => (client as unknown as { readonly _protocol: Protocol })._protocol

async function login(at: SshWorld = world): Promise<{ client: Client; closed: Promise<void>; errors: string[] }> {
  const client = new ssh2.Client()
  const closed = new Promise<void>((resolve) => client.once('close', () => resolve()))
  const errors: string[] = []
  client.on('error', (error) => errors.push(error.message))
  const ready = new Promise<void>((resolve, reject) => client.once('ready', () => resolve()).once('error', reject))
  client.connect({ host: '127.0.0.1', port: at.ports.webapp, username: 'root', privateKey: at.keys.webapp.privateKey })
  await ready
  return { client, closed, errors }
}

function exec(client: Client, command: string): Promise<ClientChannel> {
  return new Promise((resolve, reject) => client.exec(command, (error, channel) => (error ? reject(error) : resolve(channel))))
}

async function outputOf(channel: ClientChannel): Promise<string> {
  let text = ''
  for await (const bytes of channel) text += bytes
  return text
}

describe('a client that does not play by the rules', () => {
  it('gets so many channels and no more, until some are closed', async () => {
    const { client, closed } = await login()
    const channels = await Promise.all(Array.from({ length: 8 }, () => exec(client, 'cat')))
    await expect(exec(client, 'cat')).rejects.toThrow(/more than 8 channels/)
    await Promise.all(
      channels.map(async (channel, index) => {
        const closed = new Promise((resolve) => channel.once('close', resolve))
        channel.end(`${index}`)
        expect(await outputOf(channel)).toBe(`${index}`)
        await closed
      }),
    )
    expect(await outputOf(await exec(client, 'echo again'))).toBe('again\n')
    client.end()
    await closed
    await world.directory.quiet()
  })

  it('cannot make the gateway hold a flood by windows as wide as can be while it reads nothing', async () => {
    const { client, closed } = await login()
    const before = world.directory.takenBytes
    const channel = await exec(client, 'head -c 300000000 /dev/zero')
    const { outgoing } = channel as unknown as { readonly outgoing: { readonly id: number } }
    protocolOf(client).channelWindowAdjust(outgoing.id, 0xffffffff - 4 * 1024 * 1024)
    const socket = (client as unknown as { readonly _sock: import('node:net').Socket })._sock
    socket.pause()
    // Other connections go on, and give the flood time.
    for (let i = 0; i < 5; i++) expect((await world.ssh(['root@127.0.0.1', 'head -c 1000 /dev/zero'])).stdout).toHaveLength(1000)
    expect(world.directory.takenBytes - before).toBeLessThan(40_000_000)
    socket.destroy()
    await closed
    await world.directory.quiet()
  })

  it('is ended when it sends more than the window that nobody reads', async () => {
    const { client, closed } = await login()
    const channel = await exec(client, 'sleep 30')
    const { outgoing } = channel as unknown as { readonly outgoing: { readonly id: number } }
    // Not a divisor of the window: ssh2 drops what comes when it is at 0, and not below.
    const piece = Buffer.alloc(30_001)
    for (let i = 0; i < 400; i++) protocolOf(client).channelData(outgoing.id, piece)
    await closed
    await world.directory.quiet()
  })

  it('is ended when it takes packets of no size, which would be sent for ever', async () => {
    for (const size of [0, 1]) {
      const { client, closed } = await login()
      const protocol = protocolOf(client)
      const channels = (client as unknown as { readonly _chanMgr: { add(value: object): number } })._chanMgr
      const id = channels.add(() => undefined)
      protocol.session(id, 1024, size)
      protocol.exec(0, 'echo hello', true)
      await closed
      const next = await login()
      protocolOf(next.client).directTcpip(
        (next.client as unknown as { _chanMgr: typeof channels })._chanMgr.add(() => undefined),
        1024,
        size,
        {
          ...{ dstIP: 'localhost', dstPort: world.ports.webapp, srcIP: '127.0.0.1', srcPort: 1 },
        },
      )
      await next.closed
    }
    await world.directory.quiet()
  })

  it('that asks for channels before it has logged in gets none, and nothing is opened', async () => {
    const before = world.directory.events.length
    const client = new ssh2.Client()
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()))
    client.on('error', () => undefined)
    client.once('handshake', () => {
      const protocol = protocolOf(client)
      protocol.session(0, 2 ** 21, 32_768)
      protocol.exec(0, 'touch /tmp/never', true)
      setImmediate(() => client.end())
    })
    client.connect({ host: '127.0.0.1', port: world.ports.webapp, username: 'root', authHandler: () => false as never })
    await closed
    expect(world.directory.events.slice(before)).toEqual([])
  })

  it('may not renew the keys all the time', async () => {
    const { client, closed } = await login()
    const rekey = () => protocolOf(client).rekey()
    client.on('handshake', () => setImmediate(rekey))
    rekey()
    await closed
  })

  it('that answers no keep-alive is dropped, and its job may sleep', async () => {
    await using short = await openSshWorld({ keepaliveMs: 100, keepaliveMissed: 2 })
    const silent = await login(short)
    await exec(silent.client, 'sleep 60')
    const alive = await login(short)
    const held = await exec(alive.client, 'cat')
    const socket = (silent.client as unknown as { readonly _sock: import('node:net').Socket })._sock
    socket.pause()
    await expect.poll(() => short.directory.events.filter((event) => event.startsWith('close')).length, { timeout: 10_000 }).toBe(1)
    held.end('still here')
    expect(await outputOf(held)).toBe('still here')
    alive.client.end()
    await short.directory.quiet()
    socket.destroy()
  })

  it('that sends no SSH is ended, and others go on', async () => {
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\0'.repeat(20_000), `SSH-2.0-x\r\n${'\xff'.repeat(500)}`]) {
      const socket = connect(world.ports.webapp, '127.0.0.1')
      socket.on('error', () => undefined)
      socket.write(bytes, 'latin1')
      socket.resume()
      await new Promise((resolve) => socket.once('close', resolve))
    }
    expect((await world.ssh(['root@127.0.0.1', 'echo on'])).stdout.toString()).toBe('on\n')
  })
})
