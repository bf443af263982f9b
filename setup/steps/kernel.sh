#!/bin/sh
# The guest kernel of the vm driver: Debian's cloud kernel, unpacked but not installed on this machine.
#
#   $MAGS_SYSTEM_DIR/kernels/<release>/vmlinux            uncompressed, for QEMU's PVH entry
#                                     /modules/*.ko       what a guest loads before it has a root file system
#                                     /modules/order      their names, in load order
#                                     /lib/modules/<release>/   all modules, for guests that run containers themselves
#   $MAGS_SYSTEM_DIR/kernels/current -> <release>
set -eu
umask 022
kernels=$MAGS_SYSTEM_DIR/kernels
# What is missing from this list in a kernel is built into it; failover and net_failover are needed by virtio_net, libcrc32c by erofs; autofs4 is for
# an init that mounts on demand, since a guest does not load modules later.
boot_modules='virtio_ring virtio virtio_mmio virtio_blk virtio_console failover net_failover virtio_net libcrc32c erofs overlay autofs4'

mkdir -p "$kernels"
rm -rf "$kernels"/tmp.*
work=$(mktemp -d "$kernels/tmp.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP

# The meta package names the current kernel: "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)".
kernel_package() {
  apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null | sed -n 's/^Depends: *\(linux-image-[^ ,]*\).*/\1/p' | head -n 1
}
update() { apt-get update -o DPkg::Lock::Timeout=120; }
if [ "${MAGS_REFRESH:-}" = 1 ] || [ -z "$(kernel_package)" ]; then update; fi
package=$(kernel_package)
[ -n "$package" ] || { echo "This machine's package sources do not have linux-image-cloud-amd64; add Debian's main section to /etc/apt/sources.list." >&2; exit 1; }
if [ ! -s "$kernels/${package#linux-image-}/vmlinux" ]; then
  # apt's own user downloads, and could not write into our folder otherwise
  mkdir -m 777 "$work/download"
  chmod 755 "$work"
  download() { (cd "$work/download" && apt-get download "$package"); }
  # A kernel that apt has heard of may have been replaced since.
  download || { update; package=$(kernel_package); download; }
fi
release=${package#linux-image-}
mkdir -m 755 "$work/root" "$work/kernel" "$work/kernel/modules"
# Copies the modules a guest boots with out of a tree of all, and writes their order.
choose_modules() {
  for module in $boot_modules; do
    file=$(find "$1/kernel" -name "$module.ko" | head -n 1)
    [ -n "$file" ] || continue
    cp "$file" "$2/"
    echo "$module.ko" >> "$2/order"
  done
}
if [ ! -s "$kernels/$release/vmlinux" ]; then
  dpkg-deb -x "$work"/download/*.deb "$work/root"

  # The bzImage's header says where the compressed kernel lies in it (Documentation/arch/x86/boot.rst: setup_sects 0x1f1, payload_offset
  # 0x248, payload_length 0x24c). The last four bytes of the payload are the uncompressed size.
  image=$work/root/boot/vmlinuz-$release
  number() { od -An -j "$2" -N "$3" -t "u$3" "$1" | tr -d ' '; }
  sectors=$(number "$image" 497 1)
  [ "$sectors" -gt 0 ] || sectors=4
  start=$(((sectors + 1) * 512 + $(number "$image" 584 4)))
  length=$(number "$image" 588 4)
  tail -c "+$((start + 1))" "$image" | head -c "$length" > "$work/payload"
  magic=$(od -An -N 4 -t x1 "$work/payload" | tr -d ' ')
  vmlinux=$work/kernel/vmlinux
  case $magic in
    02214c18) head -c -4 "$work/payload" | lz4 -dc > "$vmlinux" ;;
    28b52ffd) head -c -4 "$work/payload" | zstd -dc > "$vmlinux" ;;
    fd377a58) head -c -4 "$work/payload" | xz -dc > "$vmlinux" ;;
    1f8b*) head -c -4 "$work/payload" | gzip -dc > "$vmlinux" ;;
    7f454c46) cp "$work/payload" "$vmlinux" ;;
    *) echo "The kernel in $package is compressed in a way this step does not know (it begins with $magic)." >&2; exit 1 ;;
  esac
  [ "$(number "$vmlinux" 0 4)" = 1179403647 ] || { echo "What was unpacked from $package is not a kernel." >&2; exit 1; }

  tree=$work/root/lib/modules/$release
  [ -d "$tree" ] || tree=$work/root/usr/lib/modules/$release
  find "$tree" -name '*.ko.xz' -exec xz -d {} +
  find "$tree" -name '*.ko.zst' -exec zstd -dq --rm {} +
  choose_modules "$tree" "$work/kernel/modules"
  mkdir -p "$work/kernel/lib/modules"
  mv "$tree" "$work/kernel/lib/modules/$release"
  rm -f "$work/kernel/lib/modules/$release/build" "$work/kernel/lib/modules/$release/source"
  depmod --basedir "$work/kernel" "$release"
  chmod -R u+rwX,go+rX "$work/kernel"
  sync "$vmlinux"
  rm -rf "${kernels:?}/$release"
  mv "$work/kernel" "$kernels/$release"
else
  # Unpacked by an earlier release of this step, which may have chosen others.
  choose_modules "$kernels/$release/lib/modules/$release" "$work/kernel/modules"
  if ! cmp -s "$work/kernel/modules/order" "$kernels/$release/modules/order"; then
    mv "$kernels/$release/modules" "$work/old-modules"
    mv "$work/kernel/modules" "$kernels/$release/modules"
  fi
fi
ln -s "$release" "$work/current"
mv -T "$work/current" "$kernels/current"
