#!/usr/bin/env bash
# What a shell script does with the JSON gateway, by curl: keys, a lease, a watch, a transaction, a snapshot, users.
# usage: probe.sh URL     prints "ok: N checks", or the first check that fails
set -euo pipefail
url=$1
checks=0

fail() { echo "FAILED: $1"; echo "$2"; exit 1; }
# check NAME EXPECTED ANSWER: whether the answer holds the text
check() { [[ $3 == *"$2"* ]] || fail "$1: no $2" "$3"; checks=$((checks + 1)); }
post() { curl -sS --max-time 10 -X POST "${@:3}" -d "$2" "$url$1"; }
b64() { printf %s "$1" | base64 | tr -d '\n'; }
unb64() { base64 -d; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -1; }

check version '"etcdserver":"3.' "$(curl -sS "$url/version")"
check put '"revision":' "$(post /v3/kv/put "{\"key\":\"$(b64 curl/a)\",\"value\":\"$(b64 one)\"}")"
got=$(post /v3/kv/range "{\"key\":\"$(b64 curl/a)\"}")
check get '"count":"1"' "$got"
[[ $(field value <<<"$got" | unb64) == one ]] || fail "the value comes back" "$got"
check beta '"count":"1"' "$(post /v3beta/kv/range "{\"key\":\"$(b64 curl/a)\"}")"
check refusal '{"code":3,"message":"etcdserver: key is not provided"}' "$(post /v3/kv/range '{}')"
check status 400 "$(post /v3/kv/range '{}' -o /dev/null -w '%{http_code}')"
check method 501 "$(curl -sS -o /dev/null -w '%{http_code}' "$url/v3/kv/range")"
check cors 'ccess-' "$(curl -sS -i -X OPTIONS "$url/v3/kv/range")"

txn="{\"compare\":[{\"key\":\"$(b64 curl/a)\",\"target\":\"VALUE\",\"value\":\"$(b64 one)\"}],
      \"success\":[{\"request_put\":{\"key\":\"$(b64 curl/b)\",\"value\":\"$(b64 two)\"}}]}"
check txn '"succeeded":true' "$(post /v3/kv/txn "$txn")"

lease=$(post /v3/lease/grant '{"TTL":60}' | field ID)
check lease '"TTL":"60"' "$(post /v3/lease/keepalive "{\"ID\":$lease}")"
check attach '"revision"' "$(post /v3/kv/put "{\"key\":\"$(b64 curl/l)\",\"lease\":$lease}")"
check old-path '"keys":["'"$(b64 curl/l)" "$(post /v3/kv/lease/timetolive "{\"ID\":$lease,\"keys\":true}")"
check revoke '"header"' "$(post /v3/kv/lease/revoke "{\"ID\":$lease}")"
check gone '"header"' "$(post /v3/kv/range "{\"key\":\"$(b64 curl/l)\"}")"

watched=$(mktemp)
trap 'rm -f "$watched"' EXIT
curl -sSN --max-time 30 -d "{\"create_request\":{\"key\":\"$(b64 curl/w)\"}}" "$url/v3/watch" >"$watched" &
watcher=$!
await() { for _ in $(seq 200); do grep -q "$1" "$watched" && return; sleep 0.05; done; fail "a watch: no $1" "$(cat "$watched")"; }
await '"created":true'
post /v3/kv/put "{\"key\":\"$(b64 curl/w)\",\"value\":\"$(b64 seen)\"}" >/dev/null
await "$(b64 seen)"
kill "$watcher" 2>/dev/null || true
checks=$((checks + 2))

post /v3/maintenance/snapshot '{}' >"$watched"
check snapshot '{"result":{' "$(head -c 200 "$watched")"
check members '"clientURLs"' "$(post /v3/cluster/member/list '{}')"

post /v3/auth/user/add '{"name":"root","password":"p"}' >/dev/null
post /v3/auth/user/grant '{"user":"root","role":"root"}' >/dev/null
check enable '"header"' "$(post /v3/auth/enable '{}')"
check nobody 'user name is empty' "$(post /v3/kv/range "{\"key\":\"$(b64 curl/a)\"}")"
token=$(post /v3/auth/authenticate '{"name":"root","password":"p"}' | field token)
check token '"count":"1"' "$(post /v3/kv/range "{\"key\":\"$(b64 curl/a)\"}" -H "Authorization: $token")"
check disable '"header"' "$(post /v3/auth/disable '{}' -H "Authorization: $token")"
echo "ok: $checks checks"
