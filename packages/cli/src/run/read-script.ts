import { isUtf8 } from 'node:buffer'
import { readFileSync, statSync } from 'node:fs'
import type { Cli } from '../cli.ts'
import { CliError, usageError } from '../exit/cli-error.ts'
import { readStdin } from '../terminal/read-stdin.ts'

/** What the API takes. */
const maxScriptBytes = 1024 * 1024

export interface ScriptSource {
  /** Words of the command line. */
  readonly words: readonly string[]
  readonly file: string | undefined
  readonly url: string | undefined
  /** Who asks, for the words of a refusal; absent: `run`. */
  readonly command?: string
}

/**
 * The script, from the one place that was named: words (joined by spaces, as ssh does), `-` or no words at all for standard input, a
 * file, or an address that the server fetches. Throws CliError (exit code 2) when there is none, or more than one.
 */
export async function readScript(cli: Cli, source: ScriptSource): Promise<{ script: string; type?: 'url' }> {
  const named = [source.words.length > 0, source.file !== undefined, source.url !== undefined].filter(Boolean).length
  if (named > 1) throw usageError('Give the script once: as an argument, with --script-file, or with --script-url.')
  if (source.url !== undefined) return { script: source.url, type: 'url' }
  if (source.file !== undefined) return { script: checkedScript(readScriptFile(source.file), `${source.file} is empty.`) }
  if (source.words.length > 0 && !(source.words.length === 1 && source.words[0] === '-')) {
    return { script: checkedScript(Buffer.from(source.words.join(' ')), 'The script is empty.') }
  }
  const piped = await readStdin(cli, maxScriptBytes, tooLong)
  if (piped === undefined || piped.length === 0) {
    const command = `mags ${source.command ?? 'run'}`
    const example = source.command === undefined ? "mags run 'echo hello'" : `${command} … 'echo hello'`
    throw usageError(`No script. Give one as an argument (${example}), with --script-file FILE, or on standard input. See '${command} --help'.`)
  }
  return { script: checkedScript(piped, 'Standard input holds no script.') }
}

function readScriptFile(file: string): Buffer {
  try {
    const { size } = statSync(file)
    if (size > maxScriptBytes) throw tooLong()
    return readFileSync(file)
  } catch (error) {
    if (error instanceof CliError) throw error
    throw usageError(`The script cannot be read: ${error instanceof Error ? error.message : String(error)}.`)
  }
}

function checkedScript(bytes: Buffer, emptyWords: string): string {
  if (bytes.length > maxScriptBytes) throw tooLong()
  if (!isUtf8(bytes) || bytes.includes(0)) throw usageError('The script must be text in UTF-8 without NUL characters.')
  const script = bytes.toString('utf8')
  if (script.trim() === '') throw usageError(emptyWords)
  return script
}

function tooLong(): CliError {
  return new CliError('The script is longer than 1 MiB. Let it fetch what it needs, or make it shorter.', { code: 'too_large' })
}
