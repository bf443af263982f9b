import { MagsConnectionError } from '@mags/sdk'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { Cli } from '../cli.ts'
import { Interrupts } from '../terminal/interrupts.ts'
import { Output } from '../terminal/output.ts'
import { reconnect } from './reconnect.ts'
import { startLocalServer } from './start-local-server.ts'

vi.mock('./start-local-server.ts', () => ({ startLocalServer: vi.fn() }))

function setUp(env: Record<string, string>) {
  let stderr = ''
  const stream = {
    on: () => undefined,
    write: (bytes: string | Uint8Array, done: () => void) => {
      stderr += bytes.toString()
      done()
      return true
    },
  }
  const cli: Cli = { env: { HOME: '/nonexistent', ...env }, output: new Output({ stdout: stream, stderr: stream }, {}), interrupts: new Interrupts() }
  return { cli, stderr: () => stderr }
}

const refused = new MagsConnectionError('http://127.0.0.1:1', 'ECONNREFUSED', 'refused')
const cut = new MagsConnectionError('http://127.0.0.1:1', 'ECONNRESET', 'cut')
const never = Number.POSITIVE_INFINITY

describe('reconnect', () => {
  beforeEach(() => void vi.mocked(startLocalServer).mockReset())

  it('says once that the server is lost, and again when it is lost again', async () => {
    const { cli, stderr } = setUp({})
    const onDisconnect = reconnect(cli, { say: 0, start: never })
    for (const failures of [0, 1, 0]) await onDisconnect(cut, failures)
    expect(stderr().match(/trying again/g)).toHaveLength(2)
  })

  it('says and starts nothing at first', async () => {
    const { cli, stderr } = setUp({})
    await reconnect(cli, { say: never, start: never })(refused, 0)
    expect(stderr()).toBe('')
    expect(startLocalServer).not.toHaveBeenCalled()
  })

  it('starts the server of this machine once, and only when nothing listens', async () => {
    const onDisconnect = reconnect(setUp({ MAGS_PORT: '4848' }).cli, { say: 0, start: 0 })
    await onDisconnect(cut, 0)
    expect(startLocalServer).not.toHaveBeenCalled()
    await onDisconnect(refused, 1)
    await onDisconnect(refused, 2)
    expect(startLocalServer).toHaveBeenCalledOnce()
    expect(vi.mocked(startLocalServer).mock.calls[0]?.[1]).toMatchObject({ apiUrl: 'http://127.0.0.1:4848' })
  })

  it('never starts a server whose address the environment names', async () => {
    await reconnect(setUp({ MAGS_API_URL: 'http://127.0.0.1:1' }).cli, { say: 0, start: 0 })(refused, 0)
    expect(startLocalServer).not.toHaveBeenCalled()
  })
})
