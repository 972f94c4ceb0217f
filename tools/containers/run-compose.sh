#!/bin/bash
# run-compose.sh [CMD ARG...]
#
# Runs docker-compose.yml for real: Debian's Docker Engine, unpacked into the cache and never installed, and Docker Compose from
# the virtual environment, inside a sandbox that leaves nothing behind. CMD finds `docker` and `docker-compose` on its PATH and
# every image loaded; by default it is the test, tests/containers/test_compose.py.
# The engine's images stay in the cache; a run that did not end by itself costs the next one their loading.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
bin=$root/.venv/bin engine=$CACHE/engine
[ $# -gt 0 ] || set -- "$bin/python" -m pytest "$root/tests/containers/test_compose.py"

if [ "${1:-}" != inside ]; then
  [ -n "${NO_BUILD:-}" ] || ENGINE=sandbox "$here/build-images.sh"
  if [ ! -x "$engine/usr/sbin/dockerd" ]; then
    # unpacked, not installed: nothing starts by itself and no docker command changes
    debs=$(mktemp -d)
    (cd "$debs" && apt-get download -q -o APT::Sandbox::User=root docker.io containerd >/dev/null)
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$engine"; done
    rm -r "$debs"
  fi
  exec 8>"$CACHE/engine.lock"
  flock 8 # one engine at a time on these images
  exec "$here/sandbox.sh" "$(readlink -f "$0")" inside "$@"
fi
shift

data=$CACHE/engine-data
[ ! -e "$data/running" ] || rm -rf "$data" # whoever used it was killed
mkdir -p "$data"
touch "$data/running"
export PATH=$engine/usr/bin:$engine/usr/sbin:$bin:$PATH DOCKER_HOST=unix:///run/ctr/docker.sock DOCKER_CONFIG=$TMPDIR/docker-config
dockerd --data-root "$data" --exec-root /run/ctr/exec --pidfile /run/ctr/docker.pid -H "$DOCKER_HOST" >"$TMPDIR/dockerd.log" 2>&1 &
daemon=$!
end() {
  rc=$?
  [ $rc = 0 ] || tail -5 "$TMPDIR/dockerd.log" >&2
  docker ps -aq | xargs -r docker rm -fv >/dev/null && docker volume ls -q | xargs -r docker volume rm >/dev/null &&
    docker network prune -f >/dev/null && docker image prune -f >/dev/null && kill $daemon && wait $daemon && rm "$data/running"
  exit $rc
}
trap end EXIT
for _ in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done # it announces nothing

# Only what changed since the last run goes from podman's store to the engine's; ids are the same in both. There is no stand-in of
# some images: what starts them fails then.
cd "$root"
missing=()
for image in $(docker-compose --profile '*' config --images | sort -u); do
  id=$(podman image inspect --format '{{.Id}}' "$image" 2>/dev/null) || continue
  docker tag "$id" "$image" 2>/dev/null || missing+=("$image")
done
[ ${#missing[@]} = 0 ] || podman save -q -m --format docker-archive "${missing[@]}" | docker load -q >/dev/null
"$@"
