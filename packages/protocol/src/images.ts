import { z } from 'zod'
import { oneLine, queryFlag, queryInteger, text } from './fields.ts'

/** Wire shapes of images (snake_case). */

/** Of one archive that becomes an image, as it is sent. */
export const imageArchiveLimitBytes = 16 * 1024 ** 3
/** Of the files that a Dockerfile may copy from. */
export const buildContextLimitBytes = 2 * 1024 ** 3

export const imageNameRule = /^[a-z0-9][a-z0-9._-]{0,62}$/
const imageName = () =>
  z.string({ error: 'must be a string' }).regex(imageNameRule, 'must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit').describe('Of the image.')
const digest = () => z.string().regex(/^sha256:[A-Za-z0-9._-]{1,128}$/, 'must be sha256: and the digits of one version')

const imageSource = z.object({
  kind: z.enum(['recipe', 'dockerfile', 'registry', 'oci-layout', 'docker-archive', 'rootfs-tar']),
  reference: z.string().describe('Recipe, file name or OCI reference as it was given.'),
  digest: z.string().nullable().describe('Of the manifest, the archive or the recipe.'),
  command: z.array(z.string()).optional().describe('What a container of it would run; noted only.'),
})

export const imageAnswer = z
  .object({
    name: z.string(),
    default: z.boolean().describe('What jobs get that name no image.'),
    digest: z.string().describe('Of the newest version.'),
    versions: z.number().describe('How many there are; older ones stay for the workspaces that were made on them.'),
    os: z.string(),
    size_bytes: z.number(),
    created_at: z.string(),
    source: imageSource,
    init: z.string().nullable().describe('Its init program, which microVMs boot.'),
  })
  .meta({ title: 'Image' })
export type ImageAnswer = z.output<typeof imageAnswer>

const imageUsers = z
  .object({
    workspaces: z.array(z.string()),
    jobs: z.array(z.string()).describe('Request ids of jobs that are not over.'),
    microvms: z.array(z.string()).describe('Stopped ones, too.'),
    other_accounts: z.number().describe('How many of other accounts.'),
  })
  .describe('What keeps it from being deleted; at most 100 names of each.')

export const imageVersionAnswer = z
  .object({
    digest: z.string(),
    current: z.boolean(),
    os: z.string(),
    size_bytes: z.number(),
    created_at: z.string(),
    source: imageSource,
    init: z.string().nullable(),
    environment: z.record(z.string(), z.string()).describe('That it was made with; programs get it, and what a job gives goes over it.'),
    working_directory: z.string().nullable(),
    used_by: imageUsers,
  })
  .meta({ title: 'ImageVersion' })
export type ImageVersionAnswer = z.output<typeof imageVersionAnswer>

export const inspectImageAnswer = z
  .object({
    name: z.string(),
    default: z.boolean(),
    versions: z.array(imageVersionAnswer).describe('Newest first.'),
    named_by: z.object({
      jobs: z.array(z.string()).describe('Ids of jobs of the Jobs API that ask for it.'),
      crons: z.array(z.string()).describe('Names.'),
    }),
  })
  .meta({ title: 'InspectedImage' })
export type InspectImageAnswer = z.output<typeof inspectImageAnswer>

export const listImagesQuery = z.strictObject({ page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) })
export const listImagesAnswer = z.object({ images: z.array(imageAnswer), total: z.number(), page: z.number(), page_size: z.number() })
export type ListImagesAnswer = z.output<typeof listImagesAnswer>

export const imageParams = z.object({ name: z.string().describe('The name of the image.') })
export const removeImageQuery = z.strictObject({ digest: digest().optional().describe('Only this version; all of them when absent.') })
export const defaultImageRequest = z.strictObject({ name: imageName() })

export const createImageRequest = z
  .strictObject({
    name: imageName(),
    recipe: z
      .string()
      .regex(imageNameRule, 'must be the name of a recipe, such as debian-12, ubuntu-22.04 or alpine')
      .optional()
      .describe('Built by its own distribution.'),
    reference: text(2048).optional().describe('An OCI reference, such as docker.io/library/alpine:3.20.'),
  })
  .refine(({ recipe, reference }) => (recipe === undefined) !== (reference === undefined), 'recipe or reference: give one of them')
export type CreateImageRequest = z.output<typeof createImageRequest>

/** Of a body that is an archive, or with `dockerfile` what a Dockerfile copies from. */
export const sendImageQuery = z.strictObject({
  name: imageName().optional(),
  reference: oneLine(255).optional().describe('The name of the file that is sent.'),
  dockerfile: text(4095).optional().describe('Builds this file of the archive that is sent.'),
  build_args: text(64 * 1024)
    .transform((value, context): Record<string, string> => {
      const args = parseArgs(value)
      if (args === undefined) context.addIssue({ code: 'custom', message: 'must be a JSON object of strings' })
      return args ?? {}
    })
    .optional()
    .meta({ type: 'string' })
    .describe('JSON object: values of ARG.'),
  no_cache: queryFlag().optional().describe('Runs every step of the Dockerfile, also those that were run before.'),
})
export type SendImageQuery = z.output<typeof sendImageQuery>

/** Of `DELETE /image-cache`. */
export const pruneBuildCacheAnswer = z.object({
  success: z.boolean(),
  message: z.string(),
  freed_bytes: z.number().describe('Size of what was taken away; what others share of it stays.'),
})
export type PruneBuildCacheAnswer = z.output<typeof pruneBuildCacheAnswer>

export const imageTaskStartedAnswer = z.object({ task_id: z.string(), status: z.literal('running') })
export type ImageTaskStartedAnswer = z.output<typeof imageTaskStartedAnswer>

export const imageTaskParams = z.object({ id: z.string().describe('The task id.') })
export const imageTaskAnswer = z
  .object({
    task_id: z.string(),
    name: z.string(),
    kind: z.enum(['recipe', 'dockerfile', 'registry', 'archive']),
    reference: z.string(),
    status: z.enum(['running', 'completed', 'failed']),
    digest: z.string().nullable().describe('Of the version that was made.'),
    error: z.string().nullable(),
    created_at: z.string(),
    completed_at: z.string().nullable(),
  })
  .meta({ title: 'ImageTask' })
export type ImageTaskAnswer = z.output<typeof imageTaskAnswer>
export const imageTaskEventsQuery = z.strictObject({
  follow: z.literal('true').optional().describe('They always are.'),
  after: text(64).optional().describe('Cursor of the last event that was seen; Last-Event-ID does the same.'),
})

function parseArgs(json: string): Record<string, string> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
    return Object.values(value).every((one) => typeof one === 'string') ? (value as Record<string, string>) : undefined
  } catch {
    return undefined
  }
}
