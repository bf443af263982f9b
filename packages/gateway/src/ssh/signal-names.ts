import { constants } from 'node:os'

/** RFC 4254, 6.10: those that have a name on the wire. */
const names = ['ABRT', 'ALRM', 'FPE', 'HUP', 'ILL', 'INT', 'KILL', 'PIPE', 'QUIT', 'SEGV', 'TERM', 'USR1', 'USR2'] as const

/** Of a name of the wire (`INT`, as some clients write it `SIGINT`); undefined for another. */
export function signalNumber(name: string): number | undefined {
  const plain = name.replace(/^SIG/, '')
  const known = names.find((candidate) => candidate === plain)
  return known === undefined ? undefined : constants.signals[`SIG${known}`]
}

/** The name on the wire; undefined for a signal that has none. */
export function signalName(number: number): string | undefined {
  return names.find((name) => constants.signals[`SIG${name}`] === number)
}
