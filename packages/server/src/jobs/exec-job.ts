import { type ExecAnswer, type ExecJobRequest, type ExecRequest, type LogRow, MagsError, type ScriptExit } from '@mags/protocol'
import { type EventStream, formatEvent } from '../http/event-stream.ts'
import { LineHold } from '../logs/line-hold.ts'
import { presentRow, rowAt } from '../logs/split-rows.ts'
import type { Job } from './job.ts'
import { timeoutExitCode } from './job-outcome.ts'
import type { JobRun } from './job-run.ts'

const outputLimitBytes = 1024 * 1024

/** The run of a job in which a command can be run; rejects with MagsError('job_not_running') that says why not. */
export function runForExec(job: Job, run: JobRun | undefined): JobRun {
  if (job.status === 'pending') throw new MagsError('job_not_running', `job ${job.name} is still waiting for a sandbox; try again once its status is running`)
  if ((job.status !== 'running' && job.status !== 'sleeping') || run === undefined) {
    throw new MagsError('job_not_running', `job ${job.name} is not running (status: ${job.status}); start one with persistent to run commands in it`)
  }
  return run
}

/** Runs a command to its end. Output over 1 MiB of a stream is read and dropped. */
export async function execJob(run: JobRun, request: ExecJobRequest, abort: AbortSignal): Promise<ExecAnswer> {
  const startedAt = performance.now()
  const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
  const sizes = { stdout: 0, stderr: 0 }
  let truncated = false
  const collect = (source: 'stdout' | 'stderr', bytes: Uint8Array) => {
    const room = outputLimitBytes - sizes[source]
    if (bytes.length > room) truncated = true
    if (room <= 0) return
    // A copy: the bytes belong to the host once this returns.
    chunks[source].push(Buffer.from(bytes.subarray(0, room)))
    sizes[source] += Math.min(bytes.length, room)
  }
  const exit = await run.uses.exec(toExecRequest(request), collect, abort)
  return {
    exit_code: exitCodeOf(exit),
    stdout: Buffer.concat(chunks.stdout).toString('utf8'),
    stderr: Buffer.concat(chunks.stderr).toString('utf8'),
    duration_ms: durationSince(startedAt),
    truncated,
  }
}

/** The same with the output as events while it comes; a slow reader slows the command down. */
export async function streamExec(run: JobRun, request: ExecJobRequest, stream: EventStream, clock: () => number): Promise<void> {
  const startedAt = performance.now()
  let sent: Promise<void> = Promise.resolve()
  const holds = {
    stdout: new LineHold({ emit: (block) => send('stdout', block) }),
    stderr: new LineHold({ emit: (block) => send('stderr', block) }),
  }
  function send(source: LogRow['source'], block: Buffer): void {
    const record = { source, flags: 0, timeMs: clock(), streamOffset: 0, payload: block }
    let text = ''
    for (let at = 0; at < block.length; ) {
      const range = rowAt(block, at)
      text += formatEvent({ event: 'log', data: presentRow(record, range) })
      at = range.next
    }
    sent = sent.then(() => stream.send(text))
  }
  const onOutput = async (source: 'stdout' | 'stderr', bytes: Uint8Array) => {
    holds[source].push(bytes)
    await sent
  }
  const end = await run.uses
    .exec(toExecRequest(request), onOutput, stream.closed)
    .then((exit) => ({ exit_code: exitCodeOf(exit), duration_ms: durationSince(startedAt) }))
    .catch((error: unknown) => failedEnd(error, startedAt))
  holds.stdout.flush()
  holds.stderr.flush()
  await sent
  await stream.send(formatEvent({ event: 'end', data: end }))
}

function toExecRequest(request: ExecJobRequest): ExecRequest {
  return {
    command: ['/bin/sh', '-c', request.command],
    environment: request.environment,
    timeoutMs: request.timeout_seconds * 1000,
    ...(request.cwd === undefined ? {} : { cwd: request.cwd }),
    ...(request.stdin === undefined ? {} : { stdin: Buffer.from(request.stdin) }),
  }
}

/** The headers are out already, so a failure can only be told in the last event. */
function failedEnd(error: unknown, startedAt: number) {
  const { code, message } = error instanceof MagsError ? error : new MagsError('internal', 'the command could not be run')
  return { exit_code: 1, duration_ms: durationSince(startedAt), error: message, code }
}

const exitCodeOf = (exit: ScriptExit & { timedOut: boolean }) => (exit.timedOut ? timeoutExitCode : exit.exitCode)
const durationSince = (startedAt: number) => Math.round((performance.now() - startedAt) * 1000) / 1000
