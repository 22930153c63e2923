#!/usr/bin/env bash
# A run on a Cloud TPU slice of any number of hosts, by gcloud.
#
#     launch/tpu-pod.sh NAME --zone ZONE --type v5litepod-16 [OPTIONS] -- pbt --out /mnt/runs/a ...
#     launch/tpu-pod.sh NAME --zone ZONE --stop       save and stop the run (status 75)
#     launch/tpu-pod.sh NAME --zone ZONE --delete     give the TPU back
#
#     --runtime VERSION       software version of the TPU VMs (default: v2-alpha-tpuv5-lite)
#     --spot                  cheaper, may be taken away: it is then requested again
#     --project PROJECT       (default: gcloud's own)
#     --nfs SERVER:/SHARE     mounted on every host as /mnt/runs; needed with more than one host
#     --wandb-secret NAME     Secret Manager's secret that holds the W&B key
#
# Requests the TPU as a queued resource unless it is there, copies the tracked files of the checkout
# to all hosts, installs them, and starts one process on each. The run is detached from the connection:
# the same command again follows a run that goes on, and carries on one that does not.
# Logs: ~/jaxhpo/logs on each host, all of them printed here.
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=launch/arguments.sh
source "$here/arguments.sh"

name='' zone='' type='' runtime=v2-alpha-tpuv5-lite task=run nfs='' secret='' spot=() project=()
while (($#)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        -h | --help) usage "$0" && exit ;;
        --) shift && break ;;
        --spot) spot=(--spot) && shift && continue ;;
        --stop | --delete) task=${1#--} && shift && continue ;;
        --zone) zone=${2:-} ;;
        --type) type=${2:-} ;;
        --runtime) runtime=${2:-} ;;
        --project) project=("--project=${2:-}") ;;
        --nfs) nfs=${2:-} ;;
        --wandb-secret) secret=${2:-} ;;
        -*) mistake "unknown option $1; see launch/tpu-pod.sh --help" ;;
        *)
            [[ -z $name ]] || mistake "two names, $name and $1; jaxhpo's words come behind --"
            name=$1 && shift && continue
            ;;
    esac
    [[ -n ${2:-} ]] || mistake "$1 has no value"
    shift 2
done
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
    mistake "NAME ${name:-is missing}; allowed: lower-case letters, digits and dashes"
[[ -n $zone ]] || mistake "--zone is missing; such as us-central1-a"

at=("--zone=$zone" "${project[@]}")
resources() { gcloud compute tpus queued-resources "$@" "${at[@]}" --quiet; }
state() {
    local said
    if said=$(resources describe "$name" --format='value(state.state)' 2>&1); then
        echo "${said##*$'\n'}" # behind what gcloud may have to say
    elif [[ $said == *NOT_FOUND* ]]; then
        echo NONE
    else
        echo "$said" >&2
        return 1
    fi
}
on_all() {
    gcloud compute tpus tpu-vm ssh "$name" "${at[@]}" --worker=all --command="$1" --quiet
}

case $task in
    stop) on_all 'cd jaxhpo && launch/worker.sh stop' && exit ;;
    delete) resources delete "$name" --force && exit ;;
esac
[[ -n $type ]] || mistake "--type is missing; such as v5litepod-16"
check_words "$@"

until_active() {
    local now
    while :; do
        now=$(state)
        [[ $now != ACTIVE ]] || return 0
        echo "launch: $name is $now" >&2
        case $now in
            FAILED | SUSPENDED) resources delete "$name" --force ;;
            NONE)
                resources create "$name" --node-id="$name" --accelerator-type="$type" \
                    --runtime-version="$runtime" "${spot[@]}"
                ;;
            *) sleep "${JAXHPO_POLL_SECONDS:-30}" ;;
        esac
    done
}

install() {
    local archive
    archive=$(mktemp -d) || return
    # tracked files only: no run, no key that lies about
    git -C "$here/.." ls-files -z jaxhpo launch pyproject.toml README.md LICENSE |
        tar -C "$here/.." --null -T - -czf "$archive/jaxhpo.tar.gz" ||
        return
    gcloud compute tpus tpu-vm scp "$archive/jaxhpo.tar.gz" "$name": "${at[@]}" \
        --worker=all --quiet || return
    rm -r -- "$archive"
    on_all "mkdir -p jaxhpo && tar -C jaxhpo -xzf jaxhpo.tar.gz && cd jaxhpo &&
        launch/worker.sh install $(printf '%q' "$nfs")"
}

# ssh joins its words with spaces and a shell on the host parses them again
command="cd jaxhpo && JAXHPO_WANDB_SECRET=$(printf '%q' "$secret") launch/worker.sh follow"
command+=$(printf ' %q' "$@")

for ((requested = 1; ; requested++)); do
    until_active
    status=0
    install && on_all "$command" || status=$?
    ((status)) || exit 0
    if [[ $(state) == ACTIVE ]] || ((requested >= ${JAXHPO_MAX_RESTARTS:-100})); then
        exit "$status" # the run itself ended so
    fi
    echo "launch: $name was taken away; requesting it again" >&2
done
