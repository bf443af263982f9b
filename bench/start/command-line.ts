import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { root, type TestDaemon } from '../../tests/kit/daemon.ts'
import { type Row, sample } from '../kit/statistics.ts'

/** `./mags run 'echo hi'` as a whole process, launcher included. */
export function commandLine(daemon: TestDaemon, runs: number): Promise<Row> {
  return sample("./mags run 'echo hi', whole process", runs, async () => {
    const begin = performance.now()
    const child = spawn(join(root, 'mags'), ['run', 'echo hi'], { stdio: 'ignore', env: { ...process.env, HOME: daemon.home } })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new Error(`exit ${code}`)
    return performance.now() - begin
  })
}
