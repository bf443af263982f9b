#!/bin/sh
# Builds the root disk of the compatibility guest: a Debian 12 host as a user has it, on which the container driver is tested.
#
#   build-image.sh OUT     writes OUT/root.erofs and OUT/image.json
#
#   /                        the debian-12 image and the packages of ./packages
#   /lib/modules             those of the guest's kernel
#   /usr/local/bin/node      the Node that runs this
#   /mags/node_modules       what the tests import, without compilers
#   /images.ext4             what `mags setup` makes of the debian-12 image, as the file system to mount at /var/lib/mags/images
#
# Environment: MAGS_ROOT, MAGS_SYSTEM_DIR, MAGS_NODE (path of the Node binary).
# It is run in a mount namespace of its own, so what ends it leaves no mount behind.
set -eu
umask 022
here=$(cd -- "$(dirname -- "$0")" && pwd -P)
out=$1
root=$out/root
image=$(readlink -f "$MAGS_SYSTEM_DIR/images/debian-12/current")

cp -a "$image/rootfs" "$root"
# What the packages' scripts need, for as long as they run.
mount -t proc proc "$root/proc"
mount --rbind --make-rslave /dev "$root/dev"
cat /etc/resolv.conf > "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
packages=$(sed 's/#.*//' "$here/packages")
chroot "$root" apt-get -q update
# shellcheck disable=SC2086 # words
chroot "$root" apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io $packages
chroot "$root" apt-get clean
rm -rf "$root/var/lib/apt/lists"
mkdir -p "$root/var/lib/apt/lists/partial"
: > "$root/etc/resolv.conf"
umount -R "$root/dev" "$root/proc"

mkdir -p "$root/lib/modules"
cp -a "$MAGS_SYSTEM_DIR/kernels/current/lib/modules/." "$root/lib/modules/"
install -m 755 "$MAGS_NODE" "$root/usr/local/bin/node"
mkdir "$root/mags"
tar -C "$MAGS_ROOT" --exclude=node_modules/typescript --exclude=node_modules/@typescript --exclude=node_modules/@biomejs --exclude=node_modules/.vite* -c node_modules |
  tar -C "$root/mags" -x --no-same-owner

# Containers' base layers lie on ext4 on most machines; without a journal, as it is mounted read-only.
name=$(basename "$image")
mkdir -p "$out/images/debian-12/$name"
chmod 700 "$out/images/debian-12/$name"
ln -s "$name" "$out/images/debian-12/current"
cp -a "$image/rootfs" "$image/image.json" "$out/images/debian-12/$name/"
: > "$out/images/debian-12/$name/root.erofs"
size_mb=$(($(du -sm --apparent-size "$out/images" | cut -f 1) * 3 / 2 + 64))
mkfs.ext4 -q -F -m 0 -O '^has_journal' -d "$out/images" "$root/images.ext4" "${size_mb}M"
rm -rf "$out/images"

mkfs.erofs --quiet "$out/root.erofs" "$root" >/dev/null
rm -rf --one-file-system "$root"
digest=$(sha256sum "$out/root.erofs" | cut -d ' ' -f 1)
printf '{"digest": "sha256:%s"}\n' "$digest" > "$out/image.json"
