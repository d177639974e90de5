#!/usr/bin/env bash
# Puts the Kafka of pom.xml into .kafka/jars, where tests/broker.py looks for it. Run it as often as you like:
# it does nothing when Java and the jars of this very pom are there already.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kafka=$(cd "$here/../.." && pwd)/.kafka
jars=$kafka/jars
stamp=pom.sha256 # lies among the jars, so that it appears and goes with them

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

need=()
wanted=$(sha256 "$here/pom.xml")
present=$(cat "$jars/$stamp" 2>/dev/null || true)
command -v java >/dev/null || need+=(default-jre-headless)
[[ $present == "$wanted" ]] || command -v mvn >/dev/null || need+=(maven)

if ((${#need[@]})); then
  if command -v apt-get >/dev/null && ((EUID == 0)); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
  else
    fail "the tests' Kafka needs Java 17 or newer ('java') and Maven ('mvn') on the PATH." \
      "Install them; on Debian or Ubuntu: sudo apt-get install ${need[*]}"
  fi
fi

# "17.0.15" or, before the first update of a release, just "21".
major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
((${major:-0} >= 17)) || fail "Kafka 4 needs Java 17 or newer; $(command -v java) is version ${major:-unknown}"

[[ $present == "$wanted" ]] && exit 0

mkdir -p "$kafka"
new=$(mktemp -d "$kafka/new.XXXXXX") # a half-done download never takes the jars' place
trap 'rm -rf "$new"' EXIT
mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$new/jars"
echo "$wanted" >"$new/jars/$stamp"
rm -rf "$jars"
mv "$new/jars" "$jars"
echo "install.sh: $(ls "$jars"/kafka_*.jar) and $(($(ls "$jars"/*.jar | wc -l) - 1)) more jars"
