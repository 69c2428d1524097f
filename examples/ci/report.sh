#!/usr/bin/env bash
# Check every plan in a folder, and draw it: bash report.sh PLANS OUT
#
# OUT gets check.md (what is required, what there is, the margin), and index.html, which shows it with every
# picture and can be read offline. Exits 1 where a plan does not hold, after all is written, and 2 where one
# cannot be read.
set -euo pipefail
plans=${1:?bash report.sh PLANS OUT}
out=${2:?bash report.sh PLANS OUT}

mkdir -p "$out"
status=0
kvplan check "$plans"/*.yaml --format md -o "$out/check.md" || status=$?
# 1 is an answer: the report is made all the same, and tells by how much a plan misses.
((status <= 1)) || exit "$status"

# GitHub shows this file on the page of the run. GitLab has no such place: it links the report instead.
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
  cat "$out/check.md" >>"$GITHUB_STEP_SUMMARY"
fi

kvplan plot all "$plans"/*.yaml -o "$out" --theme both
exit "$status"
