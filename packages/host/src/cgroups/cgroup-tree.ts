import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** Limits of one group; absent ones are left alone. */
export interface CgroupLimits {
  readonly vcpus?: number
  readonly memoryMb?: number
  readonly pids?: number
}

/**
 * The control groups of this host, whichever layout it has: one tree (v2) or one per controller (v1, also "hybrid"). Groups are named by a path from the root of
 * the tree, such as `/mags/3f2a91/0123456789ab`. Sources: the kernel's admin-guide/cgroup-v2 and cgroup-v1.
 */
export interface CgroupTree {
  readonly version: 1 | 2
  /** Makes the group (and its parents) with these limits. */
  create(path: string, limits: CgroupLimits): Promise<void>
  /** Moves a process into the group. */
  add(path: string, pid: number): Promise<void>
  setLimits(path: string, limits: CgroupLimits): Promise<void>
  /** Stops every process of the group where it stands; settles once they stand. Rejects, with all of them going on, when one cannot be stopped within 10 s (it waits in the kernel). */
  freeze(path: string): Promise<void>
  thaw(path: string): Promise<void>
  /** Hands memory of the group back that its files hold and can be read again, as far as that is quick; what processes hold themselves goes only to swap. Stops soon after `abort`. Never rejects. */
  reclaim(path: string, abort: AbortSignal): Promise<void>
  /** How many processes of the group the kernel ended for want of memory. */
  oomKills(path: string): Promise<number>
  /** Processor time of all that ever ran in the group; its unit is the layout's own. Undefined where it is not counted. */
  processorTime(path: string): Promise<bigint | undefined>
  /** Ends all processes of the group and removes it and its children; no error when it is not there. */
  remove(path: string): Promise<void>
  /** Names of the groups directly below. */
  children(path: string): Promise<string[]>
}

const cpuPeriodUs = 100_000
const freezeTimeoutMs = 10_000
const letGoEvery = 8
const letGoMs = 10
/** What one write to memory.reclaim asks for: each occupies a thread of ours until the kernel is done with it. */
const reclaimStepBytes = 8 << 20
/** Memory whose contents still have to be written out would make a reclaim wait for the disk. */
const reclaimDirtyBytes = 4 << 20

/** Finds the layout from the mounts. Throws when there is no usable memory and pids control. */
export async function openCgroupTree(root = '/sys/fs/cgroup'): Promise<CgroupTree> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '))
  const onV2 = mounts.some(([, target, type]) => target === root && type === 'cgroup2')
  if (onV2) return unifiedTree(root)
  const controllers: Record<string, string> = {}
  for (const [, target, type, options] of mounts) {
    if (type !== 'cgroup' || target === undefined) continue
    for (const option of (options ?? '').split(',')) controllers[option] ??= target
  }
  const missing = ['memory', 'cpu', 'pids', 'freezer'].filter((name) => controllers[name] === undefined)
  if (missing.length > 0) throw new Error(`no cgroup controller ${missing.join(', ')} is mounted under ${root}`)
  return splitTree(controllers)
}

const ignoreMissing = (error: unknown) => {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
}

async function setLimit(file: string, value: string) {
  await writeFile(file, value).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`the kernel refused the limit ${value} for ${basename(file)} (${error.code})`, { cause: error })
  })
}

/** A group with processes that are just dying answers EBUSY for a moment. */
async function removeDirectory(path: string) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await rmdir(path)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOENT') return
      if (code === 'EBUSY' && attempt < 200) await delay(Math.min(2 ** attempt, 50))
      else if (code === 'ENOTEMPTY' || (code === 'EBUSY' && attempt === 200)) throw error
      else if (code !== 'EBUSY') throw error
    }
  }
}

async function subdirectories(path: string) {
  const entries = await readdir(path, { withFileTypes: true }).catch((error) => {
    ignoreMissing(error)
    return []
  })
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
}

/** Children first, so that a guest's own groups below go too. */
async function removeTree(path: string) {
  for (const name of await subdirectories(path)) await removeTree(join(path, name))
  await removeDirectory(path)
}

/** Longer and longer looks: as a rule it is a matter of microseconds. */
async function untilFrozen(stands: () => Promise<boolean>, thaw: () => Promise<void>): Promise<void> {
  const deadline = performance.now() + freezeTimeoutMs
  for (let wait = 1; !(await stands()); wait = Math.min(wait * 2, 50)) {
    if (performance.now() > deadline) {
      await thaw()
      throw new Error(`the processes could not be stopped within ${freezeTimeoutMs / 1000} s: one of them waits in the kernel`)
    }
    await delay(wait)
  }
}

/** Work that holds up a thread of ours: there are few of them. */
function inTurn() {
  let last: Promise<unknown> = Promise.resolve()
  return <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work)
    last = result.catch(() => undefined)
    return result
  }
}

function unifiedTree(root: string): CgroupTree {
  const oneAtATime = inTurn()
  const at = (path: string, file = '') => join(root, path, file)
  const tree: CgroupTree = {
    version: 2,
    async create(path, limits) {
      const parts = path.split('/').filter((part) => part !== '')
      for (let depth = 1; depth <= parts.length; depth++) {
        const parent = at(parts.slice(0, depth - 1).join('/'))
        // Controllers must be handed down at every level before the child is made.
        await writeFile(join(parent, 'cgroup.subtree_control'), '+cpu +memory +pids')
        await mkdir(at(parts.slice(0, depth).join('/')), { recursive: true })
      }
      await tree.setLimits(path, limits)
    },
    add: (path, pid) => writeFile(at(path, 'cgroup.procs'), `${pid}`),
    async setLimits(path, { vcpus, memoryMb, pids }) {
      if (memoryMb !== undefined) {
        await setLimit(at(path, 'memory.max'), `${memoryMb * 2 ** 20}`)
        // Memory is all there is: what does not fit must not go on in the host's swap. A kernel that does not count swap has no such file.
        await writeFile(at(path, 'memory.swap.max'), '0').catch(ignoreMissing)
      }
      if (vcpus !== undefined) await setLimit(at(path, 'cpu.max'), `${Math.round(vcpus * cpuPeriodUs)} ${cpuPeriodUs}`)
      if (pids !== undefined) await setLimit(at(path, 'pids.max'), `${pids}`)
    },
    async freeze(path) {
      await writeFile(at(path, 'cgroup.freeze'), '1')
      const stands = async () => (await readFile(at(path, 'cgroup.events'), 'utf8')).includes('frozen 1')
      await untilFrozen(stands, () => tree.thaw(path))
    },
    thaw: (path) => writeFile(at(path, 'cgroup.freeze'), '0'),
    async reclaim(path, abort) {
      const file = at(path, 'memory.reclaim')
      // Before Linux 5.19 there is no such file. EAGAIN: nothing more to be had.
      const step = () =>
        writeFile(file, `${reclaimStepBytes}`, { flag: 'r+' }).then(
          () => true,
          () => false,
        )
      while (!abort.aborted && (await oneAtATime(step)));
    },
    async oomKills(path) {
      const events = await readFile(at(path, 'memory.events'), 'utf8').catch(() => '')
      return Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0)
    },
    async processorTime(path) {
      const stat = await readFile(at(path, 'cpu.stat'), 'utf8').catch(() => '')
      const [, us] = /^usage_usec (\d+)$/m.exec(stat) ?? []
      return us === undefined ? undefined : BigInt(us)
    },
    async remove(path) {
      await writeFile(at(path, 'cgroup.kill'), '1').catch(async (error: NodeJS.ErrnoException) => {
        // Before Linux 5.14 there is no such file, and the kernel lets nobody make one.
        if (error.code === 'EACCES') await killProcesses(at(path))
        else ignoreMissing(error)
      })
      await removeTree(at(path))
    },
    children: (path) => subdirectories(at(path)),
  }
  return tree
}

function splitTree(controllers: Readonly<Record<string, string>>): CgroupTree {
  const oneAtATime = inTurn()
  const roots = [...new Set(Object.values(controllers))]
  const at = (controller: string, path: string, file = '') => join(controllers[controller] ?? '', path, file)
  const limited = ['memory', 'cpu', 'pids', 'freezer', ...(controllers.cpuacct === undefined ? [] : ['cpuacct'])]
  const tree: CgroupTree = {
    version: 1,
    async create(path, limits) {
      await Promise.all(limited.map((controller) => mkdir(at(controller, path), { recursive: true })))
      await tree.setLimits(path, limits)
    },
    async add(path, pid) {
      await Promise.all(limited.map((controller) => writeFile(at(controller, path, 'cgroup.procs'), `${pid}`)))
    },
    async setLimits(path, { vcpus, memoryMb, pids }) {
      if (memoryMb !== undefined) await setLimit(at('memory', path, 'memory.limit_in_bytes'), `${memoryMb * 2 ** 20}`)
      if (vcpus !== undefined) {
        await setLimit(at('cpu', path, 'cpu.cfs_period_us'), `${cpuPeriodUs}`)
        await setLimit(at('cpu', path, 'cpu.cfs_quota_us'), `${Math.round(vcpus * cpuPeriodUs)}`)
      }
      if (pids !== undefined) await setLimit(at('pids', path, 'pids.max'), `${pids}`)
    },
    async freeze(path) {
      const state = at('freezer', path, 'freezer.state')
      let looks = 0
      const stands = async () => {
        // A process that is just being made is missed now and then, and then never stops: asking again helps, letting all go on for a moment helps more.
        if (++looks % letGoEvery === 0) {
          await tree.thaw(path)
          await delay(letGoMs)
        }
        await writeFile(state, 'FROZEN')
        return (await readFile(state, 'utf8')).trim() === 'FROZEN'
      }
      await untilFrozen(stands, () => tree.thaw(path))
    },
    thaw: (path) => writeFile(at('freezer', path, 'freezer.state'), 'THAWED'),
    async reclaim(path, abort) {
      // All in one go here, so only when that is quick: about 0.4 ms for a megabyte of clean file contents.
      const step = async () => {
        if (abort.aborted) return
        const stat = await readFile(at('memory', path, 'memory.stat'), 'utf8')
        const bytes = (name: string) => Number(new RegExp(`^total_${name} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0)
        if (bytes('dirty') + bytes('writeback') > reclaimDirtyBytes) return
        await writeFile(at('memory', path, 'memory.force_empty'), '1', { flag: 'r+' })
      }
      await oneAtATime(step).catch(() => undefined)
    },
    async oomKills(path) {
      const control = await readFile(at('memory', path, 'memory.oom_control'), 'utf8').catch(() => '')
      return Number(/^oom_kill (\d+)$/m.exec(control)?.[1] ?? 0)
    },
    async processorTime(path) {
      if (controllers.cpuacct === undefined) return undefined
      const ns = (await readFile(at('cpuacct', path, 'cpuacct.usage'), 'utf8').catch(() => '')).trim()
      return ns === '' ? undefined : BigInt(ns)
    },
    async remove(path) {
      // As a rule the processes are dead and there is nothing below.
      const removed = await Promise.allSettled(roots.map((root) => rmdir(join(root, path)).catch(ignoreMissing)))
      if (removed.every(({ status }) => status === 'fulfilled')) return
      await killProcesses(at('freezer', path))
      await Promise.all(roots.map((root) => removeTree(join(root, path))))
    },
    children: (path) => subdirectories(at('freezer', path)),
  }
  return tree
}

/** For want of `cgroup.kill`: processes are signalled, in all groups below, until there are none. */
async function killProcesses(dir: string) {
  for (let round = 0; round < 100; round++) {
    const pids = await processesBelow(dir)
    if (pids.length === 0) return
    for (const pid of pids) signal(pid)
    await delay(Math.min(2 ** round, 20))
  }
}

/** Processes of a group and the groups below; a frozen group of v1 is thawed, since what stands still cannot die. */
async function processesBelow(dir: string): Promise<number[]> {
  await writeFile(join(dir, 'freezer.state'), 'THAWED').catch(() => undefined)
  const own = await readFile(join(dir, 'cgroup.procs'), 'utf8').catch(() => '')
  const below = await Promise.all((await subdirectories(dir)).map((name) => processesBelow(join(dir, name))))
  return [
    ...own
      .split('\n')
      .filter((line) => line !== '')
      .map(Number),
    ...below.flat(),
  ]
}

function signal(pid: number) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // Gone in between.
  }
}
