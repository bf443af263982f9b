import { type HostApi, poolStatusAnswer } from '@mags/protocol'
import type { FastifyPluginCallbackZod } from 'fastify-type-provider-zod'

export const poolRoutes: FastifyPluginCallbackZod<{ readonly host: HostApi }> = (app, { host }, done) => {
  app.get('/mags-jobs/pool-status', { schema: { tags: ['Pool'], summary: 'The sandboxes of this server', response: { 200: poolStatusAnswer } } }, async () => {
    const pool = host.poolStatus()
    return {
      idle_vms: pool.idle,
      busy_vms: pool.busy,
      total_vms: pool.idle + pool.busy + pool.sleeping,
      min_pool_size: pool.minSize,
      max_pool_size: pool.maxSize,
      sleeping_vms: pool.sleeping,
      isolation: host.capabilities().default,
      hit_rate: pool.hitRate,
      last_failure: pool.lastFailure ?? null,
    }
  })
  done()
}
