import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { compileSeccomp } from './compile-seccomp.ts'
import { ContainerDriver, type ContainerDriverDeps } from './container-driver.ts'
import { checkOciRuntime } from './oci-runtime.ts'
import { chooseRootMode, type RootMode } from './root-mode.ts'
import { sealProgram } from './seal-program.ts'
import { makeWarmRoot } from './warm-root.ts'

export interface OpenContainerDriverDeps
  extends Omit<ContainerDriverDeps, 'runtimeProgram' | 'warmRootDir' | 'rootsDir' | 'seccompBpf' | 'runtime' | 'rootMode' | 'detail'> {
  readonly systemDir: string
  readonly agentBinary: string
  /** Default crun; anything but crun and runc is refused with words. */
  readonly ociRuntime?: string
  /** For tests; otherwise the best this kernel and runtime can do. */
  readonly rootMode?: RootMode
}

/**
 * Finds out how containers get their root file system on this machine, and prepares what all of them share. Rejects with the kernel's answer when there is no way, and with words for who chose the runtime
 * when it cannot be used.
 */
export async function openContainerDriver(deps: OpenContainerDriverDeps): Promise<ContainerDriver> {
  await Promise.all([mkdir(deps.runDir, { recursive: true, mode: 0o700 }), mkdir(deps.scratchDir, { recursive: true, mode: 0o700 })])
  const { runtime } = await checkOciRuntime(deps.ociRuntime ?? 'crun')
  const warmRootDir = await makeWarmRoot(deps.systemDir, deps.agentBinary)
  const { mode: rootMode, detail } = await chooseRootMode({ ...deps, runtime, warmRootDir, wish: deps.rootMode })
  const seccompBpf =
    runtime === 'crun' ? await compileSeccomp({ runtime, cacheDir: join(deps.systemDir, 'cache'), workDir: deps.runDir, warmRootDir }) : undefined
  // A name of this daemon's own below a folder all share.
  const rootsDir = join(deps.systemDir, 'roots', createHash('sha256').update(deps.runDir).digest('hex').slice(0, 12))
  const runtimeProgram = runtime === 'crun' ? await sealProgram(deps.mounter, runtime) : runtime
  return new ContainerDriver({ ...deps, runtime, runtimeProgram, rootMode, detail, warmRootDir, rootsDir, seccompBpf })
}
