#!/bin/sh
# Runs the container suite where most users will: on Debian 12's kernel 6.1 with unified control groups, in a virtual machine of the vm driver.
#
#   tests/compat/run.sh [vitest arguments]     default: the suites of the container driver, of control groups and of the layer worker
#
# Needs what `./mags setup` makes, and root. MAGS_REQUIRE_VM=1 turns a skip into a failure. Output is streamed, the last line is `N passed, N failed`,
# and the exit status is 0 only when nothing failed. MAGS_COMPAT_TIMEOUT_S (900) is the limit for everything together.
set -eu
MAGS_ROOT=$(cd -- "$(dirname -- "$0")/../.." && pwd -P)
export MAGS_ROOT MAGS_SYSTEM_DIR="${MAGS_SYSTEM_DIR:-/var/lib/mags}"

missing() {
  if [ "${MAGS_REQUIRE_VM:-}" = 1 ]; then
    echo "MAGS_REQUIRE_VM is set, but $1" >&2
    exit 1
  fi
  echo "skipped: $1 (set MAGS_REQUIRE_VM=1 to make this a failure)" >&2
  echo '0 passed, 0 failed, 1 skipped'
  exit 0
}
[ "$(id -u)" = 0 ] || missing 'virtual machines with a network can only be made by root'
command -v qemu-system-x86_64 >/dev/null || missing 'there is no qemu-system-x86_64'
for path in "$MAGS_SYSTEM_DIR/kernels/current/vmlinux" "$MAGS_SYSTEM_DIR/images/debian-12/current/image.json" "$MAGS_ROOT/native/build/agent" "$MAGS_ROOT/native/build/mounter"; do
  [ -e "$path" ] || missing "there is no $path; \`./mags setup\` makes it"
done

# In namespaces of its own: whatever ends this, all that it started ends with it, and no mount is left.
cd "$MAGS_ROOT"
PATH=$MAGS_ROOT/tests/compat/qemu:$PATH
exec unshare --mount --propagation slave --pid --fork --kill-child --mount-proc -- node --conditions=source tests/compat/main.ts "$@"
