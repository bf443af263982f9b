import { Agent, request } from 'node:http'
import { type Row, sample, summarize } from '../kit/statistics.ts'
import { BenchDirectory, type Entry } from './bench-directory.ts'
import { appsDomain, openGateway } from './forwarding.ts'
import { type Stage, serverPort } from './stage.ts'

/** From a request to a sleeping sandbox until its answer is read, over a new connection. */
export async function measureWakes(stage: Stage, { runs, hibernated }: { readonly runs: number; readonly hibernated: number }): Promise<Row[]> {
  const staged = await stage.start()
  const directory = new BenchDirectory()
  const entry = directory.add('bench', staged.sandbox, serverPort)
  // Nobody keeps it open for a next request.
  const gateway = await openGateway(stage, directory, 1)
  const name = stage.isolation === 'container' ? 'container' : 'emulated vm'
  try {
    await get(gateway.port)
    const woken = (label: string, times: number, hibernate: boolean) =>
      sample(label, times, async () => {
        if (!(await entry.sleep({ hibernate }))) throw new Error('it cannot hibernate')
        const begin = performance.now()
        await get(gateway.port)
        return performance.now() - begin
      })
    const rows = [await woken(`wake by HTTP, frozen ${name}`, runs, false)]
    if (stage.isolation === 'vm' && hibernated > 0) rows.push(await woken('wake by HTTP, vm from its memory on disk', hibernated, true))
    rows.push(await crowd(`100 requests at once to one sleeping ${name}`, entry, gateway.port))
    return rows
  } finally {
    await gateway.close()
    await staged.sandbox.destroy()
  }
}

async function crowd(label: string, entry: Entry, port: number): Promise<Row> {
  await entry.sleep({ hibernate: false })
  const before = entry.wakes
  const begin = performance.now()
  const answers = await Promise.allSettled(Array.from({ length: 100 }, () => get(port).then(() => performance.now() - begin)))
  const times = answers.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  return summarize(`${label}: ${entry.wakes - before} wake`, times, answers.length - times.length)
}

function get(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, agent: new Agent(), headers: { host: `bench.${appsDomain}` } }, (response) => {
      let length = 0
      response.on('data', (bytes: Buffer) => {
        length += bytes.length
      })
      response.on('end', () => (response.statusCode === 200 && length === 1024 ? resolve() : reject(new Error(`${response.statusCode}, ${length} bytes`))))
      response.on('error', reject)
    })
    sent.on('error', reject)
    sent.end()
  })
}
