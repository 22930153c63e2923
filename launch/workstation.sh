#!/usr/bin/env bash
# A run on this machine.
#
#     launch/workstation.sh [--processes N|gpus] [--logs DIR] -- pbt --out runs/a ...
#
# By default one process drives all GPUs (or TPU chips, or the CPU). `--processes gpus` starts one
# process for each GPU, N shares them out; they are one run, joined by jax.distributed on loopback.
# The same command again carries the run on. Ctrl-C or SIGTERM saves and ends with status 75.
# Logs: DIR/process-I.log (default: logs/NAME-OF-THE-RUN). CUDA_VISIBLE_DEVICES is respected.
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=launch/arguments.sh
source "$here/arguments.sh"

processes=1 logs=
while (($#)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        -h | --help) usage "$0" && exit ;;
        --) shift && break ;;
        --processes) processes=${2:-} ;;
        --logs) logs=${2:-} ;;
        *) mistake "unknown option $1; allowed: --processes, --logs, and -- before jaxhpo's words" ;;
    esac
    shift 2 || mistake "$1 has no value"
done
check_words "$@"
export JAXHPO_LOGS=${logs:-logs/$(run_name "$@")}

gpus=()
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi > /dev/null; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null)
fi

if [[ $processes == gpus ]]; then
    processes=${#gpus[@]}
    ((processes)) || mistake "--processes gpus: no GPU found"
fi
[[ $processes =~ ^[1-9][0-9]*$ ]] || mistake "--processes $processes; allowed: gpus, 1 or more"
((processes > 1)) || exec "$here/process.sh" "$@"
((${#gpus[@]} % processes == 0)) ||
    mistake "--processes $processes does not divide the ${#gpus[@]} GPUs"
share=$((${#gpus[@]} / processes))

free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
JAXHPO_COORDINATOR=127.0.0.1:$(python -c "$free_port")
export JAXHPO_COORDINATOR JAXHPO_PROCESSES=$processes

running=()
for ((process = 0; process < processes; process++)); do
    (
        export JAXHPO_PROCESS=$process
        if ((share)); then
            CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]:process*share:share}")
            export CUDA_VISIBLE_DEVICES
        fi
        exec "$here/process.sh" "$@"
    ) &
    running+=($!)
done

# the second signal asks to stop at once: a terminal's Ctrl-C reaches the processes too, but those
# started in the background ignore it until they train, and two within 0.3 s count as one
trap 'kill -TERM "${running[@]}" 2> /dev/null || true' TERM INT

worst=0 killer=
while ((${#running[@]})); do
    status=0
    wait -n -p ended "${running[@]}" || status=$?
    [[ -n ${ended:-} ]] || continue # a signal came, and was passed on
    for i in "${!running[@]}"; do
        [[ ${running[i]} != "$ended" ]] || unset "running[i]"
    done
    ((status <= worst)) || worst=$status
    if ((status && ${#running[@]})) && [[ -z $killer ]]; then
        # JAX ends the others of a lost process in about two minutes, unless they were never joined
        (
            sleep "${JAXHPO_GRACE:-180}" &
            trap 'kill $!' TERM
            wait $! && kill -KILL "${running[@]}"
        ) > /dev/null 2>&1 &
        killer=$!
    fi
done
[[ -z $killer ]] || kill "$killer" 2> /dev/null || true
exit "$worst"
