#!/usr/bin/env bash
# A run by SkyPilot, on the cluster NAME, which is made where there is none.
#
#     launch/sky.sh NAME [options of `sky launch`] -- pbt --out /runs/a ...
#     launch/sky.sh NAME --managed [options of `sky jobs launch`] -- ...    recovered when preempted
#
# The same command again carries the run on. WANDB_API_KEY is handed over as a secret where it is set
# in this shell. Nodes, accelerators and the volume of the run directory: launch/sky.yaml.
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=launch/arguments.sh
source "$here/arguments.sh"

name='' managed=0 own=()
while (($#)); do
    case $1 in
        -h | --help) usage "$0" && exit ;;
        --) shift && break ;;
        --managed) managed=1 ;;
        -*)
            own+=("$1")
            if [[ $1 != *=* && $# -gt 1 && $2 != -* ]]; then own+=("$2") && shift; fi
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

launch=(sky launch "--cluster=$name")
((!managed)) || launch=(sky jobs launch "--name=$name")
[[ -z ${WANDB_API_KEY:-} ]] || own+=(--secret WANDB_API_KEY)
cd -- "$here/.." # its workdir
exec "${launch[@]}" --yes "${own[@]}" --env "JAXHPO_WORDS=$(printf '%q ' "$@")" launch/sky.yaml
