import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { type ImageOrigin, type ImageSource, MagsError } from '@mags/protocol'
import type { LayerSession } from '../layers/layer-session.ts'
import { buildRecipe } from './build-recipe.ts'
import { type ImageRecord, readImageRecord } from './image-record.ts'
import { completeTree } from './import/complete-tree.ts'
import { checkSettings, containerCommand, describeTree, runSettings } from './import/describe-tree.ts'
import { addAuthorities, hostAuthorities } from './import/host-authorities.ts'
import { imageInvalid } from './import/image-invalid.ts'
import type { ImportWork } from './import/import-work.ts'
import { type ReadImage, readArchive } from './import/read-archive.ts'
import { treeWrites } from './import/write-tree.ts'
import { makeErofs } from './publish-image.ts'
import { pullImage } from './pull-image.ts'
import { checkRegistryAddress, readRegistryReference } from './registry-reference.ts'

const limitsOfFileSystems = ['EMLINK', 'ENAMETOOLONG', 'E2BIG', 'EFBIG', 'EOVERFLOW', 'ENOTSUP']

export interface MakeImageDeps {
  /** A layer worker for `dir/u`, which fills that folder and cannot reach another. */
  readonly openLayer: (dir: string) => Promise<LayerSession>
  /** `setup/steps/image.sh` of the installation. */
  readonly imageScript?: string | undefined
  /** Registries that may be asked though they are in private networks. */
  readonly registries: readonly string[]
}

export interface MadeImage {
  /** Has rootfs and root.erofs. */
  readonly dir: string
  readonly record: ImageRecord
}

/** Makes a version of an image in the work folder. Rejects as `HostImages.create`. */
export async function makeImage(deps: MakeImageDeps, name: string, origin: ImageOrigin, work: ImportWork): Promise<MadeImage> {
  if (origin.kind === 'recipe') return await fromRecipe(deps, name, origin.recipe, work)
  await using undo = new AsyncDisposableStack()
  const { image, source } = await read(deps, origin, work, undo)
  const { tree } = image
  const settings = checkSettings({ ...runSettings(image.config), ...givenSettings(origin) })
  completeTree(tree)
  const { skippedDevices, droppedAttributes } = work.counts
  if (skippedDevices > 0) work.progress.step(`${skippedDevices} device nodes are left out; sandboxes have their own`)
  if (droppedAttributes > 0) work.progress.step(`${droppedAttributes} extended attributes are left out; only file capabilities and user.* are kept`)
  await addAuthorities(tree, await hostAuthorities())
  const { os, init, sizeBytes, newestNs } = await describeTree(tree)
  const dir = join(work.dir, 'image')
  // Programs with the set-user-id bit will lie in it: nobody else of this machine gets at them.
  await mkdir(dir, { mode: 0o700 })
  await mkdir(join(dir, 'u'), { mode: 0o755 })
  work.progress.step('writing the file system')
  await fill(deps, dir, tree, work)
  await rename(join(dir, 'u'), join(dir, 'rootfs'))
  const digest = await makeErofs(dir, newestNs, work)
  const record = {
    name,
    digest,
    os: os ?? name,
    sizeBytes,
    createdAt: new Date().toISOString(),
    source,
    ...(init === undefined ? {} : { init }),
    ...settings,
  }
  return { dir, record }
}

/** What a root file system cannot say of itself. */
function givenSettings(origin: ImageOrigin): Pick<ImageRecord, 'environment' | 'workingDirectory'> {
  if (origin.kind !== 'archive') return {}
  const { environment, workingDirectory } = origin
  return { ...(environment === undefined ? {} : { environment }), ...(workingDirectory === undefined ? {} : { workingDirectory }) }
}

async function read(
  { registries }: MakeImageDeps,
  origin: Exclude<ImageOrigin, { kind: 'recipe' }>,
  work: ImportWork,
  undo: AsyncDisposableStack,
): Promise<{ image: ReadImage; source: ImageSource }> {
  if (origin.kind === 'archive') {
    const image = await readArchive(origin.content, work, undo)
    return { image, source: origin.source ?? sourceOf(image, origin.reference) }
  }
  const reference = readRegistryReference(origin.reference, registries)
  await checkRegistryAddress(reference, registries)
  const isAllowed = registries.includes(reference.registry) || registries.includes(`http://${reference.registry}`)
  const image = await pullImage(reference, work, undo, isAllowed ? undefined : {})
  return { image, source: sourceOf(image, reference.address) }
}

function sourceOf({ kind, digest, config }: ReadImage, reference: string): ImageSource {
  const command = containerCommand(config)
  return { kind, reference, digest, ...(command.length === 0 ? {} : { command }) }
}

/** By a worker that has the folder as its root: even a fault in all that was checked before could not write anywhere else. */
async function fill({ openLayer }: MakeImageDeps, dir: string, tree: ReadImage['tree'], work: ImportWork): Promise<void> {
  const session = await openLayer(dir)
  const stop = () => session.close()
  work.abort.addEventListener('abort', stop, { once: true })
  try {
    await session.write(treeWrites(tree, work))
  } catch (error) {
    work.abort.throwIfAborted()
    throw explained(error)
  } finally {
    work.abort.removeEventListener('abort', stop)
    session.close()
  }
}

/** What the file system of this server refuses is the archive's fault: 65,000 names for one file, say. */
function explained(error: unknown): unknown {
  const name = error instanceof MagsError ? error.details?.errno_name : undefined
  if (name === 'ENOSPC' || name === 'EDQUOT')
    return Object.assign(new Error('no space left for the file system of the image', { cause: error }), { code: 'ENOSPC' })
  if (typeof name !== 'string' || !limitsOfFileSystems.includes(name)) return error
  return new MagsError('image_invalid', `the file system of this server cannot hold the image: ${(error as MagsError).message}`, { cause: error })
}

async function fromRecipe({ imageScript }: MakeImageDeps, name: string, recipe: string, work: ImportWork): Promise<MadeImage> {
  const dir = await buildRecipe(recipe, imageScript, work)
  const record = await readImageRecord(dir, name)
  if (record === undefined) throw imageInvalid(`the recipe ${recipe} left no whole image.json`)
  return { dir, record: { ...record, source: { ...record.source, kind: 'recipe', reference: recipe } } }
}
