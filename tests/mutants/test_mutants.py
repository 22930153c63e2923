"""One mutation for each promise that a test keeps: the test must turn red. `pytest --mutants`."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = "tests/population/test_promises.py"
FORKS = "tests/study/test_forks.py"


@dataclass(frozen=True)
class Mutant:
    """In `file` (below jaxhpo), `old` stands once and becomes `new`; then `test` must fail."""

    promise: int
    file: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant(
        1,
        "population/engine.py",
        "        if key not in self._programs:",
        "        if True:",
        f"{MEMBERS}::test_new_values_lengths_seeds_and_parents_compile_nothing",
    ),
    Mutant(
        2,
        "population/programs.py",
        "            run_seed,\n            row.seeds,\n            _own(batches, row),\n"
        "            row.steps,",
        "            run_seed,\n            row.parents,\n            _own(batches, row),\n"
        "            row.steps,",
        f"{MEMBERS}::test_a_member_is_the_same_wherever_it_sits",
    ),
    Mutant(
        3,
        "population/programs.py",
        "copied = jax.tree.map(lambda x: x[rows.parents], everyone)",
        "copied = jax.tree.map(lambda x: jnp.einsum('pq,q...->p...', jax.nn.one_hot("
        "rows.parents, x.shape[0]), x).astype(x.dtype), everyone)",
        f"{MEMBERS}::test_a_diverged_member_leaves_the_others_their_bits",
    ),
    Mutant(
        4,
        "population/member.py",
        "        key = stream(run_seed, seed, member.step)",
        "        key = stream(run_seed, seed, index + __import__('os').getpid())",
        "tests/faults/test_killed_runs.py::test_ten_kills_change_no_bit_of_what_a_run_ends_with",
    ),
    Mutant(
        5,
        "study/implant.py",
        "    *earlier, newest = source.taken\n    member = read_member(newest)\n",
        "    *earlier, newest = source.taken\n    member = read_member(newest)\n"
        "    zero = jax.tree.map(np.zeros_like, member.moments)\n"
        "    member = Member(member.params, zero, member.step)\n",
        f"{FORKS}::test_a_fork_that_resets_nothing_ends_with_the_bits_of_a_run_never_forked",
    ),
    Mutant(
        5,
        "study/children.py",
        '            seed=source.seed if "key" in self.kept else seed,',
        "            seed=seed,",
        f"{FORKS}::test_a_fork_in_this_process_from_a_kept_step_has_the_same_bits",
    ),
    Mutant(
        5,
        "study/children.py",
        "rate = rate_at(self.parent.config, source.point, self.clock(source), source.step)",
        "rate = 0.9 * rate_at(self.parent.config, source.point, self.clock(source), source.step)",
        f"{FORKS}::test_the_rate_is_continuous_where_a_decay_begins",
    ),
    Mutant(
        6,
        "population/programs.py",
        "    def born(member: Member, row: Rows) -> Member:",
        "    copied = Member(copied.params, population.moments, copied.step)\n\n"
        "    def born(member: Member, row: Rows) -> Member:",
        f"{MEMBERS}::test_exploit_takes_weights_and_moments_together_without_touching_the_host",
    ),
    Mutant(
        7,
        "study/replayed.py",
        "        if plan is None or plan_of(logged) != plan:",
        "        if plan is None:",
        "tests/study/test_searches.py::test_a_log_that_another_search_made_is_not_replayed",
    ),
    Mutant(
        7,
        "config/drift.py",
        '    "pbt": "semantic",',
        '    "pbt": "runtime",',
        "tests/study/test_searches.py::test_a_changed_config_is_refused_by_the_names_that_differ",
    ),
    Mutant(
        8,
        "cli/main.py",
        "    if isinstance(error, UsageError):",
        "    if isinstance(error, UsageError) and False:",
        "tests/cli/test_main.py::test_a_mistake_ends_with_status_2_and_one_line",
    ),
    Mutant(
        9,
        "data/cache.py",
        "import os\n",
        "import os\nimport pickle  # noqa: F401\n",
        "tests/test_rooms.py",
    ),
]


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda m: f"promise-{m.promise}-{Path(m.file).stem}"
)
def test_a_broken_promise_turns_its_test_red(mutant: Mutant, tmp_path: Path) -> None:
    for name in ("jaxhpo", "tests"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    target = tmp_path / "jaxhpo" / mutant.file
    source = target.read_text()
    assert source.count(mutant.old) == 1, "the mutation no longer fits the code"
    target.write_text(source.replace(mutant.old, mutant.new))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", mutant.test]
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert found.returncode == 1, found.stdout[-2000:]
    assert "failed" in found.stdout.splitlines()[-1]
