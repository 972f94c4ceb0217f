#!/bin/bash
# The part of the upstream postgres entrypoint that is used here: the first start makes the cluster, the user and the database
# from POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS and POSTGRES_PASSWORD (each also as NAME_FILE), and runs what lies in
# /docker-entrypoint-initdb.d.
set -euo pipefail
[ "${1:-}" = postgres ] || [[ "${1:-}" == -* ]] || exec "$@"
[[ "$1" != -* ]] || set -- postgres "$@"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown -R postgres:postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups --no-new-privs "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  for name in POSTGRES_USER POSTGRES_DB POSTGRES_INITDB_ARGS POSTGRES_PASSWORD; do
    file=${name}_FILE
    [ -z "${!file:-}" ] || export "$name=$(<"${!file}")"
  done
  : "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE}"
  user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  # shellcheck disable=SC2086 # several arguments in one variable, as upstream
  initdb -D "$PGDATA" -U "$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
    -A scram-sha-256 --auth-local=trust -E UTF8 ${POSTGRES_INITDB_ARGS:-} >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start >/dev/null
  [ "$db" = postgres ] || psql -qv ON_ERROR_STOP=1 -U "$user" -d postgres -c "create database \"$db\""
  for f in /docker-entrypoint-initdb.d/*; do
    case $f in
    *.sql) psql -qv ON_ERROR_STOP=1 -U "$user" -d "$db" -f "$f" ;;
    *.sh) POSTGRES_USER=$user POSTGRES_DB=$db bash "$f" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
fi
exec "$@" -c listen_addresses='*'
