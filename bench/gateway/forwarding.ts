import { type HttpGateway, openHttpGateway } from '@mags/gateway'
import { median } from '../kit/statistics.ts'
import { BenchDirectory } from './bench-directory.ts'
import { download, type Load, load, type Path } from './load.ts'
import { nginxPort, startNginx } from './nginx.ts'
import { type Stage, serverPort } from './stage.ts'

export const appsDomain = 'apps.localhost'

export function openGateway(stage: Stage, directory: BenchDirectory, lingerMs = 5000): Promise<HttpGateway> {
  return openHttpGateway({ directory, logger: stage.logger, host: '127.0.0.1', port: 0, appsDomain, cookieKey: Buffer.alloc(32, 1), limits: { lingerMs } })
}

interface Measured {
  readonly name: string
  /** 64 connections. */
  readonly busy: Load
  /** One connection. */
  readonly alone: Load
  readonly megabytesPerSecond: number
}

/** Requests, latency and a download over each path; the rounds of all paths alternate, and each figure is the median of its rounds. */
export async function measureForwarding(stage: Stage, { rounds, seconds }: { readonly rounds: number; readonly seconds: number }): Promise<string> {
  const staged = await stage.start()
  const directory = new BenchDirectory()
  directory.add('bench', staged.sandbox, serverPort)
  const gateway = await openGateway(stage, directory)
  const through = ['nsenter', ...staged.inside]
  const nginx = { through, url: `http://127.0.0.1:${nginxPort}` }
  const paths: (Path & { workers?: number })[] = [
    { name: 'direct', through, url: `http://${staged.address}:${serverPort}` },
    { name: 'nginx, 1 worker', ...nginx, workers: 1 },
    { name: 'nginx, 2 workers', ...nginx, workers: 2 },
    { name: 'gateway', through: [], url: `http://127.0.0.1:${gateway.port}`, hostName: `bench.${appsDomain}` },
  ]
  const samples = new Map<string, { busy: Load[]; alone: Load[]; speeds: number[] }>(paths.map(({ name }) => [name, { busy: [], alone: [], speeds: [] }]))
  try {
    for (let round = 0; round < rounds; round++) {
      for (const path of paths) {
        await using _nginx = path.workers === undefined ? undefined : await startNginx(staged, stage.dir, path.workers)
        const taken = samples.get(path.name)
        await load(path, { connections: 64, seconds: 1 })
        taken?.busy.push(await load(path, { connections: 64, seconds }))
        taken?.alone.push(await load(path, { connections: 1, seconds }))
        for (let times = 0; times < 3; times++) taken?.speeds.push(await download(path))
      }
    }
  } finally {
    await gateway.close()
    await staged.sandbox.destroy()
  }
  return report(
    [...samples].map(([name, { busy, alone, speeds }]) => ({ name, busy: typical(busy), alone: typical(alone), megabytesPerSecond: median(speeds) })),
  )
}

function typical(loads: readonly Load[]): Load {
  const of = (field: keyof Load) => median(loads.map((each) => each[field]))
  return { requestsPerSecond: of('requestsPerSecond'), p50Ms: of('p50Ms'), p99Ms: of('p99Ms') }
}

function report(all: readonly Measured[]): string {
  const direct = all.find(({ name }) => name === 'direct')
  const nginx = all.find(({ name }) => name === 'nginx, 1 worker')
  if (direct === undefined || nginx === undefined) throw new Error('nothing to compare with')
  const line = ({ name, busy, alone, megabytesPerSecond }: Measured) =>
    `| ${[
      name,
      busy.requestsPerSecond.toFixed(0),
      `${(busy.requestsPerSecond / nginx.busy.requestsPerSecond).toFixed(2)}×`,
      `${busy.p50Ms.toFixed(2)} / ${busy.p99Ms.toFixed(2)}`,
      `${alone.p50Ms.toFixed(3)} / ${alone.p99Ms.toFixed(3)}`,
      `${(alone.p50Ms - direct.alone.p50Ms).toFixed(3)} / ${(alone.p99Ms - direct.alone.p99Ms).toFixed(3)}`,
      megabytesPerSecond.toFixed(0),
      `${(megabytesPerSecond / direct.megabytesPerSecond).toFixed(2)}×`,
    ].join(' | ')} |`
  return [
    '| path | requests/s (64 connections, 1 KiB) | of nginx | p50 / p99 ms | one connection p50 / p99 ms | added | 100 MB, MB/s | of direct |',
    '|---|---|---|---|---|---|---|---|',
    ...all.map(line),
  ].join('\n')
}
