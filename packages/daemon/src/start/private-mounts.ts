import process from 'node:process'

const marker = 'MAGS_PRIVATE_MOUNTS'

/**
 * Makes this process continue in a mount namespace of its own (mount_namespaces(7)), by running itself once more through unshare(1): whatever the daemon mounts is then
 * gone with it, however it ends. Mounts made on the host later still come in.
 *
 * On hosts with both kinds of control groups mounted, the v2 tree is taken out of sight: crun refuses to run when it finds a controller there.
 */
export function enterPrivateMounts() {
  if (process.env[marker] === '1') return
  if (process.execve === undefined) throw new Error('this needs Node 24')
  const script = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
  const self = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  process.execve('/usr/bin/unshare', ['unshare', '--mount', '--propagation', 'slave', 'sh', '-c', script, 'sh', ...self], {
    ...definedEnvironment(),
    [marker]: '1',
  })
}

function definedEnvironment() {
  return Object.fromEntries(Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined))
}
