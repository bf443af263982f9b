import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { SandboxShape } from '../../drivers/driver.ts'
import { openHostLayer } from '../../layers/open-host-layer.ts'
import { MounterClient } from '../../mounter/mounter-client.ts'
import { DefaultImage } from '../default-image.ts'
import { ImageCatalogue } from '../image-catalogue.ts'
import { ImageStore } from '../image-store.ts'
import { ImageUses } from '../image-uses.ts'
import { MachineImages, type MachineImagesDeps } from '../machine-images.ts'

const binary = join(process.env.MAGS_NATIVE_BUILD ?? join(import.meta.dirname, '../../../../../native/build'), 'mounter')

/** What is missing here for tests that write images; empty when nothing is. */
export const missingForImages = [...(existsSync(binary) ? [] : ['native/build/mounter (build native/ first)']), ...(process.getuid?.() === 0 ? [] : ['root'])]

/** Images in folders of their own, with a real layer worker and a pool and driver that note what they are told. */
export interface ImageGround extends AsyncDisposable {
  readonly images: MachineImages
  readonly catalogue: ImageCatalogue
  readonly uses: ImageUses
  /** `images` below a system folder. */
  readonly dir: string
  readonly events: string[]
  readonly words: string[]
  /** Names in the folder of images, and in that of work. */
  left(): Promise<{ readonly names: string[]; readonly work: string[] }>
  /** Another daemon on the same folder. */
  again(): Promise<MachineImages>
}

export async function imageGround(
  options: Partial<Pick<MachineImagesDeps, 'maxGb' | 'registries' | 'imageScript'>> & { readonly fixed?: boolean } = {},
): Promise<ImageGround> {
  await using undo = new AsyncDisposableStack()
  const base = await mkdtemp(join(tmpdir(), 'mags-images-'))
  undo.defer(() => rm(base, { recursive: true, force: true }))
  // As a system folder is: whoever fetches images is nobody.
  await chmod(base, 0o755)
  const [dir, dataDir, runDir] = [join(base, 'images'), join(base, 'data'), join(base, 'run')]
  for (const made of [dir, dataDir, runDir]) await mkdir(made)
  const layerSocket = join(base, 'layers.sock')
  const mounter = await MounterClient.start({ binary, logFile: join(base, 'mounter.log'), layerSocket })
  undo.defer(() => mounter.close())
  const events: string[] = []
  const words: string[] = []
  const uses = new ImageUses()
  const shown = (shape: SandboxShape) => `${shape.image}@${shape.imageDigest?.slice(0, 15)}`
  const open = async (instance: string) => {
    const catalogue = await ImageCatalogue.open(dir)
    const driver = {
      prepare: async (shape: SandboxShape) => void events.push(`prepare ${shown(shape)}`),
      forgetImage: async (digest: string) => void events.push(`forget ${digest.slice(0, 15)}`),
    }
    const pool = {
      changeDefault: (shape: SandboxShape) => void events.push(`default ${shown(shape)}`),
      retire: async (matches: (shape: SandboxShape) => boolean) => {
        for (const { image } of catalogue.all())
          if (matches({ image: image.name, imageDigest: image.digest, vcpus: 1, memoryMb: 512, diskGb: 2 }))
            events.push(`retire ${image.name}@${image.digest.slice(0, 15)}`)
      },
    }
    const images = new MachineImages({
      catalogue,
      uses,
      runDir,
      dataDir,
      store: await ImageStore.open(dir, instance),
      default: await DefaultImage.open({ dataDir, configured: 'first', fixed: options.fixed ?? false }, (name) => catalogue.find(name) !== undefined),
      defaultShape: { vcpus: 1, memoryMb: 512, diskGb: 2 },
      walls: [{ driver, pool }],
      openLayer: (folder) => openHostLayer(layerSocket, folder),
      registries: [],
      maxGb: 1,
      logger: pino({ level: 'silent' }),
      ...options,
    })
    return { images, catalogue }
  }
  // What an import must never touch.
  await writeFile(join(base, 'outside'), 'untouched')
  const { images, catalogue } = await open('aaaaaa')
  undo.defer(() => images.close())
  const lent = undo.move()
  return {
    images,
    catalogue,
    uses,
    dir,
    events,
    words,
    left: async () => ({ names: (await readdir(dir)).filter((name) => name !== '.work'), work: await readdir(join(dir, '.work')) }),
    again: async () => (await open('aaaaaa')).images,
    [Symbol.asyncDispose]: () => lent.disposeAsync(),
  }
}
