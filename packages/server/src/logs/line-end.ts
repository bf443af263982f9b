import { characterBoundary } from './utf8.ts'

/** Where to end a block that must end at or before `limit`: after a line if one ends there, else between two characters. */
export function lineEnd(block: Buffer, start: number, limit: number): number {
  if (limit >= block.length) return block.length
  const after = block.lastIndexOf(10, limit - 1) + 1
  if (after > start) return after
  const boundary = characterBoundary(block, limit)
  return boundary > start ? boundary : limit
}
