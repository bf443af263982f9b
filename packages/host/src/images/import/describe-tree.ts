import type { ImageTree } from './image-tree.ts'
import type { JsonObject } from './json-fields.ts'
import { wholeContent } from './spool.ts'

/** What an image says of itself. */
export interface TreeDescription {
  readonly os: string | undefined
  readonly init: string | undefined
  /** All files as they are; one with several names counts once. */
  readonly sizeBytes: number
}

const longestOsRelease = 64 << 10

export async function describeTree(tree: ImageTree): Promise<TreeDescription> {
  const init = tree.find('sbin/init')
  return { os: await osName(tree), init: init?.kind === 'file' && (init.mode & 0o111) !== 0 ? '/sbin/init' : undefined, sizeBytes: sizeOf(tree) }
}

/** `PRETTY_NAME` of an os-release(5). */
export function prettyName(text: string): string | undefined {
  const value = /^PRETTY_NAME=(.*)$/m.exec(text)?.[1]?.trim()
  const bare = value === undefined ? undefined : value.replace(/^(["'])(.*)\1$/, '$2').replace(/\\(.)/g, '$1')
  const shown = bare?.replace(/\p{C}/gu, '').slice(0, 100)
  return shown === '' ? undefined : shown
}

/** What a container of an image would run by itself. */
export function containerCommand(config: JsonObject | undefined): readonly string[] {
  const { Entrypoint, Cmd } = (config?.config ?? {}) as JsonObject
  const words = [Entrypoint, Cmd].flatMap((part) => (Array.isArray(part) ? part : []))
  return words.every((word): word is string => typeof word === 'string' && word.length <= 65_536) ? words.slice(0, 1000) : []
}

/** Environment and working directory of an image's configuration. What is not as the specification has it is left out. */
export function runSettings(config: JsonObject | undefined): { environment?: Record<string, string>; workingDirectory?: string } {
  const inner = config?.config
  if (typeof inner !== 'object' || inner === null) return {}
  const { Env, WorkingDir } = inner as JsonObject
  const pairs = Array.isArray(Env)
    ? Env.filter((line): line is string => typeof line === 'string' && /^[^=\0]+=[^\0]*$/s.test(line) && line.length <= 65_536)
    : []
  const environment = Object.fromEntries(pairs.slice(0, 1000).map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
  return {
    ...(pairs.length === 0 ? {} : { environment }),
    ...(typeof WorkingDir === 'string' && WorkingDir.startsWith('/') && WorkingDir.length <= 4095 ? { workingDirectory: WorkingDir } : {}),
  }
}

async function osName(tree: ImageTree): Promise<string | undefined> {
  for (const path of ['etc/os-release', 'usr/lib/os-release']) {
    const node = tree.find(path)
    if (node?.kind === 'file' && node.content.sizeBytes <= longestOsRelease)
      return prettyName((await wholeContent(node.content, longestOsRelease)).toString('utf8'))
  }
  return undefined
}

function sizeOf(tree: ImageTree): number {
  let sum = 0
  const seen = new Set<unknown>()
  const left = [tree.root]
  for (let folder = left.pop(); folder !== undefined; folder = left.pop()) {
    for (const { node } of folder.children.values()) {
      if (node.kind === 'directory') left.push(node)
      if (node.kind !== 'file' || seen.has(node)) continue
      seen.add(node)
      sum += node.content.sizeBytes
    }
  }
  return sum
}
