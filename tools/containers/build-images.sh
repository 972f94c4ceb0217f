#!/bin/bash
# build-images.sh [NAME...]: builds docker.io/counterfoil/NAME:$COUNTERFOIL_TAG (dev), all of them unless some are named, and prints
# their digests and sizes.
#   ENGINE=docker   plain `docker build`, from Docker Hub and PyPI
#   ENGINE=sandbox  podman in sandbox.sh, on the base images of base-image.sh, without any network: pip on this machine downloads
#                   the wheels first, by the hashes of the locks; only these does the build see
# By default docker where a Docker Engine answers, else sandbox.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
tag=${COUNTERFOIL_TAG:-dev}

inside=
if [ "${1:-}" = inside ]; then inside=1 && shift; fi
all=(governance contracts ingest graph models gateway cli)
[ ! -f examples/Dockerfile ] || all+=(demo)
[ $# -gt 0 ] || set -- "${all[@]}"

build() { # ENGINE NAME OPTION...
  local engine=$1 name=$2
  shift 2
  local start=$SECONDS image=docker.io/counterfoil/$name:$tag label=org.opencontainers.image
  local folders
  case $name in
  gateway | cli) folders=("$name") ;;
  demo) folders=(examples cli) ;;
  *) folders=("services/$name") ;;
  esac
  # Everything the image is made of; what has not changed is not built again, and keeps its digest whatever else is committed.
  local inputs=(.dockerignore locks/uv.txt "locks/$name.txt" protos chassis "${folders[@]}") key
  key=$({
    "$engine" image inspect --format '{{.Id}}' python:3.11-slim-bookworm 2>/dev/null || true
    git log -1 --format='%H %cI' -- "${inputs[@]}"
    find "${inputs[@]}" -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c1-64)
  if [ "$("$engine" image inspect --format '{{index .Config.Labels "dev.counterfoil.inputs"}}' "$image" 2>/dev/null)" != "$key" ]; then
    # Not by build arguments: podman 4.3 takes a LABEL with another value of one from its cache.
    "$engine" build --quiet "$@" --label "$label.revision=$(git log -1 --format=%H -- "${inputs[@]}")" \
      --label "$label.created=$(git log -1 --format=%cI -- "${inputs[@]}")" --label "dev.counterfoil.inputs=$key" \
      --file "${folders[0]}/Dockerfile" --tag "$image" . >/dev/null
    built=1
  fi
  # Before a push podman knows the manifest's digest, docker the image's id only.
  "$engine" image inspect --format "{{.Size}} {{if eq \"$engine\" \"podman\"}}{{.Digest}}{{else}}{{.Id}}{{end}}" "$image" |
    awk -v image="$image" -v took=$((SECONDS - start)) '{printf "%-40s %5.0f MB %s  (%d s)\n", image, $1 / 1e6, $2, took}'
}

if [ -n "$inside" ]; then
  printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$TMPDIR/pip.conf"
  for name in "$@"; do
    # Both are mounted while RUN runs and are in no layer.
    build podman "$name" --pull=never --network=none --layers --format docker \
      --volume "$CACHE/wheels:/wheels:ro" --volume "$TMPDIR/pip.conf:/etc/pip.conf:ro"
  done
  [ -z "${built:-}" ] || podman image prune --force --filter until=168h >/dev/null
  exit 0
fi

if [ -z "${ENGINE:-}" ]; then
  if docker version >/dev/null 2>&1; then ENGINE=docker; else ENGINE=sandbox; fi
fi
if [ "$ENGINE" = docker ]; then
  for name in "$@"; do build docker "$name"; done
  exit 0
fi

"$here/base-image.sh"
mkdir -p "$CACHE/wheels"
exec 7>"$CACHE/images.lock"
flock 7 # the store has one writer; the second build finds everything cached
for name in uv "$@"; do
  done="$CACHE/wheels/.$(sha256sum <"locks/$name.txt" | cut -c1-16)"
  [ ! -e "$done" ] || continue
  "${PYTHON:-python3.11}" -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
    --dest "$CACHE/wheels" --requirement "locks/$name.txt"
  touch "$done"
done
exec "$here/sandbox.sh" --build "$(readlink -f "$0")" inside "$@"
