#!/bin/bash
# run-all.sh [--all]: what `make test-containers` runs. Builds the images, then runs docker-compose.yml and k8s/ with them at once,
# each in a sandbox of its own; prints what each took; fails when anything is left behind outside the cache. --all also looks into
# every image, and runs the tests that take minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers} COUNTERFOIL_CONTAINERS_RUN=$$
export PYTHONDONTWRITEBYTECODE=1 PYTEST_ADDOPTS="-p no:cacheprovider --durations=10"
case "${1:-}" in
  --all) export CONTAINERS_AT_LENGTH=1 ;;
  "") ;;
  *) echo "usage: make test-containers [ARGS=--all]" >&2; exit 2 ;;
esac

needed=(apt-get podman runc conmon iptables mmdebstrap kubectl)
for command in "${needed[@]}"; do
  command -v "$command" >/dev/null || { echo "test-containers needs $command: see docs/operations/containers.md" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "test-containers makes namespaces and mounts: run it as root" >&2; exit 1; }

# What a container that outlived its sandbox would leave. cgroups have no namespace here, but other sandboxes, which may run now.
state() {
  echo "== mounts"
  cut -d' ' -f2-3 /proc/self/mounts | sort
  echo "== network links"
  ip -o link | cut -d' ' -f2
  echo "== firewall rules"
  iptables -S
  iptables -t nat -S
  echo "== files"
  git status --porcelain --ignored | grep -v __pycache__ || true
  ls -d /var/lib/{containers,docker,containerd,cni}/* /run/{containers,docker,containerd,netns,netavark}/* /etc/{cni,docker}/* \
    2>/dev/null || true
}

processes() { # those that have this run's mark, but for this shell and the one that asks
  local pid pids
  pids=$(grep -slz "^COUNTERFOIL_CONTAINERS_RUN=$COUNTERFOIL_CONTAINERS_RUN\$" /proc/[0-9]*/environ | cut -d/ -f3)
  for pid in $pids; do
    [ "$pid" = $$ ] || [ "$pid" = $BASHPID ] || ps -o pid=,args= -p "$pid" || true # it is over
  done
}

cgroups() { # when no other sandbox runs
  (flock -n -x 9 || exit 0; find /sys/fs/cgroup/*/docker /sys/fs/cgroup/*/libpod_parent -mindepth 1 -type d 2>/dev/null || true) \
    9>/run/lock/counterfoil-sandbox.lock
}

step() { # NAME COMMAND...
  local name=$1 began=$SECONDS
  shift
  echo "== $name"
  "$@" || return
  printf '%-40s %4d s\n' "$name" $((SECONDS - began)) >>"$results/took"
}

both() { # Compose and Kubernetes at once: much of either is waiting; what the second says is printed after the first
  NO_BUILD=1 step "k8s/overlays/dev" "$here/run-kube.sh" >"$results/kube.log" 2>&1 &
  local kube=$! compose=0 rc=0
  NO_BUILD=1 step "docker-compose.yml" "$here/run-compose.sh" || compose=$?
  wait $kube || rc=$?
  cat "$results/kube.log"
  return $((compose > rc ? compose : rc))
}

results=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -r "$results"' EXIT
before=$(state)
rc=0
step "images" env ENGINE=sandbox "$here/build-images.sh" || rc=$?
if [ $rc = 0 ] && [ -n "${CONTAINERS_AT_LENGTH:-}" ]; then
  step "each image from inside" "$here/sandbox.sh" .venv/bin/python -m pytest tests/containers/test_images.py || rc=$?
fi
[ $rc != 0 ] || both || rc=$?
left=$(diff <(echo "$before") <(state) || true)$(processes)$(cgroups)
cat "$results/took"
printf '%-40s %4d s\n' together $SECONDS
if [ -n "$left" ]; then
  printf 'left behind, or changed meanwhile:\n%s\n' "$left" >&2
  exit 1
fi
echo "nothing is left behind: no process, mount, network link, firewall rule, cgroup or file outside $CACHE"
exit $rc
