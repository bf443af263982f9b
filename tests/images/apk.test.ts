import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const apk = join(import.meta.dirname, '../../images/debian-12/apk')

/** What Debian has in these tests; anything else `apt-get install` does not find. */
const debian = [
  ...[
    'bash',
    'build-essential',
    'bzip2',
    'curl',
    'fonts-inconsolata',
    'g++',
    'git',
    'jq',
    'libbz2-dev',
    'libc6-dev',
    'libffi-dev',
    'libgeos-dev',
    'libjpeg-dev',
  ],
  ...['libpng-dev', 'libpng16-16', 'libssl-dev', 'libwebp7', 'libxslt1-dev', 'linux-libc-dev', 'nodejs', 'npm', 'openjdk-17-jdk-headless', 'openssh-client'],
  ...[
    'openssh-server',
    'php-curl',
    'php-mysql',
    'postgresql-client',
    'python3',
    'python3-dev',
    'python3-pip',
    'python3-requests',
    'python3-venv',
    'python3-zmq',
  ],
  ...['ripgrep', 'sqlite3', 'zlib1g-dev'],
]

const stubs = {
  'apt-get': `echo "apt-get $*" >> "$STUB_CALLS"
case " $* " in *" update "*) exit \${STUB_UPDATE:-0} ;; *" install "* | *" remove "*) ;; *) exit 0 ;; esac
install=''
for word in "$@"; do
  case $word in install) install=yes; continue ;; -* | remove) continue ;; esac
  [ -z "$install" ] || grep -qx -- "$word" "$STUB_DEBIAN" || { echo "E: Unable to locate package $word" >&2; exit 100; }
  case " $* " in *" -s "*) ;; *" install "*) grep -qx -- "$word" "$STUB_INSTALLED" || echo "$word" >> "$STUB_INSTALLED" ;; *) sed -i "/^$word$/d" "$STUB_INSTALLED" ;; esac
done`,
  'apt-cache': `case $1 in
  policy) shift; for name in "$@"; do ! grep -qx -- "$name" "$STUB_DEBIAN" || printf '%s:\\n  Installed: (none)\\n  Candidate: 1.0\\n' "$name"; done ;;
  pkgnames) grep "^$2" "$STUB_DEBIAN" ;;
  *) echo "apt-cache $*" ;;
esac`,
  'dpkg-query': `case $1 in
  -W) for name in "$@"; do :; done; if grep -qx -- "$name" "$STUB_INSTALLED"; then printf installed; else exit 1; fi ;;
  *) echo "dpkg-query $*" ;;
esac`,
}

describe('apk on Debian', () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'apk-'))
    for (const path of ['bin', 'state', 'lists/partial']) mkdirSync(join(folder, path), { recursive: true })
    for (const [name, body] of Object.entries(stubs)) {
      writeFileSync(join(folder, 'bin', name), `#!/bin/sh\n${body}\n`)
      chmodSync(join(folder, 'bin', name), 0o755)
    }
    writeFileSync(join(folder, 'lists/deb_Packages'), '')
    writeFileSync(join(folder, 'debian'), `${debian.join('\n')}\n`)
    writeFileSync(join(folder, 'installed'), 'curl\nbash\n')
    writeFileSync(join(folder, 'calls'), '')
  })

  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  function run(args: readonly string[], environment: Record<string, string> = {}) {
    const calls = join(folder, 'calls')
    const before = readFileSync(calls, 'utf8').length
    const { status, stdout, stderr } = spawnSync('sh', [apk, ...args], {
      encoding: 'utf8',
      env: {
        PATH: `${join(folder, 'bin')}:/usr/bin:/bin`,
        MAGS_APK_STATE: join(folder, 'state'),
        MAGS_APK_LISTS: join(folder, 'lists'),
        STUB_CALLS: calls,
        STUB_DEBIAN: join(folder, 'debian'),
        STUB_INSTALLED: join(folder, 'installed'),
        ...environment,
      },
    })
    return { status, stdout, stderr, calls: readFileSync(calls, 'utf8').slice(before).split('\n').filter(Boolean) }
  }

  const installOf = (names: string) => `apt-get -y --no-install-recommends install -- ${names}`

  it.each([
    ['py3-pip nodejs npm', 'python3-pip nodejs npm'],
    ['build-base musl-dev linux-headers g++', 'build-essential libc6-dev linux-libc-dev g++'],
    ['openssl-dev zlib-dev libffi-dev jpeg-dev libjpeg-turbo-dev libxslt-dev', 'libssl-dev zlib1g-dev libffi-dev libjpeg-dev libxslt1-dev'],
    ['geos-dev libpng-dev python3-dev', 'libgeos-dev libpng-dev python3-dev'],
    ['libpng libwebp bzip2-static openssl-libs-static', 'libpng16-16 libwebp7 libbz2-dev libssl-dev'],
    ['python3 py3-requests py3-pyzmq', 'python3 python3-venv python3-requests python3-zmq'],
    ['openssh openssh-client sqlite', 'openssh-client openssh-server sqlite3'],
    [
      'openjdk17 php82-curl php81-pdo_mysql postgresql15-client font-inconsolata',
      'openjdk-17-jdk-headless php-curl php-mysql postgresql-client fonts-inconsolata',
    ],
  ])('add %s', (names, packages) => {
    const { status, stderr, calls } = run(['add', '--no-cache', ...names.split(' ')])
    expect(calls).toEqual([installOf(packages)])
    expect(stderr).toBe(`mags: apk add ${names} → apt-get install ${packages}\n`)
    expect(status).toBe(0)
  })

  it('takes Debian’s version whatever is asked for, and says so', () => {
    const { status, stderr, calls } = run(['add', 'jq=1.6-r0', 'git~2.40', 'curl>=8', 'ripgrep@edge', '!busybox'])
    expect(calls).toEqual([installOf('jq git curl ripgrep')])
    expect(stderr.match(/Debian has one version/g)).toHaveLength(3)
    expect(stderr).toContain('ripgrep@edge: Debian has no such repository')
    expect(status).toBe(0)
  })

  it('understands options wherever they stand', () => {
    expect(run(['-q', '--update-cache', 'add', '-X', 'http://dl.example/edge', '--no-progress', 'jq']).calls).toEqual([
      'apt-get -qq update',
      'apt-get -qq -y --no-install-recommends install -- jq',
    ])
    expect(run(['add', '-Us', 'jq']).calls).toEqual(['apt-get update', 'apt-get -s -y --no-install-recommends install -- jq'])
    expect(run(['add', 'gcompat', 'libc6-compat'])).toMatchObject({ status: 0, calls: [] })
    expect(run(['add'])).toMatchObject({ status: 1, calls: [] })
    expect(run(['add', './x.apk'])).toMatchObject({ status: 1, calls: [] })
    expect(run(['add', '-t'])).toMatchObject({ status: 1, calls: [] })
  })

  it('passes on what it does not know, and says which name Debian has not', () => {
    const { status, stderr, calls } = run(['add', 'jq', 'nosuchthing', '*', 'nosuch-dev'])
    expect(calls).toEqual([installOf('jq nosuchthing * nosuch-dev')])
    expect(stderr).toContain('Debian has no package of this name: nosuchthing * nosuch-dev')
    expect(status).toBe(100)
  })

  it('fetches lists that are missing or old, and goes on when that fails', () => {
    const old = new Date(Date.now() - 2 * 24 * 3600 * 1000)
    utimesSync(join(folder, 'lists/partial'), old, old)
    expect(run(['add', 'jq'], { STUB_UPDATE: '100' })).toMatchObject({ status: 0, calls: ['apt-get update', installOf('jq')] })
    expect(run(['add', 'jq']).calls).toEqual(['apt-get update', installOf('jq')])
    expect(run(['add', 'jq']).calls).toEqual([installOf('jq')])
    rmSync(join(folder, 'lists/deb_Packages'))
    expect(run(['add', 'jq']).calls).toEqual(['apt-get update', installOf('jq')])
    expect(run(['update'], { STUB_UPDATE: '100' })).toMatchObject({ status: 100, calls: ['apt-get update'] })
  })

  it('removes with a virtual package what came with it', () => {
    expect(run(['add', '--no-cache', '--virtual', '.build-deps', 'build-base', 'curl', 'openssl-dev']).status).toBe(0)
    expect(run(['add', '--virtual=.build-deps', 'git']).status).toBe(0)
    expect(run(['del', '.build-deps', 'py3-requests'])).toMatchObject({
      status: 0,
      calls: ['apt-get -y --auto-remove remove -- build-essential libssl-dev git python3-requests'],
      stderr: expect.stringContaining('mags: apk del .build-deps py3-requests → apt-get remove build-essential libssl-dev git python3-requests') as string,
    })
    expect(readFileSync(join(folder, 'installed'), 'utf8')).toBe('curl\nbash\n')
    expect(readdirSync(join(folder, 'state/virtual'))).toEqual([])
    expect(run(['del', '.build-deps'])).toMatchObject({ status: 1, calls: [] })
    // All of it was there before.
    run(['add', '-t', 'deps', 'curl'])
    expect(run(['del', 'deps'])).toMatchObject({ status: 0, calls: [] })
  })

  it('remembers a virtual package only once it is installed, under no name that is a path', () => {
    expect(run(['add', '-t', '.d', 'nosuchthing']).status).toBe(100)
    expect(run(['add', '-s', '-t', '.d', 'jq']).status).toBe(0)
    expect(existsSync(join(folder, 'state/virtual/.d'))).toBe(false)
    for (const name of ['../x', '..', 'a/b', 'a b']) expect(run(['add', '-t', name, 'jq'])).toMatchObject({ status: 1, calls: [] })
  })

  it('answers what is asked', () => {
    expect(run(['info', '-e', 'curl', 'jq'])).toMatchObject({ status: 1, stdout: 'curl\n' })
    expect(run(['info', '-e', 'curl'])).toMatchObject({ status: 0, stdout: 'curl\n' })
    expect(run(['info', '-L', 'openssl-dev'])).toMatchObject({ stdout: 'dpkg-query -L libssl-dev\n' })
    expect(run(['info', '--who-owns', '/bin/sh'])).toMatchObject({ stdout: 'dpkg-query -S /bin/sh\n' })
    expect(run(['search', 'json'])).toMatchObject({ stdout: 'apt-cache --names-only search json\n' })
    expect(run(['search', '-e', 'py3-pip', 'nosuch'])).toMatchObject({ stdout: 'python3-pip\n' })
    expect(run(['upgrade', '-U']).calls).toEqual(['apt-get update', 'apt-get -y upgrade'])
    expect(run(['audit'])).toMatchObject({ status: 1, calls: [] })
    expect(run([])).toMatchObject({ status: 1, calls: [] })
  })
})
