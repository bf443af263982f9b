import type { Readable } from 'node:stream'
import type { RunningProgram } from '@mags/protocol'

/** Carries what a client sends into a program, no faster than that reads it, and the end of it. What comes after the program stopped reading is dropped. */
export function pumpInput(input: Readable, program: Pick<RunningProgram, 'write' | 'end'>): void {
  let writing: Promise<void> | undefined
  let refused = false
  const take = () => {
    if (writing !== undefined) return
    // All that is there: many small packets become one write.
    const bytes: Buffer | null = input.read()
    if (bytes === null || refused) return
    writing = program.write(bytes).then(
      () => {
        writing = undefined
        take()
      },
      () => {
        writing = undefined
        refused = true
        input.removeListener('readable', take)
        input.resume()
      },
    )
  }
  const end = () => program.end()
  input.on('readable', take)
  input.once('end', () => {
    if (writing === undefined) end()
    else void writing.then(end)
  })
  take()
}
