import { describe, expect, it } from 'vitest'
import { MagsProtocolError } from '../errors.ts'
import { parseEvents, type ServerEvent } from './parse-events.ts'

async function* parts(...texts: (string | Uint8Array)[]) {
  for (const text of texts) yield typeof text === 'string' ? new TextEncoder().encode(text) : text
}

async function parse(...texts: (string | Uint8Array)[]): Promise<ServerEvent[]> {
  return await Array.fromAsync(parseEvents(parts(...texts)))
}

describe('parseEvents', () => {
  it('reads id, event and data', async () => {
    expect(await parse('id: 7\nevent: log\ndata: {"a":1}\n\n')).toEqual([{ event: 'log', data: '{"a":1}', id: '7' }])
  })

  it('keeps the last id for events without one, joins data lines, and names an unnamed event message', async () => {
    expect(await parse('id: 1\ndata: a\n\ndata: b\ndata:c\n\n')).toEqual([
      { event: 'message', data: 'a', id: '1' },
      { event: 'message', data: 'b\nc', id: '1' },
    ])
  })

  it('gives the same events however the bytes are cut', async () => {
    const bytes = new TextEncoder().encode(': hi\r\nid: é1\r\nevent: log\r\ndata: "ü€😀"\r\n\r\nevent: end\rdata: 0\r\rdata: x\n\n')
    const whole = await parse(bytes)
    expect(whole.map(({ event, data }) => [event, data])).toEqual([
      ['keep-alive', ''],
      ['log', '"ü€😀"'],
      ['end', '0'],
      ['message', 'x'],
    ])
    for (let size = 1; size < 12; size += 1) {
      const cut = Array.from({ length: Math.ceil(bytes.length / size) }, (_item, index) => bytes.subarray(index * size, (index + 1) * size))
      expect(await parse(...cut)).toEqual(whole)
    }
  })

  it('drops an event that the end cuts short', async () => {
    expect(await parse('data: a\n\nid: 2\ndata: b\n')).toEqual([{ event: 'message', data: 'a', id: undefined }])
  })

  it('refuses a line or an event over the limit', async () => {
    const long = 'x'.repeat(60)
    await expect(Array.fromAsync(parseEvents(parts(`data: ${long}`, long), { maxEventBytes: 100 }))).rejects.toThrow(MagsProtocolError)
    await expect(Array.fromAsync(parseEvents(parts(`data: ${long}\n`, `data: ${long}\n`), { maxEventBytes: 100 }))).rejects.toThrow(MagsProtocolError)
  })
})
