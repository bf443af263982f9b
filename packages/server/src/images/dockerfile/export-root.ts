import type { RunningSandbox } from '@mags/protocol'
import { execOutput } from './exec-output.ts'

/** What the agent wrote for this sandbox is made as images have it, and whatever a RUN left running is ended; then the tree goes out. */
const script = `cd / || exit 1
kill -9 -1 2>/dev/null
: > /etc/resolv.conf; : > /etc/hostname
printf '127.0.0.1\\tlocalhost\\n::1\\tlocalhost ip6-localhost ip6-loopback\\n' > /etc/hosts
command -v tar >/dev/null || { echo "this image has no tar, which it is exported with" >&2; exit 127; }
if tar --version 2>/dev/null | grep -q GNU; then
  tar --create --file=- --directory=/ --one-file-system --numeric-owner --format=posix --pax-option=delete=atime,delete=ctime \\
    --xattrs --xattrs-include=security.capability --xattrs-include='user.*' --warning=no-file-ignored --exclude=./run/mags --exclude=./proc --exclude=./sys --exclude=./dev .
  # 1 is a file that changed meanwhile, such as a folder that something is mounted on; the archive is whole.
  [ $? -le 1 ]
  exit
fi
printf './run/mags\\n./proc\\n./sys\\n./dev\\n' > /tmp/.mags-exclude
exec tar -c -f - -C / -X /tmp/.mags-exclude --exclude ./tmp/.mags-exclude .`

/** The whole root of a sandbox as a tar archive. Nothing more can be done in it afterwards. */
export function exportRoot(sandbox: RunningSandbox, timeoutMs: number): AsyncGenerator<Uint8Array> {
  return execOutput(sandbox, { command: ['/bin/sh', '-c', script], cwd: '/', timeoutMs }, 'the image could not be read out of the sandbox')
}
