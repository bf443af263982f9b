import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run } from '../run.ts'
import { buildRecipe } from './build-recipe.ts'
import { ImageStore } from './image-store.ts'
import { importLimits } from './import/import-limits.ts'
import { importWork } from './import/import-work.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('skipped: recipes are built by root')
const root = join(import.meta.dirname, '../../../..')

/** What mmdebstrap does without a network: files in /tmp, mounts in the new root, and programs that go on. All hold `alive` open. */
const standIn = `#!/bin/sh
set -eu
mkdir -p "$1/rootfs/etc" "$1/rootfs/proc"
echo 'PRETTY_NAME="Stand-in 1"' > "$1/rootfs/etc/os-release"
mktemp -d "/tmp/$(cat "$MAGS_ROOT/token").XXXXXX" > /dev/null
mount -t tmpfs none "$1/rootfs/proc"
if [ -p "$MAGS_ROOT/alive" ]; then
  exec 9> "$MAGS_ROOT/alive"
  setsid sleep 1000 &
  echo begun >&9
  sleep 1000
fi
umount "$1/rootfs/proc"
echo disk > "$1/root.erofs"
`

describe.skipIf(!isRoot)('a recipe', () => {
  let base: string
  let installation: string
  let script: string
  let token: string

  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), 'mags-recipe-'))
    installation = join(base, 'installation')
    token = `mags-left-${randomBytes(4).toString('hex')}`
    script = join(installation, 'setup/steps/image.sh')
    await mkdir(join(installation, 'setup/steps'), { recursive: true })
    await mkdir(join(installation, 'images/stand-in'), { recursive: true })
    await copyFile(join(root, 'setup/steps/image.sh'), script)
    await copyFile(join(root, 'images/shared.sh'), join(installation, 'images/shared.sh'))
    await writeFile(join(installation, 'images/stand-in/build'), standIn)
    await chmod(join(installation, 'images/stand-in/build'), 0o755)
    await writeFile(join(installation, 'images/stand-in/sources'), "MAGS_IMAGE_SOURCES='http://mirror.test stand-in'\n")
    await writeFile(join(installation, 'token'), token)
  })
  afterEach(async () => await rm(base, { recursive: true, force: true }))

  /** `begun` settles when the build is in the middle, `dead` when none of its programs is left. */
  async function watchBuild() {
    const alive = join(installation, 'alive')
    await run('mkfifo', [alive])
    const lines = createInterface({ input: createReadStream(alive) })
    return { begun: once(lines, 'line'), dead: once(lines, 'close') }
  }

  async function expectNothingLeft() {
    expect((await readdir('/tmp')).filter((name) => name.startsWith(token))).toEqual([])
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(base)
  }

  const workOf = (dir: string, abort = new AbortController().signal) => importWork(dir, importLimits(1), () => undefined, abort)

  it('is built with a /tmp of its own', async () => {
    const dir = await buildRecipe('stand-in', script, workOf(base))
    expect(await readFile(join(dir, 'root.erofs'), 'utf8')).toBe('disk\n')
    expect(JSON.parse(await readFile(join(dir, 'image.json'), 'utf8'))).toMatchObject({ os: 'Stand-in 1', source: { kind: 'recipe', reference: 'stand-in' } })
    await expectNothingLeft()
  })

  it('leaves nothing when the server is killed in the middle', async () => {
    const store = await ImageStore.open(join(base, 'images'), 'aaaaaa')
    const { begun, dead } = await watchBuild()
    const alone = join(import.meta.dirname, 'testing/build-recipe-alone.ts')
    const server = spawn(process.execPath, ['--conditions=source', alone, script, 'stand-in', await store.workDir()], { stdio: 'inherit' })
    await begun
    server.kill('SIGKILL')
    await dead
    expect(await readdir(join(base, 'images/.work'))).toHaveLength(1)
    await ImageStore.open(join(base, 'images'), 'aaaaaa')
    expect(await readdir(join(base, 'images/.work'))).toEqual([])
    await expectNothingLeft()
  })

  it('leaves nothing when it is cancelled', async () => {
    const store = await ImageStore.open(join(base, 'images'), 'aaaaaa')
    const { begun, dead } = await watchBuild()
    const abort = new AbortController()
    const dir = await store.workDir()
    const built = expect(buildRecipe('stand-in', script, workOf(dir, abort.signal))).rejects.toThrow('enough')
    await begun
    abort.abort(new Error('enough'))
    await built
    await dead
    await store.discard(dir)
    expect(await readdir(join(base, 'images/.work'))).toEqual([])
    await expectNothingLeft()
  })

  it('leaves nothing when setup is killed, once it goes on', async () => {
    const { begun, dead } = await watchBuild()
    const env = { ...process.env, MAGS_ROOT: installation, MAGS_SYSTEM_DIR: join(base, 'system') }
    const setup = spawn('sh', [script, 'stand-in'], { env, stdio: 'inherit' })
    await begun
    setup.kill('SIGKILL')
    await dead
    const images = join(base, 'system/images/stand-in')
    expect((await readdir(images)).every((name) => name.startsWith('tmp.'))).toBe(true)
    await rm(join(installation, 'alive'))
    await run('sh', [script, 'stand-in'], { env })
    expect((await readdir(images)).filter((name) => !/^[0-9a-f]{64}$/.test(name))).toEqual(['current'])
    await run('sh', [script, '--check', 'stand-in'], { env })
    expect(await readdir(join(installation, '.tools'))).toEqual([])
    await expectNothingLeft()
  })
})
