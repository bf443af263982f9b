import { z } from 'zod'
import { queryFlag, queryInteger, text } from './fields.ts'

/** Wire shapes of uploaded files, and of the files of a running job (snake_case). */

/** Of one uploaded file. */
export const uploadLimitBytes = 100 * 1024 * 1024
/** Of one file, or one archive, written into a running job. */
export const sandboxWriteLimitBytes = 1024 * 1024 * 1024
/** Uploaded files that no job has named for so long are deleted. */
export const unusedFileDays = 30

const paging = { page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) }

export const uploadAnswer = z
  .object({
    file_id: z.string().describe('For file_ids of a job.'),
    file_name: z.string().describe('The last part of the name it was sent with.'),
    size: z.number(),
  })
  .meta({ title: 'UploadAnswer' })
export type UploadAnswer = z.output<typeof uploadAnswer>

export const fileAnswer = z
  .object({
    file_id: z.string(),
    file_name: z.string(),
    size: z.number(),
    created_at: z.string(),
    last_used_at: z.string().describe(`When it was uploaded or a job last named it; ${unusedFileDays} days later it is deleted.`),
  })
  .meta({ title: 'UploadedFile' })
export type FileAnswer = z.output<typeof fileAnswer>

export const fileParams = z.object({ id: z.string().describe('The file id.') })
export const listUploadsQuery = z.strictObject(paging)
export const listUploadsAnswer = z.object({ files: z.array(fileAnswer), total: z.number(), page: z.number(), page_size: z.number() })
export type ListUploadsAnswer = z.output<typeof listUploadsAnswer>

/** PATH_MAX without its NUL. */
const sandboxPath = () =>
  text(4095)
    .refine((value) => value.startsWith('/'), 'must be an absolute path')
    .describe('Absolute; links are followed as in the sandbox. Names that are not UTF-8 can only be reached by an archive.')

const fileMode = () =>
  z
    .string()
    .regex(/^0{0,2}[0-7]{1,4}$/, 'must be octal, up to 07777')
    .transform((value) => Number.parseInt(value, 8))
    .meta({ type: 'string', examples: ['0755'] })

export const sandboxPathQuery = z.strictObject({ path: sandboxPath() })
export const writeSandboxFileQuery = z.strictObject({
  path: sandboxPath(),
  mode: fileMode().optional().describe('Octal; default 0644, or that of the file replaced.'),
})
export const removeSandboxFileQuery = z.strictObject({ path: sandboxPath(), recursive: queryFlag().default(false).describe('A folder with all in it.') })
export const listSandboxFilesQuery = z.strictObject({ path: sandboxPath(), limit: queryInteger(1, 10_000).default(1000) })

export const sandboxFileAnswer = z.object({
  name: z.string().describe('Bytes that are no UTF-8 are shown as U+FFFD.'),
  type: z.enum(['directory', 'file', 'symlink', 'fifo', 'socket', 'device']),
  size: z.number(),
  mode: z.string().describe('Octal, such as 0755.'),
  mtime: z.string(),
})
export type SandboxFileAnswer = z.output<typeof sandboxFileAnswer>

export const listSandboxFilesAnswer = z.object({
  path: z.string(),
  entries: z.array(sandboxFileAnswer).describe('In the order of their names; links as links.'),
  truncated: z.boolean().describe('There are more than limit.'),
})
export type ListSandboxFilesAnswer = z.output<typeof listSandboxFilesAnswer>
