# shellcheck shell=bash
# Sourced: `run COMMAND...` shows a command and runs it; where the first argument is --dry-run it is only shown.
dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi

show() {
  local word
  printf '+'
  for word in "$@"; do
    case $word in *[!a-zA-Z0-9_.,:=/%@~+-]* | '') printf ' %s' "${word@Q}" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '\n'
}

run() {
  show "$@"
  [ -n "$dry_run" ] || "$@"
}
