import { randomUUID } from 'node:crypto'
import { type ChangeTemplateRequest, type CreateTemplateRequest, type HostApi, type HostCapabilities, jobDefaults, MagsError } from '@mags/protocol'
import { checkSize } from '../job-api/check-job.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import type { Identity } from '../tokens/tokens.ts'
import type { TemplateStore } from './store.ts'
import type { Template } from './template.ts'

export interface ChangeTemplateDeps {
  readonly templates: TemplateStore
  readonly commits: GroupCommit
  readonly host: HostApi
  readonly clock: () => number
}

export function unknownTemplate(id: string): MagsError {
  return new MagsError('not_found', `no job template ${JSON.stringify(id.slice(0, 64))}; 'mags template list' shows those there are`)
}

/** By id or name. Rejects with MagsError('not_found'). */
export async function findTemplate({ templates }: Pick<ChangeTemplateDeps, 'templates'>, accountId: string, id: string): Promise<Template> {
  const template = (await templates.get(accountId, id)) ?? (await templates.findByName(accountId, id))
  if (template === undefined) throw unknownTemplate(id)
  return template
}

/** A template that was not stored yet, in its first revision. Throws MagsError('out_of_range'). */
export function newTemplate({ host, clock }: Pick<ChangeTemplateDeps, 'host' | 'clock'>, identity: Identity, request: CreateTemplateRequest): Template {
  const capabilities = host.capabilities()
  checkSize(request, capabilities)
  const id = randomUUID()
  const createdAt = timestamp(clock())
  return {
    ...{ id, accountId: identity.accountId, userId: identity.tokenId, createdAt, updatedAt: createdAt },
    name: request.name,
    description: request.description ?? null,
    vcpus: request.vcpus ?? defaultVcpus(capabilities),
    memoryMb: request.memory_mb ?? jobDefaults.memoryMb,
    latest: {
      ...{ id: randomUUID(), templateId: id, revision: 1, createdAt, createdBy: identity.tokenId },
      script: request.script,
      environment: request.environment ?? {},
      comment: request.comment ?? null,
    },
  }
}

/** Makes the next revision: what `change` names changes, null is the default again. Rejects with MagsError 'not_found', 'out_of_range'. */
export async function updateTemplate(deps: ChangeTemplateDeps, identity: Identity, id: string, change: ChangeTemplateRequest): Promise<Template> {
  const { templates, commits, host, clock } = deps
  const { accountId, tokenId } = identity
  const capabilities = host.capabilities()
  checkSize(change, capabilities)
  const seen = await findTemplate(deps, accountId, id)
  return await commits.write(async (transaction) => {
    const before = (await templates.lock(transaction, seen.id)) ? await templates.get(accountId, seen.id, transaction) : undefined
    if (before === undefined) throw unknownTemplate(id)
    const { latest } = before
    const updatedAt = timestamp(clock())
    const template: Template = {
      ...{ ...before, updatedAt },
      name: change.name ?? before.name,
      description: change.description === undefined ? before.description : change.description,
      vcpus: change.vcpus === undefined ? before.vcpus : (change.vcpus ?? defaultVcpus(capabilities)),
      memoryMb: change.memory_mb === undefined ? before.memoryMb : (change.memory_mb ?? jobDefaults.memoryMb),
      latest: {
        ...{ id: randomUUID(), templateId: before.id, revision: latest.revision + 1, createdAt: updatedAt, createdBy: tokenId },
        script: change.script ?? latest.script,
        environment: change.environment === undefined ? latest.environment : (change.environment ?? {}),
        comment: change.comment ?? null,
      },
    }
    await templates.update(transaction, template)
    return template
  })
}

const defaultVcpus = (host: HostCapabilities) => Math.min(jobDefaults.vcpus, host.maxVcpus)
