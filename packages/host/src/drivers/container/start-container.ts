import { readFileSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { MounterClient } from '../../mounter/mounter-client.ts'
import { identifyProcess, type ProcessIdentity } from '../../recover/process-identity.ts'
import { lentAgentPath, type OciConfigInput, ociConfig } from './oci-config.ts'
import type { OciRuntime } from './oci-runtime.ts'

export interface StartContainerDeps {
  readonly runtime: OciRuntime
  /** What is started: the runtime, or a copy of it. */
  readonly runtimeProgram: string
  readonly mounter: MounterClient
  readonly mounterBinary: string
  /** The compiled filter, for crun; runc takes the profile. */
  readonly seccompBpf: string | undefined
}

export interface ContainerStart extends Omit<OciConfigInput, 'args' | 'seccompBpf'> {
  readonly id: string
  /** Its run folder: bundle, socket, state of the runtime. */
  readonly dir: string
  readonly timeoutMs: number
}

/** Starts a container with the agent as its first process, which has the listening socket `agent.sock` as descriptor 3. Rejects with the runtime's last words. */
export async function startContainer(deps: StartContainerDeps, { id, dir, timeoutMs, ...input }: ContainerStart): Promise<ProcessIdentity> {
  const { runtime, runtimeProgram, mounter, mounterBinary, seccompBpf } = deps
  const agent = input.lentAgent === undefined ? '/agent' : lentAgentPath
  writeFileSync(join(dir, 'config.json'), JSON.stringify(ociConfig({ ...input, seccompBpf, args: [agent, 'container'] })))
  const pidFile = join(dir, 'pid')
  const listen = [mounterBinary, 'listen', join(dir, 'agent.sock')]
  // cgroupfs is what runc takes without being asked.
  const options = ['--root', join(dir, 'runtime'), ...(runtime === 'crun' ? ['--cgroup-manager=cgroupfs'] : [])]
  const start = [runtimeProgram, ...options, 'run', '--detach', '--preserve-fds=1', '--pid-file', pidFile, '--bundle', dir, id]
  const code = await mounter.run([...listen, ...start], { logFile: join(dir, 'runtime.log'), timeoutMs })
  if (code !== 0) throw new Error(`${runtime} could not start a container (exit ${code}): ${await lastWords(dir)}`)
  const pid = Number(readFileSync(pidFile, 'utf8'))
  const process = await identifyProcess(pid)
  if (process === undefined) throw new Error(`the sandbox's first process ended at once: ${await lastWords(dir)}`)
  await shieldFromOom(pid)
  return process
}

/** The agent goes last when memory runs out; what it starts goes back to 0. Without CAP_SYS_RESOURCE the kernel refuses, and the agent is one among others. */
async function shieldFromOom(pid: number) {
  await writeFile(`/proc/${pid}/oom_score_adj`, '-999').catch(() => undefined)
}

async function lastWords(dir: string) {
  const text = await readFile(join(dir, 'runtime.log'), 'utf8').catch(() => '')
  return text.trim().slice(-500) || 'it said nothing'
}
