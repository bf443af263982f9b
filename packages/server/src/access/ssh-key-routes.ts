import { addSshKeyRequest, doneAnswer, errorAnswer, listSshKeysAnswer, MagsError, type SshKeyAnswer, sshKeyAnswer, sshKeyParams } from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { timestamp } from '../state/timestamp.ts'
import type { AccountKey, SshKeyStore } from './ssh-key-store.ts'
import { readSshPublicKey } from './ssh-public-key.ts'

export interface SshKeyRoutesDeps {
  readonly sshKeys: SshKeyStore
  readonly clock: () => number
}

export const sshKeyRoutes: FastifyPluginCallbackZod<SshKeyRoutesDeps> = (app, { sshKeys, clock }, done) => {
  const tags = ['SSH keys']

  app.get(
    '/mags-ssh-keys',
    { schema: { tags, summary: 'Public keys that open every sandbox of the account by SSH', response: { 200: listSshKeysAnswer } } },
    async (request) => ({ keys: (await sshKeys.list(request.identity.accountId)).map(present) }),
  )

  app.post(
    '/mags-ssh-keys',
    { schema: { tags, summary: 'Add a public key', body: addSshKeyRequest, response: { 201: sshKeyAnswer, '4xx': errorAnswer } } },
    async (request, reply) => {
      const { name, public_key: line } = request.body
      const { key, type, comment } = readSshPublicKey(line)
      const chosen = name ?? (/^[A-Za-z0-9._-]{1,63}$/.test(comment) ? comment : type)
      const added = await sshKeys.add(request.identity.accountId, { name: chosen, publicKey: key }, timestamp(clock()))
      reply.code(201)
      return present(added)
    },
  )

  app.delete(
    '/mags-ssh-keys/:id',
    { schema: { tags, summary: 'Delete a public key; open connections stay', params: sshKeyParams, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      if (!(await sshKeys.remove(request.identity.accountId, request.params.id))) throw new MagsError('not_found', 'no such SSH key')
      return { success: true, message: 'SSH key deleted' }
    },
  )
  done()
}

function present({ id, name, publicKey, createdAt }: AccountKey): SshKeyAnswer {
  return { id, name, public_key: publicKey, fingerprint: readSshPublicKey(publicKey).fingerprint, created_at: createdAt }
}
