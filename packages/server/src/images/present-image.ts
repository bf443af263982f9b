import type { ImageAnswer, ImageInfo, ImageSource, ImageVersionAnswer } from '@mags/protocol'
import type { ImageUser } from './image-users.ts'

const shownNames = 100

/** All versions of one name as a row of the list. `versions` has the newest first. */
export function presentImage(versions: readonly ImageInfo[], defaultImage: string): ImageAnswer | undefined {
  const image = versions.find(({ current }) => current) ?? versions[0]
  if (image === undefined) return undefined
  return {
    name: image.name,
    default: image.name === defaultImage,
    digest: image.digest,
    versions: versions.length,
    os: image.os,
    size_bytes: image.sizeBytes,
    created_at: image.createdAt,
    source: presentSource(image.source),
    init: image.init ?? null,
  }
}

/** Names are only those of the account that asks. */
export function presentVersion(image: ImageInfo, users: readonly ImageUser[], accountId: string): ImageVersionAnswer {
  const own = users.filter((user) => user.accountId === accountId)
  const names = (kind: ImageUser['kind']) =>
    own
      .filter((user) => user.kind === kind)
      .map(({ name }) => name)
      .slice(0, shownNames)
  return {
    digest: image.digest,
    current: image.current,
    os: image.os,
    size_bytes: image.sizeBytes,
    created_at: image.createdAt,
    source: presentSource(image.source),
    init: image.init ?? null,
    environment: { ...image.environment },
    working_directory: image.workingDirectory ?? null,
    used_by: { workspaces: names('workspace'), jobs: names('job'), microvms: names('microvm'), other_accounts: users.length - own.length },
  }
}

const presentSource = ({ kind, reference, digest, command }: ImageSource) => ({
  kind,
  reference,
  digest: digest ?? null,
  ...(command === undefined ? {} : { command: [...command] }),
})
