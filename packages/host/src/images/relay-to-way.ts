import { connect, createServer } from 'node:net'

/**
 * `relay-to-way <unix socket> <port>`: in a network of its own, in which nothing but this can be reached, takes connections to 127.0.0.1 and passes their bytes to the socket. Prints a line when it listens, and runs until it is killed.
 */
const [socketPath = '', port = ''] = process.argv.slice(2)

const server = createServer((client) => {
  const way = connect(socketPath)
  for (const [one, other] of [
    [client, way],
    [way, client],
  ] as const) {
    one.on('error', () => other.destroy())
    one.on('close', () => other.destroy())
    one.pipe(other)
  }
})
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'))
