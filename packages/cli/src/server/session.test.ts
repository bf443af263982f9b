import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { Cli } from '../cli.ts'
import { Interrupts } from '../terminal/interrupts.ts'
import { Output } from '../terminal/output.ts'
import { FakeServer } from '../testing/fake-server.ts'
import { newHome } from '../testing/run-cli.ts'
import { openSession } from './session.ts'
import { startLocalServer } from './start-local-server.ts'

vi.mock('./start-local-server.ts', () => ({ startLocalServer: vi.fn() }))

async function setUp(env: Record<string, string> = {}) {
  const home = await newHome()
  await mkdir(join(home.path, '.mags'))
  const server = await new FakeServer({}).listen()
  const { apiUrl } = server
  // Nothing listens there any more.
  await server[Symbol.asyncDispose]()
  const writeConfig = (token: string) =>
    writeFile(join(home.path, '.mags', 'config.json'), JSON.stringify({ api_url: apiUrl, api_token: token }), { mode: 0o600 })
  await writeConfig('of an earlier server')
  const stream = {
    on: () => undefined,
    write: (_bytes: unknown, done: () => void) => {
      done()
      return true
    },
  }
  const cli: Cli = { env: { HOME: home.path, ...env }, output: new Output({ stdout: stream, stderr: stream }, {}), interrupts: new Interrupts() }
  return { cli, apiUrl, writeConfig, [Symbol.asyncDispose]: () => home[Symbol.asyncDispose]() }
}

describe('openSession', () => {
  it('starts the local server when nothing listens, and waits until it has written its token', async () => {
    await using setup = await setUp()
    await using later = new FakeServer({})
    vi.mocked(startLocalServer).mockImplementation(async () => {
      await later.listen(Number(new URL(setup.apiUrl).port))
      later.intercept = (request) => {
        // The first call comes with the old token; only then the new one is written.
        if (request.headers.authorization !== `Bearer ${later.token}`) void setup.writeConfig(later.token)
        return false
      }
    })
    const { first } = await openSession(setup.cli, (mags) => mags.list())
    expect(first.jobs).toEqual([])
    expect(later.seen('GET', /mags-jobs/).length).toBeGreaterThan(1)
  })

  it('never starts a server whose address the environment names', async () => {
    vi.mocked(startLocalServer).mockReset()
    await using setup = await setUp()
    const env = { ...setup.cli.env, MAGS_API_URL: setup.apiUrl, MAGS_API_TOKEN: 't' }
    await expect(openSession({ ...setup.cli, env }, (mags) => mags.list())).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(startLocalServer).not.toHaveBeenCalled()
  })
})
