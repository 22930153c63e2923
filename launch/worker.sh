#!/usr/bin/env bash
# What tpu-pod.sh runs on each host of a slice, in the copied checkout.
#
#     launch/worker.sh install [SERVER:/SHARE]   Python, jaxhpo with its TPU libraries, the mount
#     launch/worker.sh follow WORD...            starts these words of `jaxhpo`, or only follows them
#     launch/worker.sh stop                      asks the run to save and stop
#
# The run does not hang on the connection. JAXHPO_WANDB_SECRET names a secret of Secret Manager: the
# W&B key goes from there to the environment of the run, and to no file and no command line.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/arguments.sh
mkdir -p logs
lock=logs/lock pid_file=logs/pid words_file=logs/words status_file=logs/status

alive() { ! flock --nonblock "$lock" true; } # a number may be another process's after a reboot

install() {
    local share=${1:-}
    if [[ -n $share ]] && ! mountpoint -q /mnt/runs; then
        sudo apt-get install --yes --quiet nfs-common
        sudo mkdir -p /mnt/runs
        sudo mount -t nfs "$share" /mnt/runs
        sudo chmod 1777 /mnt/runs
    fi
    # the images of TPU VMs may have a Python that is too old; uv brings one
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --allow-existing --python '>=3.11' .venv
    python3 -m uv pip install --quiet --python .venv/bin/python -e '.[tpu]'
}

start() {
    if [[ -n ${JAXHPO_WANDB_SECRET:-} ]]; then
        WANDB_API_KEY=$(gcloud secrets versions access latest --secret="$JAXHPO_WANDB_SECRET")
        export WANDB_API_KEY
    fi
    unset JAXHPO_WANDB_SECRET
    # which host this is, for the agent of a sweep; JAX asks the same server
    JAXHPO_PROCESS=$(curl --silent --fail --max-time 5 --header 'Metadata-Flavor: Google' \
        http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number) ||
        JAXHPO_PROCESS=0
    export JAXHPO_PROCESS
    export PATH="$PWD/.venv/bin:$PATH"
    printf ' %q' "$@" > "$words_file"
    rm -f -- "$status_file"
    echo "== $(date --utc +%FT%TZ) $(hostname):$(< "$words_file")" >> logs/run.log
    # A session of its own, told as a group: this shell minds a signal once the run has ended.
    # shellcheck disable=SC2016  # the words are expanded by the shell that is started
    setsid bash -c '
        flock 9
        trap : TERM
        status=0
        launch/process.sh "${@:2}" 9>&- || status=$?
        echo "$status" > "$1"
    ' jaxhpo "$status_file" "$@" < /dev/null 9> "$lock" >> logs/run.log 2>&1 &
    echo $! > "$pid_file"
}

follow() {
    local from=50 # or the last lines of a run that goes on
    if alive; then
        [[ $(printf ' %q' "$@") == "$(< "$words_file")" ]] ||
            mistake "another run is on this TPU:$(< "$words_file"); stop it first"
    else
        touch logs/run.log
        from=+$(($(wc -l < logs/run.log) + 1))
        start "$@"
    fi
    tail --sleep-interval=0.2 --lines="$from" --follow --pid="$(< "$pid_file")" logs/run.log
    [[ -f $status_file ]] || return 1 # killed
    return "$(< "$status_file")"
}

stop() {
    if alive; then kill -TERM -- "-$(< "$pid_file")"; else echo "launch: no run goes on here"; fi
}

case ${1:-} in
    install) install "${@:2}" ;;
    follow) check_words "${@:2}" && follow "${@:2}" ;;
    stop) stop ;;
    -h | --help) usage "$0" ;;
    *) mistake "unknown task ${1:-}; allowed: install, follow, stop" ;;
esac
