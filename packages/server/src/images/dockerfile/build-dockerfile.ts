import { randomBytes } from 'node:crypto'
import { type HostApi, type ImageInfo, type ImageSource, MagsError } from '@mags/protocol'
import type { CacheOfBuild } from '../cache/cache-of-build.ts'
import { firstKey, nextKey, sortedEntries } from '../cache/step-key.ts'
import type { TaskProgress } from '../image-tasks.ts'
import { CacheFault } from './cache-fault.ts'
import type { ContextArchive } from './context-archive.ts'
import { exportRoot } from './export-root.ts'
import type { InstructionContext } from './instruction.ts'
import { neededStages } from './needed-stages.ts'
import { faultAt, type Instruction, maxDockerfileBytes, type ParsedDockerfile, type ParsedStage, parseDockerfile } from './parse-dockerfile.ts'
import { planSteps } from './plan-steps.ts'
import { checkInstruction, isKept, runInstruction, setInstruction } from './run-instruction.ts'
import { SandboxTree } from './sandbox-tree.ts'
import type { SourceTree } from './source-tree.ts'
import { noSettings, Stage, type StageSettings } from './stage.ts'
import { StageRoot } from './stage-root.ts'
import { expandText, readArg } from './variables.ts'

export interface BuildOrder {
  readonly host: HostApi
  /** Of the image that comes of it. */
  readonly name: string
  readonly context: ContextArchive
  /** A file of the context. */
  readonly dockerfile: string
  readonly buildArgs: Readonly<Record<string, string>>
  /** Where steps that were done before are found, and those of this build are kept; all are done anew without it. */
  readonly cache?: CacheOfBuild | undefined
  readonly progress: TaskProgress
  readonly abort: AbortSignal
}

const timeLimitMs = 3600 * 1000
/** So often a build begins again because something in the cache was lost; then it goes on without the cache. */
const mostAttempts = 3
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
  for (let attempt = 1; ; attempt++) {
    const { cache, progress } = order
    try {
      await using build = new Build({ ...order, cache: attempt > mostAttempts ? undefined : cache }, parsed)
      return await build.run()
    } catch (error) {
      if (!(error instanceof CacheFault) || cache === undefined) throw error
      progress.say(`the cache does not have what it should (${error.message}); beginning again`)
      if (error.lost !== undefined) await cache.forget(error.lost)
      else attempt = mostAttempts
    }
  }
}

class Build implements AsyncDisposable {
  readonly #order: BuildOrder
  readonly #parsed: ParsedDockerfile
  readonly #undo = new AsyncDisposableStack()
  readonly #deadline = performance.now() + timeLimitMs
  readonly #abort: AbortSignal
  readonly #globals: Record<string, string>
  readonly #stages: (Stage | undefined)[] = []
  /** Images that files are copied from, by reference. */
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
    const made = await this.#findImage(last, program)
    if (made !== undefined) return made
    order.progress.say('reading the image out of the sandbox')
    const source: ImageSource = { kind: 'dockerfile', reference: order.dockerfile, ...(program.length === 0 ? {} : { command: program }) }
    const content = exportRoot(await last.root.open(), this.#timeoutMs())
    const image = await order.host.images.create(
      order.name,
      { kind: 'archive', reference: order.dockerfile, content, source, environment, workingDirectory },
      order.progress.say,
      this.#abort,
    )
    const key = this.#imageKey(last, program)
    if (key !== undefined && last.root.saved !== undefined) await order.cache?.keepImage(key, last.root.saved, image.digest)
    return image
  }

  /** The newest version of the image, when it was made of the same. */
  async #findImage(last: Stage, program: readonly string[]): Promise<ImageInfo | undefined> {
    const { cache, host, name, progress } = this.#order
    const key = last.root.saved && this.#imageKey(last, program)
    const digest = key && (await cache?.findImage(key))
    const image = digest === undefined ? undefined : await host.images.find(name, digest)
    if (!image?.current) return undefined
    progress.say(`image ${name} is the same as before`)
    return image
  }

  /** All that an image depends on. */
  #imageKey({ root, settings }: Stage, program: readonly string[]): string | undefined {
    const { name, dockerfile } = this.#order
    return root.key && nextKey(root.key, ['image', name, dockerfile, sortedEntries(settings.environment), settings.workingDirectory, program])
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
    const contextOf = (line: number): InstructionContext => ({
      escapeSign: this.#parsed.escapeSign,
      globals: this.#globals,
      buildArgs: this.#order.buildArgs,
      progress,
      treeOf: (from) => this.#treeOf(from, index, line),
    })
    const steps = await planSteps(stage.draft(), parsed.instructions, contextOf, stage.root.key)
    const found = await this.#order.cache?.find(steps.map(({ key, kept }) => (kept ? key : undefined)))
    const skipped = found?.index ?? -1
    if (found) stage.root.skipTo(steps[found.index]?.key, found.saved)
    for (const [at, instruction] of parsed.instructions.entries()) {
      this.#abort.throwIfAborted()
      const done = at <= skipped
      const words = shorten(`${instruction.keyword} ${instruction.text}`)
      progress.say(`line ${instruction.line}: ${words}${done && isKept(instruction) ? ' (from the cache)' : ''}`)
      try {
        await (done ? setInstruction : runInstruction)(stage, instruction, contextOf(instruction.line))
      } catch (error) {
        this.#abort.throwIfAborted()
        if (error instanceof MagsError && error.code !== 'image_invalid') throw error
        if (error instanceof MagsError && error.message.startsWith('Dockerfile line ')) throw error
        if (!(error instanceof Error) || error instanceof CacheFault) throw error
        throw faultAt(instruction.line, `${words}: ${error.message}`)
      }
      const step = steps[at]
      if (!done && step !== undefined) await stage.root.stepDone(step)
    }
    await stage.root.finish({ rests: index < this.#parsed.stages.length - 1 })
    return stage
  }

  async #beginStage(from: Instruction, image: string, index: number): Promise<Stage> {
    const earlier = this.#stageNamed(image, index)
    if (earlier) {
      const { image: under, key, end } = earlier.root
      const root = this.#root({ image: under, beginning: end, key, done: false })
      // Settings of the earlier one go on, its arguments do not.
      return this.#stage(root, { ...structuredClone(earlier.settings), args: {} })
    }
    const info = await this.#imageOf(from.line, image)
    const settings = noSettings()
    if (info.environment) settings.environment = { ...info.environment }
    if (info.workingDirectory !== undefined) settings.workingDirectory = info.workingDirectory || '/'
    return this.#stage(this.#rootOf(info, false), settings)
  }

  #stage(root: StageRoot, settings: StageSettings): Stage {
    return new Stage(root, settings, { progress: this.#order.progress, abort: this.#abort, timeoutMs: () => this.#timeoutMs() })
  }

  #root(begin: ConstructorParameters<typeof StageRoot>[1]): StageRoot {
    const { host, cache, progress } = this.#order
    return this.#undo.use(new StageRoot({ host, cache, say: progress.say, abort: this.#abort }, begin))
  }

  /** The files of an image. `done`: they are only read. */
  #rootOf(image: ImageInfo, done: boolean): StageRoot {
    const { host, cache } = this.#order
    const wall = host.capabilities().default === 'container' ? 'container' : 'vm'
    const key = cache && firstKey(cache.accountId, wall, image.digest)
    return this.#root({ image, beginning: { kind: 'image' }, key, done })
  }

  /** An image of this server, or of a registry. */
  async #imageOf(line: number, image: string): Promise<ImageInfo> {
    if (image === 'scratch')
      throw faultAt(
        line,
        'FROM scratch: instructions run inside the image, so it needs a beginning; put a file system together elsewhere and bring it with mags image import',
      )
    return (await this.#order.host.images.find(image)) ?? (await this.#fetch(line, image))
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

  async #treeOf(from: string | undefined, index: number, line: number): Promise<SourceTree> {
    if (from === undefined) return this.#order.context
    const stage = this.#stageNamed(from, index)
    if (stage) return new SandboxTree(stage.root, `stage ${from}`)
    const known = this.#copied.get(from)
    if (known) return known
    if (this.#stages.length + this.#copied.size >= mostSandboxes) throw faultAt(line, `stages and images that are copied from: at most ${mostSandboxes} in all`)
    const tree = new SandboxTree(this.#rootOf(await this.#imageOf(line, from), true), `image ${from}`)
    this.#copied.set(from, tree)
    return tree
  }

  /** An earlier stage, by name or number. */
  #stageNamed(name: string, before: number): Stage | undefined {
    const byName = this.#parsed.stages.slice(0, before).findLastIndex((stage) => stage.name === name.toLowerCase())
    const index = byName === -1 && /^\d{1,4}$/.test(name) ? Number(name) : byName
    return index >= 0 && index < before ? this.#stages[index] : undefined
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
