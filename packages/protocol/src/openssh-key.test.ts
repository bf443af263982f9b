import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateSshKey } from './openssh-key.ts'

const execute = promisify(execFile)

describe('generateSshKey', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mags-key-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  // Every length of the comment pads differently.
  it.each(['', 'a', 'ab', 'abc', 'abcd', 'abcde', 'abcdef', 'mags webapp', 'ünïcode'])(
    'makes a pair that OpenSSH reads and signs with: %j',
    async (comment) => {
      const key = await generateSshKey(comment)
      const file = join(folder, `key-${comment.length}`)
      await writeFile(file, key.privateKey, { mode: 0o600 })
      const { stdout } = await execute('ssh-keygen', ['-y', '-f', file])
      expect(stdout.trimEnd()).toBe(key.publicKey)
      await writeFile(join(folder, 'text'), 'hello')
      await rm(join(folder, 'text.sig'), { force: true })
      await execute('ssh-keygen', ['-Y', 'sign', '-f', file, '-n', 'test', join(folder, 'text')])
      await writeFile(join(folder, 'signers'), `me ${key.publicKey}\n`)
      const verify = execute('ssh-keygen', ['-Y', 'verify', '-f', join(folder, 'signers'), '-I', 'me', '-n', 'test', '-s', join(folder, 'text.sig')])
      verify.child.stdin?.end('hello')
      expect((await verify).stdout).toContain('Good "test" signature')
    },
  )

  it('makes another one each time', async () => {
    expect((await generateSshKey('x')).publicKey).not.toBe((await generateSshKey('x')).publicKey)
  })

  it('refuses a comment that would be more than one line', async () => {
    await expect(generateSshKey('a\nssh-ed25519 AAAA')).rejects.toThrow(RangeError)
  })
})
