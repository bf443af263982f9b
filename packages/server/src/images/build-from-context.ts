import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { HostApi, ImageInfo } from '@mags/protocol'
import type { BuildCache } from './cache/build-cache.ts'
import { buildDockerfile } from './dockerfile/build-dockerfile.ts'
import { ContextArchive } from './dockerfile/context-archive.ts'
import type { TaskWork } from './image-tasks.ts'

export interface BuildFromContextDeps {
  readonly host: HostApi
  /** Folder for what was sent while it is built; nothing else may be in it. */
  readonly contextsDir: string
  readonly buildCache: BuildCache
}

/** A build out of an archive that is still on its way. It lies in a file while the build goes on. */
export function buildFromContext(
  deps: BuildFromContextDeps,
  order: {
    readonly accountId: string
    readonly name: string
    readonly dockerfile: string
    readonly buildArgs: Readonly<Record<string, string>>
    /** Nothing of earlier builds is used. */
    readonly noCache: boolean
    readonly content: AsyncIterable<Uint8Array>
  },
): TaskWork {
  return async (progress, abort): Promise<ImageInfo> => {
    await mkdir(deps.contextsDir, { recursive: true, mode: 0o700 })
    const file = join(deps.contextsDir, `${randomUUID()}.tar`)
    try {
      await pipeline(Readable.from(order.content, { objectMode: false }), createWriteStream(file, { mode: 0o600, flags: 'wx' }), { signal: abort }).catch(
        (error: unknown) => {
          abort.throwIfAborted()
          throw error
        },
      )
      const context = await ContextArchive.open(file)
      const { accountId, name, dockerfile, buildArgs, noCache } = order
      await using cache = deps.buildCache.open(accountId, { fresh: noCache })
      return await buildDockerfile({ host: deps.host, name, dockerfile, buildArgs, cache, context, progress, abort })
    } finally {
      await rm(file, { force: true })
    }
  }
}

/** What a crash left of them. */
export async function removeContexts(contextsDir: string): Promise<void> {
  await rm(contextsDir, { recursive: true, force: true })
}
