import { MagsError, type ProgramRequest, type RunningProgram } from '@mags/protocol'
import type { Sandbox } from '../drivers/driver.ts'

/** See `RunningSandbox.start`. */
export function startProgram(
  _sandbox: Sandbox,
  _request: ProgramRequest,
  _onOutput: (source: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | void,
): RunningProgram {
  throw new MagsError('not_available', 'programs with open input')
}
