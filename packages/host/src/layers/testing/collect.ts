import type { LayerContent } from '../layer-session.ts'

/** Everything of all batches. */
export async function collect<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  const all: T[] = []
  for await (const batch of batches) all.push(...batch)
  return all
}

export async function gather(contents: AsyncIterable<LayerContent>): Promise<LayerContent[]> {
  const all: LayerContent[] = []
  for await (const content of contents) all.push(content)
  return all
}
