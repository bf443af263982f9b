#!/bin/sh
# Makes a virtual machine look like a user's host, with the unified control groups that systemd mounts, and runs a program on it.
#
#   host.sh PROGRAM [ARGUMENT…]
set -eu

# The kernel asks for modules by running /sbin/modprobe in the first process's root, which holds nothing but the agent.
for dir in bin etc lib lib64 sbin usr; do
  [ -e "/proc/1/root/$dir" ] || ln -s "/ro/$dir" "/proc/1/root/$dir"
done

# Nor does anything make the device files that stand for modules not yet loaded.
modprobe -a loop tun

mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
ip link set lo up

# The machine's own disk (ext4) under the folders that hold images and scratch disks: layers of an overlay have to be idmapped, which an overlay
# itself cannot be.
for device in /sys/block/vd*; do
  if [ "$(cat "$device/serial")" = ws ]; then disk=/dev/${device##*/}; fi
done
mkdir /disk
mount -t ext4 "$disk" /disk
for dir in /var/lib/mags /var/tmp /tmp; do
  mkdir -p "/disk/host$dir" "$dir"
  mount --bind "/disk/host$dir" "$dir"
done
chmod 1777 /var/tmp /tmp
mkdir -p /var/lib/mags/images
mount -t ext4 -o loop,ro /images.ext4 /var/lib/mags/images

exec unshare --mount --propagation private perl "$(dirname "$0")/switch-root.pl" "$@"
