import {
  diffWorkspaceAnswer,
  diffWorkspaceQuery,
  doneAnswer,
  errorAnswer,
  forkWorkspaceRequest,
  type HostApi,
  listVersionsAnswer,
  listVersionsQuery,
  listWorkspacesAnswer,
  listWorkspacesQuery,
  MagsError,
  restoreWorkspaceAnswer,
  restoreWorkspaceRequest,
  updateWorkspaceRequest,
  workspaceAnswer,
  workspaceParams,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import { timestamp } from '../state/timestamp.ts'
import { diffWorkspace } from './diff-workspace.ts'
import { findWorkspace } from './find-workspace.ts'
import { type ForkOnceDeps, forkOnce } from './fork-once.ts'
import { presentDiff, presentVersion, presentWorkspace } from './present-workspace.ts'
import { removeWorkspace } from './remove-workspace.ts'
import { restoreWorkspace } from './restore-workspace.ts'

export interface WorkspaceRoutesDeps extends ForkOnceDeps {
  readonly host: HostApi
  readonly logger: Logger
}

export const workspaceRoutes: FastifyPluginCallbackZod<WorkspaceRoutesDeps> = (app, deps, done) => {
  const tags = ['Workspaces']
  const { workspaces, host, clock } = deps
  const find = (accountId: string, id: string) => findWorkspace(workspaces, accountId, id)
  const failures = { '4xx': errorAnswer, '5xx': errorAnswer }

  app.get(
    '/mags-workspaces',
    {
      schema: { tags, summary: 'List workspaces, newest first', querystring: listWorkspacesQuery, response: { 200: listWorkspacesAnswer, '4xx': errorAnswer } },
    },
    async (request) => {
      const { page, page_size } = request.query
      const found = await workspaces.list(request.identity.accountId, { offset: (page - 1) * page_size, limit: page_size })
      return { workspaces: found.workspaces.map(presentWorkspace), total: found.total, page, page_size }
    },
  )

  app.get(
    '/mags-workspaces/:id',
    { schema: { tags, summary: 'A workspace', params: workspaceParams, response: { 200: workspaceAnswer, '4xx': errorAnswer } } },
    async (request) => presentWorkspace(await find(request.identity.accountId, request.params.id)),
  )

  app.delete(
    '/mags-workspaces/:id',
    {
      schema: {
        tags,
        summary: 'Delete a workspace with all its versions, here and in the object store; not while a job has it',
        params: workspaceParams,
        response: { 200: doneAnswer, ...failures },
      },
    },
    async (request) => {
      const gone = await removeWorkspace(deps, await find(request.identity.accountId, request.params.id))
      return {
        success: true,
        message: gone ? 'Workspace deleted' : 'Workspace deleted; its data in the object store are taken away later, because it does not answer now',
      }
    },
  )

  app.patch(
    '/mags-workspaces/:id',
    {
      schema: {
        tags,
        summary: 'Make the disk of a workspace larger, from the next job on',
        params: workspaceParams,
        body: updateWorkspaceRequest,
        response: { 200: workspaceAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => {
      const workspace = await find(request.identity.accountId, request.params.id)
      const { disk_gb: diskGb } = request.body
      const { maxDiskGb } = host.capabilities()
      if (diskGb > maxDiskGb) throw new MagsError('bad_request', `disk_gb: at most ${maxDiskGb.toLocaleString('en-US')} on this server`)
      if (!(await workspaces.grow(workspace.storageId, diskGb, timestamp(clock()))))
        throw new MagsError('bad_request', `disk_gb: workspace '${workspace.workspaceId}' has ${workspace.diskGb} GB, and a disk can only grow`)
      return presentWorkspace(await find(workspace.accountId, workspace.workspaceId))
    },
  )

  app.post(
    '/mags-workspaces/:id/fork',
    {
      schema: {
        tags,
        summary: 'A new workspace that begins with the newest saved version of this one, or an earlier one; nothing is copied',
        params: workspaceParams,
        body: forkWorkspaceRequest,
        response: { 201: workspaceAnswer, ...failures },
      },
    },
    async (request, reply) => {
      const from = await find(request.identity.accountId, request.params.id)
      const { workspace_id: workspaceId, version } = request.body
      const key = request.headers['idempotency-key']
      const answer = await forkOnce(deps, from, { workspaceId, version }, typeof key === 'string' ? key : undefined)
      reply.code(201)
      return answer
    },
  )

  app.get(
    '/mags-workspaces/:id/versions',
    {
      schema: {
        tags,
        summary: 'Saved versions of a workspace, newest first',
        params: workspaceParams,
        querystring: listVersionsQuery,
        response: { 200: listVersionsAnswer, ...failures },
      },
    },
    async (request) => {
      const { page, page_size } = request.query
      const workspace = await find(request.identity.accountId, request.params.id)
      const versions = await host.workspaces.versions(workspace.storageId)
      const shown = versions.slice((page - 1) * page_size, page * page_size)
      return { versions: shown.map(presentVersion), total: versions.length, page, page_size }
    },
  )

  app.post(
    '/mags-workspaces/:id/restore',
    {
      schema: {
        tags,
        summary: 'Go back: a new version with the contents of an earlier one; not while a job has the workspace',
        params: workspaceParams,
        body: restoreWorkspaceRequest,
        response: { 200: restoreWorkspaceAnswer, ...failures },
      },
    },
    async (request) => {
      const workspace = await find(request.identity.accountId, request.params.id)
      const { version } = await restoreWorkspace(deps, workspace, request.body.version)
      return { success: true, workspace_id: workspace.workspaceId, version }
    },
  )

  app.get(
    '/mags-workspaces/:id/diff',
    {
      schema: {
        tags,
        summary: 'Paths that two versions have differently: by default the newest and the one before',
        params: workspaceParams,
        querystring: diffWorkspaceQuery,
        response: { 200: diffWorkspaceAnswer, ...failures },
      },
    },
    async (request) => {
      const workspace = await find(request.identity.accountId, request.params.id)
      const { from, to, diff } = await diffWorkspace(host, workspace, request.query)
      return presentDiff(workspace.workspaceId, from, to, diff)
    },
  )
  done()
}
