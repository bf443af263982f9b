import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

/** An item of a list that was not read yet, and about how long it is. */
export interface ListedItem {
  readonly id: string
  readonly bytes: number
}

const mostWholeBytes = 2 * 1024 * 1024

/** Whether a page is too long to be held in memory as a whole, once for each client that reads it slowly. */
export const isLong = (items: readonly ListedItem[]) => items.reduce((sum, { bytes }) => sum + bytes, 0) > mostWholeBytes

/** Sends a list as JSON, each item read when the client takes it; one that is gone by then is left out. `rest`: what follows the list in the answer. */
export async function sendList(
  reply: FastifyReply,
  name: string,
  items: readonly ListedItem[],
  load: (id: string) => Promise<object | undefined>,
  rest: Readonly<Record<string, unknown>>,
): Promise<FastifyReply> {
  async function* parts(): AsyncGenerator<string> {
    yield `{${JSON.stringify(name)}:[`
    let comma = ''
    for (const { id } of items) {
      const item = await load(id)
      if (item === undefined) continue
      yield comma + JSON.stringify(item)
      comma = ','
    }
    yield `],${JSON.stringify(rest).slice(1)}`
  }
  return await reply.type('application/json; charset=utf-8').send(Readable.from(parts(), { highWaterMark: 1 }))
}
