import type { ImageInfo } from '@mags/protocol'
import { describe, expect, it } from 'vitest'
import { databaseKinds, lacksDatabase, useTestDatabases } from '../../../../tests/kit/test-databases.ts'
import { JobStore } from '../jobs/store.ts'
import { openDatabase } from '../state/database.ts'
import { GroupCommit } from '../state/group-commit.ts'
import { makeJob } from '../testing/make-job.ts'
import { ImageUsers } from './image-users.ts'
import { usersOfVersions } from './users-of-versions.ts'

const versionOf = (digest: string, createdAt: string, current = false): ImageInfo => ({
  ...{ name: 'alpine', digest, current, os: 'Alpine', sizeBytes: 1, createdAt },
  source: { kind: 'recipe', reference: 'alpine' },
})
const versions = [
  versionOf('sha256:c', '2026-03-01T00:00:00Z', true),
  versionOf('sha256:b', '2026-02-01T00:00:00Z'),
  versionOf('sha256:a', '2026-01-01T00:00:00Z'),
]

describe.each(databaseKinds)('who uses images, on %s', (kind) => {
  describe.skipIf(lacksDatabase(kind))('ImageUsers', () => {
    const newDatabase = useTestDatabases(kind)

    it('knows stopped microVMs and jobs that are not over, and which version each needs', async () => {
      const config = newDatabase()
      const database = await openDatabase(config)
      await using _close = { [Symbol.asyncDispose]: () => database.destroy() }
      const commits = new GroupCommit(database, config.kind)
      const jobs = new JobStore(database, commits)
      const job = (draft: Parameters<typeof makeJob>[0]) => makeJob({ image: 'alpine', accountId: 'me', ...draft })
      const stored = [
        job({ requestId: 'old', status: 'running', startedAt: '2026-02-02T00:00:00.000Z' }),
        job({ requestId: 'waits', status: 'pending' }),
        job({ requestId: 'pinned', status: 'sleeping', imageDigest: 'sha256:a', startedAt: '2026-03-02T00:00:00.000Z' }),
        job({ requestId: 'over', status: 'completed' }),
        job({ requestId: 'other', status: 'running', image: 'debian-12' }),
      ]
      for (const one of stored) await commits.write((transaction) => jobs.insert(transaction, one))
      const at = '2026-01-01T00:00:00.000Z'
      const microvm = {
        ...{
          id: 'vm-1',
          account_id: 'you',
          name: 'web',
          wish: 'stopped' as const,
          request_id: null,
          error: null,
          cpu: 1,
          memory_mb: 512,
          disk_gb: 2,
          image: 'alpine',
          image_digest: 'sha256:b',
        },
        ...{
          isolation_wish: 'vm' as const,
          init: 1,
          ip_lease: 0,
          port: 80,
          workspace_id: 'vm-1',
          key_generated: 0,
          key_downloaded_at: null,
          created_at: at,
          updated_at: at,
        },
      }
      await database.insertInto('microvms').values(microvm).execute()
      const users = await new ImageUsers(database).list('alpine')
      const found = usersOfVersions(versions, users)
      const names = (digest: string) => found.get(digest)?.map(({ kind: what, accountId, name }) => `${what} ${name} of ${accountId}`)
      expect(names('sha256:c')).toEqual(['job waits of me'])
      expect(names('sha256:b')).toEqual(['job old of me', 'microvm web of you'])
      expect(names('sha256:a')).toEqual(['job pinned of me'])
    })
  })
})
