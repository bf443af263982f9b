import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from './daemon.ts'

/** Compiles the web server that runs in sandboxes (guest/web-server.c) into a folder, without any library; its path. */
export async function buildWebServer(folder: string): Promise<string> {
  const program = join(folder, 'web-server')
  await promisify(execFile)('cc', ['-static', '-O2', '-Wall', '-Wextra', '-Werror', '-o', program, join(root, 'tests/kit/guest/web-server.c')])
  return program
}

/** The script that serves on an address such as `127.0.0.1:8080`, with the program in the working folder. */
export function serveScript(place: string, afterSeconds = 0): string {
  return `chmod 755 web-server; exec ./web-server ${place.replace(':', ' ')} ${afterSeconds}`
}
