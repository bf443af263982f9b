import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run } from '../../run.ts'
import type { QmpConnection } from './qmp.ts'
import { DiskSlot, makeWorkspaceDisk } from './workspace-disk.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mags-disk-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

describe('makeWorkspaceDisk', () => {
  it('is sparse, formatted, of the size asked for, with a UUID of its own', async () => {
    const [one, two] = await Promise.all([
      makeWorkspaceDisk(join(directory, '1'), 2, process.getuid?.() ?? 0),
      makeWorkspaceDisk(join(directory, '2'), 2, process.getuid?.() ?? 0),
    ])
    expect(one.fileSystemUuid).not.toBe(two.fileSystemUuid)
    const stat = statSync(one.file)
    expect(stat.size).toBe(2 * 2 ** 30)
    expect(stat.mode & 0o777).toBe(0o600)
    expect(stat.blocks * 512).toBeLessThan(8 * 2 ** 20)
    const text = (await run('dumpe2fs', [one.file])).stdout
    expect(text).toContain(`Filesystem UUID:          ${one.fileSystemUuid}`)
    expect(text).not.toContain('has_journal')
    // Otherwise the guest's kernel would write all of them out in the background.
    expect(text.match(/^Group \d+:.*$/gm)?.every((line) => line.includes('ITABLE_ZEROED'))).toBe(true)
  })
})

describe('DiskSlot', () => {
  it('swaps images and resizes only when the size changes', async () => {
    const calls: unknown[] = []
    const qmp = { execute: async (command: string, args: unknown) => void calls.push([command, args]) } as unknown as QmpConnection
    const gib = 2 ** 30
    const slot = new DiskSlot(qmp, 10 * gib)
    await slot.swapIn({ file: '/vms/a/disk.raw', sizeBytes: 10 * gib, fileSystemUuid: '' })
    expect(calls.splice(0)).toEqual([
      ['blockdev-add', { driver: 'file', 'node-name': 'disk-0', filename: '/disk.raw', discard: 'unmap' }],
      ['blockdev-reopen', { options: [{ driver: 'raw', 'node-name': 'workspace', file: 'disk-0', discard: 'unmap' }] }],
    ])
    await slot.swapIn({ file: '/vms/a/disk-2.raw', sizeBytes: 2 * gib, fileSystemUuid: '' })
    expect(calls.splice(0).slice(2)).toEqual([
      ['block_resize', { 'node-name': 'workspace', size: 2 * gib }],
      ['blockdev-del', { 'node-name': 'disk-0' }],
    ])
    await slot.swapOut()
    await slot.swapOut()
    expect(calls).toEqual([
      ['blockdev-reopen', { options: [{ driver: 'raw', 'node-name': 'workspace', file: 'placeholder', discard: 'unmap' }] }],
      ['blockdev-del', { 'node-name': 'disk-1' }],
    ])
  })
})
