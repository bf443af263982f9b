import { z } from 'zod'
import { choice, flag, label, text } from './fields.ts'

/** Wire shapes of how a job is reached and of its sleep, and of an account's SSH keys. */

/** `public`: everybody; `token`: who has a token of the job's account. */
export const visibilities = ['public', 'token'] as const
export type Visibility = (typeof visibilities)[number]
export const visibility = () => choice(visibilities).describe('Who may see the URL: everybody, or who has a token of the account.')

const portRule = 'must be a whole number from 1 to 65,535'

/** POST /mags-jobs/:id/access */
export const accessRequest = z.strictObject({
  port: z
    .number({ error: (issue) => (issue.input === undefined ? 'is required' : portRule) })
    .int(portRule)
    .min(1, portRule)
    .max(65_535, portRule)
    .describe('22: SSH. Any other: what the URL reaches from now on.'),
  visibility: visibility().optional(),
})
export type AccessRequest = z.output<typeof accessRequest>

export const sshAccessAnswer = z.object({
  success: z.literal(true),
  message: z.string(),
  ssh_host: z.string(),
  ssh_port: z.number(),
  ssh_private_key: z.string().describe('OpenSSH private key (Ed25519); the user is root.'),
  access_type: z.literal('ssh_proxy'),
})
export type SshAccessAnswer = z.output<typeof sshAccessAnswer>

export const urlAccessAnswer = z.object({
  success: z.literal(true),
  message: z.string(),
  url: z.string(),
  subdomain: z.string(),
  ipv6_address: z.string().nullable(),
  port: z.number(),
  visibility: z.enum(visibilities),
  access_type: z.literal('http_proxy'),
})
export type UrlAccessAnswer = z.output<typeof urlAccessAnswer>

export const accessAnswer = z.union([sshAccessAnswer, urlAccessAnswer])

/** POST /mags-jobs/:id/sleep */
export const sleepRequest = z.strictObject({ release: flag().default(false).describe('Give its memory back, too.') })

export const sleepAnswer = z.object({
  success: z.literal(true),
  message: z.string(),
  status: z.string(),
  sleep_stage: z.enum(['frozen', 'hibernated', 'released']).nullable(),
})
export type SleepAnswer = z.output<typeof sleepAnswer>

/** POST /mags-jobs/:id/wake */
export const wakeRequest = z.strictObject({})

export const wakeAnswer = z.object({
  success: z.literal(true),
  message: z.string(),
  status: z.string(),
  wake_duration_ms: z.number().nullable().describe('Null when it was awake.'),
})
export type WakeAnswer = z.output<typeof wakeAnswer>

/** POST /mags-jobs/:id/fork */
export const forkJobRequest = z.strictObject({
  name: label().optional().describe('Default: the name of the job with -fork.'),
  workspace_id: label().nullish().describe('A new workspace that the copy is saved as; a copy without one is not saved.'),
})
export type ForkJobRequest = z.output<typeof forkJobRequest>

export const forkJobAnswer = z.object({
  request_id: z.string(),
  status: z.literal('accepted'),
  message: z.string(),
  with_memory: z
    .boolean()
    .describe('True: memory and processes were copied, and the script goes on in the copy. False: files only; the copy runs the startup command.'),
})
export type ForkJobAnswer = z.output<typeof forkJobAnswer>

/** POST /mags-ssh-keys */
export const addSshKeyRequest = z.strictObject({
  name: label().optional().describe('Default: the comment of the key, else its type.'),
  public_key: text(8192).describe('A line of authorized_keys without options: ssh-ed25519, ecdsa-sha2-nistp256/384/521 or ssh-rsa.'),
})

export const sshKeyAnswer = z.object({
  id: z.string(),
  name: z.string(),
  public_key: z.string(),
  fingerprint: z.string().describe('SHA256:… as ssh-keygen -l shows it.'),
  created_at: z.string(),
})
export type SshKeyAnswer = z.output<typeof sshKeyAnswer>

export const listSshKeysAnswer = z.object({ keys: z.array(sshKeyAnswer) })
export const sshKeyParams = z.object({ id: z.string() })
