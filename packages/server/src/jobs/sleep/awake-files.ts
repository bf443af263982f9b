import type { SandboxFile, SandboxFiles } from '@mags/protocol'
import type { SandboxUse } from './sandbox-use.ts'

/** Files of a job that may sleep: each call wakes it and keeps it awake until it is done. */
export class AwakeFiles implements SandboxFiles {
  readonly #use: () => Promise<SandboxUse>

  constructor(use: () => Promise<SandboxUse>) {
    this.#use = use
  }

  async stat(path: string): Promise<SandboxFile> {
    using use = await this.#use()
    return await use.running.files.stat(path)
  }

  async list(path: string, limit: number): Promise<{ readonly entries: readonly SandboxFile[]; readonly truncated: boolean }> {
    using use = await this.#use()
    return await use.running.files.list(path, limit)
  }

  async *read(path: string, range?: { readonly offset: number; readonly lengthBytes: number }): AsyncGenerator<Uint8Array> {
    using use = await this.#use()
    yield* use.running.files.read(path, range)
  }

  async write(path: string, content: AsyncIterable<Uint8Array>, options?: { readonly mode?: number }): Promise<void> {
    using use = await this.#use()
    await use.running.files.write(path, content, options)
  }

  async remove(path: string, options: { readonly recursive: boolean }): Promise<void> {
    using use = await this.#use()
    await use.running.files.remove(path, options)
  }
}
