#!/bin/sh
# Runs the store and catalogue tests against a real MySQL server: Debian sid's mysql-server-core, put into a folder
# by debootstrap (as root; about 640 MB, once), started on a free port with its own data, ended and removed after.
#
#   sh tests/mysql/run.sh [pytest arguments]
#
# CRONY_TEST_MYSQL_ROOT   the folder (default: under $XDG_CACHE_HOME or ~/.cache)
# CRONY_TEST_MYSQL_URL    a server that is there already: it is used instead, its user may create databases
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
[ "$#" -gt 0 ] || set -- tests/integration -k "store or catalog"

if [ -n "${CRONY_TEST_MYSQL_URL:-}" ]; then
    exec "$PYTHON" -m pytest -q "$@"
fi

root=${CRONY_TEST_MYSQL_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/crony/mysql-sid}
mirror=${CRONY_TEST_MYSQL_MIRROR:-http://deb.debian.org/debian}
if [ "$(id -u)" -ne 0 ]; then
    echo "tests/mysql/run.sh needs root for debootstrap and chroot; or name a server in CRONY_TEST_MYSQL_URL" >&2
    exit 2
fi
if [ ! -e "$root/.ready" ]; then
    command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 2; }
    echo "putting MySQL into $root"
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=mysql-server-core sid "$root" "$mirror" >"$root.log" 2>&1 || {
        tail -n 20 "$root.log" >&2
        exit 1
    }
    touch "$root/.ready"
fi

data=/srv/data.$$
server=
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$root$data"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir -p "$root$data"
[ -e "$root/dev/urandom" ] || mknod -m 666 "$root/dev/urandom" c 1 9 || true
chroot "$root" mysqld --version
chroot "$root" mysqld --no-defaults --initialize-insecure --user=root --datadir="$data/db" \
    --secure-file-priv=NULL >"$root$data/log" 2>&1 || { tail -n 20 "$root$data/log" >&2; exit 1; }
port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
chroot "$root" mysqld --no-defaults --user=root --datadir="$data/db" --port="$port" --bind-address=127.0.0.1 \
    --socket="$data/sock" --pid-file="$data/pid" --mysqlx=OFF --secure-file-priv=NULL --skip-log-bin \
    --innodb-flush-log-at-trx-commit=2 >>"$root$data/log" 2>&1 &
server=$!

export CRONY_TEST_MYSQL_URL="mysql+pymysql://crony:crony-test@127.0.0.1:$port/"
SOCKET="$root$data/sock" "$PYTHON" - <<'PYTHON' || { tail -n 20 "$root$data/log" >&2; exit 1; }
"""Waits for the server and makes a user who may create databases."""
import os
import time

import pymysql

deadline = time.monotonic() + 60
while True:
    try:
        connection = pymysql.connect(unix_socket=os.environ["SOCKET"], user="root", autocommit=True)
        break
    except pymysql.err.OperationalError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
with connection, connection.cursor() as cursor:
    cursor.execute("CREATE USER crony@'%' IDENTIFIED BY 'crony-test'")
    cursor.execute("GRANT ALL ON `crony\\_%`.* TO crony@'%'")
    cursor.execute("SELECT VERSION()")
    print("MySQL", cursor.fetchone()[0])
PYTHON

"$PYTHON" -m pytest -q "$@"
