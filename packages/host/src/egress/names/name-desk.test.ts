import { randomBytes, randomInt } from 'node:crypto'
import { type Answer, decode, encode } from 'dns-packet'
import { describe, expect, it, vi } from 'vitest'
import { NameDesk } from './name-desk.ts'
import { readQuestion } from './question.ts'

const sandbox = '10.213.0.2'
const rule = (name: string, below = false) => ({ name, below })
type Kind = 'A' | 'AAAA' | 'TXT'
const query = (name: string, type: Kind = 'A', more: object = {}) =>
  encode({ type: 'query', id: 7, flags: 0x100, questions: [{ type, name, class: 'IN' }], ...more })

function setUp(answers: Answer[] = [{ type: 'A', name: 'a.test', ttl: 60, data: '203.0.113.7' }]) {
  const grant = vi.fn(
    async (_sandbox: string, _name: string, addresses: readonly string[], _seconds: number): Promise<readonly string[] | undefined> => addresses,
  )
  const onRefused = vi.fn()
  const ask = vi.fn(
    async (question: { name: string }): Promise<Buffer> =>
      encode({ type: 'response', id: 1, flags: 0x180, questions: [{ type: 'A', name: question.name }], answers }),
  )
  const desk = new NameDesk({ ask, grant, onRefused })
  desk.set(sandbox, { allow: [rule('a.test'), rule('b.test', true)], deny: [rule('bad.test')] })
  const answer = async (packet: Buffer, transport: 'udp' | 'tcp' = 'udp') => {
    const found = await desk.answer(packet, sandbox, transport)
    return found === undefined ? undefined : (decode(found) as ReturnType<typeof decode> & { rcode: string })
  }
  return { desk, ask, grant, onRefused, answer }
}

describe('NameDesk', () => {
  it('makes addresses reachable before it tells them', async () => {
    const { answer, grant } = setUp()
    const told = Promise.withResolvers<readonly string[]>()
    grant.mockReturnValueOnce(told.promise)
    let isAnswered = false
    const pending = answer(query('a.test')).then((found) => {
      isAnswered = true
      return found
    })
    await vi.waitFor(() => expect(grant).toHaveBeenCalledWith(sandbox, 'a.test', ['203.0.113.7'], 62), 10_000)
    expect(isAnswered).toBe(false)
    told.resolve(['203.0.113.7'])
    expect(await pending).toMatchObject({ id: 7, rcode: 'NOERROR', answers: [{ type: 'A', name: 'a.test', ttl: 60, data: '203.0.113.7' }] })
  })

  it('fails when they cannot be made reachable, and leaves out what may not be told', async () => {
    const { answer, grant } = setUp()
    grant.mockResolvedValueOnce(undefined)
    expect(await answer(query('a.test'))).toMatchObject({ rcode: 'SERVFAIL', answers: [] })
    grant.mockResolvedValueOnce([])
    expect(await answer(query('a.test'))).toMatchObject({ rcode: 'NOERROR', answers: [] })
  })

  it('refuses other names without asking, and says so', async () => {
    const { answer, ask, onRefused } = setUp()
    for (const name of ['evil.test', 'b.test', 'sub.a.test', 'xb.test']) expect(await answer(query(name, 'TXT'))).toMatchObject({ rcode: 'REFUSED' })
    expect(ask).not.toHaveBeenCalled()
    expect(onRefused).toHaveBeenCalledTimes(4)
  })

  it('says so 64 times a minute', async () => {
    let nowMs = 0
    const onRefused = vi.fn()
    const desk = new NameDesk({ ask: async () => Buffer.alloc(0), grant: async () => [], onRefused, now: () => nowMs })
    desk.set(sandbox, { allow: [], deny: [] })
    for (let count = 0; count < 100; count++) await desk.answer(query(`n${count}.test`), sandbox, 'udp')
    expect(onRefused).toHaveBeenCalledTimes(64)
    nowMs = 60_000
    await desk.answer(query('later.test'), sandbox, 'udp')
    expect(onRefused).toHaveBeenLastCalledWith(sandbox, 'later.test')
  })

  it('refuses a name whose labels hold dots', async () => {
    const { desk, ask } = setUp()
    const label = Buffer.from('evil.b')
    const packet = Buffer.concat([
      Buffer.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, label.length]),
      label,
      Buffer.from([4]),
      Buffer.from('test'),
      Buffer.from([0, 0, 1, 0, 1]),
    ])
    expect(readQuestion(packet)).toEqual({ id: 7, code: 5 })
    await desk.answer(packet, sandbox, 'udp')
    expect(ask).not.toHaveBeenCalled()
  })

  it('knows sandboxes apart, and one without rules gets nothing', async () => {
    const { desk, ask } = setUp()
    expect(decode((await desk.answer(query('a.test'), '10.213.0.4', 'udp')) ?? Buffer.alloc(0))).toMatchObject({ rcode: 'REFUSED' })
    desk.setDefault({ deny: [] })
    await desk.answer(query('x.test'), '10.213.0.4', 'udp')
    expect(ask).toHaveBeenCalledOnce()
    desk.set(sandbox, undefined)
    desk.setDefault(undefined)
    expect(decode((await desk.answer(query('a.test'), sandbox, 'udp')) ?? Buffer.alloc(0))).toMatchObject({ rcode: 'REFUSED' })
  })

  it('follows aliases from the name asked for, and takes no other address', async () => {
    const { answer, grant } = setUp([
      { type: 'CNAME', name: 'a.test', ttl: 3, data: 'edge.cdn.test' },
      { type: 'A', name: 'edge.cdn.test', ttl: 90_000, data: '203.0.113.8' },
      { type: 'A', name: 'stray.test', ttl: 60, data: '203.0.113.9' },
    ])
    const found = await answer(query('a.test'))
    expect(grant).toHaveBeenCalledWith(sandbox, 'a.test', ['203.0.113.8'], 7)
    expect(found?.answers?.map((each) => each.type)).toEqual(['CNAME', 'A'])
    expect(JSON.stringify(found)).not.toContain('203.0.113.9')
  })

  it('refuses an alias that is denied, and ends with loops', async () => {
    expect(await setUp([{ type: 'CNAME', name: 'a.test', ttl: 3, data: 'bad.test' }]).answer(query('a.test'))).toMatchObject({ rcode: 'REFUSED' })
    const loop = setUp([
      { type: 'CNAME', name: 'a.test', ttl: 3, data: 'c.test' },
      { type: 'CNAME', name: 'c.test', ttl: 3, data: 'a.test' },
    ])
    expect(await loop.answer(query('a.test'))).toMatchObject({ rcode: 'NOERROR' })
    expect(loop.grant).not.toHaveBeenCalled()
  })

  it('keeps an answer no longer than its rule', async () => {
    const { answer, grant } = setUp([{ type: 'A', name: 'a.test', ttl: 1_000_000, data: '203.0.113.7' }])
    expect((await answer(query('a.test')))?.answers).toMatchObject([{ ttl: 3600 }])
    expect(grant).toHaveBeenCalledWith(sandbox, 'a.test', ['203.0.113.7'], 3602)
  })

  it('answers AAAA with nothing, ANY not at all, and keeps the letters of the question', async () => {
    const { answer, desk, ask } = setUp()
    expect(await answer(query('a.test', 'AAAA'))).toMatchObject({ rcode: 'NOERROR', answers: [] })
    expect(ask).not.toHaveBeenCalled()
    const any = query('a.test')
    any.writeUInt16BE(255, any.length - 4)
    expect((await desk.answer(any, sandbox, 'udp'))?.readUInt16BE(2)).toBe(0x8085)
    expect((await answer(query('A.tEst')))?.questions).toMatchObject([{ name: 'A.tEst' }])
  })

  it('cuts what does not fit, and gives it by TCP', async () => {
    const { answer } = setUp(Array.from({ length: 60 }, (_, place): Answer => ({ type: 'A', name: 'a.test', ttl: 60, data: `203.0.113.${place}` })))
    expect(await answer(query('a.test'))).toMatchObject({ flag_tc: true, answers: [] })
    expect((await answer(query('a.test'), 'tcp'))?.answers).toHaveLength(60)
  })

  it('fails when the resolver does or answers rubbish', async () => {
    const { answer, ask } = setUp()
    ask.mockRejectedValueOnce(new Error('no answer'))
    expect(await answer(query('a.test'))).toMatchObject({ rcode: 'SERVFAIL' })
    ask.mockResolvedValueOnce(randomBytes(30))
    expect(['SERVFAIL', 'REFUSED', 'NOERROR', 'NXDOMAIN', 'FORMERR', 'NOTIMP']).toContain((await answer(query('a.test')))?.rcode)
    ask.mockResolvedValueOnce(encode({ type: 'response', id: 1, flags: 0x180, questions: [{ type: 'TXT', name: 'other.test' }] }))
    expect(await answer(query('a.test', 'TXT'))).toMatchObject({ rcode: 'SERVFAIL' })
  })

  it('has 32 questions of a sandbox open at most', async () => {
    const { desk, ask } = setUp()
    const never = Promise.withResolvers<Buffer>()
    ask.mockReturnValue(never.promise)
    const open = Array.from({ length: 40 }, () => desk.answer(query('a.test'), sandbox, 'udp'))
    expect(ask).toHaveBeenCalledTimes(32)
    desk.set('10.213.0.4', { deny: [] })
    void desk.answer(query('a.test'), '10.213.0.4', 'udp')
    expect(ask).toHaveBeenCalledTimes(33)
    never.reject(new Error('over'))
    expect((await Promise.all(open)).filter((each) => each === undefined)).toHaveLength(8)
  })

  it('stands any bytes, as a question and as an answer', async () => {
    const { desk, ask } = setUp()
    const whole = query('a.test')
    for (let round = 0; round < 3_000; round++) {
      const packet = round % 2 === 0 ? randomBytes(randomInt(0, 300)) : Buffer.from(whole)
      if (round % 2 === 1) for (let flip = 0; flip < 3; flip++) packet[randomInt(packet.length)] = randomInt(256)
      const response = encode({
        type: 'response',
        id: 1,
        flags: 0x180,
        questions: [{ type: 'A', name: 'a.test' }],
        answers: [{ type: 'CNAME', name: 'a.test', ttl: 1, data: 'b.b.test' }],
      })
      for (let flip = 0; flip < 4; flip++) response[randomInt(12, response.length)] = randomInt(256)
      ask.mockResolvedValue(response)
      const found = await desk.answer(packet, sandbox, 'udp')
      if (found !== undefined) expect(found.length).toBeLessThanOrEqual(1232)
    }
  })
})
