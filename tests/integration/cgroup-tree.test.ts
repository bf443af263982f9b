import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type CgroupTree, openCgroupTree } from '../../packages/host/src/cgroups/cgroup-tree.ts'
import { canTest, notRoot } from '../kit/require.ts'

const timeoutMs = 30_000 * Number(process.env.MAGS_TIME_SCALE ?? 1)

/** Where this machine shows a group's file, by its name on either layout; undefined when it has no such file. */
const places = {
  memory: { 1: 'memory/{}/memory.limit_in_bytes', 2: '{}/memory.max' },
  usage: { 1: 'memory/{}/memory.usage_in_bytes', 2: '{}/memory.current' },
  pids: { 1: 'pids/{}/pids.max', 2: '{}/pids.max' },
  processes: { 1: 'freezer/{}/cgroup.procs', 2: '{}/cgroup.procs' },
  folder: { 1: 'freezer/{}', 2: '{}' },
} as const

describe.skipIf(!canTest('MAGS_REQUIRE_CONTAINER', notRoot))('control groups of this machine', { timeout: timeoutMs }, () => {
  let tree: CgroupTree
  let parent: string
  const children: ChildProcess[] = []

  const file = (name: keyof typeof places, path: string) => join('/sys/fs/cgroup', places[name][tree.version].replace('{}', path))
  const read = async (name: keyof typeof places, path: string) => (await readFile(file(name, path), 'utf8')).trim()

  /** A shell in the group that runs what it is told. */
  const shellIn = async (path: string) => {
    const child = spawn('sh', ['-s'], { stdio: ['pipe', 'pipe', 'ignore'] })
    children.push(child)
    await once(child, 'spawn')
    await tree.add(path, child.pid ?? 0)
    const exit = once(child, 'exit').then(([code, signal]) => ({ code: code as number | null, signal: signal as string | null }))
    return {
      exit,
      tell: (words: string) => child.stdin.write(`${words}\n`),
      /** Everything it wrote until its end. */
      ended: async () => {
        child.stdin.end()
        const [pieces] = await Promise.all([child.stdout.toArray(), exit])
        return Buffer.concat(pieces).toString()
      },
      output: child.stdout,
    }
  }

  beforeEach(async () => {
    tree = await openCgroupTree()
    parent = `/mags/test-${crypto.randomUUID().slice(0, 8)}`
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    await tree.remove(parent)
  })

  it('tells whether anything ran', async () => {
    const path = `${parent}/still`
    await tree.create(path, {})
    const shell = await shellIn(path)
    shell.tell('echo ready')
    await once(shell.output, 'data')
    await tree.freeze(path)
    const stood = await tree.processorTime(path)
    if (stood === undefined) throw new Error('processor time is not counted here')
    expect(await tree.processorTime(path)).toBe(stood)
    await tree.thaw(path)
    shell.tell('n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; echo done')
    await once(shell.output, 'data')
    expect(await tree.processorTime(path)).toBeGreaterThan(stood)
    await shell.ended()
    expect(await tree.processorTime(`${parent}/none`)).toBeUndefined()
  })

  it('stops also those who start others all the time', async () => {
    const path = `${parent}/forking`
    await tree.create(path, {})
    const shell = await shellIn(path)
    shell.tell('echo ready; while :; do /bin/true; /bin/true & wait; done')
    await once(shell.output, 'data')
    for (let round = 0; round < 100; round++) {
      await tree.freeze(path)
      // The unified tree counts a processor's last moments a little later.
      const stands = async () => {
        const before = await tree.processorTime(path)
        await delay(20)
        return (await tree.processorTime(path)) === before
      }
      await expect.poll(stands, { timeout: 20_000 }).toBe(true)
      await tree.thaw(path)
    }
  })

  it('hands back what files hold, and never fails at it', async () => {
    const path = `${parent}/files`
    await tree.create(path, { memoryMb: 64 })
    const folder = await mkdtemp('/var/tmp/mags-cgroup-')
    const shell = await shellIn(path)
    try {
      shell.tell(`head -c 20000000 /dev/zero >${folder}/file; sync ${folder}/file; echo written`)
      await once(shell.output, 'data')
      await tree.freeze(path)
      const before = Number(await read('usage', path))
      await tree.reclaim(path, AbortSignal.abort())
      expect(Number(await read('usage', path))).toBeGreaterThan(before - (1 << 20))
      await tree.reclaim(path, new AbortController().signal)
      expect(Number(await read('usage', path))).toBeLessThan(before - 15_000_000)
      await tree.thaw(path)
      await tree.reclaim(`${parent}/none`, new AbortController().signal)
    } finally {
      await rm(folder, { recursive: true })
    }
    await shell.ended()
  })

  it('makes a group, its parents and its limits, and changes them', async () => {
    const path = `${parent}/one/two`
    await tree.create(path, { memoryMb: 64, pids: 10, vcpus: 0.5 })
    expect([await read('memory', path), await read('pids', path)]).toEqual([`${64 << 20}`, '10'])
    await tree.setLimits(path, { memoryMb: 128 })
    expect([await read('memory', path), await read('pids', path)]).toEqual([`${128 << 20}`, '10'])
    expect(await tree.children(parent)).toEqual(['one'])
    // A second one beside it, and the same once more.
    await tree.create(`${parent}/other`, {})
    await tree.create(path, { pids: 11 })
    expect((await tree.children(parent)).sort()).toEqual(['one', 'other'])
    expect(await read('pids', path)).toBe('11')
  })

  it('says which limit the kernel refused', async () => {
    await expect(tree.create(parent, { vcpus: 0 })).rejects.toThrow('the kernel refused the limit 0')
  })

  it('refuses processes beyond the limit', async () => {
    await tree.create(parent, { pids: 3 })
    const shell = await shellIn(parent)
    shell.tell('sleep 1000 >/dev/null & sleep 1000 >/dev/null & sleep 1000 >/dev/null & echo all; exit')
    // Some shells give up at once, others go on without it.
    expect(await shell.ended()).toBe('')
  })

  it('ends what wants too much memory, and counts', async () => {
    await tree.create(parent, { memoryMb: 32 })
    expect(await tree.oomKills(parent)).toBe(0)
    const shell = await shellIn(parent)
    // tail keeps all of a line that never ends. Which others the kernel ends as well is its affair.
    shell.tell('head -c 300000000 /dev/zero | tail -n 1 | wc -c')
    expect(await shell.ended()).not.toContain('300000000')
    expect(await tree.oomKills(parent)).toBeGreaterThan(0)
    expect(await tree.oomKills(`${parent}/none`)).toBe(0)
  })

  it('keeps what is in a group out of swap', async (context) => {
    await tree.create(parent, { memoryMb: 32 })
    const swap = join('/sys/fs/cgroup', parent, 'memory.swap.max')
    if (tree.version !== 2 || !existsSync(swap)) context.skip('this machine does not limit swap by group')
    expect((await readFile(swap, 'utf8')).trim()).toBe('0')
  })

  it('freezes and thaws', async () => {
    await tree.create(parent, {})
    const shell = await shellIn(parent)
    await tree.freeze(parent)
    shell.tell('echo alive')
    // Its state as the kernel shows it is not the same for both layouts; that it does not answer is.
    expect(shell.output.read()).toBeNull()
    const other = await shellIn('/')
    other.tell('echo a; exit')
    expect(await other.ended()).toBe('a\n')
    expect(shell.output.read()).toBeNull()
    await tree.thaw(parent)
    expect(await shell.ended()).toBe('alive\n')
  })

  it('freezes an empty group', async () => {
    await tree.create(parent, {})
    await tree.freeze(parent)
    await tree.thaw(parent)
  })

  it('removes a group with all that is in it: processes, stopped ones too, and groups below', async () => {
    const below = `${parent}/made/inside`
    await tree.create(below, { pids: 20 })
    const shells = await Promise.all([shellIn(below), shellIn(below)])
    // Made by somebody else, without our controllers.
    await mkdir(file('folder', `${below}/deeper`), { recursive: true })
    await tree.freeze(below)
    await tree.remove(parent)
    const exits = await Promise.all(shells.map((shell) => shell.exit))
    expect(exits.map(({ signal }) => signal)).toEqual(['SIGKILL', 'SIGKILL'])
    expect(existsSync(file('folder', parent))).toBe(false)
    await tree.remove(parent)
    expect(await tree.children(parent)).toEqual([])
  })
})
