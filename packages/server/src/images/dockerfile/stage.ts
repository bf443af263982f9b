import { posix } from 'node:path'
import { MagsError } from '@mags/protocol'
import type { TaskProgress } from '../image-tasks.ts'
import type { StageRoot } from './stage-root.ts'
import { absentFile, findUser, type StageUser } from './stage-user.ts'

/** What instructions set for those after them. */
export interface StageSettings {
  environment: Record<string, string>
  args: Record<string, string>
  workingDirectory: string
  user: string | undefined
  shell: readonly string[]
  command: readonly string[] | undefined
  entrypoint: readonly string[] | undefined
}

export const noSettings = (): StageSettings => ({
  environment: {},
  args: {},
  workingDirectory: '/',
  user: undefined,
  shell: ['/bin/sh', '-c'],
  command: undefined,
  entrypoint: undefined,
})

/** What programs of a sandbox have when nothing else was said. */
const sandboxPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Half of what execve(2) takes with its arguments. */
const longestEnvironment = 1024 * 1024

interface StageLimits {
  readonly progress: TaskProgress
  readonly abort: AbortSignal
  readonly timeoutMs: () => number
}

/** One stage of a build: its files, and what was set so far. */
export class Stage {
  readonly root: StageRoot
  readonly settings: StageSettings
  readonly #limits: StageLimits

  constructor(root: StageRoot, settings: StageSettings, limits: StageLimits) {
    this.root = root
    this.settings = settings
    this.#limits = limits
  }

  /** The same, with settings that are changed without changing those of this one. */
  draft(): Stage {
    return new Stage(this.root, structuredClone(this.settings), this.#limits)
  }

  /** What programs find in their environment, by RUN. */
  get variables(): Readonly<Record<string, string>> {
    return { ...this.settings.args, ...this.settings.environment }
  }

  /** ENV wins over ARG. */
  lookup(name: string): string | undefined {
    const { environment, args } = this.settings
    if (Object.hasOwn(environment, name)) return environment[name]
    if (Object.hasOwn(args, name)) return args[name]
    return name === 'PATH' ? sandboxPath : undefined
  }

  /** Throws MagsError 'image_invalid' for one that no program could be started with. */
  checkEnvironment(): void {
    const { environment, args } = this.settings
    let length = 0
    for (const settings of [environment, args]) for (const [name, value] of Object.entries(settings)) length += name.length + value.length + 2
    if (length > longestEnvironment) throw new MagsError('image_invalid', `ENV and ARG have more than ${longestEnvironment / 1024} KiB together`)
  }

  resolve(path: string): string {
    return posix.resolve(this.settings.workingDirectory, path)
  }

  /** A command of RUN, as the user that was set; its output is progress. Rejects with MagsError 'image_invalid' when it fails. */
  async run(command: readonly string[], stdin?: Uint8Array): Promise<void> {
    const { settings } = this
    const { progress, abort, timeoutMs } = this.#limits
    const sandbox = await this.root.open()
    const user = settings.user === undefined ? undefined : await findUser(sandbox.files, settings.user)
    const home = user?.home === undefined ? {} : { HOME: user.home }
    const asUser = user === undefined || user.uid === 0 ? command : await this.#asUser(user, command)
    const exit = await sandbox.exec(
      {
        command: asUser,
        environment: { ...settings.args, ...home, ...settings.environment },
        cwd: settings.workingDirectory,
        timeoutMs: timeoutMs(),
        ...(stdin === undefined ? {} : { stdin }),
      },
      (source, bytes) => progress.output(source, bytes),
      abort,
    )
    abort.throwIfAborted()
    if (exit.timedOut) throw new MagsError('image_invalid', 'the build took longer than its time limit')
    if (exit.exitCode !== 0)
      throw new MagsError('image_invalid', `ended with exit code ${exit.exitCode}${exit.reason === undefined ? '' : ` (${exit.reason})`}`)
  }

  /** A script of ours as root, with what it needs on standard input. Rejects with the end of what it said. */
  async work(script: string, args: readonly string[], stdin?: AsyncIterable<Uint8Array>): Promise<string> {
    const { abort, timeoutMs } = this.#limits
    let out = ''
    let words = ''
    const sandbox = await this.root.open()
    const exit = await sandbox.exec(
      { command: ['/bin/sh', '-c', script, 'sh', ...args], cwd: '/', timeoutMs: timeoutMs(), ...(stdin === undefined ? {} : { stdin }) },
      (source, bytes) => {
        const text = Buffer.from(bytes).toString('utf8')
        if (source === 'stdout') out = (out + text).slice(-4096)
        else words = (words + text).slice(-2000)
      },
      abort,
    )
    abort.throwIfAborted()
    if (exit.exitCode !== 0) throw new MagsError('image_invalid', words.trim() || exit.reason || `ended with exit code ${exit.exitCode}`)
    return out
  }

  /** The same command run by whatever this image has to change users with. */
  async #asUser(user: StageUser, command: readonly string[]): Promise<readonly string[]> {
    const tools = await this.work(
      'setpriv --help 2>&1 | grep -q reuid && echo setpriv; chroot --help 2>&1 | grep -q userspec && echo chroot; command -v su >/dev/null && echo su; true',
      [],
    )
    if (tools.includes('setpriv'))
      return ['setpriv', `--reuid=${user.uid}`, `--regid=${user.gid}`, user.name === undefined ? '--clear-groups' : '--init-groups', ...command]
    if (tools.includes('chroot')) return ['chroot', `--userspec=${user.uid}:${user.gid}`, '--skip-chdir', '/', ...command]
    if (tools.includes('su') && user.name !== undefined) return ['su', '-p', '-s', '/bin/sh', user.name, '-c', 'exec "$0" "$@"', '--', ...command]
    throw new MagsError(
      'image_invalid',
      `USER ${this.settings.user ?? ''}: this image has nothing to change users with (setpriv, chroot of coreutils, or su with a name)`,
    )
  }

  /** Whether there is a folder at a path. */
  async isFolder(path: string): Promise<boolean> {
    const { files } = await this.root.open()
    return (await files.stat(path).catch(absentFile))?.type === 'directory'
  }
}
