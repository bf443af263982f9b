#!/bin/sh
# Installs Debian packages: packages.sh PACKAGE…
set -eu
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l UCF_FORCE_CONFFOLD=1
# Another apt (unattended-upgrades, say) may hold the lock for a while.
wait_for_lock='-o DPkg::Lock::Timeout=120'

# dpkg is a session of its own under apt-get: it goes on for a while when apt-get was ended, and holds its lock (fcntl, not flock).
wait_for_dpkg() {
  tenths=0
  while [ "$tenths" -lt "$1" ] && grep -q ":$(stat -c %i /var/lib/dpkg/lock 2>/dev/null || echo none) " /proc/locks; do
    tenths=$((tenths + 1))
    sleep 0.1
  done
}
trap 'wait_for_dpkg 80; exit 143' TERM INT HUP

case " $* " in
  *' postgresql '*)
    # The tests start their own server; Debian's would create and start one for the machine.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      mkdir -p /etc/postgresql-common
      echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
    fi
    ;;
esac
wait_for_dpkg 1200
# An installation that was killed leaves packages unpacked and not configured; apt-get refuses to go on until that is done.
if [ -n "$(dpkg --audit)" ] || [ -n "$(find /var/lib/dpkg/updates -type f 2>/dev/null | head -n 1)" ]; then
  # shellcheck disable=SC2086
  dpkg --configure -a --force-confold || apt-get $wait_for_lock install --fix-broken -y --no-install-recommends
fi
# shellcheck disable=SC2086
apt-get $wait_for_lock update
# shellcheck disable=SC2086
apt-get $wait_for_lock install -y --no-install-recommends -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
