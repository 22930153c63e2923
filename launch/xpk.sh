#!/usr/bin/env bash
# A run on a cluster made by xpk, on TPU slices.
#
#     launch/xpk.sh NAME --cluster C --tpu-type v5litepod-16 --docker-image IMAGE [...] -- pbt --out /runs/a
#
# What stands before `--` is for `xpk workload create`; add `--dry-run` to see the JobSet, and
# `--storage S` for the volume that holds the run directory. xpk has no reference to a secret: give a
# run that W&B should hear of `--tracker.wandb offline`, and upload it by `wandb sync`.
# A workload that has ended is deleted first, so that the same command carries the run on.
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=launch/arguments.sh
source "$here/arguments.sh"

name='' where=() own=()
while (($#)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        -h | --help) usage "$0" && exit ;;
        --) shift && break ;;
        --cluster | --project | --zone)
            [[ -n ${2:-} ]] || mistake "$1 has no value"
            where+=("$1=$2") && shift
            ;;
        --*)
            own+=("$1")
            if (($# > 1)) && [[ $2 != -* ]]; then own[-1]+="=$2" && shift; fi
            ;;
        *)
            [[ -z $name ]] || mistake "two names, $name and $1; jaxhpo's words come behind --"
            name=$1
            ;;
    esac
    shift
done
[[ -n $name ]] || mistake "NAME is missing"
check_words "$@"

dry=0
for option in "${own[@]}"; do [[ $option != --dry-run ]] || dry=1; done
ended() { xpk workload list "${where[@]}" --filter-by-status=FINISHED --filter-by-job="^$name\$"; }
if ((!dry)) && ended | awk -v name="$name" '$1 == name { found = 1 } END { exit !found }'; then
    xpk workload delete --workload="$name" "${where[@]}" --force
fi

# 75: stopped and saved; 1: what a process says that has lost another one.
# xpk runs the words in a shell: exec, so that the signal it passes on arrives at jaxhpo
command='exec launch/process.sh'$(printf ' %q' "$@")
exec xpk workload create --workload="$name" "${where[@]}" "${own[@]}" --command="$command" \
    --max-restarts="${JAXHPO_MAX_RESTARTS:-20}" --restart-on-exit-codes=1,75 \
    --termination-grace-period-seconds=120
