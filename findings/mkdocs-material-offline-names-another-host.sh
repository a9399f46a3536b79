#!/usr/bin/env bash
# mkdocs-material 9.8.2: its plugin `offline`, made for sites that are read without a network, writes a script of the
# host unpkg.com into every page; without the plugin (and without fonts) no page does. Script tags of that host:
#     plugins: search            0 of 2 pages
#     plugins: search, offline   2 of 2 pages
# Fails (exit 1) if that changes. Needs Python >= 3.11 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'mkdocs-material==9.8.2' 2>/dev/null
mkdir "$work/docs"
echo '# One' > "$work/docs/index.md"
build() { # plugins -> how many pages name unpkg.com
  printf 'site_name: two pages\ntheme: {name: material, font: false}\nplugins: [%s]\n' "$1" > "$work/mkdocs.yml"
  "$work/venv/bin/mkdocs" build --quiet --clean --config-file "$work/mkdocs.yml" 2>/dev/null
  find "$work/site" -name '*.html' -print0 | xargs -0 grep -l 'src="https://unpkg.com' | wc -l
}
plain=$(build search || true)
offline=$(build "search, offline" || true)
pages=$(find "$work/site" -name '*.html' | wc -l)
echo "plugins: search            $plain of $pages pages"
echo "plugins: search, offline   $offline of $pages pages"
if [ "$plain" = 0 ] && [ "$offline" = "$pages" ] && [ "$pages" -gt 0 ]; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
