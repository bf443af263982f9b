import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from '../dispatcher.ts'

/** A place for one more waiting job, or the reason why there is none. */
export interface ReservedPlace {
  /** Throws the MagsError that there is no place with. */
  readonly require: () => void
  /** May be called again. */
  readonly release: () => void
}

/** Before anything is stored. With an Idempotency-Key a want of places is only told by `require`: a repeated request has its answer all the same. Throws MagsError 'no_capacity', 'rate_limited'. */
export function reservePlace(dispatcher: Dispatcher, request: FastifyRequest): ReservedPlace {
  try {
    const release = dispatcher.reserve(request.identity.accountId)
    return { require: () => undefined, release }
  } catch (error) {
    if (request.headers['idempotency-key'] === undefined) throw error
    const require = () => {
      throw error
    }
    return { require, release: () => undefined }
  }
}
