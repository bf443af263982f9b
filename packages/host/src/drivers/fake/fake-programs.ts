import type { AgentStream } from '../../agent/connection.ts'
import type { FakeOutcome, FakeProgram, FakeRefusal } from './fake-machine.ts'

/** The behaviours most tests need; anything else is a function of its own. */

export function echo(text: string, stream: AgentStream = 'stdout'): FakeProgram {
  return async (process) => {
    await process.write(stream, text)
    return 0
  }
}

export function exitWith(outcome: FakeOutcome | FakeRefusal): FakeProgram {
  return () => outcome
}

/** Ends by the first signal it gets, never without. */
export const neverEnd: FakeProgram = async (process) => ({ signal: await process.nextSignal() })

/** `count` bytes in pieces, each byte its offset modulo 251. */
export function emitBytes(count: number, pieceBytes = 16_384): FakeProgram {
  return async (process) => {
    for (let offset = 0; offset < count; offset += pieceBytes) {
      await process.write('stdout', Buffer.from(Array.from({ length: Math.min(pieceBytes, count - offset) }, (_, index) => (offset + index) % 251)))
    }
    return 0
  }
}

/** Standard input to standard output. */
export const cat: FakeProgram = async (process) => {
  for (let bytes = await process.readStdin(); bytes !== undefined; bytes = await process.readStdin()) await process.write('stdout', bytes)
  return 0
}

/** Takes the whole machine down. */
export function dieWith(reason: string): FakeProgram {
  return (process) => {
    process.machine.die(reason)
    return new Promise<never>(() => undefined)
  }
}

/** Killed for its memory; the machine lives on. */
export const runOutOfMemory: FakeProgram = (process) => {
  process.machine.outOfMemory = true
  return { signal: 9 }
}
