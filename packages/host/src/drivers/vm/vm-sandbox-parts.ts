import type { AgentConnection } from '../../agent/connection.ts'
import type { Dialer } from '../../dialer/dialer-client.ts'
import type { TapSlot } from '../../network/sandbox-network.ts'
import type { ProcessIdentity } from '../../recover/process-identity.ts'
import type { Machine } from './machine.ts'
import type { VmRecord } from './vm-record.ts'
import type { DiskSlot } from './workspace-disk.ts'

/** What the driver makes or lends for one virtual machine. */
export interface VmSandboxParts {
  readonly record: VmRecord
  readonly isolation: 'kvm' | 'emulated-vm'
  readonly directory: string
  readonly uid: number
  /** Absent while hibernated. */
  readonly machine: Machine | undefined
  readonly agent: AgentConnection
  /** Absent when taken back from an earlier daemon: it is attached already. */
  readonly disk?: DiskSlot
  readonly tap: TapSlot | undefined
  /** Makes connections into machines; without it their agents do. */
  readonly dialer?: Dialer | undefined
  readonly resolver: string | undefined
  /** For what the guest is asked as it wakes. */
  readonly timeoutMs: number
  /** Connects to the agent of its machine, which runs. */
  readonly connect: (machine: Machine) => Promise<AgentConnection>
  /** Writes the memory of the stopped machine into a folder. */
  readonly save: (machine: Machine, target: string) => Promise<void>
  /** Starts QEMU from that; the machine is stopped. `onProcess` has to be waited for before it is asked for anything. */
  readonly revive: (record: VmRecord, onProcess: (process: ProcessIdentity) => Promise<void>) => Promise<Machine>
  /** Whether the host's limit on QEMU was passed. */
  readonly ranOutOfMemory: () => Promise<boolean>
  /** Frees what the driver lent, after QEMU is dead. */
  readonly release: () => Promise<void>
}
