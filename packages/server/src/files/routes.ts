import { Readable } from 'node:stream'
import multipart, { type Multipart, type MultipartFile } from '@fastify/multipart'
import {
  doneAnswer,
  errorAnswer,
  type FileAnswer,
  fileAnswer,
  fileParams,
  listUploadsAnswer,
  listUploadsQuery,
  MagsError,
  uploadAnswer,
  uploadLimitBytes,
} from '@mags/protocol'
import type { FastifyRequest } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { dropRest, receivedBody } from '../http/received-body.ts'
import { reduceFileName } from './file-name.ts'
import type { UploadedFile } from './store.ts'
import type { UploadedFiles } from './uploaded-files.ts'

export interface FileRoutesDeps {
  readonly uploads: UploadedFiles
}

const tooLarge = 'file: at most 100 MB'
// One byte more than is allowed tells that there was more.
const limits = { fileSize: uploadLimitBytes + 1, parts: 20, fieldSize: 64 * 1024 }

export const fileRoutes: FastifyPluginAsyncZod<FileRoutesDeps> = async (app, { uploads: files }) => {
  const tags = ['Files']
  // Names come as they were sent; we reduce them ourselves.
  await app.register(multipart, { limits, throwFileSizeLimit: false, preservePath: true })

  app.post(
    '/mags-files',
    {
      schema: {
        tags,
        summary: 'Upload a file: multipart/form-data with one part "file"',
        consumes: ['multipart/form-data'],
        response: { 201: uploadAnswer, '4xx': errorAnswer },
      },
      config: { streamsBody: true },
    },
    async (request, reply) => {
      try {
        const file = await receiveFile(request, files)
        reply.code(201)
        return { file_id: file.fileId, file_name: file.fileName, size: file.sizeBytes }
      } catch (error) {
        dropRest(request.raw)
        throw error
      }
    },
  )

  app.get(
    '/mags-files',
    { schema: { tags, summary: 'List uploaded files, newest first', querystring: listUploadsQuery, response: { 200: listUploadsAnswer } } },
    async (request) => {
      const { page, page_size } = request.query
      const found = await files.list(request.identity.accountId, { offset: (page - 1) * page_size, limit: page_size })
      return { files: found.files.map(presentFile), total: found.total, page, page_size }
    },
  )

  app.get(
    '/mags-files/:id',
    { schema: { tags, summary: 'An uploaded file', params: fileParams, response: { 200: fileAnswer, '4xx': errorAnswer } } },
    async (request) => presentFile(await files.get(request.identity.accountId, request.params.id)),
  )

  app.get('/mags-files/:id/content', { schema: { tags, summary: 'The content of an uploaded file', params: fileParams } }, async (request, reply) => {
    const file = await files.get(request.identity.accountId, request.params.id)
    reply.headers({
      'content-type': 'application/octet-stream',
      'content-length': file.sizeBytes,
      // RFC 8187: names may have any characters.
      'content-disposition': `attachment; filename*=UTF-8''${encodeURIComponent(file.fileName.toWellFormed()).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)}`,
      'x-content-type-options': 'nosniff',
    })
    return reply.send(Readable.from(files.read(file), { objectMode: false }))
  })

  app.delete(
    '/mags-files/:id',
    { schema: { tags, summary: 'Delete an uploaded file', params: fileParams, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      await files.remove(request.identity.accountId, request.params.id)
      return { success: true, message: 'File deleted' }
    },
  )
}

/** Stores the part `file`, as it comes. A fault in what follows it takes it back. */
async function receiveFile(request: FastifyRequest, files: UploadedFiles): Promise<UploadedFile> {
  if (!request.isMultipart()) throw missingPart()
  const { accountId } = request.identity
  let stored: UploadedFile | undefined
  try {
    for await (const part of partsOf(request)) {
      if (part.type !== 'file' || part.fieldname !== 'file') {
        if (part.type !== 'file' && part.fieldname === 'file') throw new MagsError('bad_request', 'file: needs a file name')
        throw new MagsError('bad_request', `unknown part ${JSON.stringify(part.fieldname.slice(0, 64))}; send the file as the part "file"`)
      }
      if (stored !== undefined) throw new MagsError('bad_request', 'file: one file a request')
      stored = await files.upload(accountId, reduceFileName(part.filename), contentOf(part))
    }
    if (stored === undefined) throw missingPart()
    return stored
  } catch (error) {
    if (stored !== undefined) await files.remove(accountId, stored.fileId).catch(() => undefined)
    throw error
  }
}

async function* contentOf(part: MultipartFile): AsyncGenerator<Uint8Array> {
  try {
    yield* receivedBody(part.file, { maxBytes: uploadLimitBytes, tooLarge })
  } catch (error) {
    throw brokenBody(error)
  }
  if (part.file.truncated) throw new MagsError('too_large', tooLarge)
}

async function* partsOf(request: FastifyRequest): AsyncGenerator<Multipart> {
  try {
    yield* request.parts()
  } catch (error) {
    throw brokenBody(error)
  }
}

/** What the parser says of a body is a fault of the body. */
function brokenBody(error: unknown): MagsError {
  if (error instanceof MagsError) return error
  return new MagsError('bad_request', `the multipart body is broken: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
}

function missingPart(): MagsError {
  return new MagsError('bad_request', 'file: is required; send multipart/form-data with a part "file" that has a file name')
}

function presentFile(file: UploadedFile): FileAnswer {
  return { file_id: file.fileId, file_name: file.fileName, size: file.sizeBytes, created_at: file.createdAt, last_used_at: file.lastUsedAt }
}
