import { randomUUID } from 'node:crypto'
import { type ErrorCode, errorCatalogue, MagsError } from '@mags/protocol'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import { storageFaultOf } from '../state/storage-fault.ts'
import { streamsBody } from './streams-body.ts'

/** The one place where errors become HTTP answers. */
export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply, logger: Logger): void {
  const known = error instanceof MagsError ? error : (translate(error as FastifyError, request) ?? unexpected(error, request, logger))
  const status = statusOf(known.code, request.url)
  // A full disk is told once, by whoever writes to it, and not for every request.
  if (status >= 500 && known.code !== 'internal' && known.code !== 'no_capacity' && known.code !== 'storage_full')
    logger.warn({ err: known, method: request.method, url: request.url.split('?', 1)[0] }, 'a request failed')
  if (reply.raw.headersSent) return void reply.raw.destroy()
  if (known.code === 'unauthorized') reply.header('www-authenticate', 'Bearer')
  const retryAfter = known.details?.retry_after_seconds
  if (status === 429 || status === 503 || status === 507) reply.header('retry-after', typeof retryAfter === 'number' ? retryAfter : status === 507 ? 10 : 1)
  // The rest of a body nobody reads would be taken for the next request; who reads it as it comes sees to that, too.
  if (status === 413 && !streamsBody(request)) reply.header('connection', 'close')
  void reply.code(status).send(errorBody(known))
}

export function errorBody(error: MagsError): { error: string; code: ErrorCode; details?: Record<string, unknown> } {
  return { error: error.message, code: error.code, ...(error.details === undefined ? {} : { details: error.details }) }
}

function statusOf(code: ErrorCode, url: string): number {
  const row: { status: number; statusV1?: number } = errorCatalogue[code]
  return url.startsWith('/api/v1/') ? (row.statusV1 ?? row.status) : row.status
}

function translate(error: FastifyError, request: FastifyRequest): MagsError | undefined {
  const storageFault = storageFaultOf(error)
  if (storageFault !== undefined) return new MagsError('storage_full', storageFault, { cause: error })
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE': {
      const field = request.method === 'POST' && request.routeOptions.url?.endsWith('/mags-jobs') ? 'script: at most 1 MiB; ' : ''
      return new MagsError('too_large', `${field}the body is over ${Math.floor(request.routeOptions.bodyLimit / (1024 * 1024))} MiB`)
    }
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new MagsError('unsupported_media_type', 'the body must be JSON: send the header "Content-Type: application/json"')
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return new MagsError('bad_request', 'the body is not as long as its Content-Length says')
    case 'FST_ERR_BAD_URL':
      return new MagsError('bad_request', 'the address of the request is not valid')
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new MagsError('not_found', 'no such thing: a name or id has 255 characters at most')
    default:
      return error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500
        ? new MagsError('bad_request', error.message, { cause: error })
        : undefined
  }
}

function unexpected(error: unknown, request: FastifyRequest, logger: Logger): MagsError {
  const id = randomUUID()
  logger.error({ err: error, errorId: id, method: request.method, url: request.url.split('?', 1)[0] }, 'a request failed for an unknown reason')
  return new MagsError('internal', `a fault of the server; its log has more under ${id}`, { details: { error_id: id } })
}
