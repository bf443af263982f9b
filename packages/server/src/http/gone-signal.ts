import { MagsError } from '@mags/protocol'
import type { FastifyReply } from 'fastify'

/** Aborted when whoever asked is gone. */
export function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort(new MagsError('request_timeout', 'whoever asked did not wait for the answer')))
  return gone.signal
}
