# What the recipes share; sourced by their `sources` and `build`.

# Ends with exit code 75 when an address does not answer: the caller tells how to do without it.
unreachable() {
  echo "unreachable: $1" >&2
  exit 75
}

# fetch ADDRESS FILE     with apt's own programs, so that its proxies and authorities hold
fetch() {
  /usr/lib/apt/apt-helper -o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o APT::Sandbox::User=root \
    download-file "$1" "$2" >/dev/null || unreachable "$1"
}

# use_mirror DEFAULT GIVEN     prints the address of a mirror without a slash at its end. Not one with a password in it, or on this machine's loopback:
# sandboxes get packages from it, too.
use_mirror() {
  mirror=${2:-$1}
  mirror=${mirror%/}
  case $mirror in
    *@* | *[!A-Za-z0-9:/._~%+-]* | http://localhost* | https://localhost* | http://127.* | https://127.*)
      echo "$mirror cannot be used: a mirror needs a plain http or https address that sandboxes reach" >&2
      return 1
      ;;
    http://?* | https://?*) printf '%s\n' "$mirror" ;;
    *)
      echo "$mirror is no http or https address of a mirror" >&2
      return 1
      ;;
  esac
}

# From here on: ROOT is the tree of the image.

# trust_certificates ROOT     the authorities this machine trusts beyond the distribution's own (a company's), added the way that survives an upgrade
trust_certificates() {
  [ -n "$(ls -A "$MAGS_IMAGE_CERTIFICATES")" ] || return 0
  mkdir -p "$1/usr/local/share/ca-certificates"
  cp "$MAGS_IMAGE_CERTIFICATES"/*.crt "$1/usr/local/share/ca-certificates/"
  chroot "$1" update-ca-certificates >/dev/null
}

# forget_machine ROOT     identity and addresses are given to each sandbox when it is handed out; what the build left goes
forget_machine() {
  for folder in dev proc sys tmp run etc root var/tmp var/log; do mkdir -p "$1/$folder"; done
  : > "$1/etc/machine-id"
  : > "$1/etc/hostname"
  rm -f "$1/etc/resolv.conf"
  : > "$1/etc/resolv.conf"
  printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' > "$1/etc/hosts"
  chroot "$1" passwd -l root >/dev/null 2>&1
  rm -f "$1/etc/shadow-" "$1/etc/passwd-" "$1/etc/group-" "$1/etc/gshadow-"
  find "$1/dev" "$1/tmp" "$1/run" "$1/var/tmp" -xdev -mindepth 1 -delete
  find "$1/var/log" -xdev -type f -delete
  chmod 1777 "$1/tmp" "$1/var/tmp"
}

# deb_options     mmdebstrap arguments of Debian and its kin, one a line: man pages, documentation and translations stay out, now and in what a job installs
# later; licences stay in
deb_options() {
  cat <<'OPTIONS'
--mode=root
--variant=minbase
--format=directory
--dpkgopt=path-exclude=/usr/share/man/*
--dpkgopt=path-exclude=/usr/share/info/*
--dpkgopt=path-exclude=/usr/share/locale/*
--dpkgopt=path-exclude=/usr/share/doc/*
--dpkgopt=path-include=/usr/share/doc/*/copyright
--dpkgopt=force-unsafe-io
--aptopt=Acquire::Languages "none"
OPTIONS
  [ ! -s "$MAGS_IMAGE_APT" ] || echo "--aptopt=$MAGS_IMAGE_APT"
}

# finish_deb ROOT     what a tree of Debian and its kin needs after mmdebstrap
finish_deb() {
  rm -f "$1/etc/apt/sources.list"
  mv "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/90mags"
  mv "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/90mags"
  # Where no init system runs, packages must not try to start their services (as in every container image).
  printf '#!/bin/sh\n[ -d /run/systemd/system ] || exit 101\n' > "$1/usr/sbin/policy-rc.d"
  chmod 755 "$1/usr/sbin/policy-rc.d"
  rm -rf "$1/var/cache/ldconfig" "$1/var/cache/debconf" "$1/var/lib/systemd/catalog" "$1/var/lib/systemd/random-seed" "$1/var/lib/dbus/machine-id"
  mkdir -m 755 "$1/var/cache/debconf"
}

# prepare_systemd ROOT UNITS     for machines that boot: to the services of packages and no further. UNITS names what is not started, a unit or generator a line.
prepare_systemd() {
  mkdir -p "$1/etc/systemd/system-generators" "$1/etc/systemd/journald.conf.d"
  sed 's/#.*//' "$2" | while read -r unit; do
    case $unit in
      '') ;;
      *.*) ln -sfn /dev/null "$1/etc/systemd/system/$unit" ;;
      *) ln -sfn /dev/null "$1/etc/systemd/system-generators/$unit" ;;
    esac
  done
  ln -sfn /lib/systemd/system/multi-user.target "$1/etc/systemd/system/default.target"
  # On disk it would begin anew with every machine id, and never shrink.
  printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' > "$1/etc/systemd/journald.conf.d/mags.conf"
  rm -rf "$1/var/log/journal"
  # ConditionNeedsUpdate of systemd.unit(5): /usr is no newer than what was made from it.
  touch "$1/etc/.updated" "$1/var/.updated"
}

# seal ROOT EROFS UUID     the same packages give the same bytes: no time stamp is newer than SOURCE_DATE_EPOCH
seal() {
  find "$1" -xdev -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  mkfs.erofs --quiet -U "$3" "$2" "$1" >/dev/null
}
