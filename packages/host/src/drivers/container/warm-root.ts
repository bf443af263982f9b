import { createHash } from 'node:crypto'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * The root file system of a warm container: the agent and empty mount points, shared by all and read-only. It must be reachable by the container's root, who is
 * nobody special out here: so every folder on the way is open to search.
 *
 * @returns its folder, named after the agent's digest, so that a new agent never changes the root of running containers.
 */
export async function makeWarmRoot(systemDir: string, agentBinary: string): Promise<string> {
  const digest = createHash('sha256')
    .update(await readFile(agentBinary))
    .digest('hex')
    .slice(0, 16)
  const parent = join(systemDir, 'warm-roots')
  const dir = join(parent, digest)
  if (await stat(dir).catch(() => undefined)) return dir
  await mkdir(parent, { recursive: true, mode: 0o755 })
  const draft = await mkdtemp(join(parent, '.part-'))
  for (const name of ['proc', 'dev', 'sys', 'run']) await mkdir(join(draft, name), { mode: 0o755 })
  await copyFile(agentBinary, join(draft, 'agent'))
  await chmod(join(draft, 'agent'), 0o755)
  await chmod(draft, 0o755)
  try {
    await rename(draft, dir)
  } catch (error) {
    // Another daemon was faster; what it made is the same.
    await rm(draft, { recursive: true, force: true })
    if (!(await stat(dir).catch(() => undefined))) throw error
  }
  return dir
}
