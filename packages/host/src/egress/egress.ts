import { MagsError, type RefusedConnection } from '@mags/protocol'
import type { Logger } from 'pino'
import type { Sandbox } from '../drivers/driver.ts'
import type { SandboxNetwork } from '../network/sandbox-network.ts'
import { RefusalWatch } from './refusal-watch.ts'
import type { SandboxEgress } from './sandbox-egress.ts'

export interface EgressDeps {
  readonly network: Pick<SandboxNetwork, 'egress' | 'useOf'>
  readonly logger: Logger
}

/** Egress of the sandboxes of this machine. */
export class Egress {
  readonly #deps: EgressDeps
  readonly #watch: RefusalWatch

  constructor(deps: EgressDeps) {
    this.#deps = deps
    this.#watch = new RefusalWatch(() => deps.network.egress.refused(), deps.logger)
    deps.network.egress.onNameRefused = (row) => this.#watch.deliver([row])
  }

  /** Throws MagsError `bad_request` for a policy that this machine cannot keep. */
  check(policy: Parameters<SandboxEgress['set']>[0]) {
    this.#deps.network.egress.read(policy)
  }

  /** For the sandbox that has its slot now, and never for the one after it. */
  of(sandbox: Pick<Sandbox, 'network'>): SandboxEgress {
    if (sandbox.network === undefined) return withoutNetwork
    const { egress } = this.#deps.network
    const use = this.#deps.network.useOf(sandbox.network)
    return {
      set: (policy) => egress.set(use, policy),
      rest: (asleep) => use.rest(asleep),
      bytes: () => egress.sentBytes(use),
      totalBytes: use.totalBytes,
      watchRefused: (listener) => this.#watch.add(use, listener),
    }
  }

  close() {
    this.#watch.close()
  }
}

const withoutNetwork: SandboxEgress = {
  set: async (policy) => {
    if (policy !== 'none') throw new MagsError('not_available', 'this sandbox has no network, so it cannot have an egress policy')
  },
  rest: () => undefined,
  bytes: async () => 0,
  totalBytes: Promise.resolve(0),
  watchRefused: (_listener: (refused: RefusedConnection) => void) => async () => undefined,
}
