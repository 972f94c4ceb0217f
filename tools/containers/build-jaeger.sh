#!/bin/bash
# build-jaeger.sh: builds Jaeger v2 from its Go module into $CONTAINER_CACHE/bin/jaeger, and, where sandbox.sh can run, the stand-in
# image jaegertracing/jaeger:2.13.0 around it: the binary alone, in an image without anything else, run as upstream's is.
# The pages of its UI are not part of the module: the stand-in shows a placeholder, its query API is whole.
# Needs Go 1.24.6 or newer, 3 GB for Go's caches, and time: 2,300 packages, one after the other, once. FORCE=1 builds again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
module=v1.76.0 release=2.13.0 # one commit with two tags: v1's number names the module, v2's the binary and the image
image=docker.io/jaegertracing/jaeger:$release

if [ "${1:-}" = inside ]; then
  tar --create --file "$TMPDIR/jaeger.tar" --directory "$CACHE/bin" --owner 10001 --group 10001 --transform 's,^jaeger,cmd/jaeger/jaeger-linux,' jaeger
  podman rmi --force $image >/dev/null 2>&1 || true # absent the first time
  podman import --quiet -c 'ENV JAEGER_LISTEN_HOST=0.0.0.0' -c 'ENTRYPOINT ["/cmd/jaeger/jaeger-linux"]' -c 'USER 10001' \
    "$TMPDIR/jaeger.tar" $image
  exit 0
fi

mkdir -p "$CACHE/bin"
exec 6>"$CACHE/jaeger.lock"
flock 6 # of two builds at once, the second finds the first one's binary
if [ -n "${FORCE:-}" ] || [ "$("$CACHE/bin/jaeger" version 2>/dev/null | grep -c "v$release")" = 0 ]; then
  command -v go >/dev/null || { echo "build-jaeger.sh needs Go 1.24.6 or newer" >&2 && exit 1; }
  work=$(mktemp -d "$CACHE/jaeger.XXXX")
  trap 'rm -rf "$work"' EXIT
  # Not `go install`: the module replaces a dependency, which is allowed in the main module only. So it becomes that.
  sources=$(cd "$work" && go mod download -json github.com/jaegertracing/jaeger@$module | sed -n 's/.*"Dir": "\(.*\)",\{0,1\}$/\1/p')
  cp -r "$sources" "$work/jaeger"
  chmod -R u+w "$work/jaeger"
  cd "$work/jaeger"
  CGO_ENABLED=0 nice go build -p 1 -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v$release" -o "$work/binary" ./cmd/jaeger
  mv "$work/binary" "$CACHE/bin/jaeger"
fi
"$CACHE/bin/jaeger" version | head -1
if [ "$(id -u)" = 0 ] && command -v podman >/dev/null; then
  exec 7>"$CACHE/images.lock"
  flock 7 # the store has one writer
  exec "$here/sandbox.sh" --build "$(readlink -f "$0")" inside
fi
