"""A search on a shared study with a toy objective, in a process that may be killed at any moment.

Arguments: database URL, this process's log, trials, heartbeat. The log holds answers and reports, a
JSON line each; a process that finds one replays it, as a resumed run does. It trains nothing while
a file named as its log, ending in `.hold`, is there.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

from jaxhpo.search import Result, SearchConfig, Space, make

TEXTS = {"x": "uniform(0, 1)", "kind": "choice(a, b)"}
STEPS, SEGMENT = 30, 10


class FileJournal:
    """Answers and reports in the order of their making, each on disk before it is acted on."""

    asks = True

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole))
        events = [json.loads(line) for line in whole]
        self.answers = {e["question"]: e["answer"] for e in events if "question" in e}
        self.reports = [e["report"] for e in events if "report" in e]
        self.file = path.open("a")

    def once(self, question, ask):
        if question not in self.answers:
            self.answers[question] = ask()
            self.write(question=question, answer=self.answers[question])
        return self.answers[question]

    def write(self, **event) -> None:
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


def main(url: str, path: str, trials: int, heartbeat: int) -> None:
    space = Space.from_mapping(TEXTS, lambda name: False, list(TEXTS))
    config = SearchConfig(
        trials=trials, storage=url, heartbeat=heartbeat, places=2, segment=SEGMENT
    )
    journal = FileJournal(Path(path))
    hold = Path(path).with_suffix(".hold")
    scheduler = make("tpe", config, space, STEPS, 0, journal=journal)
    steps: dict[int, int] = {}
    plan = scheduler.first()
    for logged in itertools.chain(journal.reports, itertools.repeat(None)):
        if logged is None:
            time.sleep(0.05)
            while hold.exists():
                time.sleep(0.01)
            logged = []
            for row in plan.assignments:
                steps[row.trial] = steps.get(row.trial, 0) + row.steps
                loss = (row.point["x"] - 0.3) ** 2 + (row.point["kind"] == "b")
                logged.append((row.trial, steps[row.trial], loss))
            journal.write(report=logged)
        else:
            steps |= {trial: step for trial, step, _ in logged}
        plan = scheduler.next(tuple(Result(t, step, loss, loss) for t, step, loss in logged))
        if plan is None:
            break
    scheduler.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
