import type { FastifyInstance, FastifyRequest } from 'fastify'
import { answerClientError } from './client-error.ts'
import { streamsBody } from './streams-body.ts'

/**
 * A request must have arrived whole within `limitMs`, on every route but those with `streamsBody`, where a large body may take as long as it goes on. (The
 * limit of node:http knows no routes.)
 */
export function watchBodies(app: FastifyInstance, limitMs: number): void {
  const timers = new WeakMap<FastifyRequest, NodeJS.Timeout>()
  const arrived = (request: FastifyRequest) => clearTimeout(timers.get(request))
  app.addHook('onRequest', async (request) => {
    if (streamsBody(request)) return
    const late = Object.assign(new Error('the request did not arrive whole in time'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' })
    timers.set(
      request,
      setTimeout(() => answerClientError(late, request.raw.socket), limitMs),
    )
  })
  app.addHook('preValidation', async (request) => arrived(request))
  app.addHook('onError', async (request) => arrived(request))
  app.addHook('onResponse', async (request) => arrived(request))
  app.addHook('onRequestAbort', async (request) => arrived(request))
}
