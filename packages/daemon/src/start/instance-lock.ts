import { createServer, type Server } from 'node:net'
import { MagsError } from '@mags/protocol'

/**
 * One holder of a name on this machine, such as one daemon for each data folder: an abstract unix socket (unix(7)). The kernel lets it go with the process, however that ends, so there is
 * no stale lock to judge.
 */
export async function takeInstanceLock(name: string, takenWords: string): Promise<AsyncDisposable> {
  const server = createServer((socket) => socket.destroy())
  await listen(server, `\0mags-${name}`, takenWords)
  server.unref()
  return {
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  }
}

function listen(server: Server, path: string, takenWords: string) {
  return new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      reject(taken ? new MagsError('bad_request', takenWords) : error)
    })
    server.listen({ path }, resolve)
  })
}
