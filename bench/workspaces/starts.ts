import { mkdtemp, rm } from 'node:fs/promises'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { WorkspaceClient } from '../../tests/kit/workspace-client.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, sample, summarize } from '../kit/statistics.ts'
import { runProgram } from './run-program.ts'
import { makeTree } from './tree-script.ts'

const workers = 20

/** Starts with a workspace of 1 GB on this machine, forks, and many workers from one base: so many warm sandboxes are there, as they would be where that is usual. */
export async function measureStarts(runs: number): Promise<{ attach: Row[]; forks: Row[]; parallel: Row[] }> {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container', MAGS_SYNC_SECONDS: '3600', MAGS_POOL_MIN: `${workers + 4}` })
  const client = new WorkspaceClient(daemon)
  const bench = new BenchClient(daemon)
  const firstByte = async (job: Record<string, unknown>) => (await bench.firstByte({ script: 'echo hi', ...job })).firstByteMs
  const rest = () => new Promise<void>((resolve) => setTimeout(resolve, 250))

  await bench.untilEnded(await bench.submit({ script: 'head -c 1000000000 /dev/urandom > /root/data', workspace_id: 'gigabyte' }))
  const attach = [
    await sample('ephemeral', runs, () => firstByte({}), rest),
    await sample('workspace of 1 GB', runs, () => firstByte({ workspace_id: 'gigabyte' }), rest),
    await sample('base of 1 GB', runs, () => firstByte({ base_workspace_id: 'gigabyte' }), rest),
    await sample('fork of 1 GB at start', runs, (run) => firstByte({ base_workspace_id: 'gigabyte', workspace_id: `fork-${run}` }), rest),
  ]

  await bench.untilEnded(await bench.submit({ script: makeTree('/root/tree'), workspace_id: 'tree' }))
  await bench.untilEnded(await bench.submit({ script: 'echo small > /root/small', workspace_id: 'small' }))
  const forks = [
    await sample('fork of 326 MB / 20k files', runs, (run) => client.fork('tree', `tree-${run}`)),
    await sample('fork of one file', runs, (run) => client.fork('small', `small-${run}`)),
    await copies(),
  ]

  await untilStocked(client)
  const lone = await sample('one start from a base', runs, () => firstByte({ base_workspace_id: 'tree' }), rest)
  await untilStocked(client)
  const together = await Promise.all(Array.from({ length: workers }, () => firstByte({ base_workspace_id: 'tree' })))
  bench.close()
  return { attach, forks, parallel: [lone, summarize(`${workers} starts from it at once`, together)] }
}

async function untilStocked(client: WorkspaceClient) {
  while ((await client.call<{ idle_vms: number }>('GET', 'mags-jobs/pool-status')).idle_vms < workers) await new Promise((resolve) => setTimeout(resolve, 100))
}

async function copies(): Promise<Row> {
  const dir = await mkdtemp('/var/tmp/mags-copies-')
  try {
    await runProgram('sh', ['-c', makeTree(`${dir}/tree`)])
    return await sample('cp -a of 326 MB / 20k files', 3, (run) => runProgram('cp', ['-a', `${dir}/tree`, `${dir}/copy-${run}`]))
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
