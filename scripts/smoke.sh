#!/usr/bin/env bash
# A running installation, checked from outside in seconds.
#
#   scripts/smoke.sh [URL]                          what anybody may see
#   SERVER_MONITOR_TOKEN=… scripts/smoke.sh [URL]   and that servers report, with a token of scope read
#
# Prints a line for each check; exits 1 when one of them failed. Needs curl, and python3 for the second form.
set -uo pipefail

url=${1:-http://127.0.0.1:9083}
url=${url%/}
failed=0
answer=$(mktemp)
trap 'rm -f "$answer" "$answer.head"' EXIT

get() { # get PATH [curl options…]: the body into $answer, the head into $answer.head, the status printed
    local path=$1
    shift
    curl --silent --show-error --max-time 5 --output "$answer" --dump-header "$answer.head" \
        --write-out '%{http_code}' "$@" "$url$path" || true
}

check() { # check "what should be so" command…
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        echo "ok      $what"
    else
        echo "FAILED  $what"
        failed=1
    fi
}

says() { grep --quiet --extended-regexp -- "$1" "$answer"; }
heads() { grep --quiet --extended-regexp --ignore-case -- "$1" "$answer.head"; }

status=$(get /api/health)
check "the process runs (GET /api/health is $status)" test "$status" = 200
if [ "$status" != 200 ]; then
    echo "Nothing answers at $url. Is the console running, and is this its address?"
    exit 1
fi

status=$(get /api/ready)
check "it is ready (GET /api/ready is $status)" test "$status" = 200
[ "$status" = 200 ] || cat "$answer"

status=$(get / --header 'Accept: text/html')
check "the UI is served" test "$status" = 200
check "the UI may load nothing from elsewhere" heads "^content-security-policy:.*default-src 'none'"
check "the UI cannot be framed" heads "^content-security-policy:.*frame-ancestors 'none'"

status=$(get /api/servers)
check "strangers see no servers (401)" test "$status" = 401
check "errors are problems with a code" says '"code"'

get /api/health --header 'X-Request-Id: smoke-1' >/dev/null
check "a request keeps the id its caller gave" heads '^x-request-id: smoke-1'

status=$(get /api/openapi.json)
check "the API describes itself" test "$status" = 200

if [ -n "${SERVER_MONITOR_TOKEN:-}" ]; then
    # The token goes through a file and not through the arguments, which other users of the machine can read.
    status=$(get /api/servers --config <(printf 'header = "Authorization: Bearer %s"\n' "$SERVER_MONITOR_TOKEN"))
    check "the token is accepted" test "$status" = 200
    check "a server has reported within the last minute" python3 - "$answer" <<'PYTHON'
import json, sys, time
from datetime import datetime

def age_s(at):
    return time.time() - (at if isinstance(at, (int, float)) else datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp())

servers = json.load(open(sys.argv[1]))["items"]
sys.exit(not any(server["latest"] and age_s(server["latest"]["at"]) < 60 for server in servers))
PYTHON
fi

exit "$failed"
