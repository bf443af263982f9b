import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LayerDisks } from './layer-disks.ts'
import { WorkingCopies } from './working-copies.ts'
import type { WorkingCopy } from './working-copy.ts'

const storage = (digit: string) => digit.repeat(32)
const quiet = { warn: () => undefined }

describe('working copies', () => {
  let dir: string
  let disks: LayerDisks
  let copies: WorkingCopies

  const open = async () => {
    disks = await LayerDisks.open(join(dir, 'layers'), 1)
    copies = await WorkingCopies.open(join(dir, 'workspaces'), disks, quiet)
  }
  const layersOnDisk = async () => (await readdir(join(dir, 'layers'))).filter((name) => name.endsWith('.img')).map((name) => name.slice(0, -4))
  const add = async (digit: string, more: Partial<WorkingCopy> = {}) => {
    const copy: WorkingCopy = {
      storageId: storage(digit),
      layers: more.layers ?? [await disks.create(1)],
      frozen: false,
      writtenBy: 'host',
      version: 1,
      versionUnder: 0,
      open: false,
      halted: false,
      image: { name: 'debian-12', digest: 'sha256:1' },
      diskGb: 1,
      bootId: copies.bootId,
      settled: false,
      ...more,
    }
    await copies.set(copy)
    return copy
  }

  beforeEach(async () => {
    dir = await mkdtemp('/var/tmp/mags-copies-')
    await open()
  })

  afterEach(async () => {
    await disks.close()
    await rm(dir, { recursive: true, force: true })
  })

  it('are found again by the next daemon, with their disks and nothing else', async () => {
    const copy = await add('a')
    await writeFile(join(dir, 'layers', '0123456789abcdef.img'), 'of nobody')
    await writeFile(join(dir, 'layers', '0123456789abcde0.img.part'), 'half a copy')
    await disks.close()
    await open()
    expect(copies.get(storage('a'))).toEqual(copy)
    await disks.close()
    expect(await readdir(join(dir, 'layers'))).toEqual(copy.layers.map((layer) => `${layer}.img`))
  })

  it('are not trusted after the machine was started anew, unless they had been written out', async () => {
    const bootId = '00000000-0000-4000-8000-000000000000'
    await add('a', { bootId })
    const settled = await add('b', { bootId, settled: true })
    await disks.close()
    await open()
    expect(copies.all()).toEqual([settled])
    await disks.close()
    expect(await layersOnDisk()).toEqual(settled.layers)
  })

  it('are not used when a disk is missing, or the record is not theirs', async () => {
    const missing = await add('a')
    await disks.remove(missing.layers[0] ?? '')
    const strange = await add('b')
    await writeFile(join(dir, 'workspaces', `${storage('c')}.json`), JSON.stringify(strange))
    await writeFile(join(dir, 'workspaces', `${storage('d')}.json`), '{')
    await disks.close()
    await open()
    expect(copies.all()).toEqual([strange])
  })

  it('keep a disk until the last copy and the last sandbox let go of it', async () => {
    const base = await add('a')
    const [shared = ''] = base.layers
    const fork = await add('b', { layers: [await disks.create(1), shared] })
    expect(copies.isShared(shared, storage('a'))).toBe(true)
    expect(copies.isShared(fork.layers[0] ?? '', storage('b'))).toBe(false)
    const unpin = copies.pin([shared])
    await copies.delete(storage('a'))
    await copies.delete(storage('b'))
    expect(await disks.exists(shared)).toBe(true)
    expect(await disks.exists(fork.layers[0] ?? '')).toBe(false)
    await unpin()
    await unpin()
    expect(await disks.exists(shared)).toBe(false)
  })

  it('are whole on disk after every change', async () => {
    const copy = await add('a', { settled: true })
    await copies.set({ ...copy, open: true, settled: false })
    expect(JSON.parse(await readFile(join(dir, 'workspaces', `${storage('a')}.json`), 'utf8'))).toMatchObject({ open: true, settled: false })
  })

  it('take no path for an id', async () => {
    await expect(add('a', { storageId: '../../../../tmp/x' })).rejects.toThrow('is no storage id')
    expect(() => disks.file('../x')).toThrow('is no layer id')
  })

  it('of a sandbox that ended count at once, and are noted as soon as that can be', async () => {
    const kept = await add('a', { open: true })
    const lost = await add('b', { open: true })
    // Neither a full disk nor one mounted read-only can be had here; a folder where the draft would be stands for them.
    await mkdir(join(dir, 'workspaces', `${storage('a')}.json.part`))
    await copies.conclude(storage('a'), { ...kept, open: false })
    await copies.conclude(storage('b'), undefined)
    expect(copies.get(storage('a'))?.open).toBe(false)
    expect(copies.get(storage('b'))).toBeUndefined()
    expect(await layersOnDisk()).not.toContain(lost.layers[0])
    const record = async () => JSON.parse(await readFile(join(dir, 'workspaces', `${storage('a')}.json`), 'utf8')).open
    expect(await record()).toBe(true)
    await rm(join(dir, 'workspaces', `${storage('a')}.json.part`), { recursive: true })
    await expect.poll(record, { timeout: 10_000 }).toBe(false)
  })
})
