import { usageError } from '../exit/cli-error.ts'

/**
 * The words of a command for a sandbox, without the `--` that may stand before them. No command begins with a hyphen: such a word is a
 * flag of ours that came too late, or else the shell in the sandbox would take it for one of its own.
 */
export function commandWords(words: readonly string[], command: 'exec' | 'ssh' | 'job ssh' | 'vm ssh'): string[] {
  const rest = words[0] === '--' ? words.slice(1) : [...words]
  const [first = ''] = rest
  if (first.startsWith('-')) throw usageError(`'${first}' comes too late: flags go before the name. See 'mags ${command} --help'.`)
  return rest
}
