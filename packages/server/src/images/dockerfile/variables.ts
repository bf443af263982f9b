import { expandWord, type Lookup, splitWords } from './expand-words.ts'
import { faultAt, type Instruction } from './parse-dockerfile.ts'

/** One word, or a text that is one, with its variables replaced. Throws MagsError 'image_invalid' naming the line. */
export function expandText(text: string, { escapeSign, lookup, line }: { escapeSign: string; lookup: Lookup; line: number }): string {
  try {
    return expandWord(text, lookup, escapeSign)
  } catch (error) {
    throw faultAt(line, error instanceof Error ? error.message : String(error))
  }
}

/** All words of an instruction, or the strings of its JSON array, with variables replaced. */
export function expandedWords(instruction: Instruction, escapeSign: string, lookup: Lookup): string[] {
  const { line, list, text } = instruction
  const expand = (word: string) => expandText(word, { escapeSign, lookup, line })
  if (list)
    return list.map((word) => expandText(word.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll("'", "\\'"), { escapeSign: '\\', lookup, line }))
  return words(instruction, text, escapeSign).map(expand)
}

/** Names and values of ARG; a value is undefined when there is none. */
export function readArg(instruction: Instruction, escapeSign: string, lookup: Lookup): { name: string; value: string | undefined }[] {
  return words(instruction, instruction.text, escapeSign).map((word) => {
    const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?$/s.exec(word) ?? []
    if (name === undefined) throw faultAt(instruction.line, `${JSON.stringify(word)} is not NAME or NAME=value`)
    return { name, value: value === undefined ? undefined : expandText(value, { escapeSign, lookup, line: instruction.line }) }
  })
}

/** Names and values of ENV: `NAME=value …`, or the older `NAME the rest`. */
export function readEnv(instruction: Instruction, escapeSign: string, lookup: Lookup): { name: string; value: string }[] {
  const { line, text } = instruction
  const expand = (value: string) => expandText(value, { escapeSign, lookup, line })
  const [, oldName, rest] = /^([^\s=]+)\s+(.+)$/s.exec(text) ?? []
  if (oldName !== undefined && rest !== undefined) return [{ name: checkName(oldName, line), value: expand(rest) }]
  return words(instruction, text, escapeSign).map((word) => {
    const equals = word.indexOf('=')
    if (equals < 1) throw faultAt(line, `${JSON.stringify(word)} is not NAME=value`)
    return { name: checkName(word.slice(0, equals), line), value: expand(word.slice(equals + 1)) }
  })
}

function checkName(name: string, line: number): string {
  if (!/^[A-Za-z_][A-Za-z0-9_.-]*$/.test(name)) throw faultAt(line, `${JSON.stringify(name)} cannot be the name of a variable`)
  return name
}

function words({ line }: Instruction, text: string, escapeSign: string): string[] {
  try {
    return splitWords(text, escapeSign)
  } catch (error) {
    throw faultAt(line, error instanceof Error ? error.message : String(error))
  }
}
