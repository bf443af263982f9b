import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readSecretKey } from './secret-key.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mags-secret-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

describe('the key of the server', () => {
  it('is made once, for its user alone', async () => {
    const path = join(directory, 'key')
    const [first, second] = await Promise.all([readSecretKey(path), readSecretKey(path)])
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const sealed = first.seal('secret é', 'owner')
    expect(second.open(sealed, 'owner')).toBe('secret é')
    expect((await readSecretKey(path)).open(sealed, 'owner')).toBe('secret é')
    expect(first.seal('secret é', 'owner')).not.toBe(sealed)
  })

  it('opens nothing that was changed, moved to another owner, or sealed with another key', async () => {
    const key = await readSecretKey(join(directory, 'key'))
    const other = await readSecretKey(join(directory, 'other'))
    const sealed = key.seal('secret', 'owner')
    const bytes = Buffer.from(sealed.slice(3), 'base64')
    bytes[20] = (bytes[20] ?? 0) ^ 1
    for (const attempt of [
      () => key.open(`v1:${bytes.toString('base64')}`, 'owner'),
      () => key.open(sealed, 'another'),
      () => other.open(sealed, 'owner'),
      () => key.open('v1:', 'owner'),
      () => key.open('secret', 'owner'),
    ]) {
      expect(attempt).toThrow('a stored secret cannot be read with the key file of this server')
    }
  })

  it('says which file is no key, and leaves it as it is', async () => {
    const path = join(directory, 'key')
    writeFileSync(path, 'nonsense')
    await expect(readSecretKey(path)).rejects.toThrow(`the key file ${path} cannot be used: it does not hold 64 hex digits`)
    expect(readFileSync(path, 'utf8')).toBe('nonsense')
    await expect(readSecretKey(join(directory, 'none', 'key'))).rejects.toThrow('cannot be used: ENOENT')
  })
})
