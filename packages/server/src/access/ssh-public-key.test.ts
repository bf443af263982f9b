import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSshKey } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { readSshPublicKey } from './ssh-public-key.ts'

describe('public keys', () => {
  it.each([
    ['ed25519', undefined],
    ['ecdsa', '256'],
    ['ecdsa', '384'],
    ['ecdsa', '521'],
    ['rsa', '2048'],
    ['rsa', '4096'],
  ])('are read as ssh-keygen writes them (%s %s)', (type, bits) => {
    const directory = mkdtempSync(join(tmpdir(), 'mags-key-'))
    try {
      const file = join(directory, 'key')
      execFileSync('ssh-keygen', ['-q', '-t', type, ...(bits === undefined ? [] : ['-b', bits]), '-N', '', '-C', 'me at home', '-f', file])
      const shown = execFileSync('ssh-keygen', ['-l', '-f', file], { encoding: 'utf8' })
      const line = readFileSync(`${file}.pub`, 'utf8')
      expect(readSshPublicKey(line)).toMatchObject({ comment: 'me at home', fingerprint: shown.split(' ')[1], key: line.split(' ').slice(0, 2).join(' ') })
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  it('are refused when they are short, torn or of another type than they say', async () => {
    const [type = '', base64 = ''] = (await generateSshKey('')).publicKey.split(' ')
    const torn = Buffer.from(base64, 'base64').subarray(0, 50).toString('base64')
    const longer = Buffer.concat([Buffer.from(base64, 'base64'), Buffer.alloc(4)]).toString('base64')
    const field = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, bytes.length >> 8, bytes.length & 255]), bytes])
    const small = Buffer.concat([field(Buffer.from('ssh-rsa')), field(Buffer.from([1, 0, 1])), field(Buffer.alloc(129, 1))]).toString('base64')
    for (const line of [`${type} ${torn}`, `${type} ${longer}`, `ssh-rsa ${base64}`, `${type} ${base64}!`, `${type} ${base64.toLowerCase()}`]) {
      expect(() => readSshPublicKey(line)).toThrow(/^public_key: is not a whole /)
    }
    expect(() => readSshPublicKey(`ssh-rsa ${small}`)).toThrow('public_key: must have 2,048 bits at least')
  })
})
