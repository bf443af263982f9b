/**
 * What the conformance suite runs in a sandbox, each by `/bin/sh -c` (the fake driver has a function for each). Only what Debian's and Alpine's base has, except
 * `perl`, for a listening socket and for appetite.
 */
export const conformancePrograms = {
  hello: 'printf "hello\\n"',
  streams: 'printf "to out: %s\\n" "$GREETING"; pwd; printf "to err\\n" >&2; exit 3',
  whoAmI: 'id -u; pwd; printf "%s\\n" "$HOME"; cd && pwd',
  environment: "cat /proc/self/environ | tr '\\0' '\\n' | sort",
  killItself: 'kill -9 $$',
  // Some shells report what the signal did to their child.
  trapTerm: 'exec 2>/dev/null; trap "echo got; exit 7" TERM; echo ready; while :; do sleep 1; done',
  cat: 'cat',
  noStdin: 'cat; echo done',
  manyBytes: 'head -c 2097152 /dev/urandom >/tmp/many && sha256sum </tmp/many >&2 && cat /tmp/many',
  discard: 'head -c 3000000 /dev/zero; echo last >&2',
  uname: 'uname -n',
  etcFiles: 'cat /etc/hosts; echo --; cat /etc/resolv.conf',
  uniqueness: 'head -c 32 /dev/urandom | od -An -tx1; cat /etc/machine-id',
  clock: 'date +%s',
  ticker: 'i=0; while :; do i=$((i+1)); echo $i; done',
  spin: 'echo ready; while :; do :; done',
  counter: 'i=0; while :; do echo $i; i=$((i+1)); done',
  countTo20000: 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exit 4',
  daemon: 'mkfifo /tmp/go; (read line </tmp/go; echo "daemon got $line") & echo started',
  wakeDaemon: 'echo word >/tmp/go',
  echoServer: `exec perl -MIO::Socket::INET -e '$| = 1; my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 7007, ReuseAddr => 1) or die "$!"; print "ready\\n"; while (my $c = $s->accept) { my $n = 0; while (sysread($c, my $b, 65536)) { $n += length $b; print {$c} $b; $c->flush } print {$c} "\\ntotal $n\\n"; close $c }'`,
  // Says what it can before it looks at its input.
  readLater: 'rm -f /tmp/now; mkfifo /tmp/now; echo waiting; read go </tmp/now; wc -c | tr -d " "',
  readNow: 'echo go >/tmp/now',
  sayPid: 'echo $$; exec sleep 100000',
  sayPidAndMore: 'echo $$; while :; do echo more; done',
  // proc(5): fields 7 and 8 of stat are the controlling terminal, here of the kind pts, and its foreground process group.
  terminal: 'tty; stty size; read -r _ _ _ _ _ _ tty group _ </proc/$$/stat; echo "$((tty / 256)) $((group == $$))"; echo through >/dev/tty',
  ownTerminal: `exec perl -e 'open my $m, "+<", "/dev/ptmx" or die "$!"; print "a terminal of its own\n"'`,
  windowChange: 'trap "stty size; exit 0" WINCH; echo ready; while :; do sleep 0.1; done',
  manyLines: 'seq 50000; exit 6',
  editedLine: 'stty -a | grep -o -- "-*iutf8"; IFS= read -r line; printf "%s" "$line" | wc -c',
  interactive: 'PS1="> " exec sh -i',
  hangUp: 'rm -f /tmp/hup; trap "echo hung up >/tmp/hup; exit 0" HUP; echo ready; while :; do sleep 0.1; done',
  afterHangUp: 'until [ -s /tmp/hup ]; do sleep 0.05; done; cat /tmp/hup',
  memoryHog: `exec perl -e 'my @a; while (1) { push @a, "x" x 4194304 }'`,
  forkBomb: `exec perl -e '$| = 1; for my $n (1 .. 20000) { my $p = fork; if (!defined $p) { print "refused\\n"; kill 9, -getpgrp } if (!$p) { sleep 1000 while 1 } } print "never refused\\n"; kill 9, -getpgrp'`,
} as const

/** Run by `script`, with the arguments of a shell before it. */
export const conformanceScript = '#!/bin/sh\nprintf "%s from a script\\n" "$GREETING"\nexit 5\n'
