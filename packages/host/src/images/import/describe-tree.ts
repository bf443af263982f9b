import { posix } from 'node:path'
import { imageInvalid } from './image-invalid.ts'
import type { ImageTree } from './image-tree.ts'
import type { JsonObject } from './json-fields.ts'
import { wholeContent } from './spool.ts'

/** What an image says of itself. */
export interface TreeDescription {
  readonly os: string | undefined
  readonly init: string | undefined
  /** All files as they are; one with several names counts once. */
  readonly sizeBytes: number
  readonly newestNs: bigint
}

const longestOsRelease = 64 << 10
/** A name that can be shown, and any value. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: what a name must not have.
const variable = /^[^=\0-\x1f\x7f]+=[^\0]*$/s
/** An agent takes 512 KiB and 4,096 strings for a program; jobs may bring 128 KiB and 1,000 of them. */
const longestEnvironment = 128 << 10
const mostVariables = 1000
const longestCommand = 64 << 10

export async function describeTree(tree: ImageTree): Promise<TreeDescription> {
  const init = tree.find('sbin/init')
  return { os: await osName(tree), init: init?.kind === 'file' && (init.mode & 0o111) !== 0 ? '/sbin/init' : undefined, ...measure(tree) }
}

/** `PRETTY_NAME` of an os-release(5). */
export function prettyName(text: string): string | undefined {
  const value = /^PRETTY_NAME=(.*)$/m.exec(text)?.[1]?.trim()
  const bare = value === undefined ? undefined : value.replace(/^(["'])(.*)\1$/, '$2').replace(/\\(.)/g, '$1')
  const shown = bare?.replace(/\p{C}/gu, '').slice(0, 100)
  return shown === '' ? undefined : shown
}

/** What a container of an image would run by itself; nothing for what is no list of texts, or larger than 64 KiB. */
export function containerCommand(config: JsonObject | undefined): readonly string[] {
  const { Entrypoint, Cmd } = (config?.config ?? {}) as JsonObject
  const words = [Entrypoint, Cmd].flatMap((part) => (Array.isArray(part) ? part : []))
  const isCommand = words.every((word): word is string => typeof word === 'string')
  return isCommand && words.reduce((sum, word) => sum + word.length + 1, 0) <= longestCommand ? words : []
}

export interface RunSettings {
  environment?: Readonly<Record<string, string>>
  workingDirectory?: string
}

/** Environment and working directory of an image's configuration. What is not as the specification has it is left out. */
export function runSettings(config: JsonObject | undefined): RunSettings {
  const inner = config?.config
  if (typeof inner !== 'object' || inner === null) return {}
  const { Env, WorkingDir } = inner as JsonObject
  const pairs = Array.isArray(Env) ? Env.filter((line): line is string => typeof line === 'string' && variable.test(line)) : []
  const environment = Object.fromEntries(pairs.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
  const isFolder = typeof WorkingDir === 'string' && WorkingDir.startsWith('/') && !WorkingDir.includes('\0') && Buffer.byteLength(WorkingDir) <= 4095
  return { ...(pairs.length === 0 ? {} : { environment }), ...(isFolder ? { workingDirectory: posix.resolve(WorkingDir) } : {}) }
}

/** Throws 'image_invalid' for an environment that no program could be started with, together with that of a job. */
export function checkSettings(settings: RunSettings): RunSettings {
  const pairs = Object.entries(settings.environment ?? {})
  const bytes = pairs.reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value) + 2, 0)
  if (pairs.length > mostVariables || bytes > longestEnvironment)
    throw imageInvalid(`its environment (Env) has ${pairs.length} variables of ${bytes} bytes; at most ${mostVariables} of ${longestEnvironment} together`)
  return settings
}

async function osName(tree: ImageTree): Promise<string | undefined> {
  for (const path of ['etc/os-release', 'usr/lib/os-release']) {
    const node = tree.find(path)
    if (node?.kind === 'file' && node.content.sizeBytes <= longestOsRelease)
      return prettyName((await wholeContent(node.content, longestOsRelease, path)).toString('utf8'))
  }
  return undefined
}

function measure({ root }: ImageTree): Pick<TreeDescription, 'sizeBytes' | 'newestNs'> {
  let sizeBytes = 0
  let newestNs = root.mtimeNs
  const seen = new Set<unknown>()
  const left = [root]
  for (let folder = left.pop(); folder !== undefined; folder = left.pop()) {
    for (const { node } of folder.children.values()) {
      if (node.mtimeNs > newestNs) newestNs = node.mtimeNs
      if (node.kind === 'directory') left.push(node)
      if (node.kind !== 'file' || seen.has(node)) continue
      seen.add(node)
      sizeBytes += node.content.sizeBytes
    }
  }
  return { sizeBytes, newestNs }
}
