"""Python's etcd3gw against a server: keys, transactions, leases, locks, watches.

usage: probe.py URL     prints "ok: N checks", or the check that fails
"""

import sys
import threading
from urllib.parse import urlparse

from etcd3gw.client import Etcd3Client

url = urlparse(sys.argv[1])
# The path is the one that the library takes by itself for 3.4 and later.
client = Etcd3Client(host=url.hostname, port=url.port, protocol=url.scheme, api_path="/v3/", timeout=20)
checks = 0


def check(name, found, expected=True):
    global checks
    if found != expected:
        print(f"FAILED: {name}: {found!r} and not {expected!r}")
        sys.exit(1)
    checks += 1


check("status", client.status()["version"].startswith("3."))
check("members", len(client.members()), 1)
check("put", client.put("gw/a", "one"))
check("get", client.get("gw/a"), [b"one"])
check("get nothing", client.get("gw/none"), [])
value, meta = client.get("gw/a", metadata=True)[0]
check("metadata", (value, meta["key"], meta["version"]), (b"one", b"gw/a", "1"))
client.put("gw/b", bytes(range(256)))
check("bytes", client.get("gw/b"), [bytes(range(256))])
check("prefix", [pair[1]["key"] for pair in client.get_prefix("gw/", sort_order="descend", sort_target="key")], [b"gw/b", b"gw/a"])
check("all", len(client.get_all()), 2)
check("create", client.create("gw/c", "1"))
check("create again", client.create("gw/c", "2"), False)
check("replace", client.replace("gw/c", "1", "3"))
check("replace what isn't", client.replace("gw/c", "1", "4"), False)
check("delete", client.delete("gw/c"))
check("delete again", client.delete("gw/c"), False)
check("delete a prefix", client.delete_prefix("gw/"))
check("nothing is left", client.get_all(), [])

lease = client.lease(ttl=60)
check("time to live", 50 < lease.ttl() <= 60)
check("refresh", lease.refresh(), 60)
client.put("gw/l", "x", lease=lease)
check("keys of a lease", lease.keys(), [b"gw/l"])
check("revoke", lease.revoke())
check("gone with its lease", client.get("gw/l"), [])

with client.lock("gw-lock", ttl=30) as lock:
    check("locked", lock.is_acquired())
    other = client.lock("gw-lock", ttl=30)
    check("locked once", other.acquire(), False)
check("unlocked", lock.is_acquired(), False)

events, cancel = client.watch("gw/w")
timer = threading.Timer(0.2, lambda: client.put("gw/w", "seen"))
timer.start()
event = next(events)
check("watch", (event["kv"]["key"], event["kv"]["value"]), (b"gw/w", b"seen"))
cancel()
events, cancel = client.watch_prefix("gw/p/")
timer = threading.Timer(0.2, lambda: client.delete_prefix("gw/") and client.put("gw/p/1", "once"))
timer.start()
check("watch a prefix", next(events)["kv"]["value"], b"once")
cancel()

print(f"ok: {checks} checks")
