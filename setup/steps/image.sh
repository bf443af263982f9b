#!/bin/sh
# Builds an image and publishes it:
#
#   $MAGS_SYSTEM_DIR/images/<name>/<digest>/{rootfs/,root.erofs,image.json}     digest: SHA-256 of root.erofs
#   $MAGS_SYSTEM_DIR/images/<name>/current -> <digest>
#
#   image.sh NAME [RECIPE]            build unless there is one of this recipe (a folder in images/; the same as NAME); then point `current` at it
#   image.sh --check NAME [RECIPE]    exit 0 when `current` is of this recipe
#
# Exit code 75, and a line `unreachable: ADDRESS` on standard error, when the distribution's mirror does not answer.
#
# The digest's folder is root's alone: in the tree are programs with the setuid bit, and no user of this machine should get at old ones.
# Older images stay: workspaces are pinned to the digest they were started on. MAGS_REFRESH=1 builds again, with the newest packages.
set -eu
check=0
[ "$1" != --check ] || { check=1; shift; }
name=$1
umask 022
recipe=$MAGS_ROOT/images/${2:-$name}
case ${2:-$name} in *[!a-z0-9._-]* | .*) false ;; *) [ -x "$recipe/build" ] ;; esac || { echo "there is no recipe ${2:-$name}" >&2; exit 2; }
. "$MAGS_ROOT/images/shared.sh"
images=$MAGS_SYSTEM_DIR/images/$name

if [ "$check" = 1 ]; then
  # Who may not look inside takes what there is.
  if [ -d "$images/current" ] && [ ! -x "$images/current" ]; then exit 0; fi
  # One at a time: setup holds the clone's lock. What a killed one left goes with the next.
  work=$MAGS_ROOT/.tools/image-check
  rm -rf "$work"
  mkdir -p "$work"
else
  mkdir -p "$images"
  rm -rf --one-file-system "$images"/tmp.*
  work=$(mktemp -d "$images/tmp.XXXXXX")
fi
# What is left of an image is a tree of many files: remove it by rename and delete, so that an interrupted delete is found by the next run.
trap 'rm -rf --one-file-system "$work"; [ "$check" = 1 ] || rmdir "$images" 2>/dev/null || true' EXIT
trap 'exit 143' TERM INT HUP
chmod 755 "$work"

. "$recipe/sources"
# A mirror that is a frozen copy needs these two inside as well.
MAGS_IMAGE_APT=$work/apt.conf
apt-config dump Acquire::Check-Valid-Until Acquire::Check-Date 2>/dev/null | grep -E '^Acquire::Check-(Valid-Until|Date) "(false|no|0)";$' > "$MAGS_IMAGE_APT" || true

# Certificate authorities in this machine's bundle that the distribution did not put there, a file each.
MAGS_IMAGE_CERTIFICATES=$work/certificates
mkdir "$MAGS_IMAGE_CERTIFICATES"
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -s "$bundle" ]; then
  { find /usr/share/ca-certificates -name '*.crt' -exec cat {} + 2>/dev/null || true; echo '-----END OF DEBIAN-----'; cat "$bundle"; } |
    tr -d '\r' | LC_ALL=C awk -v folder="$MAGS_IMAGE_CERTIFICATES" '
      /^-----END OF DEBIAN-----$/ { ours = 1; next }
      /^-----BEGIN (TRUSTED )?CERTIFICATE-----$/ { inside = 1; body = ""; next }
      /^-----END (TRUSTED )?CERTIFICATE-----$/ {
        inside = 0
        key = body
        gsub(/\n/, "", key)
        if (!(key in seen) && ours) {
          file = sprintf("%s/host-%03d.crt", folder, ++count)
          printf "-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n", body > file
          close(file)
        }
        seen[key] = 1
        next
      }
      inside { body = body $0 "\n" }'
fi
export MAGS_IMAGE_SOURCES MAGS_IMAGE_APT MAGS_IMAGE_CERTIFICATES

recipe_digest=$(
  {
    find -L "$recipe" -type f ! -name '*.md' | LC_ALL=C sort | while IFS= read -r file; do
      printf '%s\n' "${file#"$recipe"/}"
      cat "$file"
    done
    cat "$MAGS_ROOT/images/shared.sh"
    printf '%s\n' "$MAGS_IMAGE_SOURCES"
    cat "$MAGS_IMAGE_APT"
    find "$MAGS_IMAGE_CERTIFICATES" -type f -exec cat {} + | LC_ALL=C sort
  } | sha256sum | cut -d ' ' -f 1
)
has_recipe() { grep -q "\"recipe_digest\": \"$recipe_digest\"" "$1/image.json" 2>/dev/null; }

if [ "$check" = 1 ]; then
  has_recipe "$images/current" && exit 0
  exit 1
fi

publish() {
  ln -s "$1" "$work/current"
  mv -T "$work/current" "$images/current"
}
if [ "${MAGS_REFRESH:-}" != 1 ]; then
  for built in "$images/current" "$images"/????????????????????????????????????????????????????????????????; do
    has_recipe "$built" || continue
    publish "$(basename "$(readlink -f "$built")")"
    exit 0
  done
fi

mkdir -m 755 "$work/image"
# Whatever ends the build, and that may be our own end, nothing of it is left but $work, which the next run removes: it has processes, mounts and a /tmp of its own.
# Not by TMPDIR: the programs in the new root have no such folder.
mkdir -m 1777 "$work/tmp"
apart='
set -eu
tmp=$(readlink -f /tmp)
own=$1
shift
# What is needed of the /tmp it cannot see.
for needed in "$MAGS_ROOT" "${own%/*}"; do
  needed=$(readlink -f "$needed")
  case $needed in "$tmp"/*) mkdir -p "$own/${needed#"$tmp"/}" && mount --bind "$needed" "$own/${needed#"$tmp"/}" ;; esac
done
mount --rbind "$own" "$tmp"
exec "$@"'
# Without our open files (the locks): mmdebstrap writes `>&N` into shell commands, and a shell only knows N up to 9.
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc \
  sh -c "$apart" apart "$work/tmp" "$recipe/build" "$work/image" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
digest=$(sha256sum "$work/image/root.erofs" | cut -d ' ' -f 1)
cat > "$work/image/image.json" <<JSON
{
  "name": "$name",
  "digest": "sha256:$digest",
  "created_at": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "os": "$(. "$work/image/rootfs/etc/os-release" && printf '%s' "$PRETTY_NAME")",
  "size_bytes": $(du -s --block-size=1 --apparent-size "$work/image/rootfs" | cut -f 1),
  "source": { "kind": "recipe", "reference": "$(basename "$recipe")", "digest": "sha256:$recipe_digest" },
$([ ! -e "$work/image/rootfs/sbin/init" ] && [ ! -L "$work/image/rootfs/sbin/init" ] || echo '  "init": "/sbin/init",')
  "recipe_digest": "$recipe_digest"
}
JSON
chmod 700 "$work/image"
# Everything is on the disk before the name says so: a power cut must not leave an image with empty files.
sync -f "$work/image/root.erofs"
if [ -d "$images/$digest" ]; then
  # The same bytes from another recipe: only what is noted about them changes.
  mv "$work/image/image.json" "$images/$digest/image.json"
else
  mv "$work/image" "$images/$digest"
fi
publish "$digest"
