import { readFile, writeFile } from 'node:fs/promises'
import { runIn } from './namespace-program.ts'
import { openOutsideWorld } from './outside-world.ts'

/** A public address beyond the host, and one that the host has on the way there. */
export const outside6 = '2001:db8:99::2'
export const host6 = '2001:db8:99::1'
/** Beyond the host, too; sandboxes must not reach it. */
export const private6 = 'fd99::2'

/** The outside world with IPv6 as well: to it, everything not its own lies behind this machine, so what is routed to it needs no more. Whether the machine forwards IPv6 is afterwards as it was before. */
export async function openOutsideWorld6(): Promise<{ readonly netnsPath: string } & AsyncDisposable> {
  await using undo = new AsyncDisposableStack()
  const forwarding = '/proc/sys/net/ipv6/conf/all/forwarding'
  const before = await readFile(forwarding, 'utf8')
  undo.defer(() => writeFile(forwarding, before))
  const world = undo.use(await openOutsideWorld())
  await runIn('host', 'ip', 'addr', 'add', `${host6}/64`, 'dev', 'mgtest0', 'nodad')
  await runIn('host', 'ip', 'route', 'add', `${private6}/128`, 'dev', 'mgtest0')
  for (const address of [`${outside6}/64`, `${private6}/128`]) await runIn(world.netnsPath, 'ip', 'addr', 'add', address, 'dev', 'eth0', 'nodad')
  await runIn(world.netnsPath, 'ip', '-6', 'route', 'add', 'default', 'via', host6)
  const held = undo.move()
  return { netnsPath: world.netnsPath, [Symbol.asyncDispose]: () => held.disposeAsync() }
}
