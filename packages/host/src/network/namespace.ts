import { rm, statfs, writeFile } from 'node:fs/promises'
import { type RunOptions, run, runAny } from '../run.ts'

/**
 * Network namespaces pinned by a bind mount on a file (namespaces(7)). The mounts are made in the daemon's own mount namespace, so a daemon that dies takes its
 * pins along; a namespace then lives on only through the processes in it.
 */

/** Magic number of nsfs, statfs(2). */
const nsfsType = 0x6e736673

/** Makes a namespace, pins it at `path`, and runs a program in it to its end. */
export async function createNamespace(path: string, command: string, args: readonly string[], options: RunOptions = {}) {
  await writeFile(path, '', { mode: 0o600 })
  try {
    await run('unshare', [`--net=${path}`, command, ...args], options)
  } catch (error) {
    await unpinNamespaces([path])
    throw error
  }
}

/** Pins the namespace that a process is in. */
export async function pinNamespaceOf(pid: number, path: string) {
  await unpinNamespaces([path])
  await writeFile(path, '', { mode: 0o600 })
  await run('mount', ['--bind', `/proc/${pid}/ns/net`, path])
}

/** Lets go of pins and removes their files; nothing happens for those that do not exist. */
export async function unpinNamespaces(paths: readonly string[]) {
  let pinned = await filterPinned(paths)
  // A pin can lie on top of an earlier one.
  while (pinned.length > 0) {
    await run('umount', pinned)
    pinned = await filterPinned(pinned)
  }
  await Promise.all(paths.map((path) => rm(path, { force: true })))
}

async function filterPinned(paths: readonly string[]): Promise<string[]> {
  const states = await Promise.all(paths.map(isPinned))
  return paths.filter((_, place) => states[place])
}

export async function isPinned(path: string): Promise<boolean> {
  const found = await statfs(path).catch(() => undefined)
  return found?.type === nsfsType
}

export function runInNamespace(path: string, command: string, args: readonly string[], options: RunOptions = {}) {
  return run('nsenter', [`--net=${path}`, command, ...args], options)
}

export function runAnyInNamespace(path: string, command: string, args: readonly string[], options: RunOptions = {}) {
  return runAny('nsenter', [`--net=${path}`, command, ...args], options)
}
