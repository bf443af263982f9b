import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run } from '../../run.ts'
import { cpioArchive, makeInitramfs } from './initramfs.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mags-initramfs-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

describe('cpioArchive', () => {
  it('is what cpio(1) reads: names, types, sizes and contents', async () => {
    const archive = cpioArchive([
      { name: 'dev', mode: 0o040755 },
      { name: 'dev/console', mode: 0o020600, device: [5, 1] },
      { name: 'odd', mode: 0o100644, bytes: Buffer.from('abcde') },
      { name: 'init', mode: 0o100755, bytes: Buffer.from('program') },
    ])
    const list = await run('cpio', ['-itv', '--quiet', '--numeric-uid-gid'], { input: archive })
    const lines = list.stdout.trim().split('\n')
    expect(lines.map((line) => line.split(' ')[0])).toEqual(['drwxr-xr-x', 'crw-------', '-rw-r--r--', '-rwxr-xr-x'])
    expect(lines[1]).toMatch(/5, +1 .* dev\/console$/)
    await run('cpio', ['-i', '--quiet', 'odd', 'init'], { input: archive, cwd: directory })
    expect(readFileSync(join(directory, 'odd'), 'utf8')).toBe('abcde')
    expect(readFileSync(join(directory, 'init'), 'utf8')).toBe('program')
  })
})

describe('makeInitramfs', () => {
  it('is found again under the digest of its parts, and another when a part changes', async () => {
    const kernelDir = join(directory, 'kernel')
    mkdirSync(join(kernelDir, 'modules'), { recursive: true })
    writeFileSync(join(kernelDir, 'modules', 'order'), 'b.ko\na.ko\n')
    writeFileSync(join(kernelDir, 'modules', 'a.ko'), 'A')
    writeFileSync(join(kernelDir, 'modules', 'b.ko'), 'B')
    const agentPath = join(directory, 'agent')
    writeFileSync(agentPath, 'agent 1')
    const cacheDir = join(directory, 'cache')
    const first = await makeInitramfs({ agentPath, kernelDir, cacheDir })
    const again = await makeInitramfs({ agentPath, kernelDir, cacheDir })
    expect(again).toEqual(first)
    writeFileSync(agentPath, 'agent 2')
    const other = await makeInitramfs({ agentPath, kernelDir, cacheDir })
    expect(other.digest).not.toBe(first.digest)
    expect(readdirSync(cacheDir)).toHaveLength(2)
    const names = (await run('cpio', ['-it', '--quiet'], { input: readFileSync(first.path) })).stdout.trim().split('\n')
    expect(names).toEqual(['dev', 'dev/console', 'proc', 'sys', 'modules', 'modules/order', 'modules/b.ko', 'modules/a.ko', 'init'])
  })

  it('replaces a damaged file of the cache', async () => {
    const kernelDir = join(directory, 'kernel')
    mkdirSync(join(kernelDir, 'modules'), { recursive: true })
    writeFileSync(join(kernelDir, 'modules', 'order'), '')
    const agentPath = join(directory, 'agent')
    writeFileSync(agentPath, 'agent')
    const { path } = await makeInitramfs({ agentPath, kernelDir, cacheDir: directory })
    const whole = readFileSync(path)
    writeFileSync(path, 'half')
    await makeInitramfs({ agentPath, kernelDir, cacheDir: directory })
    expect(readFileSync(path)).toEqual(whole)
  })
})
