import { runProgram } from './run-program.ts'

/** Where a benchmark's requests go. */
export interface Path {
  readonly name: string
  /** What runs the client: nothing on the host, or nsenter(1) into a namespace. */
  readonly through: readonly string[]
  readonly url: string
  readonly hostName?: string
}

export interface Load {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

const unitMs = { us: 0.001, ms: 1, s: 1000, m: 60_000 } as const

/** wrk(1) for a while. Rejects when any answer was not good: what is fast because it fails does not count. */
export async function load(path: Path, { connections, seconds }: { readonly connections: number; readonly seconds: number }): Promise<Load> {
  const host = path.hostName === undefined ? [] : ['-H', `Host: ${path.hostName}`]
  const wrk = ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--latency', ...host, `${path.url}/`]
  const [command = 'wrk', ...args] = [...path.through, ...wrk]
  const text = await runProgram(command, args)
  if (/Non-2xx|Socket errors/.test(text)) throw new Error(`${path.name}: ${text}`)
  const percentile = (share: number) => {
    const [, value = 'NaN', unit = 'ms'] = new RegExp(`^\\s+${share}%\\s+([\\d.]+)(us|ms|s|m)$`, 'm').exec(text) ?? []
    return Number(value) * unitMs[unit as keyof typeof unitMs]
  }
  return { requestsPerSecond: Number(/^Requests\/sec:\s+([\d.]+)$/m.exec(text)?.[1]), p50Ms: percentile(50), p99Ms: percentile(99) }
}

/** Megabytes a second of one download of 100 MB. */
export async function download(path: Path): Promise<number> {
  const host = path.hostName === undefined ? [] : ['-H', `Host: ${path.hostName}`]
  const curl = ['curl', '-sf', '-o', '/dev/null', '-w', '%{size_download} %{time_total}', ...host, `${path.url}/big`]
  const [command = 'curl', ...args] = [...path.through, ...curl]
  const [bytes = 0, seconds = 0] = (await runProgram(command, args)).split(' ').map(Number)
  if (bytes !== 100_000_000) throw new Error(`${path.name}: ${bytes} bytes of 100 MB`)
  return bytes / 1e6 / seconds
}
