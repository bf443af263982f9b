#!/bin/sh
# A small Ceph cluster with its S3 gateway: s3-server.sh FOLDER MONITOR_PORT GATEWAY_PORT ACCESS_KEY SECRET_KEY
#
# One monitor, one storage daemon that keeps everything in memory, one gateway, all on 127.0.0.1 and in FOLDER. Prints `ready` once requests are answered. Commands on standard input: `stop` ends the
# gateway (as a crash would), `start` starts it again; each is answered with `done`. The end of standard input ends everything and removes FOLDER: so it goes with the tests even when they are killed, and
# the daemons go with this script.
set -eu
folder=$1 monitor_port=$2 gateway_port=$3 access_key=$4 secret_key=$5
export CEPH_CONF="$folder/ceph.conf" LC_ALL=C
mkdir -p "$folder/mon" "$folder/osd" "$folder/run"
cluster=$(cat /proc/sys/kernel/random/uuid)
storage=$(cat /proc/sys/kernel/random/uuid)

pids='' gateway=''
clean_up() {
  trap - EXIT
  # shellcheck disable=SC2086 # words
  [ -z "$gateway$pids" ] || kill -9 $gateway $pids 2>/dev/null || true
  wait
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

# In the background, and ended by the kernel when this script ends in any way.
start_daemon() {
  name=$1
  shift
  setpriv --pdeathsig KILL "$@" </dev/null >"$folder/$name.out" 2>&1 &
}

# Waits up to 30 s for a command to succeed.
await() {
  what=$1
  shift
  tenths=0
  until "$@" >"$folder/await.out" 2>&1; do
    tenths=$((tenths + 1))
    [ "$tenths" -lt 300 ] || {
      echo "$what: $(tail -n 3 "$folder/await.out")" >&2
      tail -n 5 "$folder"/*.out >&2
      exit 1
    }
    sleep 0.1
  done
}

# Without cephx the gateway hangs. `paxos propose interval`: each change of the cluster would wait a second.
cat >"$CEPH_CONF" <<CONF
[global]
fsid=$cluster
mon host=v2:127.0.0.1:$monitor_port
mon initial members=a
public addr=127.0.0.1
ms bind msgr1=false
auth cluster required=cephx
auth service required=cephx
auth client required=cephx
auth allow insecure global id reclaim=false
keyring=$folder/keyring
run dir=$folder/run
admin socket=
pid file=
crash dir=$folder/run
log file=$folder/\$name.log
log to stderr=false
mon cluster log file=$folder/cluster.log
mon data=$folder/mon
mon data avail warn=1
mon data avail crit=1
mon allow pool size one=true
mon max pg per osd=1000
paxos propose interval=0.02
paxos min wait=0.01
osd data=$folder/osd
osd objectstore=memstore
memstore device bytes=4294967296
osd crush chooseleaf type=0
osd pool default size=1
osd pool default min size=1
osd pool default pg num=1
osd pool default pgp num=1
osd pool default pg autoscale mode=off
rgw enable apis=s3
rgw enable usage log=false
rgw run sync thread=false
rgw enable gc threads=false
rgw enable lc threads=false
rgw enable quota threads=false
rgw thread pool size=32
rgw frontends=beast endpoint=127.0.0.1:$gateway_port
CONF

ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
ceph-authtool "$folder/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
ceph-authtool "$folder/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
printf '{"cephx_secret": "%s"}' "$(ceph-authtool "$folder/keyring" -p -n osd.0)" >"$folder/osd.json"
monmaptool --create --addv a "[v2:127.0.0.1:$monitor_port]" --fsid "$cluster" "$folder/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring" 2>"$folder/mon-mkfs.out"
start_daemon mon ceph-mon -i a -f
pids=$!
ceph-osd -i 0 --mkfs --osd-uuid "$storage" >"$folder/osd-mkfs.out" 2>&1
await 'the monitor does not answer' ceph --connect-timeout 5 osd new "$storage" -i "$folder/osd.json"
start_daemon osd ceph-osd -i 0 -f
pids="$pids $!"
await 'no user can be made' radosgw-admin user create --uid=mags --display-name=mags --access-key="$access_key" --secret-key="$secret_key"

start_gateway() {
  start_daemon gateway radosgw -n client.admin -f
  gateway=$!
  await 'the gateway does not listen' grep -q "^ *[0-9]*: 0100007F:$(printf %04X "$gateway_port") 00000000:0000 0A" /proc/net/tcp
}
start_gateway
echo ready
while read -r command; do
  case $command in
    stop)
      kill -9 "$gateway"
      wait "$gateway" || true
      gateway=''
      ;;
    start) start_gateway ;;
  esac
  echo 'done'
done
