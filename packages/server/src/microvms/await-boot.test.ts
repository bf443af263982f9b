import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bootedCommand } from './await-boot.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('skipped: a first process of its own needs root')

/** Starts what waits for the services beside itself; what it says comes after theirs, or it did not wait. */
const begin = 'sh -c "($BOOTED); echo up" & booted=$!\n'

describe.skipIf(!isRoot)('what waits for the services of a machine', () => {
  let dir: string

  beforeEach(async () => {
    dir = await realpath(await mkdtemp(join(tmpdir(), 'mags-init-')))
    for (const name of ['etc', 'sbin']) await mkdir(join(dir, name))
  })
  afterEach(async () => await rm(dir, { recursive: true, force: true }))

  async function program(path: string, text: string): Promise<void> {
    await writeFile(join(dir, path), `#!/bin/sh\n${text}\n`)
    await chmod(join(dir, path), 0o755)
  }

  /** What is said in a process namespace whose first process is `init`, a shell, with /etc, /usr/sbin and /run as an image has them. */
  async function boot(script: string, init = 'init'): Promise<string> {
    await copyFile(await realpath('/bin/sh'), join(dir, init))
    const compose = `for folder in etc usr/sbin; do mount -t overlay -o "lowerdir=$0/\${folder#usr/}:/$folder" overlay "/$folder"; done
mount -t tmpfs tmpfs /run
exec "$0/${init}" -c "$1"`
    const around = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc']
    const env = { PATH: `${dir}:${process.env.PATH ?? ''}`, BOOTED: bootedCommand, DIR: dir }
    const { stdout } = await promisify(execFile)('unshare', [...around, 'sh', '-c', compose, dir, script], { env })
    return stdout
  }

  it('waits for the scripts that sysvinit runs', async () => {
    await writeFile(join(dir, 'etc/inittab'), 'id:2:initdefault:\n')
    await program('runlevel', 'cat "$DIR/level"')
    await program('rcS', 'sleep 1')
    await program('rc', 'sleep 2; echo services')
    const script = `${begin}echo unknown > "$DIR/level"; rcS; echo N 2 > "$DIR/level"; rc 2; wait $booted`
    expect(await boot(script)).toBe('services\nup\n')
  })

  it('waits for OpenRC', async () => {
    await program('sbin/openrc', '')
    const level = (name: string) =>
      `printf ${name} > /run/openrc/softlevel; mkdir /run/openrc/rc.starting; sleep 2; echo ${name}; rmdir /run/openrc/rc.starting\n`
    expect(await boot(`${begin}mkdir /run/openrc\n${level('sysinit')}${level('default')}wait $booted`)).toBe('sysinit\ndefault\nup\n')
  })

  it('does not wait for an init that nobody knows', async () => {
    await program('sbin/openrc', '')
    await writeFile(join(dir, 'etc/inittab'), '')
    expect(await boot(`${begin}wait $booted; echo services`, 'own-program')).toBe('up\nservices\n')
  })
})
