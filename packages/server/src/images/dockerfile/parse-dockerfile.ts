import { MagsError } from '@mags/protocol'
import { Copy, DockerfileParser, type Heredoc, ModifiableInstruction, type Instruction as Node, Run } from 'dockerfile-ast'

/** One instruction, with its lines put together and its comments left out. */
export interface Instruction {
  /** From 1. */
  readonly line: number
  /** In capitals. */
  readonly keyword: string
  readonly flags: readonly { readonly name: string; readonly value: string | null }[]
  /** What follows the flags. */
  readonly text: string
  /** The same when it is a JSON array of strings. */
  readonly list: readonly string[] | undefined
  readonly heredocs: readonly HeredocFile[]
}

export interface HeredocFile {
  readonly name: string
  readonly content: string
  /** Variables in it are replaced. */
  readonly expands: boolean
}

export interface ParsedStage {
  readonly from: Instruction
  /** As it stands there, with variables. */
  readonly image: string
  readonly name: string | undefined
  readonly instructions: readonly Instruction[]
}

export interface ParsedDockerfile {
  /** The escape character. */
  readonly escapeSign: string
  /** ARG instructions before the first FROM. */
  readonly globals: readonly Instruction[]
  readonly stages: readonly ParsedStage[]
}

/** Some of what is done with it takes time by the square of this. */
export const maxDockerfileBytes = 128 * 1024

/** What is wrong, with the line. */
export function faultAt(line: number, words: string): MagsError {
  return new MagsError('image_invalid', `Dockerfile line ${line}: ${words}`)
}

/** Splits a Dockerfile into stages. Throws MagsError 'image_invalid' naming the line; what instructions mean is not looked at. */
export function parseDockerfile(content: string): ParsedDockerfile {
  const text = content.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n')
  const dockerfile = DockerfileParser.parse(text)
  const escapeSign = dockerfile.getEscapeCharacter()
  const lines = text.split('\n')
  const globals: Instruction[] = []
  const stages: (ParsedStage & { readonly instructions: Instruction[] })[] = []
  for (const node of dockerfile.getInstructions()) {
    const instruction = readInstruction(node, lines, escapeSign)
    if (instruction.keyword === 'FROM') stages.push({ ...readFrom(instruction), from: instruction, instructions: [] })
    else if (stages.length > 0) stages.at(-1)?.instructions.push(instruction)
    else if (instruction.keyword === 'ARG') globals.push(instruction)
    else throw faultAt(instruction.line, `${instruction.keyword} comes before the first FROM`)
  }
  if (stages.length === 0) throw new MagsError('image_invalid', 'the Dockerfile has no FROM')
  return { escapeSign, globals, stages }
}

function readFrom({ line, text }: Instruction): Pick<ParsedStage, 'image' | 'name'> {
  const [, image, name] = /^(\S+)(?:\s+as\s+(\S+))?$/i.exec(text) ?? []
  if (image === undefined) throw faultAt(line, `FROM needs an image, and perhaps AS with a name: ${JSON.stringify(text)}`)
  return { image, name: name?.toLowerCase() }
}

function readInstruction(node: Node, lines: readonly string[], escapeSign: string): Instruction {
  const line = node.getRange().start.line + 1
  const keyword = node.getKeyword()
  const flags = node instanceof ModifiableInstruction ? node.getFlags().map((flag) => ({ name: flag.getName(), value: flag.getValue() })) : []
  const heredocs = node instanceof Run || node instanceof Copy ? node.getHeredocs().map((heredoc) => readHeredoc(heredoc, lines)) : []
  const raw = node.getRawArgumentsContent() ?? ''
  const text = heredocs.length > 0 && keyword !== 'RUN' ? (raw.split('\n')[0] ?? '').trim() : heredocs.length > 0 ? raw : joinLines(raw, escapeSign)
  return { line, keyword, flags, text, list: readList(text), heredocs }
}

/** Without line ends that are escaped, empty lines and comments between them. */
function joinLines(raw: string, escapeSign: string): string {
  const [first = '', ...rest] = raw.split('\n')
  const kept = [first, ...rest.filter((line) => line.trim() !== '' && !line.trimStart().startsWith('#'))]
  return kept
    .map((line) => {
      const trimmed = line.trimEnd()
      return trimmed.endsWith(escapeSign) ? trimmed.slice(0, -1) : line
    })
    .join('')
    .trim()
}

/** Read by ourselves: strings of the parser lack their spaces. */
function readList(text: string): readonly string[] | undefined {
  if (!text.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every((one) => typeof one === 'string') ? value : undefined
  } catch {
    return undefined
  }
}

function readHeredoc(heredoc: Heredoc, lines: readonly string[]): HeredocFile {
  const { start, end } = heredoc.getStartRange()
  const mark = (lines[start.line] ?? '').slice(start.character, end.character)
  const body = heredoc.getContentRange()
  const last = heredoc.getDelimiterRange()
  // An empty one has no range.
  const content = body === null || last === null ? [] : lines.slice(body.start.line, last.start.line)
  const tabless = mark.startsWith('<<-') ? content.map((line) => line.replace(/^\t+/, '')) : content
  return { name: heredoc.getName(), content: tabless.map((line) => `${line}\n`).join(''), expands: !/["']/.test(mark) }
}
