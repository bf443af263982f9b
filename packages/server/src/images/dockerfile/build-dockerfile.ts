import { randomBytes } from 'node:crypto'
import { type HostApi, type ImageInfo, type ImageSource, MagsError, type RunningSandbox, type SandboxLease, type SandboxSpec } from '@mags/protocol'
import type { TaskProgress } from '../image-tasks.ts'
import type { ContextArchive } from './context-archive.ts'
import { exportRoot } from './export-root.ts'
import { neededStages } from './needed-stages.ts'
import { faultAt, type Instruction, maxDockerfileBytes, type ParsedDockerfile, type ParsedStage, parseDockerfile } from './parse-dockerfile.ts'
import { checkInstruction, runInstruction } from './run-instruction.ts'
import { SandboxTree } from './sandbox-tree.ts'
import type { SourceTree } from './source-tree.ts'
import { noSettings, Stage, type StageSettings } from './stage.ts'
import { expandText, readArg } from './variables.ts'

export interface BuildOrder {
  readonly host: HostApi
  /** Of the image that comes of it. */
  readonly name: string
  readonly context: ContextArchive
  /** A file of the context. */
  readonly dockerfile: string
  readonly buildArgs: Readonly<Record<string, string>>
  readonly progress: TaskProgress
  readonly abort: AbortSignal
}

const timeLimitMs = 3600 * 1000
const memoryMb = 1024
const diskGb = 10
/** Stages and images that files are copied from are there until the end. */
const mostSandboxes = 16
/** Names of images that are only there while something is built on them. */
export const temporaryImage = /^mags-build-[0-9a-f]{12}$/

/**
 * Builds an image out of a Dockerfile: every stage is a sandbox of its own, in which its instructions run one after the other; the root of the last one becomes the image. Nothing of it runs on this machine itself.
 * Rejects with MagsError 'image_invalid' naming the line, with what `HostApi.acquire` and `HostImages.create` reject with, and with the reason of `abort`; nothing is left then.
 */
export async function buildDockerfile(order: BuildOrder): Promise<ImageInfo> {
  const parsed = parseDockerfile(await order.context.readText(order.dockerfile, maxDockerfileBytes))
  await using build = new Build(order, parsed)
  return await build.run()
}

class Build implements AsyncDisposable {
  readonly #order: BuildOrder
  readonly #parsed: ParsedDockerfile
  readonly #undo = new AsyncDisposableStack()
  readonly #deadline = performance.now() + timeLimitMs
  readonly #abort: AbortSignal
  readonly #globals: Record<string, string>
  readonly #stages: (Stage | undefined)[] = []
  /** Sandboxes of images that files are copied from, by reference. */
  readonly #copied = new Map<string, SandboxTree>()

  constructor(order: BuildOrder, parsed: ParsedDockerfile) {
    this.#order = order
    this.#parsed = parsed
    const tooLong = AbortSignal.timeout(timeLimitMs)
    this.#abort = AbortSignal.any([order.abort, tooLong])
    this.#globals = { ...platformArgs }
    for (const instruction of parsed.globals)
      for (const { name, value } of readArg(instruction, parsed.escapeSign, (variable) => this.#globals[variable])) {
        const chosen = order.buildArgs[name] ?? value
        if (chosen !== undefined) this.#globals[name] = chosen
      }
  }

  async run(): Promise<ImageInfo> {
    const order = this.#order
    const { stages } = this.#parsed
    const needed = neededStages(stages, (text) => this.#expandGlobal(text, 0))
    if (needed.size > mostSandboxes) throw new MagsError('image_invalid', `the last stage needs ${needed.size} stages; at most ${mostSandboxes} are done here`)
    // Before anything is run: a build should not fail after an hour for what could be seen at once.
    for (const [index, stage] of stages.entries()) if (needed.has(index)) for (const instruction of stage.instructions) checkInstruction(instruction)
    for (const [index, stage] of stages.entries()) {
      if (!needed.has(index)) this.#stages.push(undefined)
      else this.#stages.push(await this.#runStage(stage, index))
    }
    const last = this.#stages.at(-1)
    if (last === undefined) throw new MagsError('internal', 'a build without a stage')
    const { environment, workingDirectory, entrypoint, command } = last.settings
    const program = [...(entrypoint ?? []), ...(command ?? [])]
    order.progress.say('reading the image out of the sandbox')
    const source: ImageSource = { kind: 'dockerfile', reference: order.dockerfile, ...(program.length === 0 ? {} : { command: program }) }
    const content = exportRoot(last.sandbox, this.#timeoutMs())
    return await order.host.images.create(
      order.name,
      { kind: 'archive', reference: order.dockerfile, content, source, environment, workingDirectory },
      order.progress.say,
      this.#abort,
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync()
  }

  async #runStage(parsed: ParsedStage, index: number): Promise<Stage> {
    const { progress } = this.#order
    const shown = parsed.name === undefined ? `stage ${index + 1}` : `stage ${parsed.name}`
    const image = this.#expandGlobal(parsed.image, parsed.from.line)
    progress.say(`${shown}: FROM ${image}`)
    this.#checkPlatform(parsed.from)
    const stage = await this.#beginStage(parsed.from, image, index)
    for (const instruction of parsed.instructions) {
      this.#abort.throwIfAborted()
      progress.say(`line ${instruction.line}: ${shorten(`${instruction.keyword} ${instruction.text}`)}`)
      try {
        await runInstruction(stage, instruction, {
          escapeSign: this.#parsed.escapeSign,
          globals: this.#globals,
          buildArgs: this.#order.buildArgs,
          progress,
          treeOf: (from) => this.#treeOf(from, index, instruction.line),
        })
      } catch (error) {
        this.#abort.throwIfAborted()
        if (error instanceof MagsError && error.code !== 'image_invalid') throw error
        if (error instanceof MagsError && error.message.startsWith('Dockerfile line ')) throw error
        if (!(error instanceof Error)) throw error
        throw faultAt(instruction.line, `${shorten(`${instruction.keyword} ${instruction.text}`)}: ${error.message}`)
      }
    }
    return stage
  }

  async #beginStage(from: Instruction, image: string, index: number): Promise<Stage> {
    const earlier = this.#stageNamed(image, index)
    if (earlier) {
      const { lease } = await earlier.sandbox.fork(this.#spec('', undefined), this.#abort).catch((error: unknown) => {
        throw error instanceof MagsError && error.code === 'not_available'
          ? faultAt(from.line, `${image} cannot be copied on this server: ${error.message}`)
          : error
      })
      // Settings of the earlier one go on, its arguments do not.
      return this.#stage(await this.#start(lease), { ...structuredClone(earlier.settings), args: {} })
    }
    const { sandbox, info } = await this.#sandboxOf(from.line, image)
    const settings = noSettings()
    if (info.environment) settings.environment = { ...info.environment }
    if (info.workingDirectory !== undefined) settings.workingDirectory = info.workingDirectory || '/'
    return this.#stage(sandbox, settings)
  }

  #stage(sandbox: RunningSandbox, settings: StageSettings): Stage {
    return new Stage(sandbox, settings, { progress: this.#order.progress, abort: this.#abort, timeoutMs: () => this.#timeoutMs() })
  }

  /** A sandbox of an image of this server, or of a registry. */
  async #sandboxOf(line: number, image: string): Promise<{ sandbox: RunningSandbox; info: ImageInfo }> {
    if (image === 'scratch')
      throw faultAt(
        line,
        'FROM scratch: instructions run inside the image, so it needs a beginning; put a file system together elsewhere and bring it with mags image import',
      )
    const info = (await this.#order.host.images.find(image)) ?? (await this.#fetch(line, image))
    const lease = await this.#order.host.acquire(this.#spec(info.name, info.digest), this.#abort, this.#order.progress.say)
    return { sandbox: await this.#start(lease), info }
  }

  async #fetch(line: number, image: string): Promise<ImageInfo> {
    const { host, progress } = this.#order
    progress.say(`${image} is no image of this server; taking it from the registry`)
    const name = `mags-build-${randomBytes(6).toString('hex')}`
    const info = await host.images.create(name, { kind: 'registry', reference: image }, progress.say, this.#abort).catch((error: unknown) => {
      this.#abort.throwIfAborted()
      throw error instanceof MagsError ? faultAt(line, `FROM ${image}: ${error.message}`) : error
    })
    // Sandboxes are gone before it is.
    this.#undo.defer(() => host.images.remove(name))
    return info
  }

  async #start(lease: SandboxLease): Promise<RunningSandbox> {
    const sandbox = await lease.run({ script: 'while sleep 3600; do :; done', environment: {} }, async () => undefined)
    this.#undo.defer(() => sandbox.destroy())
    return sandbox
  }

  async #treeOf(from: string | undefined, index: number, line: number): Promise<SourceTree> {
    if (from === undefined) return this.#order.context
    const stage = this.#stageNamed(from, index)
    if (stage) return new SandboxTree(stage.sandbox, `stage ${from}`)
    const known = this.#copied.get(from)
    if (known) return known
    if (this.#stages.length + this.#copied.size >= mostSandboxes) throw faultAt(line, `stages and images that are copied from: at most ${mostSandboxes} in all`)
    const { sandbox } = await this.#sandboxOf(line, from)
    const tree = new SandboxTree(sandbox, `image ${from}`)
    this.#copied.set(from, tree)
    return tree
  }

  /** An earlier stage, by name or number. */
  #stageNamed(name: string, before: number): Stage | undefined {
    const byName = this.#parsed.stages.slice(0, before).findLastIndex((stage) => stage.name === name.toLowerCase())
    const index = byName === -1 && /^\d{1,4}$/.test(name) ? Number(name) : byName
    return index >= 0 && index < before ? this.#stages[index] : undefined
  }

  #spec(image: string, imageDigest: string | undefined): SandboxSpec {
    const { defaultImage, maxVcpus, maxMemoryMb, maxDiskGb } = this.#order.host.capabilities()
    return {
      image: image || defaultImage,
      ...(imageDigest === undefined ? {} : { imageDigest }),
      isolation: 'auto',
      vcpus: Math.min(2, maxVcpus),
      memoryMb: Math.min(memoryMb, maxMemoryMb),
      diskGb: Math.min(diskGb, maxDiskGb),
      persistent: false,
    }
  }

  #checkPlatform({ line, flags }: Instruction): void {
    for (const { name, value } of flags) {
      const platform = this.#expandGlobal(value ?? '', line)
      if (name !== 'platform') throw faultAt(line, `FROM --${name} is not done`)
      if (platform !== '' && platform !== 'linux/amd64') throw faultAt(line, `FROM --platform=${platform}: this server runs linux/amd64`)
    }
  }

  #expandGlobal(text: string, line: number): string {
    return expandText(text, { escapeSign: this.#parsed.escapeSign, lookup: (name) => this.#globals[name], line })
  }

  #timeoutMs(): number {
    return Math.max(1000, Math.round(this.#deadline - performance.now()))
  }
}

const platformArgs = {
  TARGETPLATFORM: 'linux/amd64',
  TARGETOS: 'linux',
  TARGETARCH: 'amd64',
  BUILDPLATFORM: 'linux/amd64',
  BUILDOS: 'linux',
  BUILDARCH: 'amd64',
}

function shorten(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ').trim()
  return line.length > 120 ? `${line.slice(0, 120)}…` : line
}
