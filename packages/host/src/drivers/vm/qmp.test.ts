import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connectQmp, type QmpEvent } from './qmp.ts'

const greeting = '{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22}},"capabilities":[]}}\r\n'

describe('connectQmp', () => {
  let directory: string
  let path: string
  let server: Server
  let sockets: Socket[]
  /** What the far end does with each command. */
  let answer: (message: { execute: string; id: number; arguments?: unknown }, socket: Socket) => void

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'mags-qmp-'))
    path = join(directory, 'qmp')
    sockets = []
    answer = (message, socket) => socket.write(`{"return":{},"id":${message.id}}\n`)
    server = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      socket.write(greeting)
      let text = ''
      socket.on('data', (bytes) => {
        text += bytes.toString()
        const lines = text.split('\n')
        text = lines.pop() ?? ''
        for (const line of lines) answer(JSON.parse(line), socket)
      })
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    rmSync(directory, { recursive: true, force: true })
  })

  it('pipelines commands and matches answers by id, whatever their order', async () => {
    const held: number[] = []
    answer = (message, socket) => {
      if (message.execute === 'qmp_capabilities') return void socket.write(`{"return":{},"id":${message.id}}\n`)
      held.push(message.id)
      if (held.length === 3) for (const id of held.reverse()) socket.write(`{"return":{"number":${id}},"id":${id}}\r\n`)
    }
    const qmp = await connectQmp(path)
    const answers = await Promise.all([qmp.execute('a'), qmp.execute('b'), qmp.execute('c', { x: 1 })])
    expect(answers).toEqual([{ number: 2 }, { number: 3 }, { number: 4 }])
    qmp.close()
    expect(await qmp.closed).toBeUndefined()
  })

  it('turns an error answer into words that name the command', async () => {
    answer = (message, socket) =>
      socket.write(
        message.execute === 'cont' ? `{"error":{"class":"GenericError","desc":"no such node"},"id":${message.id}}\n` : `{"return":{},"id":${message.id}}\n`,
      )
    const qmp = await connectQmp(path)
    await expect(qmp.execute('cont')).rejects.toThrow('cont: no such node')
    qmp.close()
  })

  it('hands events on, also when they come in pieces', async () => {
    const seen = Promise.withResolvers<QmpEvent>()
    const qmp = await connectQmp(path, { onEvent: (event) => seen.resolve(event) })
    sockets[0]?.write('{"event":"SHUTDOWN","data":{"gue')
    sockets[0]?.write('st":true}}\r\n')
    expect(await seen.promise).toEqual({ event: 'SHUTDOWN', data: { guest: true } })
    qmp.close()
  })

  it('rejects what waits and says why when the stream ends', async () => {
    answer = (message, socket) => (message.execute === 'stop' ? void socket.end() : void socket.write(`{"return":{},"id":${message.id}}\n`))
    const qmp = await connectQmp(path)
    await expect(qmp.execute('stop')).rejects.toThrow('stop: QEMU closed its control connection')
    expect((await qmp.closed)?.message).toContain('closed')
    await expect(qmp.execute('cont')).rejects.toThrow('cont: the connection to QEMU is closed')
  })

  it('ends the connection on a line without end and on text that is not QMP', async () => {
    const long = await connectQmp(path)
    sockets[0]?.write('x'.repeat((1 << 20) + 1))
    expect((await long.closed)?.message).toContain('a line of over')
    const wrong = await connectQmp(path)
    sockets[1]?.write('hello\n')
    expect((await wrong.closed)?.message).toContain('no QMP message: hello')
  })

  it('does not wait for ever for an answer', async () => {
    answer = (message, socket) => (message.execute === 'slow' ? undefined : void socket.write(`{"return":{},"id":${message.id}}\n`))
    const qmp = await connectQmp(path)
    await expect(qmp.execute('slow', undefined, 5)).rejects.toThrow('slow: no answer from QEMU within 5 ms')
    qmp.close()
  })

  it('says when nobody listens', async () => {
    await expect(connectQmp(join(directory, 'none'))).rejects.toThrow('ENOENT')
  })
})
