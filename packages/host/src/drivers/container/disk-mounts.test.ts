import { mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type MounterClient, MounterError } from '../../mounter/mounter-client.ts'
import { DiskMounts, type DiskMountsDeps } from './disk-mounts.ts'

/** What the mounter was asked for, in order; `refuse` makes the next call of a kind fail. */
function recordingMounter() {
  const calls: string[] = []
  const refusals = new Map<string, MounterError>()
  const call = async (what: 'mount' | 'unmount', words: string) => {
    calls.push(words)
    const refusal = refusals.get(what)
    refusals.delete(what)
    if (refusal !== undefined) throw refusal
  }
  const mounter = {
    mountImage: (file: string, _dir: string, { readOnly = false } = {}) => call('mount', `mount ${file.split('/').pop()} ${readOnly ? 'ro' : 'rw'}`),
    unmount: () => call('unmount', 'unmount'),
  } as unknown as MounterClient
  const refuse = (what: 'mount' | 'unmount', name: keyof typeof constants.errno) =>
    refusals.set(what, new MounterError(what, { errno: constants.errno[name], message: `${what}: ${name}` }))
  return { mounter, calls, refuse }
}

describe('disk mounts', () => {
  let dir: string
  let recording: ReturnType<typeof recordingMounter>

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mags-disks-'))
    recording = recordingMounter()
  })
  afterEach(() => rm(dir, { recursive: true, force: true }))

  const open = (options: Partial<DiskMountsDeps> = {}) =>
    new DiskMounts({ mounter: recording.mounter, dir: join(dir, 'mounted'), logger: pino({ level: 'silent' }), ...options })
  const disk = async (name: string) => {
    const file = join(dir, name)
    await writeFile(file, name)
    return file
  }

  it('mounts an upper disk for one at a time and unmounts it with its release', async () => {
    const disks = open()
    const file = await disk('a')
    const asked = await Promise.allSettled([disks.hold(file, 'upper'), disks.hold(file, 'upper')])
    expect(asked.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const [hold] = asked.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    await expect(disks.hold(file, 'upper')).rejects.toThrow(/is the upper layer of a sandbox; it cannot be the upper layer of another/)
    await expect(disks.hold(file, 'lower')).rejects.toThrow(/it cannot be the lower layer/)
    await Promise.all([hold?.release(), hold?.release()])
    expect(recording.calls).toEqual(['mount a rw', 'unmount'])
    expect(await readdir(join(dir, 'mounted'))).toEqual([])
  })

  it('shares a lower disk, keeps it mounted when idle, and mounts it anew to be written', async () => {
    const disks = open()
    const file = await disk('a')
    const [one, two] = await Promise.all([disks.hold(file, 'lower'), disks.hold(file, 'lower')])
    expect(two.dir).toBe(one.dir)
    await one.release()
    await expect(disks.hold(file, 'upper')).rejects.toThrow(/is the lower layer/)
    await two.release()
    await (await disks.hold(file, 'lower')).release()
    expect(recording.calls).toEqual(['mount a ro'])
    await (await disks.hold(file, 'upper')).release()
    expect(recording.calls).toEqual(['mount a ro', 'unmount', 'mount a rw', 'unmount'])
  })

  it('keeps only so many idle, those used last', async () => {
    const disks = open({ keepIdle: 1 })
    const [a, b] = [await disk('a'), await disk('b')]
    await (await disks.hold(a, 'lower')).release()
    await (await disks.hold(b, 'lower')).release()
    await (await disks.hold(b, 'lower')).release()
    await disks.close()
    expect(recording.calls).toEqual(['mount a ro', 'mount b ro', 'unmount', 'unmount'])
    await disks.close()
    expect(recording.calls).toHaveLength(4)
  })

  it('knows a disk by its inode: another file of that name is another disk', async () => {
    const disks = open()
    const file = await disk('a')
    const first = await disks.hold(file, 'lower')
    await rename(file, join(dir, 'b'))
    await expect(disks.hold(join(dir, 'b'), 'upper')).rejects.toThrow(/is the lower layer/)
    await disk('a')
    const second = await disks.hold(file, 'upper')
    expect(second.dir).not.toBe(first.dir)
    await Promise.all([first.release(), second.release(), disks.close()])
  })

  it('says which disk cannot be had, and can be asked again', async () => {
    const disks = open()
    await expect(disks.hold(join(dir, 'none'), 'upper')).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining('ENOENT') })
    const file = await disk('a')
    recording.refuse('mount', 'EINVAL')
    await expect(disks.hold(file, 'upper')).rejects.toMatchObject({ code: 'sandbox_failed', message: expect.stringContaining(file) })
    await (await disks.hold(file, 'upper')).release()
    expect(recording.calls).toEqual(['mount a rw', 'mount a rw', 'unmount'])
  })

  it('waits for whoever still has it open', async () => {
    const disks = open()
    const hold = await disks.hold(await disk('a'), 'upper')
    recording.refuse('unmount', 'EBUSY')
    await hold.release()
    expect(recording.calls).toEqual(['mount a rw', 'unmount', 'unmount'])
  })
})
