#!/usr/bin/env bash
# Ramify from a shell: a search as JSON and as a stream, its tree, and OpenAI's routes with and without a search.
#
# ramify serve &
# bash examples/curl.sh [URL of the server]      # a key, if it wants one, in RAMIFY_API_KEY
set -euo pipefail
url=${1:-http://127.0.0.1:8000}

ask() {  # PATH [JSON]
  curl --silent --show-error --no-buffer --fail-with-body "$url$1" \
    ${RAMIFY_API_KEY:+--header "Authorization: Bearer $RAMIFY_API_KEY"} \
    ${2:+--header 'Content-Type: application/json' --data "$2"}
  echo
}

echo "# The best answers of a tree, at 1,000 generated tokens"
result=$(ask /v1/search '{"prompt": "3 5 7 8 to 24", "n": 2, "search": {"budget": {"tokens": 1000}}}')
echo "$result"

echo "# Its tree in the log, as Graphviz draws it"
tree=$(sed 's/.*"tree":{"id":"\([^"]*\)".*/\1/' <<<"$result")
ask "/v1/trees/$tree?format=dot"

echo "# The same search as Server-Sent Events, while it runs"
ask /v1/search '{"prompt": "3 5 7 8 to 24", "search": {"budget": {"tokens": 1000}}, "stream": true}'

echo "# OpenAI's completions: the policy alone"
ask /v1/completions '{"model": "countdown-tiny", "prompt": "3 5 7 8 to 24\n", "max_tokens": 40, "temperature": 0}'

echo "# OpenAI's chat: the best answer of a tree, in chunks"
ask /v1/chat/completions '{"model": "countdown-tiny", "messages": [{"role": "user", "content": "3 5 7 8 to 24"}],
  "search": {"budget": {"tokens": 1000}}, "stream": true}'
