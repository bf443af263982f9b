import { type HostApi, healthAnswer } from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'

/** GET /health, without a token. */
export const healthRoutes: FastifyPluginCallbackZod<{ readonly host: HostApi; readonly version: string }> = (app, { host, version }, done) => {
  app.get('/health', { schema: { tags: ['Server'], summary: 'Whether the server is there', security: [], response: { 200: healthAnswer } } }, async () => ({
    status: 'ok' as const,
    version,
    isolation: host.capabilities().default,
  }))
  done()
}
