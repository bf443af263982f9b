import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import { type ChooseRootModeDeps, chooseRootMode, noWorkspaces } from './root-mode.ts'

describe('how containers get their root', () => {
  let scratchDir: string
  beforeEach(async () => {
    scratchDir = await mkdtemp(join(tmpdir(), 'mags-mode-'))
  })
  afterEach(() => rm(scratchDir, { recursive: true, force: true }))

  const choose = (wish: Partial<ChooseRootModeDeps> & { readonly probe?: string; readonly shift?: string }) => {
    const answer = (refusal: string | undefined) => (refusal === undefined ? Promise.resolve() : Promise.reject(new Error(refusal)))
    const mounter = { probe: () => answer(wish.probe), shift: () => answer(wish.shift), resetUpper: async () => 0 } as unknown as MounterClient
    return chooseRootMode({ mounter, runtime: 'crun', scratchDir, warmRootDir: '/', wish: undefined, ...wish })
  }

  it('swaps where kernel and runtime can', async () => {
    expect(await choose({})).toEqual({ mode: 'swap', detail: 'containers by crun share the kernel of this machine' })
  })

  it('makes a container with its root for another runtime', async () => {
    expect(await choose({ runtime: 'runc' })).toMatchObject({ mode: 'mounted', detail: expect.stringContaining('waits for one') })
    await expect(choose({ runtime: 'runc', wish: 'swap' })).rejects.toThrow(/crun only/)
  })

  it('shifts ids where the kernel cannot map them, and says why', async () => {
    for (const runtime of ['crun', 'runc'] as const) {
      const { mode, detail } = await choose({ runtime, probe: 'mount_setattr idmap' })
      expect(mode).toBe('shifted')
      for (const words of [runtime, release(), 'mount_setattr idmap', 'no workspaces in containers']) expect(detail).toContain(words)
    }
    expect(await readdir(scratchDir)).toEqual([])
  })

  it('gives up with both reasons when nothing works', async () => {
    await expect(choose({ probe: 'no idmap', shift: 'no metacopy' })).rejects.toThrow('no idmap; nor can ids be shifted: no metacopy')
    await expect(choose({ probe: 'no idmap', wish: 'swap' })).rejects.toThrow('no idmap')
    expect(await readdir(scratchDir)).toEqual([])
  })

  it('tells a job with a workspace what helps', () => {
    expect(noWorkspaces()).toMatchObject({ code: 'not_available', message: expect.stringMatching(/isolation "vm", or Linux 5\.19/) })
    expect(noWorkspaces().message).toContain(release())
  })
})
