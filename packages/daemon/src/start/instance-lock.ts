import { createServer, type Server } from 'node:net'
import { MagsError } from '@mags/protocol'

/**
 * One daemon for each data folder: an abstract unix socket (unix(7)) named after the instance. The kernel lets it go with the process, however that ends, so there is
 * no stale lock to judge.
 */
export async function takeInstanceLock(instance: string, dataDir: string): Promise<AsyncDisposable> {
  const server = createServer((socket) => socket.destroy())
  await listen(server, `\0mags-${instance}`, dataDir)
  server.unref()
  return {
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  }
}

function listen(server: Server, path: string, dataDir: string) {
  return new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      reject(
        taken ? new MagsError('bad_request', `another server runs on the data folder ${dataDir}; stop it, or choose another folder with --data-dir`) : error,
      )
    })
    server.listen({ path }, resolve)
  })
}
