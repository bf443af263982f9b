import type { ScriptExit } from '@mags/protocol'
import type { FakeFiles } from './fake-files.ts'

/** What a fake script can do. */
export interface FakeScript {
  readonly script: string
  readonly environment: Readonly<Record<string, string>>
  /** Of the sandbox; what a workspace keeps. */
  readonly files: FakeFiles
  stdout(bytes: string | Uint8Array): Promise<undefined | 'discard'>
  stderr(bytes: string | Uint8Array): Promise<undefined | 'discard'>
  /** Settles with the number of the next signal. */
  signalled(): Promise<number>
}

export type FakeBehaviour = (script: FakeScript) => Promise<ScriptExit> | ScriptExit

/** A shell of ten commands, one a line: `echo words`, `printf words`, `err words`, `env NAME`, `write path words`, `read path`, `rm path`, `wait` (for a signal), `stubborn` (ignores signals), `exit code`. */
export async function interpret(script: FakeScript): Promise<ScriptExit> {
  for (const line of script.script.split('\n')) {
    const [command, ...words] = line.trim().split(' ')
    const text = words.join(' ')
    if (command === 'echo') await script.stdout(`${text}\n`)
    else if (command === 'printf') await script.stdout(text)
    else if (command === 'err') await script.stderr(`${text}\n`)
    else if (command === 'env') await script.stdout(`${script.environment[text] ?? ''}\n`)
    else if (command === 'write') script.files.put(words[0] ?? '', words.slice(1).join(' '))
    else if (command === 'read') await script.stdout(`${script.files.tree.get(text)?.content.toString('utf8') ?? 'nothing'}\n`)
    else if (command === 'rm') script.files.tree.delete(text)
    else if (command === 'exit') return { kind: 'exited', exitCode: Number(text) }
    else if (command === 'wait') return { kind: 'signalled', exitCode: 128 + (await script.signalled()) }
    else if (command === 'stubborn') await new Promise(() => undefined)
  }
  return { kind: 'exited', exitCode: 0 }
}
