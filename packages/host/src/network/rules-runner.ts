import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type ListedElement, listArguments, listElements, readElements } from './list-elements.ts'
import { runInNamespace } from './namespace.ts'

/** What MounterClient does: runs a program to its end, output appended to a file; resolves with its exit code. */
export interface ProgramLauncher {
  run(argv: readonly string[], options: { readonly logFile: string; readonly timeoutMs: number }): Promise<number>
}

const timeoutMs = 10_000

/** Runs nft(8) in the router namespace, by the launcher where there is one: a busy pool makes many changes, and each start from a large process stops it for milliseconds. */
export class RulesRunner {
  readonly #netnsPath: string
  readonly #runDir: string
  readonly #launcher: ProgramLauncher | undefined

  constructor(netnsPath: string, runDir: string, launcher: ProgramLauncher | undefined) {
    this.#netnsPath = netnsPath
    this.#runDir = runDir
    this.#launcher = launcher
  }

  /** One transaction. Not two at a time: one file will do. Rejects with nft's words. */
  async run(script: string) {
    if (this.#launcher === undefined) {
      await runInNamespace(this.#netnsPath, 'nft', ['-f', '-'], { input: script, background: true })
      return
    }
    const file = join(this.#runDir, 'rules.nft')
    const logFile = join(this.#runDir, 'rules.log')
    await writeFile(file, script, { mode: 0o600 })
    const code = await this.#launcher.run(this.#command(['-f', file]), { logFile, timeoutMs })
    const words = code === 0 ? '' : await readFile(logFile, 'utf8').catch(() => '')
    if (code !== 0) throw new Error(`nft: exit ${code}: ${words.trim().slice(-500)}`)
  }

  /** The elements of one set. Not twice at a time for the same. */
  async listSet(name: string): Promise<ListedElement[]> {
    if (this.#launcher === undefined) return listElements(this.#netnsPath, 'set', name)
    const logFile = join(this.#runDir, `${name}.json`)
    await writeFile(logFile, '', { mode: 0o600 })
    const code = await this.#launcher.run(this.#command(listArguments('set', name)), { logFile, timeoutMs })
    const words = await readFile(logFile, 'utf8')
    if (code !== 0) throw new Error(`nft: exit ${code}: ${words.trim().slice(-500)}`)
    return readElements(words)
  }

  #command(args: readonly string[]) {
    return ['nsenter', `--net=${this.#netnsPath}`, 'nft', ...args]
  }
}
