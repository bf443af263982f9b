import { z } from 'zod'
import { egressPolicy } from './egress.ts'
import { choice, flag, integer, label, queryInteger, text } from './fields.ts'

/** Wire shapes of microVMs (snake_case). */

/**
 * `creating` from a create or start until it is up, `stopping` from a stop until its disk is saved. `error`: it ended by itself or could not be started; `error` of the answer has the words, and a start tries again.
 */
export const microvmStatuses = ['creating', 'running', 'stopping', 'stopped', 'error'] as const
export type MicrovmStatus = (typeof microvmStatuses)[number]

/** What a create takes that does not say; less where the server allows less. */
export const microvmDefaults = { cpu: 2, memoryMb: 1024, diskGb: 10, image: 'ubuntu-22.04', port: 8080 } as const
/** Less does not boot. */
export const leastMicrovmMemoryMb = 128
export const mostMicrovmKeys = 100

/** A whole number; its bounds are the server's own: outside of them the answer is 422. */
const size = () => z.number('must be a number').meta({ type: 'integer' }).nullish()

const publicKeyLines = z
  .array(text(8192), 'must be a list of public keys')
  .max(mostMicrovmKeys, `at most ${mostMicrovmKeys} keys`)
  .nullish()
  .describe('Lines of authorized_keys without options. Only these open it, besides those of the account; without any a key is made, see ssh-keys/download.')

/** POST /microvms. Members not named here are ignored and reported as warnings. */
export const createMicrovmRequest = z
  .object({
    name: label().describe('Unique in the account.'),
    cpu: size().describe('Default 2.'),
    memory: size().describe('MB; default 1024.'),
    disk: size().describe('GB; default 10.'),
    image: text(200).nullish().describe('Default ubuntu-22.04. Name of an image of this server; its version stays the same for the life of the microVM.'),
    ssh_public_keys: publicKeyLines,
    isolation: choice(['auto', 'vm', 'container'])
      .nullish()
      .describe('Default vm. In a container the services of the image do not start; auto: that when there are no virtual machines.'),
    ip_lease: flag().nullish().describe('Addresses of its own while it runs.'),
    port: integer(1, 65_535).nullish().describe('Port that the URL reaches; default 8080.'),
    egress: egressPolicy().nullish(),
  })
  .meta({ title: 'CreateMicrovmRequest' })
export type CreateMicrovmRequest = z.output<typeof createMicrovmRequest>

export const microvmAnswer = z
  .object({
    id: z.string(),
    name: z.string(),
    status: z.enum(microvmStatuses),
    cpu: z.number(),
    memory: z.number().describe('MB'),
    disk: z.number().describe('GB'),
    image: z.string(),
    ip_address: z.string().describe('IPv4; empty while it has none of its own.'),
    ipv6_address: z.string().describe('Empty while it has none.'),
    created_at: z.string(),
    isolation: z.enum(['kvm', 'emulated-vm', 'container']).nullable().describe('The wall it has, or had when it ran last; null before its first start.'),
    init: z.boolean().describe('Whether it boots the init of its image, which starts the services.'),
    url: z.string().nullable().describe('null when this server has no apps domain.'),
    port: z.number().describe('What the URL reaches.'),
    error: z.string().nullable().describe('Why it is in error, or what went wrong when it was stopped.'),
    ssh_port: z.number().nullable(),
    key_generated: z.boolean(),
    ip_lease: z.boolean(),
    started_at: z.string().nullable().describe('When it was started last.'),
    request_id: z.string().nullable().describe('The newest job it runs, or ran, as: /mags-jobs/<request_id>/logs has its console.'),
    image_digest: z.string(),
    workspace_id: z.string().describe('Its disk.'),
  })
  .meta({ title: 'Microvm' })
export type MicrovmAnswer = z.output<typeof microvmAnswer>

/** 201 */
export const createMicrovmAnswer = microvmAnswer.extend({ warnings: z.array(z.string()).optional() }).meta({ title: 'CreatedMicrovm' })
export type CreateMicrovmAnswer = z.output<typeof createMicrovmAnswer>

export const microvmParams = z.object({ id: z.string().describe('The id, or the name.') })

export const listMicrovmsQuery = z.strictObject({ page: queryInteger(1, 1_000_000).default(1), page_size: queryInteger(1, 100).default(20) })
export const listMicrovmsAnswer = z.object({ microvms: z.array(microvmAnswer), total: z.number(), page: z.number(), page_size: z.number() })
export type ListMicrovmsAnswer = z.output<typeof listMicrovmsAnswer>

/** POST /microvms/:id/start, /stop, /restart */
export const microvmActionAnswer = z
  .object({
    success: z.boolean().describe('false only with the status error.'),
    status: z.enum(microvmStatuses).describe('What it is by now: a start is waited for 10 s, a stop 30 s.'),
    error: z.string().optional(),
  })
  .meta({ title: 'MicrovmAction' })
export type MicrovmActionAnswer = z.output<typeof microvmActionAnswer>

/** GET /microvms/:id/ssh-connection */
export const microvmSshAnswer = z
  .object({
    ssh_command: z.string().describe('For the folder that the downloaded key is in; the file must be readable by its owner only (chmod 600).'),
    ip_address: z.string(),
    ipv6_address: z.string(),
    key_generated: z.boolean().describe('Whether the private key is to be downloaded; otherwise it is the one of the user.'),
    host: z.string(),
    port: z.number(),
    user: z.literal('root'),
    key_file: z.string().nullable().describe('What ssh-keys/download calls the key; null when none was made.'),
  })
  .meta({ title: 'MicrovmSsh' })
export type MicrovmSshAnswer = z.output<typeof microvmSshAnswer>

/** How the private key's file is called. */
export const microvmKeyFile = (id: string): string => `vm-${id}-key.pem`
