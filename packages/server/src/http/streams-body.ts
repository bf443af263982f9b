import type { FastifyRequest } from 'fastify'

/** Whether the handler reads this request's body as it comes. */
export function streamsBody(request: FastifyRequest): boolean {
  const { streamsBody: streams } = request.routeOptions.config
  return typeof streams === 'function' ? streams(request) : streams === true
}
