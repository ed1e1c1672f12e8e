# Progress of long steps, for the scripts beside this file: a spinner on a
# terminal, one line per finished step elsewhere, in the form that copepod
# itself uses. Everything goes to standard error; what a step printed is shown
# when it fails.
# usage: . packaging/progress.sh; step TEXT COMMAND [ARGUMENT]...

# Turns until it is stopped, or until the script that started it has ended.
spin() {
    while kill -0 "$$" 2>/dev/null; do
        for mark in '|' / - '\'; do
            printf '\r%s %s (%s s)' "$mark" "$1" "$(($(date +%s) - $2))" >&2
            sleep 0.1
        done
    done
}

# Returns what COMMAND returns. Within it, a failure does not end the script by
# itself (`set -e` rests in conditions): functions join their commands with &&.
step() {
    step_text=$1
    shift
    step_began=$(date +%s)
    step_spinner=
    if [ -t 2 ]; then
        spin "$step_text" "$step_began" &
        step_spinner=$!
    fi
    if step_output=$("$@" 2>&1); then step_code=0 step_mark='  ok'; else step_code=$? step_mark=FAIL; fi
    if [ -n "$step_spinner" ]; then
        kill "$step_spinner"
        wait "$step_spinner" 2>/dev/null || :
        printf '\r\033[K' >&2
    fi
    printf '%s  %s (%s s)\n' "$step_mark" "$step_text" "$(($(date +%s) - step_began))" >&2
    if [ "$step_code" -ne 0 ] && [ -n "$step_output" ]; then
        printf '%s\n' "$step_output" >&2
    fi
    return "$step_code"
}
