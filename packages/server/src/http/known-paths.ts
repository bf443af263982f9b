import { MagsError } from '@mags/protocol'
import type { FastifyInstance, FastifyRequest } from 'fastify'

/** Tells 404 from 405 for a request that no route took. */
export class KnownPaths {
  readonly #methods = new Map<string, { pattern: RegExp; methods: Set<string> }>()

  /** Notes every route that is registered after this call. */
  watch(app: FastifyInstance): void {
    app.addHook('onRoute', ({ url, method }) => {
      const escaped = url.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/:\w+/g, '[^/]+')
      const entry = this.#methods.get(url) ?? { pattern: new RegExp(`^${escaped}$`), methods: new Set<string>() }
      for (const one of Array.isArray(method) ? method : [method]) entry.methods.add(one)
      this.#methods.set(url, entry)
    })
  }

  explain(request: FastifyRequest): { error: MagsError; allow?: string } {
    const [path = ''] = request.url.split('?')
    const methods = [...this.#methods.values()].filter(({ pattern }) => pattern.test(path)).flatMap((entry) => [...entry.methods])
    const allow = [...new Set(methods)].sort().join(', ')
    if (allow !== '') return { error: new MagsError('method_not_allowed', `${request.method} is not possible here; there is ${allow}`), allow }
    return { error: new MagsError('not_found', `there is nothing at ${path.slice(0, 200)}`) }
  }
}
