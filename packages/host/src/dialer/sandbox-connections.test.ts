import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { constants } from 'node:os'
import { type Duplex, duplexPair } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DialError } from './dialer-client.ts'
import type { DialRequest } from './encode-dial-request.ts'
import { SandboxConnections } from './sandbox-connections.ts'

const process_ = { pid: 4242, startTicks: 1 }

describe('SandboxConnections', () => {
  let server: Server
  let accepted: Socket[]
  let dialled: DialRequest[]
  let byAgent: number[]
  let answer: (request: DialRequest) => Promise<Socket>
  let ended: boolean

  beforeEach(async () => {
    accepted = []
    dialled = []
    byAgent = []
    ended = false
    server = createServer((socket) => {
      socket.on('error', () => undefined)
      accepted.push(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    answer = connected
  })
  afterEach(() => {
    for (const socket of accepted) socket.destroy()
    server.close()
  })

  const connected = () =>
    new Promise<Socket>((resolve) => {
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1', () => resolve(socket))
      socket.on('error', () => undefined)
    })
  const refuse = (errno: number) => () => Promise.reject(new DialError(errno))

  const open = (parts: { agentSeesMore?: boolean; addresses?: readonly string[] | undefined; dialer?: boolean } = {}) =>
    new SandboxConnections({
      agent: () => ({
        dial: async (port: number): Promise<Duplex> => {
          byAgent.push(port)
          return duplexPair()[0]
        },
      }),
      dialer:
        parts.dialer === false
          ? undefined
          : {
              get ended() {
                return ended
              },
              dial: (request: DialRequest) => {
                dialled.push(request)
                return answer(request)
              },
            },
      process: () => process_,
      addresses: 'addresses' in parts ? parts.addresses : ['127.0.0.1', '::1'],
      agentSeesMore: parts.agentSeesMore ?? false,
    })

  it('asks the dialer with the sandbox’s process and addresses', async () => {
    const socket = await open().connect(8080)
    expect(dialled).toEqual([{ process: process_, addresses: ['127.0.0.1', '::1'], port: 8080, timeoutMs: 10_000 }])
    expect(byAgent).toEqual([])
    socket.destroy()
  })

  it('goes through the agent without a dialer, without addresses, and once the dialer has ended', async () => {
    ;(await open({ dialer: false }).connect(1)).destroy()
    ;(await open({ addresses: undefined }).connect(2)).destroy()
    answer = () => {
      ended = true
      return Promise.reject(new Error('the dialer ended'))
    }
    const connections = open()
    ;(await connections.connect(3)).destroy()
    ;(await connections.connect(4)).destroy()
    expect([byAgent, dialled.length]).toEqual([[1, 2, 3, 4], 1])
  })

  it('asks the agent after a refusal only where that sees more', async () => {
    answer = refuse(constants.errno.ECONNREFUSED)
    await expect(open().connect(81)).rejects.toMatchObject({ code: 'not_listening', message: expect.stringContaining('port 81') })
    ;(await open({ agentSeesMore: true }).connect(82)).destroy()
    expect(byAgent).toEqual([82])
  })

  it('tells other failures apart', async () => {
    answer = refuse(constants.errno.ETIMEDOUT)
    await expect(open({ agentSeesMore: true }).connect(81)).rejects.toMatchObject({
      code: 'sandbox_failed',
      message: expect.stringMatching(/port 81 .*within 10 s/),
    })
    answer = refuse(constants.errno.ESRCH)
    await expect(open().connect(81)).rejects.toMatchObject({ code: 'sandbox_failed', message: 'the sandbox is gone' })
    answer = refuse(constants.errno.EHOSTUNREACH)
    await expect(open().connect(81)).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('EHOSTUNREACH') })
    answer = () => Promise.reject(new Error('too many'))
    await expect(open().connect(81)).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('too many') })
    expect(byAgent).toEqual([])
  })

  it('breaks what is connected and refuses the rest once it is closed', async () => {
    const connections = open()
    const socket = await connections.connect(80)
    const done = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    connections.close()
    await done
    await expect(connections.connect(80)).rejects.toMatchObject({ code: 'sandbox_failed', message: 'the sandbox is gone' })
    expect(dialled).toHaveLength(1)
  })

  it('breaks what comes when it is closed already', async () => {
    const connections = open()
    const late = Promise.withResolvers<Socket>()
    answer = () => late.promise
    const connecting = connections.connect(80)
    connections.close()
    const socket = await connected()
    late.resolve(socket)
    await expect(connecting).rejects.toMatchObject({ code: 'sandbox_failed' })
    expect(socket.destroyed).toBe(true)
  })

  it('opens 256 at once; the others come in their order as those are done, or go when it closes', async () => {
    const connections = open()
    const waiting: PromiseWithResolvers<Socket>[] = []
    answer = () => {
      const one = Promise.withResolvers<Socket>()
      waiting.push(one)
      return one.promise
    }
    const results = Array.from({ length: 300 }, (_, number) =>
      connections.connect(1 + number).then(
        () => 'connected',
        (error: Error) => error.message,
      ),
    )
    await Promise.resolve()
    expect(dialled).toHaveLength(256)
    waiting[0]?.reject(new DialError(constants.errno.ETIMEDOUT))
    await results[0]
    await new Promise((resolve) => setImmediate(resolve))
    expect(dialled.map(({ port }) => port).slice(256)).toEqual([257])
    connections.close()
    for (const one of waiting) one.reject(new DialError(constants.errno.ESRCH))
    expect(new Set((await Promise.all(results)).slice(1))).toEqual(new Set(['the sandbox is gone']))
    expect(dialled).toHaveLength(257)
  })
})
