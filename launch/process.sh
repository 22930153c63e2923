#!/usr/bin/env bash
# One process of a run, as every launcher starts it on every host:
#
#     launch/process.sh pbt --out RUN ...             the words of `jaxhpo`
#     launch/process.sh agent ENTITY/PROJECT/SWEEP    trials of a W&B sweep (wandb_agent.py)
#
# A run that exists is carried on. A launcher may set in the environment:
#
#     JAXHPO_LOGS          folder for a log of this process, beside what it prints
#     JAXHPO_COORDINATOR   HOST:PORT of process 0, with JAXHPO_PROCESSES (how many) and
#                          JAXHPO_PROCESS (which one), where JAX can't find them itself
set -euo pipefail

here=$(dirname -- "${BASH_SOURCE[0]}")
# shellcheck source=launch/arguments.sh
source "$here/arguments.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || { usage "$0" && exit; }
check_words "$@"

if [[ -n ${JAXHPO_LOGS:-} ]]; then
    mkdir -p -- "$JAXHPO_LOGS"
    process=${JAXHPO_PROCESS:-${SLURM_PROCID:-${TPU_WORKER_ID:-${JOB_COMPLETION_INDEX:-0}}}}
    # tee outlives a signal to the whole group: what is said while saving must still be written
    exec > >(trap '' TERM INT && exec tee -a -- "$JAXHPO_LOGS/process-$process.log") 2>&1
fi

if [[ $1 == agent ]]; then
    exec python "$here/wandb_agent.py" "$@"
fi
if trains "$@"; then
    value_of --resume "$@" > /dev/null || set -- "$@" --resume auto
    if [[ -n ${JAXHPO_COORDINATOR:-} && $1 != stages ]]; then
        set -- "$@" --distributed.coordinator-address "$JAXHPO_COORDINATOR" \
            --distributed.num-processes "$JAXHPO_PROCESSES" \
            --distributed.process-id "$JAXHPO_PROCESS"
    fi
fi
exec jaxhpo "$@"
