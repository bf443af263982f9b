import type { Duplex } from 'node:stream'
import type { Isolation } from '@mags/protocol'
import type { AgentConnection } from '../agent/connection.ts'
import type { LayerSession } from '../layers/layer-session.ts'
import type { NetworkSlot } from '../network/sandbox-network.ts'

/** The size of a machine; warm sandboxes are kept per size and image. */
export interface SandboxShape {
  readonly image: string
  /** Version of the image; the newest when absent, as in records of before there were several. */
  readonly imageDigest?: string
  readonly vcpus: number
  readonly memoryMb: number
  readonly diskGb: number
}

/** What a root file system is made of besides its image. The image is under all of it. */
export interface SandboxRoot {
  /** Disks (ext4 images, see `workspaces/local`) whose layers lie under the upper one, topmost first; read only. A driver that cannot stack gets none. */
  readonly lowerDisks: readonly string[]
  /** Disk of the upper layer, ours alone; absent: the sandbox's own scratch disk. */
  readonly upperDisk?: string
  /** Name of a folder at the top: all that stays of what the upper disk has. It is made when nothing of the root has it. */
  readonly scope?: string
}

/** How and why a sandbox ended, for the job's system log. */
export interface SandboxDeath {
  readonly reason: string
}

/**
 * A sandbox driver: one kind of wall. Every driver passes the suite in `conformance.ts`.
 *
 * Everything a driver takes from the host is written into the sandbox's record (a file in the run folder) before it is taken, so that `sweep` of the
 * next start can free it.
 */
export interface SandboxDriver {
  readonly isolation: Isolation
  /** The shape that is kept warm for jobs of this shape: what can still be changed at attach is folded away, so that one warm sandbox serves many shapes. */
  warmShape(shape: SandboxShape): SandboxShape
  /**
   * How it gives a sandbox another root than its image's: `attach` swaps it under a warm one; `create` needs it at once, so that a job with a workspace gets a sandbox made for it.
   */
  readonly rootAt: 'attach' | 'create'
  /** Whether lower disks can be stacked under an upper one. Otherwise every root is one upper disk. */
  readonly stacks: boolean
  /** Makes a warm sandbox: agent connected, the image under a fresh upper as its root (or `root`, see `rootAt`), an identity of its own. Rejects with the last words of what failed. */
  create(shape: SandboxShape, root?: SandboxRoot): Promise<Sandbox>
  /** Takes back a sandbox of an earlier daemon by its record's id, awake if it was frozen (its agent has to answer), hibernated if it was that; undefined when it is dead (what it held is freed). */
  adopt(id: string): Promise<Sandbox | undefined>
  /**
   * Another sandbox with the memory and files that this one has at one moment: hibernated, and not attached. `attach`, with the same shape, gives it an identity of its own and lets it go on. The original stands still meanwhile.
   * `disk`: the file its disk is to be written to and lent from; without it that lies in its own folder. Absent for a kind that cannot copy memory.
   */
  fork?(sandbox: Sandbox, disk?: string): Promise<Sandbox>
  /** Writes the disk of its upper layer, as it is at one moment, to a file: good as an `upperDisk` of the same image and without lower disks. Absent for a kind that copies memory. Rejects with MagsError 'not_available'. */
  copyUpper?(sandbox: Sandbox, file?: string): Promise<string>
  /** Makes ahead of time, and slowly, what sandboxes of this shape need that is made once; absent where there is nothing of the kind. */
  prepare?(shape: SandboxShape): Promise<void>
  /** Removes what was made of a version of an image that is gone. */
  forgetImage?(digest: string): Promise<void>
  /** Frees whatever an earlier daemon left, except the sandboxes adopted. */
  sweep(): Promise<void>
  /** Ends the driver's own resident helpers. Sandboxes must be destroyed or detached before. */
  close(): Promise<void>
}

/**
 * One machine.
 *
 *     warm ──attach──▶ attached ──freeze──▶ frozen ──hibernate──▶ hibernated
 *       │                 ▲  │                │ │                  │ │
 *       │                 └──┼──── thaw ──────┴─┼──────────────────┘ │
 *       └────────────────────┴──── destroy ─────┴────────────────────┴──▶ gone
 *
 * Any state goes to `gone` by itself when the machine dies.
 */
export interface Sandbox {
  /** Short id, 12 lower-case hex digits; names its files, links and host name. */
  readonly id: string
  readonly shape: SandboxShape
  readonly isolation: Isolation
  /** The connection to its agent. After a thaw from hibernation it is another one, on which what runs inside must be resumed; in between it is closed. */
  readonly agent: AgentConnection
  /**
   * Makes it ready for a job of this shape: what `warmShape` folded away is applied, and what must be fresh (clock, randomness) is renewed. Once. `address6`: a leased IPv6 address, for a machine that has to put it on its
   * interface itself; a copy has none of its original's.
   */
  attach(shape: SandboxShape, root?: SandboxRoot, address6?: string): Promise<void>
  /** A worker on the upper layer of its root. Works between `quiesce` and `resume`, and after `halt`. With `scope` it looks at the folder of that name at the top only. */
  openLayer(scope?: string): Promise<LayerSession>
  /** Grows whenever anything inside runs, so that one that stood still needs no second look at its layer. Undefined where that cannot be told. */
  activity(): Promise<bigint | undefined>
  /** Nothing inside can change its root until `resume`; programs that try are held. */
  quiesce(): Promise<void>
  resume(): Promise<void>
  /**
   * Why something that was written to its upper layer is gone, in words: the host's disk was full when it was to be written out. Undefined when that is not so, or cannot be for its kind, whose writes wait
   * instead. `suspicious`: something went wrong; otherwise it need not look when there was always room.
   */
  lostWrites?(options: { readonly suspicious: boolean }): Promise<string | undefined>
  /** Ends every process that could still write to its root; it can only be read by `openLayer` and destroyed afterwards. Idempotent. */
  halt(): Promise<void>
  /** Why it stands still although nobody wished so, in words with what to do: a disk of the host that is full. Its agent does not answer then; it goes on by itself. Absent for a kind that cannot. */
  readonly stall?: string | undefined
  /** Hears each change of that; at once when it stands still. */
  watchStalls?(listener: (words: string | undefined) => void): void
  /** True when the limit on memory ended a program in it so far. */
  ranOutOfMemory(): Promise<boolean>
  /** Stops everything in it where it stands. Idempotent. Rejects, with everything going on, when that cannot be done. */
  freeze(): Promise<void>
  /** Lets it go on; a hibernated one from its file. Idempotent. Rejects with MagsError 'sandbox_failed' when it cannot, and may be tried again unless it died. */
  thaw(): Promise<void>
  /**
   * A frozen one: its memory goes to a file in its folder, the connection to its agent is closed, and nothing of it runs any more until `thaw`. Idempotent. Rejects with it frozen as before, e.g. when the disk is full.
   * Absent for a kind that cannot.
   */
  hibernate?(): Promise<void>
  readonly hibernated?: boolean
  /** A TCP connection to a port inside, also of servers that listen on its loopback only. Rejects with MagsError 'not_listening'. */
  connect(port: number): Promise<Duplex>
  /** Its place in the network; undefined for one without. */
  readonly network: NetworkSlot | undefined
  /** Marks the record: keep for the next daemon (true) or free on its start (false). */
  keep(keep: boolean): Promise<void>
  /** Lets go without ending it: closes our connection and forgets it. For a daemon that stops while persistent sandboxes live on. */
  detach(): Promise<void>
  /** Kills every process and frees everything; idempotent, safe in any state. */
  destroy(): Promise<void>
  /** Settles when the machine is gone, with the reason as far as it is known (out of memory, protocol violation, killed). */
  readonly died: Promise<SandboxDeath>
}
