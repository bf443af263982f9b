import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { runProgram } from './run-program.ts'
import { changeTree, makeTree } from './tree-script.ts'

export interface ResticTimes {
  readonly firstMs: number
  readonly changedMs: number
  readonly unchangedMs: number
  readonly restoreMs: number
}

/** The same tree by restic: the whole program each time, as a script would call it. `repository` is a folder or `s3:…`. */
export async function measureRestic(repository: string | undefined, environment: Record<string, string> = {}): Promise<ResticTimes> {
  const dir = await mkdtemp('/var/tmp/mags-restic-')
  try {
    const tree = join(dir, 'tree')
    const env = { RESTIC_PASSWORD: 'bench', RESTIC_REPOSITORY: repository ?? join(dir, 'repository'), RESTIC_CACHE_DIR: join(dir, 'cache'), ...environment }
    const restic = (...args: string[]) => runProgram('restic', ['--quiet', ...args], env)
    await runProgram('sh', ['-c', makeTree(tree)])
    await restic('init')
    const firstMs = await restic('backup', tree)
    await runProgram('sh', ['-c', changeTree(tree, 2)])
    const changedMs = await restic('backup', tree)
    const unchangedMs = await restic('backup', tree)
    await rm(env.RESTIC_CACHE_DIR, { recursive: true })
    const restoreMs = await restic('restore', 'latest', '--target', join(dir, 'restored'))
    return { firstMs, changedMs, unchangedMs, restoreMs }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
