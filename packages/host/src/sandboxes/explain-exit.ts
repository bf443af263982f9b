import { constants } from 'node:os'
import type { ScriptExit } from '@mags/protocol'
import type { AgentExit } from '../agent/connection.ts'
import type { Sandbox } from '../drivers/driver.ts'

const signalBase = 128

/** What is to be known of the sandbox of a program. */
export type ProgramSandbox = Pick<Sandbox, 'agent' | 'shape' | 'died' | 'ranOutOfMemory'> & {
  /** What its image was made with. */
  readonly environment?: Readonly<Record<string, string>> | undefined
}

/** How a program of a sandbox ended, as the server is told; `program` names it when it did not start. Waits for the sandbox's death when the agent cannot say. Never rejects. */
export async function explainExit(sandbox: ProgramSandbox, program: string, exit: Promise<AgentExit>): Promise<ScriptExit> {
  try {
    return await describeExit(sandbox, program, await exit)
  } catch {
    const { reason } = await sandbox.died
    return { kind: 'sandbox-lost', exitCode: exitCodeOfSignal(constants.signals.SIGKILL), reason: `the sandbox ended: ${reason}` }
  }
}

/** As a shell gives it. */
export function exitCodeOfSignal(signal: number): number {
  return signalBase + signal
}

async function describeExit(sandbox: ProgramSandbox, program: string, exit: AgentExit): Promise<ScriptExit> {
  const usage = { userCpuMs: exit.userCpuMs, systemCpuMs: exit.systemCpuMs, maxRssKb: exit.maxRssKb }
  if (exit.kind === 'not-started') return { kind: 'not-started', exitCode: 127, reason: `${program} did not start: ${exit.message}`, ...usage }
  if (exit.kind === 'rebooted' || exit.kind === 'powered-off') return { kind: 'exited', exitCode: 0, halted: exit.kind, ...usage }
  const exitCode = exit.kind === 'exited' ? exit.code : exitCodeOfSignal(exit.code)
  const outOfMemory = exitCode !== 0 && (await sandbox.ranOutOfMemory().catch(() => false))
  const reason = outOfMemory ? { reason: `a process was killed because memory ran out (limit ${sandbox.shape.memoryMb} MB)` } : {}
  return { kind: exit.kind, exitCode, ...reason, ...usage }
}
