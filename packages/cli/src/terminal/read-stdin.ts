import { fstatSync } from 'node:fs'
import type { Cli } from '../cli.ts'

const hintAfterMs = 1_000
const socketPatienceMs = 300

/**
 * Standard input to its end, or undefined when there is none: a terminal, `/dev/null`, a closed descriptor. A pipe or a file is read
 * whole. A socket is what a program gets from a parent that did not think about it (Node's `spawn` makes one), so it counts only when
 * something, or its end, comes soon. Rejects with `tooLong()` over `maxBytes`.
 */
export async function readStdin(cli: Cli, maxBytes: number, tooLong: () => Error): Promise<Buffer | undefined> {
  const { output, interrupts } = cli
  const kind = stdinKind()
  if (kind === 'none') return undefined
  const stdin = process.stdin
  const hint = setTimeout(() => void output.note('reading standard input to its end (Ctrl-D ends it; < /dev/null gives none)'), hintAfterMs)
  const parts: Buffer[] = []
  let size = 0
  try {
    return await new Promise<Buffer | undefined>((resolve, reject) => {
      const patience = kind === 'socket' ? setTimeout(() => resolve(undefined), socketPatienceMs) : undefined
      interrupts.requested.addEventListener('abort', () => reject(interrupts.requested.reason), { once: true })
      stdin.on('data', (part: Buffer) => {
        clearTimeout(patience)
        parts.push(part)
        size += part.length
        if (size > maxBytes) reject(tooLong())
      })
      stdin.on('end', () => {
        clearTimeout(patience)
        resolve(Buffer.concat(parts))
      })
      stdin.on('error', reject)
    })
  } finally {
    clearTimeout(hint)
    // An open input would keep the process alive.
    stdin.destroy()
  }
}

function stdinKind(): 'none' | 'socket' | 'bytes' {
  try {
    const status = fstatSync(0)
    if (status.isFIFO() || status.isFile()) return 'bytes'
    return status.isSocket() ? 'socket' : 'none'
  } catch {
    return 'none'
  }
}
