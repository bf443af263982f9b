import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Mags } from '@mags/sdk'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { type Row, sample } from '../kit/statistics.ts'
import { runProgram } from '../workspaces/run-program.ts'

const lines = ['head -c 50000000 /dev/urandom > /opt/noise', 'mkdir /opt/many && for i in $(seq 2000); do echo $i > /opt/many/$i; done', 'cp -a /etc /opt/etc']

/** How each kind of archive becomes a disk by hand; `%` is a new folder. */
const byHand = {
  'rootfs.tar': ['mkdir %/rootfs && tar -C %/rootfs -xf rootfs.tar', 'tar -x + mkfs.erofs'],
  'layout.tar': ['mkdir %/layout && tar -C %/layout -xf layout.tar && umoci unpack --image %/layout:latest %', 'umoci unpack + mkfs.erofs'],
  'docker.tar': [
    'skopeo copy -q docker-archive:docker.tar oci:%/layout:latest && umoci unpack --image %/layout:latest %',
    'skopeo copy + umoci unpack + mkfs.erofs',
  ],
} as const

export interface ImageTimes {
  readonly name: string
  readonly rows: readonly Row[]
}

/** Archives of the debian-12 of this machine made into images, each beside the usual tools; and three commands as a build and as a job. */
export async function measureImages(rounds: number): Promise<ImageTimes[]> {
  await using undo = new AsyncDisposableStack()
  const folder = await mkdtemp('/var/tmp/mags-bench-images-')
  undo.defer(() => rm(folder, { recursive: true, force: true }))
  await makeArchives(folder)
  const daemon = undo.use(await startDaemon({ MAGS_ISOLATION: 'container', MAGS_POOL_MIN: '1' }))
  const mags = new Mags({ apiUrl: daemon.url, apiToken: daemon.token })
  // Images are of the whole machine.
  const imported = async (start: (name: string) => Promise<{ task_id: string }>) => {
    const name = `bench-${randomBytes(4).toString('hex')}`
    try {
      const begin = performance.now()
      const { task_id: id } = await start(name)
      for await (const event of mags.images.followTask(id)) {
        if (event.type === 'end' && event.status === 'failed') throw new Error(String(event.error))
      }
      return performance.now() - begin
    } finally {
      await mags.images.remove(name).catch(() => undefined)
    }
  }

  const results: ImageTimes[] = []
  for (const [file, [command, peer]] of Object.entries(byHand)) {
    const ours = await sample(`Mags: import ${file}`, rounds, () => imported((name) => mags.images.import({ name, file: join(folder, file) })))
    results.push({ name: file, rows: [await sample(peer, rounds, () => inNewFolder(folder, `${command} && mkfs.erofs --quiet %/root.erofs %/rootfs`)), ours] })
  }
  const context = await makeContext(folder)
  const content = await readFile(context)
  const build = await sample('Mags: build of three RUN lines', rounds, () => imported((name) => mags.images.build({ name, context: content })))
  const job = await sample('the three lines in one job', rounds, async () => {
    const begin = performance.now()
    const { exitCode } = await mags.runAndWait(`set -e\n${lines.join('\n')}`)
    if (exitCode !== 0) throw new Error(`exit ${exitCode}`)
    return performance.now() - begin
  })
  results.push({ name: 'Dockerfile', rows: [job, build] })
  return results
}

/** The same files as a root file system, as an OCI layout of one layer, and as docker save writes it. */
async function makeArchives(folder: string) {
  const rootfs = await realpath(join(process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags', 'images/debian-12/current/rootfs'))
  const commands = [
    `tar -C '${rootfs}' --numeric-owner --xattrs -cf rootfs.tar .`,
    'umoci init --layout layout && umoci new --image layout:latest && umoci raw add-layer --image layout:latest rootfs.tar && umoci gc --layout layout',
    'tar -C layout -cf layout.tar .',
    'skopeo copy -q oci:layout:latest docker-archive:docker.tar:bench:latest',
    'rm -r layout',
  ]
  await runProgram('sh', ['-c', `cd '${folder}' && ${commands.join(' && ')}`])
}

async function makeContext(folder: string): Promise<string> {
  const context = join(folder, 'context')
  await mkdir(context)
  await writeFile(join(context, 'Dockerfile'), ['FROM debian-12', ...lines.map((line) => `RUN ${line}`), ''].join('\n'))
  await runProgram('tar', ['-C', context, '-cf', `${context}.tar`, '.'])
  return `${context}.tar`
}

async function inNewFolder(folder: string, command: string): Promise<number> {
  const dir = await mkdtemp(join(folder, 'peer-'))
  try {
    return await runProgram('sh', ['-c', `cd '${folder}' && ${command.replaceAll('%', dir)}`])
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
