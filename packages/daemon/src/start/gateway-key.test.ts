import { mkdtemp, readdir, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readGatewayKey } from './gateway-key.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mags-key-'))
})
afterEach(() => rm(dir, { recursive: true }))

describe('the gateway’s key', () => {
  it('is made once, for nobody else to read', async () => {
    const keys = await Promise.all(Array.from({ length: 8 }, () => readGatewayKey(dir)))
    for (const key of keys) expect(key).toEqual(keys[0])
    expect(await readdir(dir)).toEqual(['gateway.key'])
    expect((await stat(join(dir, 'gateway.key'))).mode & 0o777).toBe(0o600)
  })

  it('is never used when it is cut short', async () => {
    await readGatewayKey(dir)
    await truncate(join(dir, 'gateway.key'), 5)
    await expect(readGatewayKey(dir)).rejects.toThrow(/is no key of 32 bytes; remove it/)
  })
})
