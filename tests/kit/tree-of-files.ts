import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const oddNames = [
  ...['a b', ' ', '-rf', '*', '$HOME', "it's", '"', '\\', '#', ';ls', '~', '.hidden', 'ä日本', '[x]', '{a,b}', '%s', 'n'.repeat(255)],
  'tab\there',
]

/** Folders and files with names that are hard on whoever quotes, globs or splits them. `links`: with symbolic ones, which scp follows and sftp leaves out. */
export function makeTree(folder: string, { links }: { readonly links: boolean }): void {
  mkdirSync(join(folder, 'empty folder'), { recursive: true })
  for (const name of oddNames) {
    writeFileSync(join(folder, name), `in ${name}`)
    mkdirSync(join(folder, 'below', name), { recursive: true })
    writeFileSync(join(folder, 'below', name, name), '')
  }
  writeFileSync(join(folder, 'large'), randomBytes(6_000_001))
  writeFileSync(join(folder, 'run'), '#!/bin/sh\n', { mode: 0o755 })
  writeFileSync(join(folder, 'private'), 'p', { mode: 0o600 })
  if (links) {
    symlinkSync('large', join(folder, 'link'))
    symlinkSync('../nowhere', join(folder, 'below', 'dangling'))
  }
  execFileSync('find', [folder, '-exec', 'touch', '-h', '-d', '2021-03-04 05:06:07', '{}', '+'])
}

/** A shell command that says all that counts of a tree: kinds, modes, names, targets, times of files and contents. */
export const digestTree = (folder: string) =>
  `cd '${folder}' && { { find . -type d -printf '%P %y %m\\0'; find . ! -type d -printf '%P %y %m %s %l %T@\\0'; } | LC_ALL=C sort -z; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; } | sha256sum`
