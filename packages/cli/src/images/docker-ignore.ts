import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { binaryPath } from '../archive/tar-entry.ts'

/** What `.dockerignore` keeps out of what is sent. Paths are binary strings, relative to the folder. */
export interface DockerIgnore {
  ignores(path: string): boolean
  /** Whether something below an ignored folder may not be. */
  readonly hasExceptions: boolean
}

interface Rule {
  readonly expression: RegExp
  readonly excepts: boolean
}

/** Reads `<Dockerfile>.dockerignore`, or else `.dockerignore`, of a folder. The Dockerfile itself is never kept out. */
export async function readDockerIgnore(folder: string, dockerfile: string): Promise<DockerIgnore> {
  const read = (name: string) => readFile(join(folder, name), 'utf8').catch(() => undefined)
  const text = (await read(`${dockerfile}.dockerignore`)) ?? (await read('.dockerignore')) ?? ''
  return dockerIgnore(text, dockerfile)
}

/** The rules of a text as `docker build` reads it: the last that matches a path, or a folder above it, decides. */
export function dockerIgnore(text: string, dockerfile: string): DockerIgnore {
  const rules = text.split(/\r?\n/).flatMap((line) => readRule(line) ?? [])
  const needed = binaryPath(posix.normalize(dockerfile))
  return {
    hasExceptions: rules.some(({ excepts }) => excepts) || needed.includes('/'),
    ignores: (path) => {
      if (path === needed) return false
      const places = path.split('/').map((_name, index, names) => names.slice(0, index + 1).join('/'))
      const last = rules.findLast(({ expression }) => places.some((place) => expression.test(place)))
      return last !== undefined && !last.excepts
    },
  }
}

function readRule(line: string): Rule | undefined {
  const pattern = line.trim()
  if (pattern === '' || line.startsWith('#')) return undefined
  const excepts = pattern.startsWith('!')
  const path = posix.normalize(pattern.slice(excepts ? 1 : 0).trim()).replace(/^\/+|\/+$/g, '')
  return path === '' || path === '.' ? undefined : { expression: expressionOf(binaryPath(path)), excepts }
}

function expressionOf(pattern: string): RegExp {
  const names = pattern.split('/').map((name) => (name === '**' ? name : nameSource(name)))
  let source = ''
  for (const [index, name] of names.entries()) {
    const isLast = index === names.length - 1
    if (name === '**') source += isLast ? '.*' : '(?:[^/]+/)*'
    else source += isLast ? name : `${name}/`
  }
  return new RegExp(`^${source}$`, 's')
}

/** `*`, `?`, `[a-z]` and `\`, as Go's path/filepath.Match; `**` within a name is as `*`. */
function nameSource(name: string): string {
  return name.replace(/\\(.)|\[(\^?)([^\]]+)\]|\*+|\?|[\\^$.+(){}|[\]]/gs, (whole: string, escaped?: string, not?: string, set?: string) => {
    if (escaped !== undefined) return `\\u${escaped.charCodeAt(0).toString(16).padStart(4, '0')}`
    if (set !== undefined) return `[${not ?? ''}${set.replace(/[\\[\]^]/g, '\\$&')}]`
    if (whole.startsWith('*')) return '[^/]*'
    return whole === '?' ? '[^/]' : `\\${whole}`
  })
}
