import { MagsError } from '@mags/protocol'
import { copyFiles } from './copy-files.ts'
import type { InstructionContext, InstructionKind } from './instruction.ts'
import type { HeredocFile, Instruction } from './parse-dockerfile.ts'
import type { Stage } from './stage.ts'
import { expandedWords, expandText } from './variables.ts'

const longestHeredoc = 1024 * 1024

/** COPY and ADD. */
export const copyInstruction: InstructionKind = {
  async work(stage, instruction, context) {
    const { sources, heredocs, from, ...order } = readCopy(stage, instruction, context)
    if (sources.length > 0) await copyFiles(stage, { ...order, tree: await context.treeOf(from), sources })
    for (const file of heredocs) await writeHeredoc(stage, file, order)
  },
  async describe(stage, instruction, context) {
    const { from, ...order } = readCopy(stage, instruction, context)
    const content = order.sources.length === 0 ? null : await (await context.treeOf(from)).fingerprint(order.sources)
    return ['COPY', order, stage.settings.workingDirectory, content]
  },
}

interface Copy {
  readonly sources: readonly string[]
  /** With their variables replaced. */
  readonly heredocs: readonly HeredocFile[]
  readonly from: string | undefined
  readonly destination: string
  readonly chown: string | undefined
  readonly chmod: number | undefined
  readonly unpacks: boolean
}

function readCopy(stage: Stage, instruction: Instruction, { escapeSign }: InstructionContext): Copy {
  const flags = new Map(instruction.flags.map(({ name, value }) => [name, value]))
  const lookup = (name: string) => stage.lookup(name)
  for (const name of flags.keys()) if (!['from', 'chown', 'chmod', 'link'].includes(name)) throw new MagsError('image_invalid', `--${name} is not done`)
  if (instruction.keyword === 'ADD' && flags.has('from')) throw new MagsError('image_invalid', 'ADD has no --from; COPY has')
  const flag = (name: string) => expandText(flags.get(name) ?? '', { escapeSign, lookup, line: instruction.line }) || undefined
  const words = expandedWords(instruction, escapeSign, lookup)
  const destination = words.pop()
  const heredocs = instruction.heredocs.map((file) => ({ ...file, content: file.expands ? expandLines(file.content, lookup) : file.content }))
  const sources = words.filter((word) => !word.startsWith('<<'))
  if (destination === undefined || (sources.length === 0 && heredocs.length === 0)) throw new MagsError('image_invalid', 'needs what to copy and where to')
  const remote = sources.find((source) => /^(?:https?|git|ssh):\/\/|^git@/.test(source))
  if (remote !== undefined) throw new MagsError('image_invalid', `${remote} is not fetched; use RUN with curl, or put the file beside the Dockerfile`)
  const unpacks = instruction.keyword === 'ADD'
  return { sources, heredocs, from: flag('from'), destination, chown: flag('chown'), chmod: modeOf(flag('chmod')), unpacks }
}

async function writeHeredoc(stage: Stage, file: HeredocFile, order: Pick<Copy, 'destination' | 'chown' | 'chmod'>): Promise<void> {
  const into = order.destination.endsWith('/') || (await stage.isFolder(stage.resolve(order.destination)))
  const path = stage.resolve(into ? `${order.destination}/${file.name}` : order.destination)
  const { files } = await stage.root.open()
  await files.write(path, once(file.content), { mode: order.chmod ?? 0o644 })
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

async function* once(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text)
}
