"""A run on GKE: fills in gke-tpu.yaml or gke-gpu.yaml, and applies it by kubectl.

    python launch/gke.py NAME --image IMAGE [--topology 4x4] -- pbt --out /runs/a ...
    python launch/gke.py NAME --image IMAGE --gpus 8 --hosts 2 -- pbt --out /runs/a ...

The same command again changes nothing while the run goes on; once its JobSet has ended, it is
replaced, and the run carries on. `--dry-run` prints the JobSet and needs no cluster.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).parent
PORT = 1234
"""On which process 0 of a GPU run waits for the others."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"launch: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str]) -> int:
    """Applies a JobSet, or prints it; the exit status."""
    options, words = _parse(argv)
    checked = subprocess.run(
        ["bash", "-c", 'source "$0" && check_words "$@"', str(HERE / "arguments.sh"), *words]
    )
    if checked.returncode:
        return checked.returncode
    import yaml

    kind = "gpu" if options.gpus else "tpu"
    text = (HERE / f"gke-{kind}.yaml").read_text(encoding="utf-8")
    jobset = filled_in(yaml.safe_load(text), options, words)
    manifest = yaml.safe_dump(jobset, sort_keys=False)
    if options.dry_run:
        print(manifest, end="")
        return 0
    return apply(options.name, options.namespace, manifest)


def filled_in(jobset: dict[str, Any], options: argparse.Namespace, words: list[str]) -> Any:
    """The JobSet for a name, an image, hosts and the words of `jaxhpo`."""
    jobset["metadata"]["name"] = options.name
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "runs")
    volume["persistentVolumeClaim"]["claimName"] = options.claim
    container |= {"image": options.image, "args": words}
    job["parallelism"] = job["completions"] = options.hosts
    if options.gpus:
        pod["nodeSelector"] = {"cloud.google.com/gke-accelerator": options.gpu_type}
        container["resources"]["limits"] = {"nvidia.com/gpu": options.gpus}
        address = f"{options.name}-hosts-0-0.{options.name}:{PORT}"
        who = {"JAXHPO_COORDINATOR": address, "JAXHPO_PROCESSES": str(options.hosts)}
        for variable in container["env"]:
            if variable["name"] in who:
                variable["value"] = who[variable["name"]]
        if options.hosts == 1:
            container["env"] = [v for v in container["env"] if v["name"] not in who]
    else:
        pod["nodeSelector"] = {
            "cloud.google.com/gke-tpu-accelerator": options.tpu_type,
            "cloud.google.com/gke-tpu-topology": options.topology,
        }
        container["resources"]["limits"] = {"google.com/tpu": options.chips}
    return jobset


def apply(name: str, namespace: str, manifest: str) -> int:
    """Puts the JobSet in the place of one that has ended. The exit status of kubectl."""
    kubectl = ["kubectl", f"--namespace={namespace}"]
    found = subprocess.run(
        [*kubectl, "get", "jobset", name, "--ignore-not-found", "--output=json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if found.returncode:
        return found.returncode
    if found.stdout.strip() and json.loads(found.stdout).get("status", {}).get("terminalState"):
        deleted = subprocess.run([*kubectl, "delete", "jobset", name, "--wait"])
        if deleted.returncode:
            return deleted.returncode
    applied = subprocess.run([*kubectl, "apply", "--filename=-"], input=manifest, text=True)
    if not applied.returncode:
        logs = f"logs --follow --prefix --selector=jobset.sigs.k8s.io/jobset-name={name}"
        print(f"logs: {' '.join(kubectl)} {logs}")
    return applied.returncode


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    own, words = list(argv), []
    if "--" in own:
        place = own.index("--")
        own, words = own[:place], own[place + 1 :]
    about = argparse.RawDescriptionHelpFormatter
    parser = _Parser("gke.py", description=__doc__, formatter_class=about, allow_abbrev=False)
    add = parser.add_argument
    add("name", help="of the JobSet")
    add("--image", required=True, help="image built by launch/Dockerfile, in a registry")
    add("--topology", default="2x4", help="chips of the TPU slice (default: %(default)s)")
    add("--chips", type=int, default=4, help="TPU chips on a host (default: %(default)s)")
    add("--tpu-type", default="tpu-v5-lite-podslice", help="GKE's name (default: %(default)s)")
    add("--gpus", type=int, default=0, help="GPUs on a node, in place of a TPU")
    add("--gpu-type", default="nvidia-h100-80gb", help="GKE's name (default: %(default)s)")
    add("--hosts", type=int, help="GPU nodes (default: 1)")
    add("--claim", default="jaxhpo-runs", help="volume claim of /runs (default: %(default)s)")
    add("--namespace", default="default", help="(default: %(default)s)")
    add("--dry-run", action="store_true", help="print the JobSet")
    options = parser.parse_args(own)
    if options.gpus:
        options.hosts = options.hosts or 1
    elif options.hosts:
        parser.error("--hosts goes with --gpus; a TPU's hosts follow from --topology and --chips")
    else:
        sides = options.topology.split("x")
        if not all(side.isdecimal() and int(side) for side in sides):
            parser.error(f"--topology {options.topology}; allowed: such as 4x4 or 2x2x4")
        chips = math.prod(map(int, sides))
        if options.chips < 1 or chips % options.chips:
            parser.error(f"--chips {options.chips} does not divide the {chips} chips of --topology")
        options.hosts = chips // options.chips
    if options.hosts < 1 or options.gpus < 0:
        parser.error("--hosts and --gpus; allowed: 1 or more")
    return options, words


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
