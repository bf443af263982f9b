import { MagsError, type MicrovmAnswer, type MicrovmSshAnswer, microvmKeyFile } from '@mags/protocol'
import { requireSshPort } from '../access/access-job.ts'
import type { KeyDownloads } from '../access/key-downloads.ts'
import type { AccessStore } from '../access/store.ts'
import type { GroupCommit } from '../state/group-commit.ts'
import { timestamp } from '../state/timestamp.ts'
import type { WorkspaceStore } from '../workspaces/store.ts'
import type { Microvm } from './microvm.ts'
import type { MicrovmStore } from './store.ts'

export interface MicrovmSshDeps {
  readonly microvms: MicrovmStore
  readonly workspaces: WorkspaceStore
  readonly access: AccessStore
  readonly commits: GroupCommit
  readonly clock: () => number
  /** What SSH clients connect to. */
  readonly sshHost: string | undefined
  readonly sshPortFailure: (port: number) => Promise<string | undefined>
  readonly keyDownloads: KeyDownloads
}

/** The owner of its port and keys: its disk, whatever job it runs as. */
export async function ownerOfMicrovm(workspaces: WorkspaceStore, { accountId, workspaceId, name }: Microvm): Promise<string> {
  const workspace = await workspaces.find(accountId, workspaceId)
  if (workspace === undefined) throw new MagsError('not_found', `the disk of microVM ${name} is gone: its workspace '${workspaceId}' was deleted`)
  return `w:${workspace.storageId}`
}

/** How OpenSSH's client reaches it; the same whether it runs or not. Rejects with MagsError('not_available') without an SSH gateway. */
export async function sshConnection(
  deps: MicrovmSshDeps,
  microvm: Microvm,
  now: Pick<MicrovmAnswer, 'status' | 'ip_address' | 'ipv6_address'>,
): Promise<MicrovmSshAnswer> {
  const { sshHost: host } = deps
  if (host === undefined) throw new MagsError('not_available', 'this server has no SSH gateway')
  const { sshPort: port } = await deps.access.find(await ownerOfMicrovm(deps.workspaces, microvm))
  if (port === null) throw new MagsError('internal', `microVM ${microvm.name} has no SSH port`)
  // Only while it runs there is somebody who listens.
  if (now.status === 'running') await requireSshPort(deps, port)
  const keyFile = microvm.keyGenerated ? microvmKeyFile(microvm.id) : null
  // Without the agent's keys, of which a client offers all before the one of the file. The first contact asks nothing and remembers the server's key, a changed one is refused (ssh_config(5)).
  const identity = keyFile === null ? '' : `-i ${keyFile} -o IdentitiesOnly=yes `
  return {
    ssh_command: `ssh ${identity}-o StrictHostKeyChecking=accept-new -p ${port} root@${host}`,
    ip_address: now.ip_address,
    ipv6_address: now.ipv6_address,
    key_generated: microvm.keyGenerated,
    host,
    port,
    user: 'root',
    key_file: keyFile,
  }
}

/** The private key that was made for it, in OpenSSH's format; erased with the first download where the operator wants that. Rejects with MagsError('not_found') that says why there is none. */
export async function downloadKey(deps: MicrovmSshDeps, microvm: Microvm): Promise<string> {
  const { id, name, keyGenerated } = microvm
  if (!keyGenerated)
    throw new MagsError('not_found', `microVM ${name} opens to the SSH keys it was made with; no key was made for it, so there is none to download`)
  const owner = await ownerOfMicrovm(deps.workspaces, microvm)
  const now = timestamp(deps.clock())
  const key = await deps.commits.write(async (transaction) => {
    const taken = await deps.access.takePrivateKey(transaction, owner, { erase: deps.keyDownloads === 'once' })
    if (taken !== undefined) await deps.microvms.setKeyDownloaded(transaction, id, now)
    return taken
  })
  if (key !== undefined) return key
  const when = (await deps.microvms.get(id))?.keyDownloadedAt
  throw new MagsError(
    'not_found',
    `the private key of microVM ${name} was downloaded already${when == null ? '' : ` (${when})`}, and this server gives it out only once; use that file, or add a key to your account (POST /api/v1/mags-ssh-keys)`,
  )
}
