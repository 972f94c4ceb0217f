#!/bin/bash
# run-kube.sh [PYTEST-ARGUMENT...]: plays the overlay k8s/overlays/dev with podman in a sandbox that leaves nothing behind, and runs
# tests/containers/test_kube.py against it. NO_BUILD=1 takes the images that are there.
# Needs kubectl, which renders the overlay, besides the packages of base-image.sh; fetches HAProxy into the cache, installs nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) root=$(cd "$(dirname "$0")/../.." && pwd)
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
[ -n "${NO_BUILD:-}" ] || ENGINE=sandbox "$here/build-images.sh"
if [ ! -x "$CACHE/haproxy/usr/sbin/haproxy" ]; then
  debs=$(mktemp -d)
  trap 'rm -rf "$debs"' EXIT
  (cd "$debs" && apt-get download -q -o APT::Sandbox::User=root haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 >/dev/null)
  for deb in "$debs"/*.deb; do dpkg -x "$deb" "$CACHE/haproxy"; done
fi
cd "$root"
"$here/sandbox.sh" "$root/.venv/bin/python" -m pytest -s tests/containers/test_kube.py "$@"
