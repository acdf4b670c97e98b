#!/bin/sh
# A hook for dehydrated, uacme, and Apache's mod_md: presents and cleans up challenge values by DNS update.
#
#   dehydrated --challenge dns-01 --hook /etc/responder/nsupdate-hook.sh --cron
#   uacme -h /etc/responder/nsupdate-hook.sh issue some.example.com '*.some.example.com'
#   MDChallengeDns01 /etc/responder/nsupdate-hook.sh        in Apache's configuration, with MDChallengeDns01Version 2
#
# It needs nsupdate and dig (Debian's bind9-dnsutils), and these settings:
SERVER=${SERVER:-responder.example.com}   # the responder, perhaps with a space and a port behind it
KEY=${KEY:-/etc/responder/tsig.conf}      # what `responder token mint --format tsig` printed
DIG=${DIG:-dig}
set -eu
exec </dev/null   # mod_md runs it with the standard input closed, and dig then aborts

case $1 in
deploy_challenge) action=add host=$2 value=$4 ;;             # dehydrated: host, token, value
clean_challenge) action=delete host=$2 value=$4 ;;
begin) action=add type=$2 host=$3 value=$5 ;;                # uacme: type, host, token, value
done | failed) action=delete type=$2 host=$3 value=$5 ;;
setup) action=add host=$2 value=$3 ;;                        # mod_md: host, value
teardown) action=delete host=$2 value=${3:-} ;;              # version 1 has no value here: all values are deleted
*) exit 0 ;;                                                 # other occasions need no action
esac
[ "${type:-dns-01}" = dns-01 ] || exit 1

# Where the hostname's own zone sends the CA, or the very name if it is in the responder's zone.
name=$($DIG +short "_acme-challenge.$host" CNAME)
echo "server $SERVER
update $action ${name:-_acme-challenge.$host.} 60 TXT $value
send" | nsupdate -k "$KEY"
