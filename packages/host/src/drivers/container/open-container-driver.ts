import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { compileSeccomp } from './compile-seccomp.ts'
import { ContainerDriver, type ContainerDriverDeps } from './container-driver.ts'
import { makeWarmRoot } from './warm-root.ts'

export interface OpenContainerDriverDeps extends Omit<ContainerDriverDeps, 'warmRootDir' | 'seccompBpf' | 'runtime'> {
  readonly systemDir: string
  readonly agentBinary: string
}

/**
 * Finds out whether this kernel can swap a root file system under a running container, and prepares what all containers share. Rejects with the kernel's answer when it cannot.
 */
export async function openContainerDriver(deps: OpenContainerDriverDeps): Promise<ContainerDriver> {
  await Promise.all([mkdir(deps.runDir, { recursive: true, mode: 0o700 }), mkdir(deps.scratchDir, { recursive: true, mode: 0o700 })])
  await deps.mounter.probe(deps.scratchDir)
  const runtime = 'crun'
  const warmRootDir = await makeWarmRoot(deps.systemDir, deps.agentBinary)
  const seccompBpf = await compileSeccomp({ runtime, cacheDir: join(deps.systemDir, 'cache'), workDir: deps.runDir, warmRootDir })
  return new ContainerDriver({ ...deps, runtime, warmRootDir, seccompBpf })
}
