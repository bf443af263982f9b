import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { openHost } from '@mags/host'
import type { HostApi } from '@mags/protocol'
import { type Logger, pino } from 'pino'
import { systemDir } from './container-ground.ts'
import { root } from './daemon.ts'
import { canTest, notRoot } from './require.ts'

const native = join(root, 'native/build')

/** Whether sandboxes of both kinds can be made here. */
export function canMakeSandboxes(): boolean {
  const missing = notRoot ?? (existsSync(join(systemDir, 'kernels/current/vmlinux')) ? undefined : 'there is no guest kernel; `./mags setup` makes it')
  return canTest('MAGS_REQUIRE_CONTAINER', missing) && canTest('MAGS_REQUIRE_VM', missing)
}

/** Silent, unless MAGS_TEST_LOG says how much it says. */
export const testLogger = (): Logger => pino({ level: process.env.MAGS_TEST_LOG ?? 'silent' })

/** Where the host of `instance` keeps what does not outlive the machine. */
export const runDirOf = (instance: string) => `/run/mags/${instance}`

export interface RealHostOptions {
  readonly instance: string
  readonly dataDir: string
  readonly addressPrefixes?: readonly string[]
}

/** A host over the images and kernel of this machine, with everything else of it in `dataDir` and {@link runDirOf}. It keeps no sandboxes ready. */
export function openRealHost({ instance, dataDir, addressPrefixes = [] }: RealHostOptions): Promise<HostApi> {
  return openHost({
    instance,
    systemDir,
    dataDir,
    runDir: runDirOf(instance),
    agentBinary: join(native, 'agent'),
    mounterBinary: join(native, 'mounter'),
    isolation: 'auto',
    ociRuntime: 'crun',
    store: { place: { kind: 'folder', folder: join(dataDir, 'objects') } },
    defaults: { image: 'debian-12', vcpus: 1, memoryMb: 256, diskGb: 2 },
    pool: { minSize: 0, maxSize: 0, idleTtlMs: 0 },
    addressPrefixes,
    logger: testLogger(),
  })
}
