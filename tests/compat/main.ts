import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import type { Sandbox } from '../../packages/host/src/drivers/driver.ts'
import { AgentSandboxFiles } from '../../packages/host/src/sandboxes/sandbox-files.ts'
import { startGuest } from './compat-guest.ts'
import { compatImage } from './compat-image.ts'

const rootDir = join(import.meta.dirname, '..', '..')
const systemDir = process.env.MAGS_SYSTEM_DIR ?? '/var/lib/mags'
const timeoutS = Number(process.env.MAGS_COMPAT_TIMEOUT_S ?? 900)
const suites = ['tests/integration/container-driver.test.ts', 'tests/integration/cgroup-tree.test.ts', 'packages/host/src/layers/real-layer.test.ts']
/** Where the guest has the repository, and the results of the run. */
const guestDir = '/mags'
const guestResults = '/run/results.json'
const disposeTimeoutMs = 20_000

const began = performance.now()
const say = (words: string) => process.stderr.write(`compat (${((performance.now() - began) / 1000).toFixed(1)} s): ${words}\n`)

/** All of it; resolves with vitest's exit status and what its JSON reporter wrote. */
async function testInGuest(undo: AsyncDisposableStack): Promise<{ status: number; results: Buffer }> {
  const image = await compatImage({ rootDir, systemDir, say })
  say('starting the guest')
  const { sandbox, detail } = undo.use(await startGuest({ rootDir, systemDir, image }))
  say(`the guest runs (${detail.split(':')[0]})`)
  await unpackSources(sandbox)
  const wanted = process.argv.slice(2)
  const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--reporter=verbose', '--reporter=json', `--outputFile.json=${guestResults}`]
  const command = ['node', ...vitest, ...(wanted.length > 0 ? wanted : suites)]
  const status = await runInGuest(sandbox, ['sh', join(guestDir, 'tests/compat/guest/host.sh'), ...command])
  if (status !== 0) await runInGuest(sandbox, ['sh', '-c', 'echo "last words of the guest\'s kernel:"; dmesg | tail -n 20'])
  return { status, results: await readFromGuest(sandbox, guestResults).catch(() => Buffer.alloc(0)) }
}

/** Everything but node_modules, which the image has, and what was built, which nothing there runs and may be being built. */
async function unpackSources(sandbox: Sandbox) {
  const files = ['package.json', 'tsconfig.json', 'tsconfig.base.json', 'vitest.config.ts', 'packages', 'tests', 'native/build/agent', 'native/build/mounter']
  const tar = spawn('tar', ['-C', rootDir, '--exclude=node_modules', '--exclude=dist', '-c', ...files], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(tar, 'exit')
  const status = await runInGuest(sandbox, ['tar', '-C', guestDir, '-x', '--no-same-owner'], tar.stdout)
  const [code] = await ended
  if (status !== 0 || code !== 0) throw new Error(`the sources did not get into the guest (tar: ${code} here, ${status} there)`)
}

/** Runs a program as root, its output streamed to ours; resolves with its exit status. */
async function runInGuest(sandbox: Sandbox, argv: readonly string[], input?: AsyncIterable<Uint8Array>): Promise<number> {
  const timeScale = sandbox.isolation === 'kvm' ? 2 : 20
  const env = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    NO_COLOR: '1',
    MAGS_REQUIRE_CONTAINER: '1',
    MAGS_REQUIRE_NATIVE: '1',
    MAGS_TIME_SCALE: `${timeScale}`,
  }
  const exec = sandbox.agent.exec({ argv, env, cwd: guestDir, stdin: input !== undefined }, async (stream, _offset, bytes) => {
    if (!process[stream].write(bytes)) await once(process[stream], 'drain')
    return undefined
  })
  try {
    if (input !== undefined) {
      for await (const bytes of input) await exec.writeStdin(bytes)
      exec.endStdin()
    }
    const exit = await exec.exit
    if (exit.kind === 'not-started') throw new Error(`${argv[0]} did not start in the guest: ${exit.message}`)
    return exit.kind === 'exited' ? exit.code : 128 + exit.code
  } finally {
    exec.close()
  }
}

async function readFromGuest(sandbox: Sandbox, path: string): Promise<Buffer> {
  return await buffer(new AgentSandboxFiles(sandbox.agent).read(path))
}

/** The closing line and the exit status, as ./mags test has them. */
async function conclude({ status, results }: { status: number; results: Buffer }): Promise<number> {
  const dir = await mkdtemp(join(tmpdir(), 'mags-compat-'))
  try {
    const file = join(dir, 'results.json')
    if (results.length > 0) await writeFile(file, results)
    const counting: ChildProcess = spawn(process.execPath, [join(rootDir, 'setup/count-tests.mjs'), '0', `${file}:${status}`], { stdio: 'inherit' })
    const [code] = await once(counting, 'exit')
    return Number(code ?? 1)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** This is the first process of a namespace: with it ends everything it started. */
async function main(): Promise<number> {
  const stop = Promise.withResolvers<never>()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.reject(new Error(`ended by ${signal}`)))
  const undo = new AsyncDisposableStack()
  const timer = setTimeout(() => stop.reject(new Error(`no end within ${timeoutS} s (MAGS_COMPAT_TIMEOUT_S)`)), timeoutS * 1000)
  try {
    const outcome = await Promise.race([testInGuest(undo), stop.promise])
    say('done')
    return await conclude(outcome)
  } catch (error) {
    say(error instanceof Error ? (error.stack ?? error.message) : `${error}`)
    return conclude({ status: 1, results: Buffer.alloc(0) })
  } finally {
    clearTimeout(timer)
    const freed = undo.disposeAsync().catch((error: unknown) => say(`not everything could be freed in order: ${error}`))
    await Promise.race([freed, delay(disposeTimeoutMs)])
  }
}

process.exit(await main())
