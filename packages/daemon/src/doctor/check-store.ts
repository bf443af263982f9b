import { openBlobStore } from '@mags/host'
import { MagsError } from '@mags/protocol'
import type { ServerConfig } from '../config/server-config.ts'
import { type Check, failure, ok } from './finding.ts'

/** Whether the object store of workspaces answers, keeps the conditions that saves rest on, and was written with the same key. */
export function checkStore({ store }: Pick<ServerConfig, 'store'>): Check {
  return {
    part: 'store',
    async run() {
      try {
        const opened = await openBlobStore(store)
        opened.close()
        return ok(`workspaces are stored in: ${opened.description}`)
      } catch (error) {
        const unavailable = error instanceof MagsError && error.code === 'object_store_unavailable'
        const advice = unavailable
          ? 'jobs without a workspace run all the same; see docs/workspaces.md for the settings'
          : 'see docs/workspaces.md, "Where it is stored"'
        return failure((error as Error).message, advice)
      }
    },
  }
}
