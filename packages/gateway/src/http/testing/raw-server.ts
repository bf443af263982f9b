import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

export interface RawServer extends AsyncDisposable {
  readonly port: number
  /** All bytes that came on each connection (latin1). */
  readonly received: string[]
  readonly sockets: Set<Socket>
}

/** A server in the sandbox that answers with exactly the bytes it is told to; `onData` hears the bytes of its connection so far. */
export async function openRawServer(onData: (socket: Socket, received: string, connection: number) => void): Promise<RawServer> {
  const received: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const index = received.push('') - 1
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (bytes) => {
      received[index] += bytes.toString('latin1')
      onData(socket, received[index] ?? '', index)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    received,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
