import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Row, sample } from '../kit/statistics.ts'

interface Peer {
  readonly name: string
  readonly program: string
  readonly args: readonly string[]
}

/**
 * What else runs `echo hi` in a box on this machine, from the same root file system: whole process, cold, as its users run it. A program that is not installed is left out with a
 * line that says so.
 */
export async function peers(runs: number): Promise<Row[]> {
  await using undo = new AsyncDisposableStack()
  const rootfs = await realpath(join(process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags', 'images/debian-12/current/rootfs'))
  const work = await mkdtemp(join(tmpdir(), 'mags-bench-peers-'))
  undo.defer(() => rm(work, { recursive: true, force: true }))
  const rows: Row[] = []
  for (const peer of await listPeers(rootfs, work)) {
    if (!(await succeeds(peer))) {
      process.stderr.write(`${peer.name}: left out, ${peer.program} is missing or does not run here\n`)
      continue
    }
    rows.push(await sample(peer.name, runs, () => timed(peer)))
  }
  return rows
}

async function listPeers(rootfs: string, work: string): Promise<Peer[]> {
  const bundle = join(work, 'bundle')
  await mkdir(bundle)
  await writeFile(join(bundle, 'config.json'), JSON.stringify(await crunConfig(bundle, rootfs)))
  // Where both kinds of control groups are mounted crun refuses to run unless the v2 tree is out of sight.
  const hidden = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
  const inNamespace = ['--mount', '--propagation', 'private', 'sh', '-c', hidden, 'sh']
  const podman = ['--cgroup-manager=cgroupfs', 'run', '--rm', '--network=none', '--ulimit=nofile=4096:4096', '--ulimit=nproc=4096:4096']
  return [
    { name: 'sh -c (no box)', program: 'sh', args: ['-c', 'echo hi'] },
    {
      name: 'bwrap --unshare-all',
      program: 'bwrap',
      args: ['--unshare-all', '--ro-bind', rootfs, '/', '--proc', '/proc', '--dev', '/dev', '/bin/sh', '-c', 'echo hi'],
    },
    { name: 'crun run', program: 'unshare', args: [...inNamespace, 'crun', '--cgroup-manager=cgroupfs', 'run', '--bundle', bundle, `bench-${process.pid}`] },
    { name: 'podman run --rm', program: 'unshare', args: [...inNamespace, 'podman', ...podman, '--rootfs', `${rootfs}:O`, '/bin/sh', '-c', 'echo hi'] },
  ]
}

/** crun's own default configuration with this root and command; its terminal turned off. */
async function crunConfig(bundle: string, rootfs: string) {
  const child = spawn('crun', ['spec'], { cwd: bundle, stdio: 'ignore' })
  await once(child, 'exit')
  const config = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8'))
  config.process.terminal = false
  config.process.args = ['/bin/sh', '-c', 'echo hi']
  config.process.rlimits = []
  config.root = { path: rootfs, readonly: true }
  return config
}

async function succeeds(peer: Peer) {
  try {
    await timed(peer)
    return true
  } catch {
    return false
  }
}

async function timed({ program, args }: Peer) {
  const begin = performance.now()
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'] })
  child.stdin.end()
  let output = ''
  child.stdout.on('data', (bytes: Buffer) => {
    output += bytes
  })
  const [code] = await once(child, 'close')
  if (code !== 0 || output !== 'hi\n') throw new Error(`exit ${code}, printed ${JSON.stringify(output)}`)
  return performance.now() - begin
}
