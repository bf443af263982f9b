import type { MemoryEntry, MemoryLayer, MemoryPart } from '../../layers/testing/memory-layer.ts'
import { type Dice, noise } from './noise.ts'

const names = ['a', 'a!', 'a-b', 'b', 'c\xff', '.hidden', 'zz', ' ']

/** Does something to a layer that may happen in a sandbox. */
export function changeAtRandom(layer: MemoryLayer, dice: Dice): void {
  const paths = layer.paths().filter((path) => path !== '')
  const some = paths.length === 0 ? undefined : dice.pick(paths)
  const folders = layer.paths().filter((path) => layer.kindOf(path) === 'directory')
  const folder = dice.pick(folders)
  const fresh = (folder === '' ? '' : `${folder}/`) + dice.pick(names)
  const isDeep = fresh.split('/').length > 5
  const action = dice.roll(12)
  if (some === undefined || (action < 5 && !isDeep)) layer.put(fresh, anyEntry(dice))
  else if (action === 5) layer.remove(some)
  else if (action === 6 && layer.kindOf(some) === 'file') layer.rewrite(some, anyContent(dice))
  else if (action === 7 && layer.kindOf(some) !== 'whiteout') layer.change(some, { mode: dice.roll(0o10000), mtimeNs: BigInt(dice.roll(2 ** 32)) * 1_000_003n })
  else if (action === 8 && layer.kindOf(some) === 'file' && some !== fresh && !fresh.startsWith(`${some}/`)) layer.link(some, fresh)
  else if (action === 9 && some !== fresh && !fresh.startsWith(`${some}/`) && !some.startsWith(`${fresh}/`)) layer.rename(some, fresh)
  else if (action === 10 && layer.kindOf(some) === 'file')
    layer.change(some, { attributes: [{ name: 'user.random', value: noise(dice.roll(40), dice.roll(1_000)) }] })
  else layer.change('', { mtimeNs: BigInt(dice.roll(2 ** 31)) * 1_000_000_000n })
}

function anyEntry(dice: Dice): MemoryEntry {
  const common = { uid: dice.roll(3), gid: dice.roll(65_536) }
  const kind = dice.roll(12)
  if (kind < 3) return { ...common, kind: 'directory', attributes: dice.roll(4) === 0 ? [{ name: 'trusted.overlay.opaque', value: Buffer.from('y') }] : [] }
  if (kind === 3) return { ...common, kind: 'symlink', target: noise(1 + dice.roll(9), dice.roll(99)).map((byte) => byte || 1) as Buffer }
  if (kind === 4) return { kind: 'whiteout' }
  if (kind === 5) return { ...common, kind: dice.pick(['fifo', 'socket', 'device'] as const) }
  return { ...common, content: anyContent(dice) }
}

function anyContent(dice: Dice): MemoryPart[] {
  const size = dice.pick([0, 1, 100, 5_000, 80_000, 600_000, 1_048_576, 1_500_000])
  if (size === 0) return []
  // From a few seeds only, so that the same bytes come again.
  const bytes = noise(size, dice.roll(4))
  if (dice.roll(5) > 0) return [bytes]
  return dice.roll(2) === 0 ? [bytes, { holeBytes: 65_536 * (1 + dice.roll(40)) }] : [{ holeBytes: 1_048_576 + dice.roll(2) * 65_537 }, bytes]
}
