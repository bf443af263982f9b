import { createServer } from 'node:net'

/** An HTTP server on 127.0.0.1 that says which port it took and answers every request with the same words. */
export const httpServer = String.raw`perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 64, LocalAddr => "127.0.0.1", LocalPort => $ARGV[0]) or die; $| = 1; print $s->sockport, "\n"; close STDOUT;
  while (my $c = $s->accept) { while (<$c>) { last if /^\r?$/ } print $c "HTTP/1.0 200 OK\r\n\r\nfrom the sandbox\n"; close $c }'`

/** For a shell's command line. */
export const httpServerLine = httpServer.replaceAll('\n', ' ')

/** Much like what Visual Studio Code sends: it looks around, starts its server in the background, says its port, and waits. */
export const editorScript = `set -e
echo "start=\${PWD}=="
echo "platform=$(uname -s) arch=$(uname -m) bits=$(getconf LONG_BIT) libc=$(getconf GNU_LIBC_VERSION)"
command -v bash curl tar gzip sed awk ps mktemp flock >/dev/null
mkdir -p "$HOME/.editor/bin"
log=$(mktemp "$HOME/.editor/logXXXXXX")
${httpServer.replace('perl -M', 'nohup perl -M')} 0 > "$log" 2>&1 < /dev/null &
until [ -s "$log" ]; do sleep 0.05; done
echo "listeningOn=$(cat "$log")=="
: ${'x'.repeat(60_000)}
`

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}
