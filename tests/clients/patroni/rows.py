"""Rows through whatever node of a PostgreSQL cluster is the primary, and whether they are still there.

usage: rows.py write FILE PORT...   inserts until it is killed; FILE gets "ID SECONDS" for each row that was acknowledged
       rows.py check FILE PORT      prints "ok: N rows", or which of the acknowledged rows that node lacks

PGUSER and PGPASSWORD say who it is. SECONDS are since 1970. An id is never used twice: an insert of which nothing
was heard may be there or not.
"""

import sys
import time

import psycopg


def connect(ports, session):
    hosts = ",".join("127.0.0.1" for _ in ports)
    return psycopg.connect(
        f"host={hosts} port={','.join(ports)} dbname=postgres target_session_attrs={session} connect_timeout=2",
        autocommit=True,
    )


def write(path, ports):
    row = 0
    with open(path, "a", buffering=1) as acknowledged:
        while True:
            try:
                with connect(ports, "read-write") as connection:
                    connection.execute("create table if not exists acknowledged (id bigint primary key)")
                    # "canceling wait for synchronous replication": it is on one node, and that is no promise.
                    doubts = []
                    connection.add_notice_handler(doubts.append)
                    while True:
                        row += 1
                        connection.execute("insert into acknowledged values (%s)", (row,))
                        if not doubts:
                            acknowledged.write(f"{row} {time.time():.3f}\n")
                        doubts.clear()
                        time.sleep(0.02)
            except psycopg.Error as error:
                print(f"{time.time():.3f} row {row}: {str(error).splitlines()[0]}", flush=True)
                time.sleep(0.1)


def check(path, port):
    with open(path) as file:
        acknowledged = {int(line.split()[0]) for line in file if line.endswith("\n")}
    with connect([port], "any") as connection:
        there = {row for (row,) in connection.execute("select id from acknowledged")}
    missing = sorted(acknowledged - there)
    if missing or not acknowledged:
        sys.exit(f"of {len(acknowledged)} acknowledged rows {len(missing)} are gone: {missing[:10]}")
    print(f"ok: {len(acknowledged)} rows")


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3:])
else:
    check(sys.argv[2], sys.argv[3])
