import { z } from 'zod'
import { choice, flag, label, queryInteger, text } from './fields.ts'
import { jobStatuses, submitJobRequest } from './jobs.ts'

/** Wire shapes of the cron API (snake_case). */

export const cronOverlaps = ['skip', 'queue', 'allow'] as const
/** What becomes of a run that is due while another of its cron is not over. */
export type CronOverlap = (typeof cronOverlaps)[number]

/** Why there is a run. `catch_up`: it was due while no server ran. */
export const cronCauses = ['schedule', 'catch_up', 'manual'] as const
export type CronCause = (typeof cronCauses)[number]

/** Of a run that has no job (yet). `starting`: its job is about to be submitted. */
export const cronRunStates = ['starting', 'waiting', 'skipped', 'failed'] as const

const { name: _jobName, script, ...jobFields } = submitJobRequest.shape

const schedule = () =>
  text(256).describe('Five fields as in crontab(5): minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.')

/** POST /mags-cron: when, and every member of a submit. Members that a job would ignore are refused here. */
export const createCronRequest = z
  .strictObject({
    name: label().describe('Unique in the account. Jobs are called <name>-<unix seconds>.'),
    schedule: schedule(),
    timezone: text(64).default('UTC').describe('IANA name, such as Europe/Berlin.'),
    script,
    enabled: flag().default(true),
    overlap: choice(cronOverlaps).default('skip').describe('What becomes of a run that is due while another is not over.'),
    ...jobFields,
  })
  .meta({ title: 'CreateCronRequest' })
export type CreateCronRequest = z.output<typeof createCronRequest>

/** PATCH /mags-cron/:id: only what changes. What has a default may be null, which is that default again. */
export const updateCronRequest = z
  .strictObject({
    name: z.unknown().optional(),
    schedule: z.unknown().optional(),
    timezone: z.unknown().optional(),
    script: z.unknown().optional(),
    enabled: z.unknown().optional(),
    overlap: z.unknown().optional(),
    ...Object.fromEntries(Object.keys(jobFields).map((field) => [field, z.unknown().optional()])),
  })
  .meta({ title: 'UpdateCronRequest', description: 'Members of a create that change; null goes back to the default.' })

export const cronRunAnswer = z
  .object({
    run_id: z.string(),
    scheduled_for: z.string().describe('When it was due; of a manual one when it was asked for.'),
    cause: z.enum(cronCauses),
    status: z.enum([...cronRunStates, ...jobStatuses]).describe('Of its job once it has one.'),
    reason: z.string().nullable().describe('Why it waits, was skipped, or failed to start.'),
    request_id: z.string().nullable(),
    started_at: z.string().nullable(),
    completed_at: z.string().nullable(),
    exit_code: z.number().nullable(),
  })
  .meta({ title: 'CronRun' })
export type CronRunAnswer = z.output<typeof cronRunAnswer>

export const cronAnswer = z
  .looseObject({
    cron_id: z.string(),
    name: z.string(),
    schedule: z.string(),
    timezone: z.string(),
    script: z.string(),
    enabled: z.boolean(),
    overlap: z.enum(cronOverlaps),
    next_run_at: z.string().nullable().describe('null while it is disabled.'),
    last_run: cronRunAnswer.nullable().describe('The newest, whatever became of it.'),
    error: z.string().nullable().describe('Why it cannot be scheduled.'),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .meta({ title: 'Cron', description: 'With the members of a submit that were given.' })
export type CronAnswer = z.output<typeof cronAnswer>

export const cronParams = z.object({ id: z.string().describe('The cron id, or the name.') })

const paging = { page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) }
const paged = { total: z.number(), page: z.number(), page_size: z.number() }

export const listCronsQuery = z.strictObject(paging)
export const listCronsAnswer = z.object({ crons: z.array(cronAnswer), ...paged })
export type ListCronsAnswer = z.output<typeof listCronsAnswer>

export const listCronRunsQuery = z.strictObject(paging)
export const listCronRunsAnswer = z.object({ runs: z.array(cronRunAnswer), ...paged })
export type ListCronRunsAnswer = z.output<typeof listCronRunsAnswer>
