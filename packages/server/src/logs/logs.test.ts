import { request } from 'node:http'
import { describe, expect, it } from 'vitest'
import { startTestServer, type TestServer } from '../testing/test-server.ts'

interface Event {
  readonly id?: string
  readonly event: string
  readonly data: Record<string, unknown>
}

/** Follows a log over a real socket. `stopAfter` cuts the connection after so many rows. */
async function follow(
  mags: TestServer,
  address: string,
  id: string,
  options: { query?: string; lastEventId?: string; stopAfter?: number; onEvent?: (event: Event) => void } = {},
): Promise<Event[]> {
  const events: Event[] = []
  await new Promise<void>((resolve, reject) => {
    const headers = { authorization: `Bearer ${mags.token}`, ...(options.lastEventId === undefined ? {} : { 'last-event-id': options.lastEventId }) }
    const call = request(`${address}/api/v1/mags-jobs/${id}/logs?follow=true${options.query ?? ''}`, { headers }, (response) => {
      expect(response.headers['content-type']).toContain('text/event-stream')
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const event = parseEvent(text.slice(0, end))
          text = text.slice(end + 2)
          events.push(event)
          options.onEvent?.(event)
          if (events.length === options.stopAfter) return call.destroy()
        }
      })
      response.on('close', resolve)
    })
    call.on('error', (error) => (call.destroyed ? resolve() : reject(error)))
    call.end()
  })
  return options.stopAfter === undefined ? events : events.slice(0, options.stopAfter)
}

function parseEvent(text: string): Event {
  const fields = Object.fromEntries(text.split('\n').map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]))
  return {
    ...(fields.id === undefined ? {} : { id: fields.id }),
    event: fields.event ?? '',
    data: JSON.parse(fields.data ?? 'null') as Record<string, unknown>,
  }
}

const messages = (events: readonly Event[]) => events.filter(({ event }) => event === 'log').map(({ data }) => data.message)

describe('following a log', () => {
  it('sends rows while they come, to many at once, and the end', async () => {
    const go = Promise.withResolvers<void>()
    await using mags = await startTestServer({
      behaviour: async (script) => {
        await script.stdout('first\n')
        await go.promise
        await script.stderr('second\n')
        return { kind: 'exited', exitCode: 5 }
      },
    })
    const address = await mags.listen()
    const id = await mags.submit({ script: 'x' })
    let seen = 0
    const onEvent = (event: Event) => {
      if (event.data.message === 'first' && ++seen === 3) go.resolve()
    }
    for (const events of await Promise.all([0, 1, 2].map(() => follow(mags, address, id, { onEvent })))) {
      expect(messages(events)).toEqual(['first', 'second'])
      expect(events.at(-1)).toEqual({ event: 'end', data: { status: 'error', exit_code: 5 } })
    }
    expect(messages(await follow(mags, address, id, { query: '&source=stderr' }))).toEqual(['second'])
  })

  it('waits for a job that has not started, and follows one that is stopped', async () => {
    await using mags = await startTestServer({ held: true })
    const address = await mags.listen()
    const id = await mags.submit({ script: 'echo a\nwait' })
    const stop = (event: Event) => {
      if (event.event === 'log') void mags.call('POST', `/mags-jobs/${id}/stop`)
    }
    const following = follow(mags, address, id, { onEvent: stop })
    await mags.server.start()
    expect((await following).map(({ event, data }) => [event, data.message ?? data.status])).toEqual([
      ['log', 'a'],
      ['end', 'stopped'],
    ])
  })

  it('resumes after any row with nothing lost or repeated', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const lines = Array.from({ length: 1500 }, (_, index) => `line ${index}`)
    const id = await mags.submit({ script: lines.map((line) => `echo ${line}`).join('\n') })
    let lastEventId: string | undefined
    const got: unknown[] = []
    for (const stopAfter of [1, 7, 600]) {
      const events = await follow(mags, address, id, { stopAfter, ...(lastEventId === undefined ? {} : { lastEventId }) })
      got.push(...messages(events))
      lastEventId = events.at(-1)?.id
    }
    got.push(...messages(await follow(mags, address, id, { query: `&after=${lastEventId}` })))
    expect(got).toEqual(lines)
  })

  it('tells that the script of a persistent job ended, and goes on', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const id = await mags.submit({ script: 'echo up\nexit 3', persistent: true })
    const onEvent = async (event: Event) => {
      if (event.event === 'exit') await [...mags.host.sandboxes.values()][0]?.write('stdout', 'from a daemon\n')
      if (event.data.message === 'from a daemon') await mags.call('POST', `/mags-jobs/${id}/stop`)
    }
    const events = await follow(mags, address, id, { onEvent: (event) => void onEvent(event) })
    expect(events.map(({ event, data }) => [event, data.message ?? data.exit_code])).toEqual([
      ['log', 'up'],
      ['exit', 3],
      ['log', 'from a daemon'],
      ['end', 3],
    ])
  })

  it('does not let a reader that reads nothing hold up the job', async () => {
    await using mags = await startTestServer({
      behaviour: async (script) => {
        for (let index = 0; index < 200; index++) await script.stdout(`${'x'.repeat(1000)}\n`.repeat(60))
        return { kind: 'exited', exitCode: 0 }
      },
    })
    const address = await mags.listen()
    const id = await mags.submit({ script: 'x' })
    const stuck = request(`${address}/api/v1/mags-jobs/${id}/logs?follow=true`, { headers: { authorization: `Bearer ${mags.token}` } })
    const responded = new Promise<void>((resolve) =>
      stuck.on('response', (response) => {
        response.pause()
        resolve()
      }),
    )
    stuck.on('error', () => undefined)
    stuck.end()
    await responded
    expect(messages(await follow(mags, address, id))).toHaveLength(12_000)
    expect((await mags.status(id)).status).toBe('completed')
    stuck.destroy()
  })

  it('ends a stream without an end event when the server closes', async () => {
    await using mags = await startTestServer()
    const address = await mags.listen()
    const id = await mags.submit({ script: 'echo a\nwait', persistent: true })
    const events = await follow(mags, address, id, { onEvent: () => void mags.server.close() })
    expect(events.map(({ event }) => event)).toEqual(['log'])
  })
})

describe('reading a log', () => {
  it('gives pages that continue each other', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo 1\necho 2\nerr 3\necho 4\necho 5' })
    await mags.ended(id)
    const got: string[] = []
    let query = '?limit=2'
    for (;;) {
      const page = await mags.rows(id, query)
      if (page.logs.length === 0) break
      got.push(...page.logs.map(({ message }) => message))
      query = `?limit=2&after=${page.next}`
    }
    expect(got).toEqual(['1', '2', '3', '4', '5'])
    expect((await mags.rows(id, '?source=stderr')).logs.map(({ message }) => message)).toEqual(['3'])
  })

  it('gives bytes that are not UTF-8 as they are', async () => {
    const bytes = Buffer.from([0x61, 0xff, 0x62])
    await using mags = await startTestServer({
      behaviour: async (script) => {
        await script.stdout(Buffer.concat([bytes, Buffer.from('\nok\n')]))
        return { kind: 'exited', exitCode: 0 }
      },
    })
    const id = await mags.submit({ script: 'x' })
    await mags.ended(id)
    const { logs } = await mags.rows(id)
    expect(logs[0]).toMatchObject({ message: 'a\ufffdb', base64: bytes.toString('base64') })
    expect(logs[1]).not.toHaveProperty('base64')
  })

  it('cuts a line of 10 MB into rows without splitting a character', async () => {
    const line = 'aé€𝄞'.repeat(1_000_000)
    await using mags = await startTestServer({
      behaviour: async (script) => {
        const bytes = Buffer.from(`${line}\n`)
        for (let at = 0; at < bytes.length; at += 65_536) await script.stdout(bytes.subarray(at, at + 65_536))
        return { kind: 'exited', exitCode: 0 }
      },
    })
    const id = await mags.submit({ script: 'x' })
    await mags.ended(id)
    let text = ''
    let query = ''
    for (;;) {
      const { logs, next } = await mags.rows(id, query)
      if (logs.length === 0) break
      for (const row of logs) {
        expect(row.base64).toBeUndefined()
        expect(Buffer.byteLength(row.message)).toBeLessThanOrEqual(65_536)
        text += row.message + (row.partial ? '' : '\n')
      }
      query = `?after=${next}`
    }
    expect(text === `${line}\n`).toBe(true)
  })

  it('stops at the limit with a system row', async () => {
    const answers: unknown[] = []
    await using mags = await startTestServer({
      deps: { limits: { maxLogBytes: 10_000 } },
      behaviour: async (script) => {
        for (let index = 0; index < 300; index++) answers.push(await script.stdout(`${'y'.repeat(99)}\n`))
        return { kind: 'exited', exitCode: 0 }
      },
    })
    const id = await mags.submit({ script: 'x' })
    expect((await mags.ended(id)).status).toBe('completed')
    const { logs } = await mags.rows(id)
    expect(logs.at(-1)).toMatchObject({ source: 'system', level: 'error', message: 'output limit of 10000 bytes reached; the rest is dropped' })
    expect(logs.filter(({ source }) => source === 'system')).toHaveLength(1)
    expect(answers.at(0)).toBeUndefined()
    expect(answers.at(-1)).toBe('discard')
  })

  it('refuses cursors that are not from it', async () => {
    await using mags = await startTestServer()
    const id = await mags.submit({ script: 'echo one\necho two' })
    await mags.ended(id)
    for (const cursor of ['x', '1', '-1.0', '0.1', '0.2', '5.0', '0.4', '999999.0', '1e3.0', '0.9999999', '%2e%2e']) {
      expect(await mags.call('GET', `/mags-jobs/${id}/logs?after=${cursor}`), cursor).toMatchObject({ status: 400, body: { code: 'bad_request' } })
    }
    expect((await mags.rows(id, '?after=0.0')).logs).toHaveLength(2)
  })

  it('is empty for a job that has none', async () => {
    await using mags = await startTestServer({ held: true })
    expect(await mags.rows(await mags.submit({ script: 'x' }))).toEqual({ logs: [], next: '0.0' })
  })
})
