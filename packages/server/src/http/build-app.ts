import swagger from '@fastify/swagger'
import { bodyLimitBytes, type HostApi, requestFault } from '@mags/protocol'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { jsonSchemaTransform } from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import type { ZodType } from 'zod'
import { type SshKeyRoutesDeps, sshKeyRoutes } from '../access/ssh-key-routes.ts'
import { type AliasRoutesDeps, aliasRoutes } from '../aliases/routes.ts'
import { type CronRoutesDeps, cronRoutes } from '../cron/routes.ts'
import { type FileRoutesDeps, fileRoutes } from '../files/routes.ts'
import type { Metrics } from '../health/metrics.ts'
import { healthRoutes } from '../health/routes.ts'
import { type ImageRoutesDeps, imageRoutes } from '../images/routes.ts'
import { type JobApiRoutesDeps, jobApiRoutes } from '../job-api/routes.ts'
import { type JobRoutesDeps, jobRoutes } from '../jobs/routes.ts'
import { type LogRoutesDeps, logRoutes } from '../logs/routes.ts'
import { type MicrovmRoutesDeps, microvmRoutes } from '../microvms/routes.ts'
import { poolRoutes } from '../pool/routes.ts'
import { sandboxFileRoutes } from '../sandbox-files/routes.ts'
import { type TemplateRoutesDeps, templateRoutes } from '../templates/routes.ts'
import { authenticate } from '../tokens/authenticate.ts'
import type { Identity, Tokens } from '../tokens/tokens.ts'
import { type WorkspaceRoutesDeps, workspaceRoutes } from '../workspaces/routes.ts'
import { answerClientError } from './client-error.ts'
import { sendError } from './error-answer.ts'
import { KnownPaths } from './known-paths.ts'
import { parseJson } from './parse-json.ts'
import { refuseNul } from './refuse-nul.ts'
import { watchBodies } from './watch-bodies.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Whose request it is; set on every route that needs a token. */
    identity: Identity
    /** The body before validation, on routes with `keepsRawBody`. */
    rawBody: Readonly<Record<string, unknown>>
  }
  interface FastifyContextConfig {
    keepsRawBody?: boolean
    /** The handler reads the body as it comes, and may take its time; perhaps only of some requests. */
    streamsBody?: boolean | ((request: FastifyRequest) => boolean)
  }
}

export interface AppDeps
  extends JobRoutesDeps,
    SshKeyRoutesDeps,
    LogRoutesDeps,
    WorkspaceRoutesDeps,
    FileRoutesDeps,
    AliasRoutesDeps,
    CronRoutesDeps,
    ImageRoutesDeps,
    JobApiRoutesDeps,
    MicrovmRoutesDeps,
    TemplateRoutesDeps {
  readonly host: HostApi
  readonly tokens: Tokens
  readonly metrics: Metrics
  readonly logger: Logger
  readonly version: string
  readonly publicUrl: string
  readonly requestTimeoutMs: number
}

/** The HTTP side: rules that hold for every route, then the routes of each noun, under v1 and v2. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const paths = new KnownPaths()
  const { requestTimeoutMs } = deps
  const app = Fastify({
    logger: false,
    bodyLimit: bodyLimitBytes,
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    requestTimeout: 0,
    http: { headersTimeout: requestTimeoutMs, connectionsCheckingInterval: Math.max(100, Math.min(5000, requestTimeoutMs / 4)) },
    routerOptions: { maxParamLength: 255 },
    clientErrorHandler: (error, socket) => answerClientError(error, socket),
    frameworkErrors: (error, request, reply) => sendError(error, request as FastifyRequest, reply, deps.logger),
  })
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply, deps.logger))
  app.setNotFoundHandler((request, reply) => {
    const { error, allow } = paths.explain(request)
    if (allow !== undefined) reply.header('allow', allow)
    sendError(error, request, reply, deps.logger)
  })
  app.setValidatorCompiler(({ schema }) => validator(schema as ZodType))
  // Answers are built by typed code; checking them again would cost more than it finds.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  parseJsonBodies(app)
  app.decorateRequest('identity', null as never)
  app.decorateRequest('rawBody', null as never)
  app.addHook('preValidation', async (request) => {
    if (request.routeOptions.config.keepsRawBody) request.rawBody = isObject(request.body) ? request.body : {}
  })
  app.addHook('onResponse', async (request, reply) => {
    deps.metrics.observeRequest({ method: request.method, route: request.routeOptions.url ?? 'none', status: reply.statusCode }, reply.elapsedTime / 1000)
  })
  watchBodies(app, requestTimeoutMs)
  refuseNul(app)
  paths.watch(app)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Mags', version: deps.version, description: 'Sandboxes for developers and AI agents.' },
      servers: [{ url: deps.publicUrl }],
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    transform: jsonSchemaTransform,
  })
  for (const prefix of ['/api/v1', '/api/v2']) {
    await app.register(healthRoutes, { prefix, host: deps.host, version: deps.version })
    await app.register(
      async (api) => {
        api.addHook('onRequest', async (request) => {
          request.identity = await authenticate(request, deps.tokens)
        })
        await api.register(jobRoutes, deps)
        await api.register(logRoutes, deps)
        await api.register(workspaceRoutes, deps)
        await api.register(fileRoutes, deps)
        await api.register(aliasRoutes, deps)
        await api.register(cronRoutes, deps)
        await api.register(jobApiRoutes, deps)
        await api.register(microvmRoutes, deps)
        await api.register(templateRoutes, deps)
        await api.register(sandboxFileRoutes, deps)
        await api.register(sshKeyRoutes, deps)
        await api.register(imageRoutes, deps)
        await api.register(poolRoutes, { host: deps.host })
      },
      { prefix },
    )
  }
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
  app.get('/metrics', { schema: { hide: true } }, async (_request, reply) => {
    reply.header('content-type', deps.metrics.registry.contentType)
    return await deps.metrics.registry.metrics()
  })
  return app
}

function validator(schema: ZodType) {
  return (data: unknown) => {
    const result = schema.safeParse(data)
    return result.success ? { value: result.data } : { error: requestFault(result.error) }
  }
}

function parseJsonBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  // An empty body is none, also where it is called a form, as curl -d '' does.
  app.addHook('onRequest', async ({ raw: { headers } }) => {
    if (headers['content-length'] === '0' && headers['content-type'] === 'application/x-www-form-urlencoded') delete headers['content-type']
  })
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    try {
      done(null, body === '' ? undefined : parseJson(body as string))
    } catch (error) {
      done(error as Error)
    }
  })
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
