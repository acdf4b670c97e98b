#!/bin/sh
# `make run`: mints a first token, says what to try, and serves until Ctrl-C.
set -eu

export RESPONDER_CONFIG=config/dev.toml
umask 077
mkdir -p .dev
first=.dev/first-token

if [ ! -s "$first" ]; then
    responder token mint some.example.com --description "first token, minted by make run" --output json >"$first.new"
    mv "$first.new" "$first"
fi
token=$(python -c 'import json, sys; print(json.load(sys.stdin)["token"])' <"$first")

cat <<TEXT

Zone acme.example.com on 127.0.0.1 port 5300, API on http://127.0.0.1:8053. In another terminal:

  curl -s -H 'Authorization: Bearer $token' \\
       -d '{"fqdn": "_acme-challenge.some.example.com.", "value": "hello-from-make-run"}' \\
       http://127.0.0.1:8053/present

  dig @127.0.0.1 -p 5300 _acme-challenge.some.acme.example.com TXT +short

  curl -s -H 'Authorization: Bearer $token' \\
       -d '{"fqdn": "_acme-challenge.some.example.com.", "value": "hello-from-make-run"}' \\
       http://127.0.0.1:8053/cleanup

The token is kept in $first. Ctrl-C stops the service; \`make clean\` forgets everything.

TEXT
exec responder serve
