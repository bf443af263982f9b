import type { EgressPolicy, LeasedAddresses, SandboxSpec } from '@mags/protocol'
import type { Sandbox, SandboxDriver, SandboxShape } from './drivers/driver.ts'
import type { Egress } from './egress/egress.ts'
import type { ImageCatalogue } from './images/image-catalogue.ts'
import type { ImageUses } from './images/image-uses.ts'
import type { MachineImages } from './images/machine-images.ts'
import type { Turn } from './pool/waiting-line.ts'
import type { WarmPool } from './pool/warm-pool.ts'
import type { OpenWorkspace } from './workspaces/local/open-workspace.ts'
import type { PreparedRoot } from './workspaces/local/prepare-root.ts'
import type { Workspaces } from './workspaces/workspaces.ts'

/** One kind of wall with its pool, or why this machine cannot have it. */
export type Wall = OpenWall | { readonly missing: string }

export interface OpenWall {
  readonly driver: SandboxDriver
  readonly pool: WarmPool
  readonly detail: string
}

/** What a host is made of. */
export interface HostParts {
  readonly walls: Readonly<Record<'vm' | 'container', Wall>>
  readonly default: 'vm' | 'container'
  readonly images: ImageCatalogue
  readonly machineImages: MachineImages
  readonly imageUses: ImageUses
  readonly workspaces: Workspaces
  readonly egress: Egress
  readonly addressPrefixes: readonly string[]
  /** Leads addresses out of them to a sandbox, as long as it lives. */
  readonly lease: (sandbox: Sandbox, addresses: LeasedAddresses) => Promise<void>
  readonly limits: { readonly maxVcpus: number; readonly maxMemoryMb: number; readonly maxDiskGb: number }
  readonly defaultShape: Omit<SandboxShape, 'image' | 'imageDigest'>
  readonly pool: { readonly minSize: number; readonly maxSize: number }
  /** Frees network slots that no adopted sandbox uses. */
  readonly freeNetworkLeftovers: () => Promise<void>
  /** Frees network and helpers, after all sandboxes are gone or let go. */
  readonly release: (options: { keepNetwork: boolean }) => Promise<void>
}

export interface Owned {
  readonly sandbox: Sandbox
  readonly persistent: boolean
  /** Settles when all that the sandbox had is free. */
  readonly closed: Promise<void>
}

/** A sandbox that a job has. */
export interface Taken {
  readonly sandbox: Sandbox
  readonly shape: SandboxShape
  readonly prepared: PreparedRoot | undefined
  readonly workspace: OpenWorkspace | undefined
  /** In force before its script starts. */
  readonly policy: EgressPolicy | undefined
  readonly addresses: LeasedAddresses | undefined
  /** Its script runs, or did: it is a copy of another sandbox. */
  readonly resumes: boolean
}

/** What is asked of a pool. */
export interface Take {
  readonly shape: SandboxShape
  readonly prepared: PreparedRoot | undefined
  readonly turn: Turn
  readonly abort: AbortSignal | undefined
}

export interface LeaseParts {
  readonly spec: SandboxSpec
  readonly shape: SandboxShape
  readonly prepared: PreparedRoot | undefined
  readonly begin: number
  readonly resumes?: boolean
}
