import { MagsError } from '@mags/protocol'
import { sortedEntries } from '../cache/step-key.ts'
import type { InstructionKind } from './instruction.ts'
import type { HeredocFile, Instruction } from './parse-dockerfile.ts'
import type { Stage } from './stage.ts'

/** RUN. */
export const runCommand: InstructionKind = {
  async work(stage, instruction, { progress }) {
    const program = readProgram(stage, instruction)
    if (instruction.flags.length > 0) progress.say('--mount=type=cache: nothing is kept between builds, so the folder is an ordinary one')
    if ('command' in program) await stage.run(program.command)
    else await runInterpreted(stage, program.interpreted)
  },
  describe(stage, instruction) {
    const { user, workingDirectory } = stage.settings
    return ['RUN', readProgram(stage, instruction), user ?? null, workingDirectory, sortedEntries(stage.variables)]
  },
}

type Program = { readonly command: readonly string[] } | { readonly interpreted: HeredocFile }

function readProgram(stage: Stage, instruction: Instruction): Program {
  for (const { name, value } of instruction.flags)
    if (name !== 'mount' || !/(^|,)type=cache(,|$)/.test(value ?? '')) throw new MagsError('image_invalid', `RUN --${name} is not done`)
  const [heredoc] = instruction.heredocs
  const isScript = heredoc !== undefined && /^<<-?["']?\w+["']?$/.test(instruction.text.split('\n')[0]?.trim() ?? '')
  if (isScript && heredoc.content.startsWith('#!')) return { interpreted: heredoc }
  const script = isScript ? heredoc.content : instruction.text
  if (script.trim() === '') throw new MagsError('image_invalid', 'RUN needs a command')
  return { command: instruction.list ?? [...stage.settings.shell, script] }
}

/** A heredoc that names its own interpreter, as a script file does. */
async function runInterpreted(stage: Stage, { content }: HeredocFile): Promise<void> {
  const path = `/tmp/.mags-run-${crypto.randomUUID()}`
  const { files } = await stage.root.open()
  await files.write(path, once(content), { mode: 0o755 })
  try {
    await stage.run([path])
  } finally {
    await files.remove(path, { recursive: false }).catch(() => undefined)
  }
}

async function* once(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text)
}
