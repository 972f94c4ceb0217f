#!/bin/bash
# base-image.sh: makes, once, local stand-ins for the upstream images that the Dockerfiles, docker-compose.yml and k8s/ name,
# from signed Debian packages and without any image registry:
#   python:3.11-slim-bookworm    Debian's Python 3.11
#   postgres:17-bookworm         Debian's PostgreSQL 15, with the part of the upstream entrypoint that is used here
# FORCE=1 makes them again (Debian's security updates). Needs root on Debian 12 and these of its packages:
# podman runc conmon netavark aardvark-dns iptables catatonit mmdebstrap
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CACHE=${CONTAINER_CACHE:-$HOME/.cache/counterfoil-containers}
python=docker.io/library/python:3.11-slim-bookworm postgres=docker.io/library/postgres:17-bookworm

if [ "${1:-}" = inside ]; then
  cd "$2"
  podman rmi -f $python $postgres >/dev/null 2>&1 || true # absent the first time
  path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  podman import -q -c "ENV PATH=$path" -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' python.tar $python
  podman import -q -c "ENV PATH=$path:/usr/lib/postgresql/15/bin" -c 'ENV LANG=C.UTF-8' -c 'ENV PGDATA=/var/lib/postgresql/data' \
    -c 'VOLUME /var/lib/postgresql/data' -c 'ENTRYPOINT ["docker-entrypoint.sh"]' -c 'CMD ["postgres"]' -c 'STOPSIGNAL SIGINT' \
    -c 'EXPOSE 5432' postgres.tar $postgres
  exit 0
fi

key=$(cat "$0" "$here/standins/docker-entrypoint.sh" | sha256sum | cut -c1-16)
mkdir -p "$CACHE"
exec 8>"$CACHE/base.lock"
flock 8 # two builds at once: the second finds the first one's images
if [ -z "${FORCE:-}" ] && [ "$(cat "$CACHE/base.key" 2>/dev/null)" = "$key" ]; then
  echo "base images: cached"
  exit 0
fi
work=$(mktemp -d "$CACHE/base.XXXX")
trap 'rm -rf "$work"' EXIT
# The machine's own apt sources, whatever they are; nothing of them stays in the images.
sources=()
for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list; do [ ! -s "$f" ] || sources+=("$f"); done
options=(--variant=minbase --quiet --aptopt='Acquire::Check-Valid-Until "false"'
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*'
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright'
  --customize-hook='rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/log/*.log "$1"/etc/resolv.conf "$1"/etc/hostname')
mmdebstrap "${options[@]}" --include=python3,python3-venv,python3-pip,ca-certificates \
  --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
  --customize-hook='for n in python python3 python3.11; do ln -s /usr/bin/python3.11 "$1"/usr/local/bin/$n; done' \
  bookworm "$work/python.tar" "${sources[@]}" &
first=$!
# 999 is upstream's number of the user postgres: manifests that say runAsUser: 999 mean the same one here.
mmdebstrap "${options[@]}" --include=postgresql-15,postgresql-client-15 \
  --essential-hook='echo postgres:x:999: >>"$1"/etc/group' \
  --essential-hook='echo postgres:x:999:999::/var/lib/postgresql:/bin/bash >>"$1"/etc/passwd' \
  --essential-hook='mkdir -p "$1"/etc/postgresql-common; echo "create_main_cluster = false" >"$1"/etc/postgresql-common/createcluster.conf' \
  --customize-hook="copy-in $here/standins/docker-entrypoint.sh /usr/local/bin" \
  --customize-hook='mkdir -p "$1"/docker-entrypoint-initdb.d "$1"/var/lib/postgresql/data "$1"/var/run/postgresql' \
  --customize-hook='chroot "$1" chown postgres:postgres /var/lib/postgresql/data /var/run/postgresql' \
  --customize-hook='chmod 1777 "$1"/var/lib/postgresql/data; chmod 3777 "$1"/var/run/postgresql' \
  bookworm "$work/postgres.tar" "${sources[@]}" &
wait $first
wait $!
"$here/sandbox.sh" --build "$(readlink -f "$0")" inside "$work"
echo "$key" >"$CACHE/base.key"
