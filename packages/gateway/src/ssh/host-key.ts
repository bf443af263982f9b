import { randomUUID } from 'node:crypto'
import { link, open, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { generateSshKey, MagsError } from '@mags/protocol'
import ssh2 from 'ssh2'

/**
 * The gateway's Ed25519 host key, as an OpenSSH private key: that of the file, which is made (mode 0600) when it is not there. Never replaced: clients remember it.
 * @throws MagsError 'internal' when the file holds something else.
 */
export async function loadHostKey(file: string): Promise<string> {
  const present = await readKey(file)
  if (present !== undefined) return present
  const { privateKey: made } = await generateSshKey('mags')
  const draft = `${file}.${randomUUID()}`
  try {
    await using handle = await open(draft, 'wx', 0o600)
    await handle.writeFile(made)
    await handle.sync()
    // Unlike a rename it does not replace what somebody else made meanwhile.
    await link(draft, file)
    await using folder = await open(dirname(file), 'r')
    await folder.sync()
    return made
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    const theirs = await readKey(file)
    if (theirs === undefined) throw error
    return theirs
  } finally {
    await rm(draft, { force: true })
  }
}

async function readKey(file: string): Promise<string | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  const key = ssh2.utils.parseKey(text)
  if (key instanceof Error || !('type' in key) || key.type !== 'ssh-ed25519' || !key.isPrivateKey()) {
    throw new MagsError(
      'internal',
      `${file} is no OpenSSH private key of the kind Ed25519; put it back, or move it away and a new one is made (clients will then warn of a changed host key)`,
    )
  }
  return text
}
