import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

const tailBytes = 16 * 1024

/** The last lines of a log, from `fromByte` on; those that are JSON (pino's) as their message alone. */
export function lastLines(file: string, count: number, fromByte = 0): string[] {
  try {
    return readTail(file, fromByte)
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-count)
      .map(messageOf)
  } catch {
    return []
  }
}

function readTail(file: string, fromByte: number): string {
  const descriptor = openSync(file, 'r')
  try {
    const { size } = fstatSync(descriptor)
    const buffer = Buffer.alloc(Math.max(0, Math.min(size - fromByte, tailBytes)))
    const length = readSync(descriptor, buffer, 0, buffer.length, size - buffer.length)
    return buffer.toString('utf8', 0, length)
  } finally {
    closeSync(descriptor)
  }
}

function messageOf(line: string): string {
  if (!line.startsWith('{')) return line
  try {
    const { msg, err } = JSON.parse(line) as { msg?: unknown; err?: { message?: unknown } }
    const words = [msg, err?.message].filter((part) => typeof part === 'string')
    return words.length === 0 ? line : [...new Set(words)].join(': ')
  } catch {
    return line
  }
}
