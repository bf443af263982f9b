import { access } from 'node:fs/promises'
import { run, runAny } from '../run.ts'

/** Names on the host, all that is visible of an instance there. */
export function hostNames(instance: string) {
  return { link: `mags${instance.slice(0, 6)}`, table: `mags_${instance}` }
}

export function linkExists(link: string): Promise<boolean> {
  return access(`/sys/class/net/${link}`).then(
    () => true,
    () => false,
  )
}

/** Removes the host's tables of instances whose uplink is gone, that is, of which nothing lives any more. Returns the names removed. */
export async function sweepNetworks(): Promise<string[]> {
  const { stdout } = await run('nft', ['-j', 'list', 'tables'])
  const listed = JSON.parse(stdout) as { nftables: { table?: { family: string; name: string } }[] }
  const removed = []
  for (const { table } of listed.nftables) {
    const instance = /^mags_([0-9a-f]{6,32})$/.exec(table?.name ?? '')?.[1]
    if (table?.family !== 'inet' || instance === undefined || (await linkExists(hostNames(instance).link))) continue
    // Another daemon may sweep at the same moment: gone is what we want.
    if ((await runAny('nft', ['delete', 'table', 'inet', table.name])).code === 0) removed.push(table.name)
  }
  return removed
}
