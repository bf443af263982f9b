import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { run } from '@mags/host'

export interface CompatImage {
  /** Holds the image, and what is kept of machines that were made of it. */
  readonly dir: string
  readonly erofsFile: string
  /** `sha256:` and the digest of the erofs file. */
  readonly digest: string
}

const buildTimeoutMs = 600_000

/**
 * The root disk of the compatibility guest, made by build-image.sh when there is none of the same inputs: `<system>/cache/compat/<digest of the inputs>/`.
 * Older ones are removed.
 */
export async function compatImage(options: { rootDir: string; systemDir: string; say: (words: string) => void }): Promise<CompatImage> {
  const { rootDir, systemDir, say } = options
  const parent = join(systemDir, 'cache', 'compat')
  const key = await digestOfInputs(rootDir, systemDir)
  const dir = join(parent, key)
  await mkdir(parent, { recursive: true, mode: 0o700 })
  const found = await readImage(dir)
  if (found !== undefined) return found

  say('making the disk of the guest: Debian packages, Node and its modules (half a minute)')
  for (const name of await readdir(parent)) await rm(join(parent, name), { recursive: true, force: true })
  await using undo = new AsyncDisposableStack()
  const draft = await mkdtemp(join(parent, 'part-'))
  undo.defer(() => rm(draft, { recursive: true, force: true }))
  await run('unshare', ['--mount', '--propagation', 'private', '--', join(import.meta.dirname, 'build-image.sh'), draft], {
    env: { ...definedEnvironment(), MAGS_ROOT: rootDir, MAGS_SYSTEM_DIR: systemDir, MAGS_NODE: process.execPath },
    timeoutMs: buildTimeoutMs,
  })
  await rename(draft, dir)
  const image = await readImage(dir)
  if (image === undefined) throw new Error(`build-image.sh made no image in ${dir}`)
  return image
}

async function readImage(dir: string): Promise<CompatImage | undefined> {
  const description = await readFile(join(dir, 'image.json'), 'utf8').catch(() => undefined)
  if (description === undefined) return undefined
  const { digest } = JSON.parse(description) as { digest: string }
  return { dir, erofsFile: join(dir, 'root.erofs'), digest }
}

async function digestOfInputs(rootDir: string, systemDir: string): Promise<string> {
  const inputs = await Promise.all([
    readFile(join(import.meta.dirname, 'build-image.sh'), 'utf8'),
    readFile(join(import.meta.dirname, 'packages'), 'utf8'),
    readFile(join(rootDir, 'node_modules', '.package-lock.json'), 'utf8'),
    readlink(join(systemDir, 'images', 'debian-12', 'current')),
    readlink(join(systemDir, 'kernels', 'current')),
    process.version,
  ])
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16)
}

function definedEnvironment(): Record<string, string> {
  return Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined))
}
