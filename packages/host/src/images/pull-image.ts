import { constants } from 'node:fs'
import { chmod, chown, lstat, mkdir, open, readdir, writeFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MagsError } from '@mags/protocol'
import { runImageProgram } from './image-program.ts'
import { applyLayers } from './import/apply-layers.ts'
import { imageInvalid } from './import/image-invalid.ts'
import { tooLarge } from './import/import-limits.ts'
import type { ImportWork } from './import/import-work.ts'
import { type FindContent, ownArchitecture, readOciLayout } from './import/oci-layout.ts'
import { megabytes } from './import/progress.ts'
import type { ReadImage } from './import/read-archive.ts'
import { Spool } from './import/spool.ts'
import { nobody, nobodysRights } from './nobody.ts'
import { inPrivateNetwork, type RegistryReference } from './registry-reference.ts'
import { openRegistryWay, type RegistryWayDeps } from './registry-way.ts'

const pieceBytes = 256 << 10
const longestSocketPath = 107
const wayPort = 3128
const wayAddress = `http://127.0.0.1:${wayPort}`
/** `sh READY NODE RELAY SOCKET PORT PROGRAM…`: starts the relay, and the program once that listens. The relay ends with the process namespace. */
const wayScript = `set -eu
ip link set lo up
mkfifo -m 600 "$1"
setpriv ${nobodysRights.join(' ')} "$2" --max-old-space-size=64 --disable-warning=ExperimentalWarning "$3" "$4" "$5" > "$1" &
read -r _ < "$1"
shift 5
exec "$@"`
/** What of the operator's environment says how to get out of this machine. */
const passedOn = ['PATH', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'no_proxy', 'SSL_CERT_FILE', 'SSL_CERT_DIR']
const unreachable =
  /dial tcp|no such host|connection refused|connection reset|i\/o timeout|network is unreachable|no route to host|TLS handshake|x509|proxyconnect|Client\.Timeout|context deadline|: EOF|unexpected EOF|5[0-9][0-9] [A-Z]|pinging container registry/

/**
 * Gets an image out of a registry: skopeo(1), as nobody, makes an image layout of it, which is then read as hostile as any other. Rejects with MagsError 'image_source_unreachable' naming the address, 'image_invalid' with what the registry
 * says, and as `readOciLayout`. With `wayDeps` it has no network but a way out that connects to allowed addresses only (MagsError 'forbidden'); not where the operator's environment names a proxy, which decides then.
 */
export async function pullImage(reference: RegistryReference, work: ImportWork, undo: AsyncDisposableStack, wayDeps?: RegistryWayDeps): Promise<ReadImage> {
  const { abort, limits, progress } = work
  const dir = join(work.dir, 'layout')
  await mkdir(dir, { mode: 0o700 })
  await chown(dir, nobody, nobody)
  // It has to get there.
  await chmod(work.dir, 0o711)
  const policy = join(dir, 'policy.json')
  // Trust comes from the digests: a registry is not asked to sign.
  await writeFile(policy, JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }), { mode: 0o644 })
  progress.step(`asking ${reference.registry}`)
  const skopeo = [
    'skopeo',
    '--policy',
    policy,
    '--override-os',
    'linux',
    '--override-arch',
    ownArchitecture(),
    '--tmpdir',
    dir,
    'copy',
    '--quiet',
    '--retry-times',
    '2',
  ]
  const target = [...(reference.plainHttp ? ['--src-tls-verify=false'] : []), reference.address, `oci:${join(dir, 'image')}:image`]
  await using way = wayDeps === undefined || hasOwnProxy() ? undefined : await openRegistryWay(wayOf(dir), nobody, wayDeps)
  const argv = ['setpriv', ...nobodysRights, ...skopeo, ...target]
  const [command = '', ...args] = way === undefined ? argv : onWay(dir, argv)
  const { code, words } = await runImageProgram(work, {
    command,
    args,
    env: { ...operatorsWay(), ...(way === undefined ? {} : { HTTP_PROXY: wayAddress, HTTPS_PROXY: wayAddress }), HOME: dir, TMPDIR: dir, XDG_RUNTIME_DIR: dir },
    watch: async () => {
      const bytes = await bytesIn(dir)
      if (bytes > limits.maxBytes) throw tooLarge(`the image in the registry is larger than ${megabytes(limits.maxBytes)}`)
      progress.step(`fetching from ${reference.registry}: ${megabytes(bytes)}`)
    },
  })
  const refused = way?.refused()
  if (code !== 0 && refused !== undefined) throw inPrivateNetwork(refused)
  if (code !== 0) throw refusal(reference, words)
  const spool = undo.use(await Spool.create(join(work.dir, 'layers'), limits.maxBytes))
  const image = await readOciLayout(filesOf(join(dir, 'image'), abort))
  return { tree: await applyLayers(image, spool, work), kind: 'registry', digest: image.digest, config: image.config }
}

const wayOf = (dir: string) => {
  const path = join(dir, 'way')
  if (Buffer.byteLength(path) > longestSocketPath)
    throw new MagsError('not_available', `the path ${path} is too long for sockets; use a shorter MAGS_SYSTEM_DIR`)
  return path
}

function hasOwnProxy(): boolean {
  return ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'].some((name) => (process.env[name] ?? '') !== '')
}

/** The same program in a network of its own, in which there is nothing but the relay to the way out. */
function onWay(dir: string, argv: readonly string[]): string[] {
  const own = fileURLToPath(import.meta.url)
  const relay = fileURLToPath(new URL(`./relay-to-way${extname(own)}`, import.meta.url))
  return ['unshare', '--net', 'sh', '-c', wayScript, 'sh', join(dir, 'ready'), process.execPath, relay, wayOf(dir), `${wayPort}`, ...argv]
}

function operatorsWay(): Record<string, string> {
  return Object.fromEntries(passedOn.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])))
}

function refusal({ address, registry }: RegistryReference, words: string): MagsError {
  const said =
    /msg="((?:[^"\\]|\\.)*)"/.exec(words.split('\n').findLast((line) => line.includes('level=fatal')) ?? '')?.[1]?.replace(/\\(.)/g, '$1') ?? words.slice(-500)
  if (/no image found in|no child with platform/.test(said)) return imageInvalid(`there is no image for linux/${ownArchitecture()} under ${address}: ${said}`)
  if (!unreachable.test(said)) return imageInvalid(`${registry} does not give ${address} out: ${said}`)
  const name = address.slice('docker://'.length)
  return new MagsError(
    'image_source_unreachable',
    `the registry ${registry} cannot be reached from this server (${said.slice(-300)}); where it can be, save the image with 'skopeo copy ${address} oci-archive:image.tar' or 'docker save ${name} -o image.tar', and bring the file: 'mags image import image.tar'`,
    { details: { address: registry } },
  )
}

async function bytesIn(dir: string): Promise<number> {
  let sum = 0
  for (const name of await readdir(dir, { recursive: true }).catch(() => [])) sum += (await lstat(join(dir, name)).catch(() => undefined))?.size ?? 0
  return sum
}

/** Files of a layout in a folder that somebody without rights has filled. */
function filesOf(dir: string, abort: AbortSignal): FindContent {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW
  return async (path) => {
    const file = join(dir, path)
    const found = await lstat(file).catch(() => undefined)
    if (!found?.isFile()) return undefined
    return {
      sizeBytes: found.size,
      async *read() {
        await using handle = await open(file, flags)
        for (;;) {
          abort.throwIfAborted()
          const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(pieceBytes))
          if (bytesRead === 0) return
          yield buffer.subarray(0, bytesRead)
        }
      },
    }
  }
}
