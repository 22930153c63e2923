# shellcheck shell=bash
# What the launchers share: reading their own options, and the words of `jaxhpo` behind `--`.

# usage FILE: the comment at the top of a launcher is its help
usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"; }

# mistake TEXT: one line, and the exit status of a person's mistake
mistake() {
    echo "launch: $1" >&2
    exit 2
}

# value_of NAME WORD...: the value of an option among the words; fails where it is not given
value_of() {
    local name=$1
    shift
    while (($#)); do
        case $1 in
            "$name") echo "${2:-}" && return ;;
            "$name"=*) echo "${1#*=}" && return ;;
        esac
        shift
    done
    return 1
}

# trains WORD...: does this command of `jaxhpo` make a run directory?
trains() {
    case ${1:-} in
        pbt | search | train | finetune | fork | stages) return 0 ;;
        *) return 1 ;;
    esac
}

# check_words WORD...: refuses, before anything starts, what could not be started twice
check_words() {
    (($#)) || mistake "no command; give that of jaxhpo behind --, such as: -- pbt --out runs/a"
    if trains "$@" && ! value_of --out "$@" > /dev/null; then
        mistake "$1 has no --out; name the run directory, so that the same command carries it on"
    fi
}

# run_name WORD...: what the logs of these words are filed under
run_name() {
    local out
    out=$(value_of --out "$@") || out=$1
    basename -- "$out"
}
