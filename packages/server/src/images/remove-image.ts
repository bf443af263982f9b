import { type HostApi, MagsError } from '@mags/protocol'
import { findVersions } from './find-images.ts'
import type { ImageTasks } from './image-tasks.ts'
import type { ImageUser, ImageUsers } from './image-users.ts'
import { usersOfVersions } from './users-of-versions.ts'

export interface RemoveImageDeps {
  readonly host: HostApi
  readonly imageUsers: ImageUsers
  readonly imageTasks: ImageTasks
}

const namedUsers = 5
const words = { workspace: 'workspace', job: 'job', microvm: 'microVM' } as const

/** Takes one version away, or all of a name. Rejects with MagsError 'image_in_use' naming who needs it, 'not_found'. */
export async function removeImage(deps: RemoveImageDeps, accountId: string, name: string, digest: string | undefined): Promise<void> {
  const versions = await findVersions(deps.host, name)
  const wanted = digest === undefined ? versions : versions.filter((version) => version.digest === digest)
  if (wanted.length === 0) throw new MagsError('not_found', `image ${name} has no version ${digest}; 'mags image inspect ${name}' shows those there are`)
  const task = deps.imageTasks.runningFor(name)
  if (task) throw new MagsError('image_in_use', `image ${name} is being made by task ${task.task.id}; wait for it, or cancel it`)
  const users = usersOfVersions(versions, await deps.imageUsers.list(name))
  const inUse = wanted.flatMap((version) => users.get(version.digest) ?? [])
  if (inUse.length > 0) throw new MagsError('image_in_use', `image ${name} is in use by ${describeUsers(inUse, accountId)}; it can go once they are gone`)
  await deps.host.images.remove(name, digest)
}

/** Such as `workspaces a and b and 1 microVM of another account`. */
function describeUsers(users: readonly ImageUser[], accountId: string): string {
  const own = users.filter((user) => user.accountId === accountId)
  const others = users.length - own.length
  const parts = (['workspace', 'job', 'microvm'] as const).flatMap((kind) => {
    const names = own.filter((user) => user.kind === kind).map((user) => user.name)
    if (names.length === 0) return []
    const more = names.length > namedUsers ? ` and ${names.length - namedUsers} more` : ''
    return [`${words[kind]}${names.length > 1 ? 's' : ''} ${names.slice(0, namedUsers).join(', ')}${more}`]
  })
  if (others > 0) parts.push(`${others} of other accounts`)
  return parts.join(', ')
}
