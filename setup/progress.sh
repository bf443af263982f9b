# Sourced. What the launcher says while it works, and how it runs the programs that take their time.
# Everything goes to stderr: stdout belongs to the command.

MAGS_LOGS=$MAGS_TOOLS/log
mags_terminal=0
if [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; then mags_terminal=1; fi
step_process='' aside_process='' ticker_process=''

say() { printf 'mags: %s\n' "$*" >&2; }
fail() {
  say "$*"
  # ./mags test ends with its closing line even when there is nothing to run yet.
  [ "${MAGS_COMMAND:-}" != test ] || echo '0 passed, 1 failed'
  exit 1
}

# Ends what runs, with everything it started: a step is a session of its own. First asked, after ten seconds made to.
end_step() {
  if [ -n "$ticker_process" ]; then
    kill "$ticker_process" 2>/dev/null
    wait "$ticker_process" 2>/dev/null
    ticker_process=''
  fi
  for group in $step_process $aside_process; do
    # dash takes a group only in this form
    kill -s TERM -- "-$group" 2>/dev/null
    tenths=0
    while kill -s 0 -- "-$group" 2>/dev/null; do
      tenths=$((tenths + 1))
      [ "$tenths" != 100 ] || kill -s KILL -- "-$group" 2>/dev/null
      sleep 0.1
    done
  done
  step_process='' aside_process=''
}
interrupted() {
  trap '' INT TERM HUP
  [ "$mags_terminal" = 0 ] || printf '\r\033[K' >&2
  [ -z "$step_process" ] || say 'stopping …'
  end_step
  say 'interrupted; the same command goes on where this one stopped.'
  exit "$1"
}
stop_on_signals() {
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
  trap 'interrupted 129' HUP
}

# Shows NAME and the seconds once a second on a terminal; else a line after one second and then every thirty.
tick() {
  seconds=0
  while sleep 1 <&- >&- 2>&-; do
    seconds=$((seconds + 1))
    if [ "$mags_terminal" = 1 ]; then
      printf '\r\033[Kmags: %s … %d s' "$1" "$seconds" >&2
    elif [ "$seconds" = 1 ]; then
      say "$1 …"
    elif [ $((seconds % 30)) = 0 ]; then
      say "$1 … $seconds s"
    fi
  done
}

# run_step LOG NAME HINT COMMAND…   runs a program with its output in .tools/log/LOG.log. If it fails: its last lines, the hint, exit 1.
run_step() {
  log=$MAGS_LOGS/$1.log step_name=$2 hint=$3
  shift 3
  mkdir -p "$MAGS_LOGS"
  started=$(date +%s)
  setsid "$@" </dev/null >"$log" 2>&1 &
  step_process=$!
  # Not with the locks (8 and 9): its sleep may outlive us by a second.
  tick "$step_name" 8>&- 9>&- &
  ticker_process=$!
  wait "$step_process"
  status=$?
  step_process=''
  end_step
  took=$(($(date +%s) - started))
  [ "$mags_terminal" = 0 ] || printf '\r\033[K' >&2
  if [ "$status" != 0 ]; then
    say "$step_name failed (exit status $status). Its last lines:"
    tail -n 12 "$log" | cut -c 1-300 | sed 's/^/    /' >&2
    say "the whole log: $log"
    fail "$hint Then run the same command again: it goes on where this one stopped."
  fi
  [ "$took" -lt 1 ] || say "$step_name: $took s"
}
