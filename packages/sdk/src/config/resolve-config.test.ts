import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { resolveConfig } from './resolve-config.ts'

async function homeWith(content: string | undefined, mode = 0o600) {
  const home = await mkdtemp(join(tmpdir(), 'mags-home-'))
  if (content !== undefined) {
    await mkdir(join(home, '.mags'))
    await writeFile(join(home, '.mags', 'config.json'), content, { mode })
  }
  return { home, [Symbol.asyncDispose]: () => rm(home, { recursive: true }) }
}

const file = JSON.stringify({ api_url: 'http://127.0.0.1:9999/', api_token: 'of-the-file' })

describe('resolveConfig', () => {
  it('falls back to the local default', async () => {
    await using home = await homeWith(undefined)
    expect(resolveConfig({ env: { HOME: home.home } })).toMatchObject({ apiUrl: 'http://127.0.0.1:4747', apiToken: undefined, apiUrlSource: 'default' })
  })

  it('reads the file, and lets the environment and options win', async () => {
    await using home = await homeWith(file)
    const HOME = home.home
    expect(resolveConfig({ env: { HOME } })).toMatchObject({ apiUrl: 'http://127.0.0.1:9999', apiToken: 'of-the-file', apiUrlSource: 'file' })
    expect(resolveConfig({ env: { HOME, MAGS_TOKEN: 'second' } }).apiToken).toBe('second')
    expect(resolveConfig({ env: { HOME, MAGS_TOKEN: 'second', MAGS_API_TOKEN: 'first' } }).apiToken).toBe('first')
    expect(resolveConfig({ env: { HOME, MAGS_API_TOKEN: 'first' }, apiToken: 'option' }).apiToken).toBe('option')
    expect(resolveConfig({ env: { HOME }, apiToken: null }).apiToken).toBe(undefined)
  })

  it("does not send the file's token to another address", async () => {
    await using home = await homeWith(file)
    expect(resolveConfig({ env: { HOME: home.home, MAGS_API_URL: 'https://mags.example.org/api/v1' } })).toMatchObject({
      apiUrl: 'https://mags.example.org',
      apiToken: undefined,
      apiUrlSource: 'environment',
    })
    expect(resolveConfig({ env: { HOME: home.home, MAGS_API_URL: 'http://localhost:9999' } }).apiToken).toBe('of-the-file')
  })

  it('finds the server of this machine by MAGS_PORT', async () => {
    await using home = await homeWith(file)
    const HOME = home.home
    expect(resolveConfig({ env: { HOME, MAGS_PORT: '4848' } })).toMatchObject({ apiUrl: 'http://127.0.0.1:4848', apiToken: undefined, apiUrlSource: 'port' })
    expect(resolveConfig({ env: { HOME, MAGS_PORT: '9999' } }).apiToken).toBe('of-the-file')
    expect(resolveConfig({ env: { HOME, MAGS_PORT: '80' } }).apiUrl).toBe('http://127.0.0.1')
    for (const MAGS_PORT of ['', '0']) expect(resolveConfig({ env: { HOME, MAGS_PORT } }).apiUrlSource).toBe('file')
    expect(resolveConfig({ env: { HOME, MAGS_PORT: '4848', MAGS_API_URL: 'http://localhost:1' } }).apiUrlSource).toBe('environment')
    for (const MAGS_PORT of ['x', '-1', '65536']) expect(() => resolveConfig({ env: { HOME, MAGS_PORT } })).toThrow(/MAGS_PORT must be a port number/)
  })

  it('does not use a file that others can read, or that is broken, and says so', async () => {
    await using open = await homeWith(file, 0o644)
    expect(resolveConfig({ env: { HOME: open.home } })).toMatchObject({ apiToken: undefined, apiUrlSource: 'default' })
    expect(resolveConfig({ env: { HOME: open.home } }).warning).toContain('chmod 600')
    await using broken = await homeWith('{')
    expect(resolveConfig({ env: { HOME: broken.home } }).warning).toContain('is not used')
  })

  it('refuses what is not an http address', () => {
    expect(() => resolveConfig({ env: { MAGS_API_URL: 'ftp://x', MAGS_API_TOKEN: 't' } })).toThrow(/MAGS_API_URL must be an http or https address/)
  })
})
