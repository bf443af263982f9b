import { lstat, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageInfo, ImageSource } from '@mags/protocol'

/** What `image.json` beside an image says; `current` is not in it. */
export type ImageRecord = Omit<ImageInfo, 'current'>

const digestRule = /^sha256:[0-9a-f]{64}$/
const sourceKinds: readonly ImageSource['kind'][] = ['recipe', 'dockerfile', 'registry', 'oci-layout', 'docker-archive', 'rootfs-tar']

/** As it is stored. */
export function encodeImageRecord(record: ImageRecord, recipeDigest?: string): string {
  const fields = {
    name: record.name,
    digest: record.digest,
    created_at: record.createdAt,
    os: record.os,
    size_bytes: record.sizeBytes,
    source: record.source,
    init: record.init ?? null,
    environment: record.environment,
    working_directory: record.workingDirectory,
    recipe_digest: recipeDigest,
  }
  return `${JSON.stringify(fields, undefined, 2)}\n`
}

/** Reads `dir/image.json`, also one of before it had a source. Undefined when there is none that is whole. */
export async function readImageRecord(dir: string, name: string): Promise<ImageRecord | undefined> {
  const text = await readFile(join(dir, 'image.json'), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  const fields = parse(text)
  const { digest, init } = fields
  if (typeof digest !== 'string' || !digestRule.test(digest)) return undefined
  const found = init === undefined ? ((await isProgram(join(dir, 'rootfs'), '/sbin/init')) ? '/sbin/init' : undefined) : init
  return {
    name,
    digest,
    os: typeof fields.os === 'string' && fields.os !== '' ? fields.os : name,
    sizeBytes: typeof fields.size_bytes === 'number' ? fields.size_bytes : 0,
    createdAt: timeOf(fields.created_at),
    source: sourceOf(fields, name),
    ...(typeof found === 'string' ? { init: found } : {}),
    ...(isTexts(fields.environment) ? { environment: fields.environment } : {}),
    ...(typeof fields.working_directory === 'string' ? { workingDirectory: fields.working_directory } : {}),
  }
}

/** As our own times are written; what a recipe wrote has seconds only. */
function timeOf(value: unknown): string {
  const at = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return new Date(Number.isNaN(at) ? 0 : at).toISOString()
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    return (JSON.parse(text) ?? {}) as Readonly<Record<string, unknown>>
  } catch {
    return {}
  }
}

function sourceOf({ source, recipe_digest: recipeDigest }: Readonly<Record<string, unknown>>, name: string): ImageSource {
  const given = (source ?? {}) as Partial<ImageSource>
  if (given.kind !== undefined && sourceKinds.includes(given.kind) && typeof given.reference === 'string')
    return {
      kind: given.kind,
      reference: given.reference,
      ...(typeof given.digest === 'string' ? { digest: given.digest } : {}),
      ...(isTextList(given.command) ? { command: given.command } : {}),
    }
  return { kind: 'recipe', reference: name, ...(typeof recipeDigest === 'string' ? { digest: `sha256:${recipeDigest.replace(/^sha256:/, '')}` } : {}) }
}

function isTextList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((text) => typeof text === 'string')
}

function isTexts(value: unknown): value is Record<string, string> {
  return typeof value === 'object' && value !== null && Object.values(value).every((text) => typeof text === 'string')
}

/** Whether there is a program in a finished root; links are followed as inside, never out of it. */
async function isProgram(root: string, path: string): Promise<boolean> {
  const left = path.split('/').reverse()
  let at: string[] = []
  for (let links = 0; left.length > 0; ) {
    const name = left.pop() as string
    if (name === '' || name === '.') continue
    if (name === '..') {
      at.pop()
      continue
    }
    const here = join(root, ...at, name)
    const found = await lstat(here).catch(() => undefined)
    if (found === undefined) return false
    if (found.isSymbolicLink()) {
      if (++links > 40) return false
      const target = await readlink(here)
      if (target.startsWith('/')) at = []
      left.push(...target.split('/').reverse())
      continue
    }
    at.push(name)
    if (left.length === 0) return found.isFile() && (found.mode & 0o111) !== 0
  }
  return false
}
