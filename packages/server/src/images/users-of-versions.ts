import type { ImageInfo } from '@mags/protocol'
import type { ImageUser } from './image-users.ts'

/** Who needs which version, by digest. Who has none written down needs the one that was the newest when it started, or is now. `versions` has the newest first. */
export function usersOfVersions(versions: readonly ImageInfo[], users: readonly ImageUser[]): Map<string, ImageUser[]> {
  const found = new Map<string, ImageUser[]>(versions.map(({ digest }) => [digest, []]))
  for (const user of users) found.get(user.digest ?? digestAt(versions, user.since) ?? '')?.push(user)
  return found
}

function digestAt(versions: readonly ImageInfo[], since: string | null): string | undefined {
  const current = versions.find((version) => version.current) ?? versions[0]
  if (since === null) return current?.digest
  const at = Date.parse(since)
  return (versions.find(({ createdAt }) => Date.parse(createdAt) <= at) ?? current)?.digest
}
