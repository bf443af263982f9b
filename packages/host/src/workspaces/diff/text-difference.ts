import { isUtf8 } from 'node:buffer'
import { createTwoFilesPatch } from 'diff'

export const maxTextBytes = 1024 * 1024
/** Very different files are not worth waiting for. */
const timeoutMs = 250

/** As `diff -u` has it. Undefined when one of them is no text, or they are too different to tell in time. An absent side is an empty file. */
export function textDifference(path: string, before: Buffer | undefined, after: Buffer | undefined): string | undefined {
  if (!isText(before) || !isText(after)) return undefined
  const names = [before === undefined ? '/dev/null' : `a${path}`, after === undefined ? '/dev/null' : `b${path}`] as const
  return createTwoFilesPatch(...names, before?.toString() ?? '', after?.toString() ?? '', undefined, undefined, { context: 3, timeout: timeoutMs })
}

function isText(bytes: Buffer | undefined): boolean {
  return bytes === undefined || (bytes.length <= maxTextBytes && isUtf8(bytes) && !bytes.includes(0))
}
