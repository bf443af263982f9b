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
  countTo20000: 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exit 4',
  daemon: 'mkfifo /tmp/go; (read line </tmp/go; echo "daemon got $line") & echo started',
  wakeDaemon: 'echo word >/tmp/go',
  echoServer: `exec perl -MIO::Socket::INET -e '$| = 1; my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 7007, ReuseAddr => 1) or die "$!"; print "ready\\n"; while (my $c = $s->accept) { my $n = 0; while (sysread($c, my $b, 65536)) { $n += length $b; print {$c} $b; $c->flush } print {$c} "\\ntotal $n\\n"; close $c }'`,
  memoryHog: `exec perl -e 'my @a; while (1) { push @a, "x" x 4194304 }'`,
  forkBomb: `exec perl -e '$| = 1; for my $n (1 .. 20000) { my $p = fork; if (!defined $p) { print "refused\\n"; kill 9, -getpgrp } if (!$p) { sleep 1000 while 1 } } print "never refused\\n"; kill 9, -getpgrp'`,
} as const

/** Run by `script`, with the arguments of a shell before it. */
export const conformanceScript = '#!/bin/sh\nprintf "%s from a script\\n" "$GREETING"\nexit 5\n'
