#!/bin/bash
# sandbox.sh [--build] CMD ARG...
#
# Runs CMD in its own network, mount, PID, IPC and UTS namespaces with podman
# configured for a machine without systemd, without CAP_SYS_RESOURCE and with
# cgroup v1. When CMD ends (or is killed) the kernel drops every process, mount,
# bridge, veth and iptables rule with the namespaces; nothing is left to undo.
#   default : images come read-only from $CACHE/store; containers, volumes and
#             networks live on a tmpfs that dies with the sandbox.
#   --build : $CACHE/store itself is writable (build, import, tag, rmi).
# $CACHE is $CONTAINER_CACHE, by default ~/.cache/counterfoil-containers. Needs root and the packages of base-image.sh.
set -euo pipefail
self=$(readlink -f "$0")
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
if [ -z "${SANDBOX_PID1:-}" ]; then
  mkdir -p "$CACHE/store"
  exec 9>/run/lock/counterfoil-sandbox.lock; flock -s 9
  # podman 4.3 takes the store's two locks in one order to build and in another to read: a build and a run at once may wait for
  # each other for ever. So a build waits until the runs are over, and they for it.
  exec 6>"$CACHE/store.lock"; if [ "${1:-}" = --build ]; then flock -x 6; else flock -s 6; fi
  # pdeathsig + kill-child: whoever kills this script, even with SIGKILL, kills it all
  SANDBOX_PID1=1 setpriv --pdeathsig KILL unshare --net --mount --pid --ipc --uts \
    --propagation private --fork --mount-proc --kill-child=KILL "$self" "$@" <&0 & child=$!
  trap 'kill -KILL $child 2>/dev/null' TERM INT HUP
  rc=0; wait $child || rc=$?
  # cgroups are the one thing without a namespace here: whoever is the last one here drops
  # what this run and killed ones left
  flock -w 2 -x 9 && find /sys/fs/cgroup/*/docker /sys/fs/cgroup/*/libpod_parent -depth -type d -exec rmdir {} + 2>/dev/null || true
  exit $rc
fi
unset SANDBOX_PID1
export CONTAINER_SANDBOX=1 # what tests/containers asks for
mode=run; if [ "$1" = --build ]; then mode=build; shift; fi
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/ctr/tmp /var/lib/containers /etc/docker
# podman's cache of blobs and Docker's key have no other place: they go with the sandbox, and the machine's own are not read
mount -t tmpfs -o mode=700 tmpfs /var/lib/containers
mount -t tmpfs -o mode=755 tmpfs /etc/docker
S=/run/ctr
export CONTAINERS_CONF=$S/containers.conf CONTAINERS_STORAGE_CONF=$S/storage.conf \
  CONTAINERS_REGISTRIES_CONF=$S/registries.conf DISABLE_HC_SYSTEMD=true TMPDIR=$S/tmp
unset DOCKER_HOST CONTAINER_HOST
cat >$CONTAINERS_CONF <<EOF
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]
log_driver = "k8s-file"
[network]
network_backend = "netavark"
network_config_dir = "$S/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
# docker.io/library/X is what a bare "FROM X" means everywhere else
printf 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "disabled"\n' >$CONTAINERS_REGISTRIES_CONF
if [ $mode = build ]; then
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$CACHE/store" $S/run
else
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n[storage.options]\nadditionalimagestores = ["%s"]\n' \
    $S/store $S/run "$CACHE/store"
fi >$CONTAINERS_STORAGE_CONF
rc=0; "$@" || rc=$?
[ $mode = run ] || timeout 60 podman rm -fa -t 0 >/dev/null 2>&1 || true # what runs, else, ends with us
exit $rc
