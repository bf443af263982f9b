import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from '../../run.ts'
import { ociConfig } from './oci-config.ts'
import { seccompProfile } from './seccomp-profile.ts'

/**
 * The profile compiled to BPF, in base64. crun compiles it with libseccomp on every start, at 40 ms each, and leaves the result in the container's state folder: it is
 * taken from there once and handed over ready-made after that. Kept by the digest of the profile and the runtime's version.
 */
export async function compileSeccomp(deps: { runtime: 'crun'; cacheDir: string; workDir: string; warmRootDir: string }): Promise<string> {
  const { stdout: version } = await run(deps.runtime, ['--version'])
  const digest = createHash('sha256').update(version).update(JSON.stringify(seccompProfile())).digest('hex').slice(0, 16)
  const cached = join(deps.cacheDir, `seccomp-${digest}.bpf`)
  const found = await readFile(cached).catch(() => undefined)
  if (found !== undefined) return found.toString('base64')

  await using undo = new AsyncDisposableStack()
  await mkdir(deps.workDir, { recursive: true })
  const bundle = await mkdtemp(join(deps.workDir, 'seccomp-'))
  undo.defer(() => rm(bundle, { recursive: true, force: true }))
  const id = `seccomp-${randomBytes(4).toString('hex')}`
  const runtime = ['--root', join(bundle, 'state'), '--cgroup-manager=disabled']
  await writeFile(join(bundle, 'config.json'), JSON.stringify(throwAwayConfig(deps.warmRootDir)))
  undo.defer(async () => {
    await run(deps.runtime, [...runtime, 'delete', '--force', id]).catch(() => undefined)
  })
  // `create` stops before the program starts; its streams must not stay open in the waiting container, hence the detour over a file.
  await run('sh', ['-c', 'exec "$@" >"$0" 2>&1', join(bundle, 'log'), deps.runtime, ...runtime, 'create', '--bundle', bundle, id])
  const program = await readFile(join(bundle, 'state', id, 'seccomp.bpf'))
  await mkdir(deps.cacheDir, { recursive: true })
  await writeFile(`${cached}.part`, program)
  await rename(`${cached}.part`, cached)
  return program.toString('base64')
}

function throwAwayConfig(warmRootDir: string) {
  const shape = { vcpus: 1, memoryMb: 64 }
  const config = ociConfig({
    hostname: 'none',
    root: { path: warmRootDir, readonly: true },
    netnsPath: '',
    cgroupsPath: '',
    uidBase: 1_000_000_000,
    shape,
    pidsLimit: 8,
    args: ['/agent'],
  })
  const namespaces = config.linux.namespaces.filter(({ type }) => type !== 'cgroup').map(({ type }) => ({ type }))
  const { resources: _, cgroupsPath: __, ...linux } = config.linux
  return { ...config, linux: { ...linux, namespaces } }
}
