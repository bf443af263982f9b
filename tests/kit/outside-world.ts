import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runIn } from './namespace-program.ts'

/** Addresses beyond the host, each in a block of its own kind. Routes to them are single addresses, so nothing else of the machine changes. */
export const outsideAddresses = {
  /** An address like any on the internet (of a block that is not announced there). */
  public: '11.22.33.44',
  private10: '10.99.99.1',
  private172: '172.31.255.1',
  private192: '192.168.250.1',
  carrier: '100.127.255.1',
  metadata: '169.254.169.254',
} as const

/** A public address that the host itself has. */
export const hostPublicAddress = '11.22.33.1'

const link = 'mgtest0'

/** A namespace behind the host that owns all `outsideAddresses`: what sandboxes may reach of it is only the public one. */
export async function openOutsideWorld(): Promise<{ readonly netnsPath: string } & AsyncDisposable> {
  await using undo = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), 'mags-outside-'))
  undo.defer(() => rm(dir, { recursive: true }))
  const netnsPath = join(dir, 'netns')
  await writeFile(netnsPath, '')
  await runIn('host', 'unshare', `--net=${netnsPath}`, 'true')
  undo.defer(async () => {
    await runIn('host', 'umount', netnsPath)
  })
  await runIn('host', 'ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netnsPath)
  undo.defer(async () => {
    await runIn('host', 'ip', 'link', 'delete', link)
  })
  await runIn('host', 'ip', 'addr', 'add', `${hostPublicAddress}/32`, 'dev', link)
  await runIn('host', 'ip', 'link', 'set', link, 'up')
  await runIn(netnsPath, 'ip', 'link', 'set', 'lo', 'up')
  await runIn(netnsPath, 'ip', 'link', 'set', 'eth0', 'up')
  for (const address of Object.values(outsideAddresses)) {
    await runIn(netnsPath, 'ip', 'addr', 'add', `${address}/32`, 'dev', 'eth0')
    await runIn('host', 'ip', 'route', 'add', `${address}/32`, 'dev', link)
  }
  await runIn(netnsPath, 'ip', 'route', 'add', hostPublicAddress, 'dev', 'eth0')
  await runIn(netnsPath, 'ip', 'route', 'add', 'default', 'via', hostPublicAddress)
  const held = undo.move()
  return { netnsPath, [Symbol.asyncDispose]: () => held.disposeAsync() }
}
