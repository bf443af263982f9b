import { mkdtemp, rm } from 'node:fs/promises'
import { startDaemon } from '../../tests/kit/daemon.ts'
import { BenchClient } from '../kit/client.ts'
import { type Row, sample, summarize } from '../kit/statistics.ts'
import { runProgram } from '../workspaces/run-program.ts'
import { makeTree } from '../workspaces/tree-script.ts'
import { createJob, firstByteOf, MessageReader } from './api.ts'

const runsPerJob = 5

/** The first run makes 326 MB in 20,000 files to be kept, and 20,000 files elsewhere that are not; each later one changes one file. Says when its script began and ended. */
const script = `
echo "begin $(date +%s%N)"
if [ ! -e /workspace/tree ]; then
  ${makeTree('/workspace/tree')}
  mkdir -p /root/elsewhere
  perl -e 'for (1 .. 20000) { open my $out, ">", "/root/elsewhere/$_" or die; print $out $_ }'
fi
[ "$(ls /workspace/tree | wc -l)" = 200 ] || exit 9
date > /workspace/last
echo "end $(date +%s%N)"
`

/** Runs of a stateful job that wait for each other: from the end of one's script to the beginning of the next one's. */
export async function measureStateful(rounds: number): Promise<Row[]> {
  await using daemon = await startDaemon({ MAGS_ISOLATION: 'container' })
  const client = new BenchClient(daemon)
  const first: number[] = []
  const later: number[] = []
  const again: number[] = []
  let failures = 0
  try {
    for (let round = 0; round < rounds; round++) {
      try {
        const job = await createJob(client, { script, stateful: true })
        const ids = [job]
        for (let run = 1; run < runsPerJob; run++) ids.push((await client.call<{ request_id: string }>('POST', `/api/v1/jobs/${job}/run`, {})).request_id)
        const times = await Promise.all(ids.map((id) => timesOf(client, id)))
        const turns = times.slice(1).map(({ begin }, index) => begin - (times[index]?.end ?? Number.NaN))
        first.push(...turns.slice(0, 1))
        later.push(...turns.slice(1))
        const { acceptMs, firstByteMs } = await firstByteOf(client, { again: job })
        again.push(acceptMs + firstByteMs)
        await client.call('DELETE', `/api/v1/jobs/${job}`)
      } catch (error) {
        failures++
        process.stderr.write(`stateful: ${error}\n`)
      }
    }
  } finally {
    client.close()
  }
  return [
    summarize('all of it new: end of a run → begin of the next', first, failures),
    summarize('one file changed: end of a run → begin of the next', later, failures * (runsPerJob - 2)),
    summarize('nothing waits: run it again → first byte', again, failures),
    await copies(),
  ]
}

/** ms since 1970. */
async function timesOf(client: BenchClient, id: string): Promise<{ begin: number; end: number }> {
  const times: Record<string, number> = {}
  const reader = new MessageReader((message) => {
    const [word = '', time] = message.split(' ')
    times[word] = Number(time) / 1e6
  })
  // The Jobs API takes the id of the first run for the job, whose newest run it means.
  const end = await client.follow(`/api/v1/mags-jobs/${id}/logs?follow=true`, (text) => reader.read(text))
  if (!end.includes('"exit_code":0')) throw new Error(`run ${id}: ${end}`)
  return { begin: times.begin ?? Number.NaN, end: times.end ?? Number.NaN }
}

/** The least that copying it out would take. */
async function copies(): Promise<Row> {
  const dir = await mkdtemp('/var/tmp/mags-copies-')
  try {
    await runProgram('sh', ['-c', makeTree(`${dir}/tree`)])
    return await sample('cp -a of the same tree', 3, (run) => runProgram('cp', ['-a', `${dir}/tree`, `${dir}/copy-${run}`]))
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
