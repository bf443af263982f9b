import type { LayerSession } from '../../layers/layer-session.ts'
import type { BlockWriter } from '../blocks/block-writer.ts'
import type { PackWriter } from '../blocks/pack-writer.ts'
import { type Differences, differencesOfChanges, differencesOfWalk } from './layer-differences.ts'
import type { LayerTree } from './layer-tree.ts'
import { LinkGroups } from './link-groups.ts'
import { readContents } from './read-contents.ts'

/** Stops a running sandbox for a moment. */
export interface FreezeGuard {
  freeze(): Promise<void>
  /** Called once for each `freeze` that settled well. */
  thaw(): Promise<void>
}

/** More than this is not read while a sandbox is frozen, as long as another round may make it less. */
const frozenLimit = { bytes: 32 * 1024 * 1024, files: 2_000 } as const
const unfrozenRounds = 3
/** What may wait for the store when a sandbox is frozen: the rest of the memory is for what is read then. */
const calmBytes = 16 * 1024 * 1024

export interface RoundsInput {
  readonly session: LayerSession
  /** The layer as it was known before, and what to read again of it. */
  readonly layer: LayerTree
  readonly recheck: LayerTree
  /** The session remembers just that: its changes are enough. */
  readonly remembered: boolean
  readonly blocks: BlockWriter
  readonly packs: PackWriter
  readonly guard: FreezeGuard | undefined
  /** Now, in nanoseconds since 1970, by the clock that gives the layer's times. */
  readonly clock: () => bigint
  readonly abort: AbortSignal | undefined
  /** Called before contents are read, and before a sandbox is frozen: what must be ready then. */
  beforeRead(): Promise<void>
  onFile(sizeBytes: number): void
}

/** What has changed, one list after the other, and what to read again next time. */
export interface RoundsResult {
  readonly differences: readonly LayerTree[]
  readonly recheck: LayerTree
}

/**
 * Reads what has changed. Without a guard the layer is still: one round. With one, a round while the sandbox runs, then it is frozen for what changed meanwhile; when that is much, it is let go for another round.
 * The result is the layer at the moment of the last freeze.
 */
export async function readRounds(input: RoundsInput): Promise<RoundsResult> {
  const rounds = new Rounds(input)
  const { guard } = input
  let found = await rounds.find()
  if (guard === undefined) {
    await rounds.read(found, { still: true, paced: true })
    return rounds
  }
  // It is what it was at the last freeze, and that was one state: nobody has to stand still for that.
  if (input.remembered && found.differences.tree.count === 0 && rounds.recheck.count === 0) return rounds
  for (let round = 1; ; round++) {
    await rounds.read(found, { still: false, paced: true })
    await input.beforeRead()
    await input.packs.calm(calmBytes)
    await guard.freeze()
    try {
      found = await rounds.find()
      const isMuch = found.differences.unreadBytes > frozenLimit.bytes || found.differences.unreadFiles > frozenLimit.files
      if (!isMuch || round >= unfrozenRounds) {
        await rounds.read(found, { still: true, paced: isMuch })
        return rounds
      }
    } finally {
      await guard.thaw()
    }
  }
}

interface Found {
  readonly differences: Differences
  readonly startedNs: bigint
}

class Rounds implements RoundsResult {
  readonly #input: RoundsInput
  readonly #groups = new LinkGroups()
  readonly differences: LayerTree[] = []
  recheck: LayerTree
  #remembered: boolean

  constructor(input: RoundsInput) {
    this.#input = input
    this.recheck = input.recheck
    this.#remembered = input.remembered
  }

  async find(): Promise<Found> {
    const { session, layer, clock } = this.#input
    this.#input.abort?.throwIfAborted()
    const startedNs = clock()
    const differences = this.#remembered
      ? await differencesOfChanges(session.changes(), this.recheck, this.#groups)
      : await differencesOfWalk(session.walk(), layer, this.recheck, this.#groups)
    this.#remembered = true
    return { differences, startedNs }
  }

  async read({ differences, startedNs }: Found, how: { readonly still: boolean; readonly paced: boolean }): Promise<void> {
    const { session, blocks, abort, onFile } = this.#input
    if (differences.unreadFiles > 0) await this.#input.beforeRead()
    const read = await readContents(session, differences.tree, blocks, { ...how, startedNs, abort, onFile })
    if (read.tree.count > 0) this.differences.push(read.tree)
    this.recheck = read.recheck
  }
}
