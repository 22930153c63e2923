"""`jaxhpo schedule`: names with options become curves, and curves a drawing, a file or numbers."""

import io
import itertools
import json
from pathlib import Path

import pytest

from jaxhpo.cli.main import main
from jaxhpo.cli.schedule import KINDS, about, named, split
from jaxhpo.config import RECIPES
from jaxhpo.report.rates import Line, amount, tokens_per_step
from jaxhpo.report.terminal import drawing, legend

RISE = Line("rise", range(101), range(0, 1010, 10), [i / 100 for i in range(101)])
FLAT = Line("flat", range(51), range(0, 510, 10), [0.5] * 51)


def text(rows) -> list[str]:
    return ["".join(piece.text for piece in row) for row in rows]


def numbers(capsys: pytest.CaptureFixture[str], *argv: str):
    assert main(["schedule", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_option_goes_for_every_name_and_its_own_for_one(capsys) -> None:
    found = numbers(
        capsys,
        "cosine",
        "linear:floor=0.5:warmup_steps=0",
        "--steps",
        "101",
        "--schedule.peak-lr",
        "1",
        "--tokens-per-step",
        "7",
    )
    assert [curve["name"] for curve in found] == ["cosine", "linear:floor=0.5:warmup_steps=0"]
    for curve in found:
        assert curve["steps"] == list(range(101)) and curve["tokens"][-1] == 700
    cosine, linear = (curve["rates"] for curve in found)
    assert (cosine[0], cosine[50], cosine[-1] < 0.01) == (0.0, 1.0, True)
    assert linear[0] == 1.0 and linear[-1] == pytest.approx(0.5, abs=0.01)


def test_a_list_is_written_with_commas(capsys) -> None:
    drops, phases = numbers(
        capsys,
        "multi_step:milestones=60,80:milestone_factor=0.5",
        "sequence:phases=hold 20,linear 10 to 0.5",
        "--steps",
        "100",
        "--schedule.peak-lr",
        "1",
    )
    assert [drops["rates"][i] for i in (59, 60, 80)] == [1.0, 0.5, 0.25]
    assert [phases["rates"][i] for i in (50, 70, 75, 80)] == [1.0, 1.0, 0.75, 0.5]


def test_a_recipe_has_its_own_length_unless_another_is_asked_for(capsys) -> None:
    (whole,) = numbers(capsys, "bert")
    (scaled,) = numbers(capsys, "bert", "--steps", "1000")
    (other,) = numbers(capsys, "bert:peak_lr=1", "--steps", "1000")
    assert (whole["length"], scaled["length"]) == (1_000_000, 1000)
    assert max(whole["rates"]) == pytest.approx(1e-4, rel=1e-3)
    at = scaled["steps"].index(499)
    assert scaled["rates"][at] == pytest.approx(5.01e-5)
    assert other["rates"][at] == pytest.approx(0.501)


def test_without_a_name_the_options_schedule_is_drawn(capsys) -> None:
    (curve,) = numbers(capsys, "--schedule.kind", "constant", "--steps", "60")
    assert (curve["name"], curve["rates"][-1]) == ("constant", 0.003)


def test_every_kind_and_recipe_is_in_the_help(capsys) -> None:
    assert main(["schedule"]) == 2
    shown = capsys.readouterr().out
    assert shown == about() + "\n"
    for name in (*KINDS, *RECIPES):
        assert name in shown
    with pytest.raises(SystemExit) as asked:
        main(["schedule", "--help"])
    assert asked.value.code == 0 and "--schedule.half-life" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["cosin"], "no schedule cosin; perhaps you meant cosine"),
        (["llama2"], "no schedule llama2; perhaps you meant llama-2"),
        (["wsd:floor"], "wsd:floor: 'floor' is no FIELD=VALUE"),
        (["wsd:flor=1"], "unknown option --schedule.flor; perhaps you meant --schedule.floor"),
        (["wsd:floor=0", "--schedule.floor", "0"], "--schedule.floor is given twice"),
        (["wsd", "--schedule.kind", "cosine"], "--schedule.kind beside the name wsd"),
        (["wsd", "--steps", "10"], "schedule.warmup_steps=50 is longer than the run: steps=10"),
        (["wsd", "--steps", "0"], "steps=0; allowed: 1 to"),
        (["wsd", "--from"], "--from has no value"),
        (["--from", "/nowhere/run"], "--from /nowhere/run: no such run directory"),
        (["wsd", "--out", "x.svg"], "--out x.svg; allowed: a file that ends in .png"),
        (["wsd", "--out", "/nowhere/x.png"], "--out /nowhere/x.png: No such file"),
        (["wsd", "--recipe", "bert"], "unknown option --recipe"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], says: str, capsys) -> None:
    assert main(["schedule", *argv]) == 2
    shown = capsys.readouterr()
    assert says in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_a_png_is_drawn_over_steps_and_tokens(tmp_path: Path, capsys) -> None:
    from matplotlib.image import imread

    out = tmp_path / "rates.png"
    assert main(["schedule", "bloom-176b", "minicpm", "--out", str(out)]) == 0
    pixels = imread(io.BytesIO(out.read_bytes()))
    assert pixels.shape[1] > 1000 and (pixels < 0.5).any()
    shown = capsys.readouterr().out
    assert f"figure  {out}" in shown and " steps" in shown and " tokens" in shown
    assert "━━ minicpm     peak 0.01" in shown


def test_a_drawing_has_a_row_of_round_numbers_for_each_axis() -> None:
    rows = text(drawing([RISE, FLAT], width=70, height=10, below=10.0))
    assert len(rows) == 13 and all(len(row) <= 70 for row in rows)
    assert rows[-2].split() == ["0", "20", "40", "60", "80", "100", "steps"]
    assert rows[-1].split() == ["0", "200", "400", "600", "800", "1,000", "tokens"]
    labels = [row.split("┤")[0].strip() for row in rows if "┤" in row]
    assert labels == ["1", "0.75", "0.5", "0.25", "0"]


def test_a_rising_curve_rises_across_the_drawing() -> None:
    rows = text(drawing([RISE], width=70, height=10))[:10]
    found = [len(row.rstrip()) for row in rows]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] + 40


def test_what_can_not_show_unicode_gets_plain_marks() -> None:
    rows = text([*drawing([RISE, FLAT], unicode=False), *legend([RISE, FLAT], unicode=False)])
    assert all(row.isascii() for row in rows)
    assert "*" in rows[0] and any("+++" in row for row in rows)


def test_peaks_far_apart_get_a_logarithmic_axis() -> None:
    low = FLAT._replace(rates=[1e-3] * 51)
    rows = text(drawing([RISE, low], height=10))
    labels = [row.split("┤")[0].strip() for row in rows if "┤" in row]
    assert labels[0] == "1" and "0.01" in labels and "0" not in labels


def test_on_a_logarithmic_axis_a_geometric_fall_is_straight() -> None:
    fall = RISE._replace(rates=[10 ** (-4 * i / 100) for i in range(101)])
    cells = drawing([fall, FLAT._replace(rates=[1e-3] * 51)], width=60, height=9)
    columns = [[piece.colour for piece in row[1:]] for row in cells[:9]]
    firsts = [row.index("blue") for row in columns]
    gaps = [b - a for a, b in itertools.pairwise(firsts)]
    assert min(gaps) >= 4 and max(gaps) - min(gaps) <= 2


def test_a_long_name_is_cut_so_that_its_rates_are_seen() -> None:
    named = RISE._replace(name="sequence:phases=" + "hold 10," * 20)
    (row,) = text(legend([named], width=80))
    assert len(row) <= 80 and row.endswith("last 1") and "..." in row


def test_one_batch_for_all_is_recognised() -> None:
    assert tokens_per_step([RISE, FLAT]) == 10
    assert tokens_per_step([RISE, FLAT._replace(tokens=range(0, 1020, 20))]) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (600, "600"), (2.5, "2.5"), (9000, "9,000"), (12_000, "12k"), (3.75e8, "375M")],
)
def test_amounts_are_short(value: float, said: str) -> None:
    assert amount(value) == said


def test_names_come_first_and_runs_after_from(tmp_path: Path) -> None:
    run = str(tmp_path)
    assert split(["a", "b", "--from", run, "--json"]) == (["a", "b"], [tmp_path], ["--json"])
    curve = named("wsd", ["--steps", "100"])
    assert curve.length == 100 and curve.name == "wsd"
