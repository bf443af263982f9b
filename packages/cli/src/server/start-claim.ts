import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'

const unreadableForMs = 2_000

/**
 * Claims the right to start the server: a file with our process id, made with O_EXCL. Undefined while another living process has it; one
 * that was left behind by a dead process is taken away.
 */
export function claimStart(file: string): Disposable | undefined {
  for (let tries = 0; tries < 3; tries += 1) {
    try {
      writeFileSync(file, `${process.pid}\n`, { flag: 'wx', mode: 0o600 })
      return { [Symbol.dispose]: () => rmSync(file, { force: true }) }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if (!isAbandoned(file)) return undefined
      rmSync(file, { force: true })
    }
  }
  return undefined
}

function isAbandoned(file: string): boolean {
  try {
    const owner = Number(readFileSync(file, 'utf8'))
    // Between its making and its first byte the file is empty for a moment.
    if (!Number.isInteger(owner) || owner <= 0) return Date.now() - statSync(file).mtimeMs > unreadableForMs
    process.kill(owner, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}
