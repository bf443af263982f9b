import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Stands before a server and can break every connection to it, as a network or a server that dies would. */
export interface CuttingProxy extends AsyncDisposable {
  readonly port: number
  /** Breaks what is open and refuses what comes, until `mend`. */
  cut(): void
  mend(): void
}

export async function startCuttingProxy(target: { readonly host: string; readonly port: number }): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  let broken = false
  const hold = (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
  }
  const server = createServer((client) => {
    hold(client)
    if (broken) return client.resetAndDestroy()
    const upstream = connect(target)
    hold(upstream)
    client.pipe(upstream).pipe(client)
    client.once('close', () => upstream.destroy())
    upstream.once('close', () => client.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      broken = true
      for (const socket of sockets) socket.resetAndDestroy()
    },
    mend() {
      broken = false
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
