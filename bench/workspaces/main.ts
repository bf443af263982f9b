import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { startS3Server } from '../../tests/kit/s3-server.ts'
import { s3Environment } from '../../tests/kit/store-environment.ts'
import { table } from '../kit/statistics.ts'
import { measureRestic, type ResticTimes } from './restic.ts'
import { measureSaves, type SaveTimes } from './saves.ts'
import { measureStarts } from './starts.ts'
import { treeBytes } from './tree-script.ts'

/**
 * Workspaces beside cp and restic, in one run. `node bench/workspaces/main.ts [--runs 20] [--only starts,folder,s3]`; restic must be installed.
 *
 * Prints markdown. Times of one machine mean little: read the ratios.
 */
const { values } = parseArgs({ options: { runs: { type: 'string', default: '20' }, only: { type: 'string' } } })
const wanted = (part: string) => values.only === undefined || values.only.split(',').includes(part)
const print = (text: string) => process.stdout.write(`${text}\n`)
const seconds = (ms: number) => (ms / 1000).toFixed(2)
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(2)

print(
  `machine: ${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}`,
)

if (wanted('starts')) {
  const { attach, forks, parallel } = await measureStarts(Number(values.runs))
  print(`\n## Submit to first byte with a workspace that is on the machine\n\n${table(attach, attach[0]?.name)}`)
  print(`\n## Forks\n\n${table(forks, forks[0]?.name)}`)
  print(`\n## Workers from one base\n\n${table(parallel, parallel[0]?.name)}`)
}

if (wanted('folder')) {
  print('\n## Saves to a folder: 326 MB / 20k files\n')
  print(saves(await measureSaves({ MAGS_ISOLATION: 'container' }), await measureRestic(undefined)))
}

if (wanted('s3')) {
  await using server = await startS3Server()
  const { accessKeyId, secretAccessKey } = server.credentials
  const resticEnvironment = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }
  const environment = { MAGS_ISOLATION: 'container', ...(await s3Environment(server)) }
  print('\n## Saves to S3 (Ceph on this machine): 326 MB / 20k files\n')
  print(saves(await measureSaves(environment), await measureRestic(`s3:${server.endpoint}/${await server.createBucket()}`, resticEnvironment)))
}

function saves(mags: SaveTimes, restic: ResticTimes): string {
  const changed = treeBytes / 100
  const row = (name: string, ms: number, resticMs: number, words: string) =>
    `| ${name} | ${seconds(ms)} | ${seconds(resticMs)} | ${(ms / resticMs).toFixed(2)}× | ${words} |`
  return [
    '| what | Mags s | restic s | ratio | uploaded |',
    '|---|---|---|---|---|',
    row('first', mags.firstMs, restic.firstMs, `${megabytes(mags.firstBytes)} MB`),
    row('1 % changed', mags.changedMs, restic.changedMs, `${megabytes(mags.changedBytes)} MB, ${(mags.changedBytes / changed).toFixed(2)}× the changed bytes`),
    row('nothing changed', mags.unchangedMs, restic.unchangedMs, ''),
    row('restore on a machine without it, to a running sandbox', mags.restoreMs, restic.restoreMs, ''),
    `| 4 KiB changed in 500 MB | | | | ${megabytes(mags.bigFileBytes)} MB |`,
  ].join('\n')
}
