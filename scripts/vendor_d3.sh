#!/usr/bin/env bash
# Fetch the d3 modules that the viewer uses from the npm registry, exactly these and no other bytes, into
# server/ramify/web/vendor. Only the import specifiers are changed: browsers resolve './d3-color.js', not 'd3-color'.
set -euo pipefail
cd "$(dirname "$0")/.."
into=$PWD/server/ramify/web/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
while read -r name version integrity; do
  (cd "$work" && npm pack --silent "$name@$version" >/dev/null)
  archive=$work/$name-$version.tgz
  found=$(openssl dgst -sha512 -binary "$archive" | base64 -w0)
  [ "$found" = "$integrity" ] || { echo "$name $version is not the package that was reviewed" >&2; exit 1; }
  tar -xzf "$archive" -C "$work"
  sed -E "s#^(import .* from )'(d3-[a-z]+)';#\1'./\2.js';#" "$work/package/dist/$name.mjs" >"$into/$name.js"
  cp "$work/package/LICENSE" "$into/$name.LICENSE"
  rm -rf "$work/package"
done <"$into/versions.txt"
