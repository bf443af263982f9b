import type { Logger } from 'pino'
import type { JobRun } from '../jobs/job-run.ts'

/** The longest that is waited for services; one whose services take longer counts as up all the same. */
export const bootWaitMs = 60_000

/**
 * Ends once the services of the image have been started, whether all of them work or not. systemd says so itself, systemctl(1); its socket is there only a while after the first process. An init that reads inittab(5) starts them by
 * scripts it waits for, those of sysvinit or OpenRC: they are through once there is a runlevel for users and none of these scripts, for a while, as one begins a moment after another. Of any other init nobody can tell, and the machine is
 * up at once. /bin/sh is the image's own, so this uses nothing beyond POSIX and what init systems bring.
 */
export const bootedCommand = `init=$(readlink /proc/1/exe)
case $init in
  */systemd)
    until [ -S /run/systemd/private ]; do sleep 0.1; done
    systemctl is-system-running --wait > /dev/null 2>&1
    exit
    ;;
  */init | */openrc-init | */busybox) ;;
  *) exit 0 ;;
esac
if [ -x /sbin/openrc ]; then has_runlevel() { level=$(cat /run/openrc/softlevel) && [ ! -e /run/openrc/rc.starting ]; }
elif [ -f /etc/inittab ] && command -v runlevel > /dev/null; then has_runlevel() { level=$(runlevel) && level=\${level#* }; }
else exit 0
fi
is_up() {
  has_runlevel 2> /dev/null || return 1
  case $level in '' | unknown | sysinit | boot | off | shutdown | reboot | S | 0 | 6) return 1 ;; esac
  for process in /proc/[0-9]*; do
    read -r name 2> /dev/null < $process/comm || continue
    case $name in rc | rcS | startpar | openrc) return 1 ;; esac
  done
}
looks=0
until [ $looks = 2 ]; do
  sleep 1
  if is_up; then looks=$((looks + 1)); else looks=0; fi
done`

/** Settles once a machine that has begun to boot is up, is over, or has had enough time. Never rejects. */
export async function awaitBoot({ logger }: { readonly logger: Logger }, run: JobRun, abort: AbortSignal): Promise<void> {
  await Promise.race([run.uses.begun, run.done])
  if (!run.uses.hasBegun || run.isOver) return
  const end = new AbortController()
  const signal = AbortSignal.any([abort, end.signal])
  const booted = run.uses
    .exec({ command: ['/bin/sh', '-c', bootedCommand], timeoutMs: bootWaitMs }, () => undefined, signal)
    .catch((error: unknown) => {
      if (!signal.aborted) logger.warn({ err: error, requestId: run.requestId }, 'whether the services of a microVM are up could not be found out')
    })
  await Promise.race([booted, run.scriptEnd, run.done])
  end.abort(new Error('no longer waited for'))
}
