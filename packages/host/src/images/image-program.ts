import { open } from 'node:fs/promises'
import { startResident } from '../run.ts'
import type { ImportWork } from './import/import-work.ts'

export interface ImageProgram {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Its last line becomes progress. */
  readonly tellsProgress?: boolean
  /** Looked at once a second while it runs; a rejection ends it. */
  readonly watch?: () => Promise<void>
}

const lookEveryMs = 1000
const lastWordsBytes = 4096

/** Runs a program of an import, at a low priority. Resolves with its exit code and last words; it and all it started are killed when `abort` says so, and when this process ends. */
export async function runImageProgram(work: ImportWork, program: ImageProgram): Promise<{ code: number; words: string }> {
  const { abort, logFile, progress } = work
  abort.throwIfAborted()
  // A process namespace of its own: whatever ends its first process ends all in it.
  const around = [
    '--pdeathsig',
    'KILL',
    'unshare',
    '--pid',
    '--fork',
    '--kill-child=KILL',
    '--mount-proc',
    'nice',
    '-n',
    '10',
    program.command,
    ...program.args,
  ]
  const child = startResident('setpriv', around, { logFile, stdin: 'ignore', stdout: 'log', ...(program.env === undefined ? {} : { env: program.env }) })
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 128))
  })
  const kill = () => void child.kill('SIGKILL')
  abort.addEventListener('abort', kill, { once: true })
  let failure: unknown
  let last = ''
  const look = async () => {
    await program.watch?.()
    if (!program.tellsProgress) return
    const line =
      (await lastWords(logFile))
        .trim()
        .split(/[\r\n]/)
        .at(-1)
        ?.trim() ?? ''
    if (line !== '' && line !== last) progress.step(line.slice(0, 300))
    last = line
  }
  const timer = setInterval(() => {
    look().catch((error: unknown) => {
      failure ??= error
      kill()
    })
  }, lookEveryMs)
  try {
    const code = await ended
    abort.throwIfAborted()
    if (failure !== undefined) throw failure
    return { code, words: (await lastWords(logFile)).trim() }
  } finally {
    clearInterval(timer)
    abort.removeEventListener('abort', kill)
  }
}

async function lastWords(logFile: string): Promise<string> {
  await using file = await open(logFile, 'r')
  const { size } = await file.stat()
  const from = Math.max(0, size - lastWordsBytes)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(lastWordsBytes), 0, lastWordsBytes, from)
  return buffer.toString('utf8', 0, bytesRead)
}
