import {
  createUrlAliasRequest,
  doneAnswer,
  errorAnswer,
  listUrlAliasesAnswer,
  listUrlAliasesQuery,
  updateUrlAliasRequest,
  urlAliasAnswer,
  urlAliasParams,
} from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'
import { type AnswerOnceDeps, answerOnce } from '../http/answer-once.ts'
import { type ChangeAliasDeps, createAlias, removeAlias, unknownAlias, updateAlias } from './change-alias.ts'
import { presentAlias } from './present-alias.ts'

export interface AliasRoutesDeps extends ChangeAliasDeps, AnswerOnceDeps {}

export const aliasRoutes: FastifyPluginCallbackZod<AliasRoutesDeps> = (app, deps, done) => {
  const tags = ['URL aliases']
  const { aliasStore, aliases, appsUrlNow } = deps

  app.post(
    '/mags-url-aliases',
    {
      schema: {
        tags,
        summary: 'A name below the apps domain that leads to whatever job has a workspace',
        body: createUrlAliasRequest,
        response: { 201: urlAliasAnswer, '4xx': errorAnswer },
      },
    },
    async (request, reply) => {
      const { accountId } = request.identity
      const answer = await answerOnce(deps, request, { alias: request.body }, async (transaction) =>
        presentAlias(await createAlias(deps, transaction, accountId, request.body), appsUrlNow()),
      )
      aliases.drop()
      reply.code(201)
      return answer
    },
  )

  app.get(
    '/mags-url-aliases',
    {
      schema: {
        tags,
        summary: 'List URL aliases, newest first',
        querystring: listUrlAliasesQuery,
        response: { 200: listUrlAliasesAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => {
      const { page, page_size } = request.query
      const found = await aliasStore.list(request.identity.accountId, { offset: (page - 1) * page_size, limit: page_size })
      return { aliases: found.aliases.map((alias) => presentAlias(alias, appsUrlNow())), total: found.total, page, page_size }
    },
  )

  app.get(
    '/mags-url-aliases/:subdomain',
    { schema: { tags, summary: 'A URL alias', params: urlAliasParams, response: { 200: urlAliasAnswer, '4xx': errorAnswer } } },
    async (request) => {
      const { subdomain } = request.params
      const alias = await aliasStore.find(request.identity.accountId, subdomain)
      if (alias === undefined) throw unknownAlias(subdomain)
      return presentAlias(alias, appsUrlNow())
    },
  )

  app.patch(
    '/mags-url-aliases/:subdomain',
    {
      schema: {
        tags,
        summary: 'Point a URL alias at another workspace, or change its domain',
        params: urlAliasParams,
        body: updateUrlAliasRequest,
        response: { 200: urlAliasAnswer, '4xx': errorAnswer },
      },
    },
    async (request) => presentAlias(await updateAlias(deps, request.identity.accountId, request.params.subdomain, request.body), appsUrlNow()),
  )

  app.delete(
    '/mags-url-aliases/:subdomain',
    { schema: { tags, summary: 'Remove a URL alias; its name is free at once', params: urlAliasParams, response: { 200: doneAnswer, '4xx': errorAnswer } } },
    async (request) => {
      await removeAlias(deps, request.identity.accountId, request.params.subdomain)
      return { success: true, message: 'Alias removed' }
    },
  )
  done()
}
