import { MagsError } from '@mags/protocol'
import type { TaskProgress } from '../image-tasks.ts'
import { copyFiles } from './copy-files.ts'
import { faultAt, type HeredocFile, type Instruction } from './parse-dockerfile.ts'
import type { SourceTree } from './source-tree.ts'
import type { Stage } from './stage.ts'
import { expandedWords, expandText, readArg, readEnv } from './variables.ts'

export interface InstructionContext {
  readonly escapeSign: string
  /** ARG before the first FROM. */
  readonly globals: Readonly<Record<string, string>>
  readonly buildArgs: Readonly<Record<string, string>>
  readonly progress: TaskProgress
  /** What `--from` means; the context when it is absent. */
  readonly treeOf: (from: string | undefined) => Promise<SourceTree>
}

const longestHeredoc = 1024 * 1024

type Run = (stage: Stage, instruction: Instruction, context: InstructionContext) => Promise<void> | void

/** Throws MagsError 'image_invalid' naming the line of an instruction that is not done. */
export function checkInstruction({ keyword, line }: Instruction): void {
  if (!Object.hasOwn(instructions, keyword)) throw faultAt(line, `${keyword} is not done here`)
}

/** Does one instruction. Throws Error with what is wrong, in words. */
export async function runInstruction(stage: Stage, instruction: Instruction, context: InstructionContext): Promise<void> {
  checkInstruction(instruction)
  await instructions[instruction.keyword]?.(stage, instruction, context)
}

const run: Run = async (stage, instruction, { progress }) => {
  for (const { name, value } of instruction.flags) {
    if (name === 'mount' && /(^|,)type=cache(,|$)/.test(value ?? ''))
      progress.say('--mount=type=cache: nothing is kept between builds, so the folder is an ordinary one')
    else throw new MagsError('image_invalid', `RUN --${name} is not done`)
  }
  const [heredoc] = instruction.heredocs
  const isScript = heredoc !== undefined && /^<<-?["']?\w+["']?$/.test(instruction.text.split('\n')[0]?.trim() ?? '')
  if (isScript && heredoc.content.startsWith('#!')) return await runInterpreted(stage, heredoc)
  const script = isScript ? heredoc.content : instruction.text
  if (script.trim() === '') throw new MagsError('image_invalid', 'RUN needs a command')
  await stage.run(instruction.list ?? [...stage.settings.shell, script])
}

/** A heredoc that names its own interpreter, as a script file does. */
async function runInterpreted(stage: Stage, { content }: HeredocFile): Promise<void> {
  const path = `/tmp/.mags-run-${crypto.randomUUID()}`
  await stage.sandbox.files.write(path, once(content), { mode: 0o755 })
  try {
    await stage.run([path])
  } finally {
    await stage.sandbox.files.remove(path, { recursive: false }).catch(() => undefined)
  }
}

const copy: Run = async (stage, instruction, context) => {
  const flags = new Map(instruction.flags.map(({ name, value }) => [name, value]))
  const lookup = (name: string) => stage.lookup(name)
  for (const name of flags.keys()) if (!['from', 'chown', 'chmod', 'link'].includes(name)) throw new MagsError('image_invalid', `--${name} is not done`)
  if (instruction.keyword === 'ADD' && flags.has('from')) throw new MagsError('image_invalid', 'ADD has no --from; COPY has')
  const flag = (name: string) => expandText(flags.get(name) ?? '', { escapeSign: context.escapeSign, lookup, line: instruction.line }) || undefined
  const words = expandedWords(instruction, context.escapeSign, lookup)
  const destination = words.pop()
  const heredocs = instruction.heredocs.map((file) => ({ ...file, content: file.expands ? expandLines(file.content, lookup) : file.content }))
  const sources = words.filter((word) => !word.startsWith('<<'))
  if (destination === undefined || (sources.length === 0 && heredocs.length === 0)) throw new MagsError('image_invalid', 'needs what to copy and where to')
  const remote = sources.find((source) => /^(?:https?|git|ssh):\/\/|^git@/.test(source))
  if (remote !== undefined) throw new MagsError('image_invalid', `${remote} is not fetched; use RUN with curl, or put the file beside the Dockerfile`)
  const order = { destination, chown: flag('chown'), chmod: modeOf(flag('chmod')), unpacks: instruction.keyword === 'ADD' }
  if (sources.length > 0) await copyFiles(stage, { ...order, tree: await context.treeOf(flag('from')), sources })
  for (const file of heredocs) await writeHeredoc(stage, file, order)
}

async function writeHeredoc(
  stage: Stage,
  file: HeredocFile,
  order: { destination: string; chown: string | undefined; chmod: number | undefined },
): Promise<void> {
  const into = order.destination.endsWith('/') || (await stage.isFolder(stage.resolve(order.destination)))
  const path = stage.resolve(into ? `${order.destination}/${file.name}` : order.destination)
  await stage.sandbox.files.write(path, once(file.content), { mode: order.chmod ?? 0o644 })
  if (order.chown !== undefined) await stage.work('chown -- "$1" "$2"', [order.chown, path])
}

function expandLines(content: string, lookup: (name: string) => string | undefined): string {
  let added = 0
  return content.replaceAll(/\\?\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))/g, (whole: string, braced?: string, plain?: string) => {
    if (whole.startsWith('\\')) return whole.slice(1)
    const value = lookup(braced ?? plain ?? '') ?? ''
    added += value.length
    if (added > longestHeredoc) throw new MagsError('image_invalid', `with its variables replaced a file has more than ${longestHeredoc / 1024} KiB`)
    return value
  })
}

function modeOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[0-7]{3,5}$/.test(text)) throw new MagsError('image_invalid', `--chmod=${text}: must be octal, such as 0755`)
  return Number.parseInt(text, 8) & 0o7777
}

const env: Run = (stage, instruction, { escapeSign }) => {
  // All are read before one is set: those of an instruction do not see each other.
  for (const { name, value } of readEnv(instruction, escapeSign, (variable) => stage.lookup(variable))) stage.settings.environment[name] = value
  stage.checkEnvironment()
}

const arg: Run = (stage, instruction, { escapeSign, globals, buildArgs }) => {
  for (const { name, value } of readArg(instruction, escapeSign, (variable) => stage.lookup(variable))) {
    const chosen = buildArgs[name] ?? value ?? globals[name]
    if (chosen !== undefined) stage.settings.args[name] = chosen
  }
  stage.checkEnvironment()
}

const workdir: Run = async (stage, instruction, { escapeSign }) => {
  const path = expandText(instruction.text, { escapeSign, lookup: (name) => stage.lookup(name), line: instruction.line })
  if (path === '') throw new MagsError('image_invalid', 'WORKDIR needs a folder')
  stage.settings.workingDirectory = stage.resolve(path)
  await stage.work('umask 022; mkdir -p -- "$1"', [stage.settings.workingDirectory])
}

const user: Run = (stage, instruction, { escapeSign }) => {
  stage.settings.user = expandText(instruction.text, { escapeSign, lookup: (name) => stage.lookup(name), line: instruction.line })
}

const shell: Run = (stage, { line, list }) => {
  if (list === undefined || list.length === 0) throw faultAt(line, 'SHELL needs a JSON array, such as ["/bin/bash", "-c"]')
  stage.settings.shell = list
}

const program =
  (what: 'command' | 'entrypoint'): Run =>
  (stage, { list, text }, { progress }) => {
    stage.settings[what] = list ?? [...stage.settings.shell, text]
    // Docker does the same: a command of the image below does not belong to another entrypoint.
    if (what === 'entrypoint') stage.settings.command = undefined
    progress.say(`${what === 'command' ? 'CMD' : 'ENTRYPOINT'} is noted; jobs run their own script`)
  }

const ignored: Run = (_stage, { keyword }, { progress }) => progress.say(`${keyword} means nothing here and is left out`)

async function* once(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text)
}

const instructions: Readonly<Record<string, Run>> = {
  RUN: run,
  COPY: copy,
  ADD: copy,
  ENV: env,
  ARG: arg,
  WORKDIR: workdir,
  USER: user,
  SHELL: shell,
  CMD: program('command'),
  ENTRYPOINT: program('entrypoint'),
  LABEL: ignored,
  MAINTAINER: ignored,
  EXPOSE: ignored,
  STOPSIGNAL: ignored,
  HEALTHCHECK: ignored,
  VOLUME: ignored,
}
