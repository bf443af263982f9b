import type { OutputSink } from '@mags/protocol'
import type { JobLog } from '../../logs/job-log.ts'
import { LineHold } from '../../logs/line-hold.ts'

/** A server writes a line for every request; the log belongs to the script. */
const limitBytes = 1024 * 1024
/** A system row record has at most 8 KiB. */
const blockCharacters = 8000

/** Where the output of a startup command goes: rows of the system's own in the job's log, at most 1 MiB. */
export function startupOutput(log: JobLog): OutputSink {
  let taken = 0
  let written: Promise<unknown> = Promise.resolve()
  const write = (source: 'stdout' | 'stderr') => (block: Buffer) => {
    const text = block.toString('utf8').trimEnd()
    for (let at = 0; at < text.length; at += blockCharacters) {
      const part = text.slice(at, at + blockCharacters)
      written = written.then(() => log.system(part, source === 'stderr' ? 'error' : 'info'))
    }
  }
  const holds = { stdout: new LineHold({ emit: write('stdout') }), stderr: new LineHold({ emit: write('stderr') }) }
  return async ({ source, bytes }) => {
    if (source === 'system') return void (await log.system(Buffer.from(bytes).toString('utf8').trimEnd(), 'info'))
    if (taken >= limitBytes) return 'discard'
    taken += bytes.length
    holds[source].push(bytes)
    if (taken >= limitBytes) {
      holds[source].flush()
      written = written.then(() => log.system('output limit of 1 MiB of the startup command reached; the rest is dropped', 'error'))
    }
    await written
    return undefined
  }
}
