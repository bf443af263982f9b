import { createHash } from 'node:crypto'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The first file system of a guest: the agent as /init and the modules it loads. */
export interface Initramfs {
  readonly path: string
  /** SHA-256 of its bytes. */
  readonly digest: string
}

interface Entry {
  readonly name: string
  /** Type and permissions, inode(7). */
  readonly mode: number
  readonly bytes?: Uint8Array
  /** Major and minor number of a device. */
  readonly device?: readonly [number, number]
}

/** Builds it from the agent's binary and `<kernel folder>/modules/{order,*.ko}`, or finds it in the cache folder under its digest. */
export async function makeInitramfs(options: { agentPath: string; kernelDir: string; cacheDir: string }): Promise<Initramfs> {
  const { agentPath, kernelDir, cacheDir } = options
  const order = await readFile(join(kernelDir, 'modules', 'order'))
  const names = order
    .toString('utf8')
    .split('\n')
    .filter((name) => name !== '')
  const modules = await Promise.all(
    names.map(async (name): Promise<Entry> => ({ name: `modules/${name}`, mode: 0o100644, bytes: await readFile(join(kernelDir, 'modules', name)) })),
  )
  const archive = cpioArchive([
    { name: 'dev', mode: 0o040755 },
    // The kernel opens it for /init before anything is mounted.
    { name: 'dev/console', mode: 0o020600, device: [5, 1] },
    { name: 'proc', mode: 0o040755 },
    { name: 'sys', mode: 0o040755 },
    { name: 'modules', mode: 0o040755 },
    { name: 'modules/order', mode: 0o100644, bytes: order },
    ...modules,
    { name: 'init', mode: 0o100755, bytes: await readFile(agentPath) },
  ])
  const digest = createHash('sha256').update(archive).digest('hex')
  const path = join(cacheDir, `initramfs-${digest.slice(0, 32)}.cpio`)
  const cached = await stat(path).catch(() => undefined)
  if (cached?.size !== archive.length) {
    await mkdir(cacheDir, { recursive: true })
    const draft = `${path}.${process.pid}.part`
    await writeFile(draft, archive, { mode: 0o644 })
    await rename(draft, path)
  }
  return { path, digest }
}

/** A cpio archive in the "newc" form the kernel unpacks, https://docs.kernel.org/driver-api/early-userspace/buffer-format.html. The same entries give the same bytes. */
export function cpioArchive(entries: readonly Entry[]): Buffer {
  const pieces: Buffer[] = []
  const pad = (length: number) => Buffer.alloc((4 - (length % 4)) % 4)
  const add = (inode: number, { name, mode, bytes = new Uint8Array(), device = [0, 0] }: Entry) => {
    const title = Buffer.from(`${name}\0`)
    // inode, mode, uid, gid, links, time, size, device of the archive (2), device (2), length of the name, checksum
    const fields = [inode, mode, 0, 0, 1, 0, bytes.length, 0, 0, device[0], device[1], title.length, 0]
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
    pieces.push(header, title, pad(header.length + title.length), Buffer.from(bytes), pad(bytes.length))
  }
  for (const [index, entry] of entries.entries()) add(index + 1, entry)
  add(0, { name: 'TRAILER!!!', mode: 0 })
  return Buffer.concat(pieces)
}
