import { MagsError, type SandboxFile, type SandboxFiles } from '@mags/protocol'

export interface StageUser {
  readonly uid: number
  readonly gid: number
  /** Of the image's own list. */
  readonly name: string | undefined
  readonly home: string | undefined
}

const maxListBytes = 1024 * 1024

/** `name`, `uid`, `name:group` or `uid:gid` of USER, by the image's own lists. Rejects with MagsError 'image_invalid' for a name that is not in them. */
export async function findUser(files: SandboxFiles, text: string): Promise<StageUser> {
  const [user = '', group] = text.split(':', 2)
  const entry = (await readList(files, '/etc/passwd')).find(([name, , uid]) => name === user || (/^\d+$/.test(user) && uid === user))
  const uid = Number(entry?.[2] ?? user)
  if (user === '' || !Number.isInteger(uid)) throw new MagsError('image_invalid', `there is no user ${JSON.stringify(user)} in this image`)
  const gid = group === undefined ? Number(entry?.[3] ?? 0) : await findGroup(files, group)
  return { uid, gid, name: entry?.[0], home: entry?.[5] === '' ? undefined : (entry?.[5] ?? '/') }
}

/** Ids of --chown; without a group it has the number of the user, as in the Dockerfile reference. */
export async function findOwner(files: SandboxFiles, text: string): Promise<{ uid: number; gid: number }> {
  const { uid } = await findUser(files, text)
  const [, group] = text.split(':', 2)
  return { uid, gid: group === undefined ? uid : await findGroup(files, group) }
}

async function findGroup(files: SandboxFiles, group: string): Promise<number> {
  const gid = /^\d+$/.test(group) ? group : (await readList(files, '/etc/group')).find(([name]) => name === group)?.[2]
  if (gid === undefined || !/^\d+$/.test(gid)) throw new MagsError('image_invalid', `there is no group ${JSON.stringify(group)} in this image`)
  return Number(gid)
}

async function readList(files: SandboxFiles, path: string): Promise<string[][]> {
  const parts: Uint8Array[] = []
  if ((await files.stat(path).catch(absentFile)) === undefined) return []
  let total = 0
  for await (const part of files.read(path)) {
    parts.push(Buffer.from(part))
    total += part.length
    if (total > maxListBytes) throw new MagsError('image_invalid', `${path} of this image is too long to look a name up in`)
  }
  return Buffer.concat(parts)
    .toString('utf8')
    .split('\n')
    .map((line) => line.split(':'))
}

export function absentFile(error: unknown): SandboxFile | undefined {
  if (error instanceof MagsError && error.code === 'not_found') return undefined
  throw error
}
