"""Laws of the page: self-contained, escaped, and there for every kind of run."""

import html.parser
import re
import struct
import subprocess
import sys

import pytest

from jaxhpo.errors import UsageError
from jaxhpo.report import write_report
from jaxhpo.report.markup import tag
from jaxhpo.report.sections import verdict
from tests.report import synthetic_run

SMALL = {"members": 4, "fixed": 2, "space": {"schedule.peak_lr": "log(1e-4, 1e-1)"}}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def written(pbt_run):
    page = write_report(pbt_run)
    return page, page.read_text(encoding="utf-8")


def figures(page):
    return {path.stem for path in page.parent.glob("*.png")}


def test_every_figure_is_there_as_a_file_and_inside_the_page(written):
    page, text = written
    names = {"learning-curves", "schedule", "lineage", "hyperparameters"}
    assert figures(page) == names | {"loss-by-hyperparameter", "gradient-norms", "throughput"}
    assert all(path.read_bytes().startswith(PNG) for path in page.parent.glob("*.png"))
    assert text.count("data:image/png;base64,") == 7


def test_the_page_loads_nothing_from_anywhere(written):
    _, text = written
    words = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe|url\(", words)
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)


def test_what_a_model_wrote_is_escaped(written):
    _, text = written
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &lt;made-up&gt; processor" in text


def test_every_element_is_closed_and_every_link_has_its_target(written):
    _, text = written
    open_elements, targets, links = [], set(), set()

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, name, attributes):
            given = dict(attributes)
            targets.add(given.get("id"))
            links.add(given.get("href", "#").removeprefix("#"))
            if name not in ("meta", "img", "br"):
                open_elements.append(name)

        def handle_endtag(self, name):
            assert open_elements.pop() == name

    Reader().feed(text)
    assert not open_elements
    assert links - {""} <= targets


def test_the_header_has_best_baseline_and_both_gains(written):
    _, text = written
    header = text[: text.index("<section")]
    assert "bits per byte" in header
    assert "bigram" in header
    assert "2.420" in header
    assert "a gain of +" in header
    assert "has no interval" in header
    assert "gain over the best" in header
    assert "gain over the median" in header


def test_fingerprint_environment_and_configuration_are_on_the_page(written):
    _, text = written
    for part in ("sha256:2f9c6b1e", "0.10.2", "truncation", "log(1e-4, 1e-1)", "checkpoints/11"):
        assert part in text


def test_a_loss_against_the_fixed_group_is_called_one():
    lost = {"gain": {"best": -0.02, "median": 0.1}, "status": "finished"}
    assert verdict(lost).startswith("PBT's best member is 0.020 nats above")
    assert "−0.020" in verdict(lost)


def test_a_run_that_has_just_begun_gets_a_page(make_run):
    text = write_report(make_run(**SMALL, rounds=1, finish=False)).read_text(encoding="utf-8")
    assert "Not finished" in text
    assert "so far" in text


def test_a_single_member_without_a_space_gets_only_the_figures_that_make_sense(make_run):
    page = write_report(make_run(members=1, fixed=0, space={}, rounds=3))
    assert figures(page) == {"learning-curves", "schedule", "gradient-norms", "throughput"}


def test_a_population_of_nan_gets_a_page(make_run):
    broken = tuple(range(60))
    page = write_report(make_run(**SMALL, rounds=6, finish=False, broken=broken))
    assert "No member has a finite held-out loss" in page.read_text(encoding="utf-8")


def test_sixty_four_members_and_a_choice_get_a_page(make_run):
    space = {"loss.kind": "choice(a, b, c)"}
    page = write_report(make_run(members=64, fixed=0, rounds=2, space=space))
    assert "lineage" in figures(page)


def test_curves_and_times_that_a_log_lacks_are_left_out(tmp_path):
    events = [(kind, dict(fields)) for kind, fields in synthetic_run.events(**SMALL, rounds=2)]
    for kind, fields in events:
        if kind == "report":
            for name in ("curves", "seconds", "tokens", "step_seconds"):
                del fields[name]
    page = write_report(synthetic_run.write(tmp_path / "run", events))
    assert "gradient-norms" not in figures(page)
    assert "throughput" not in figures(page)


def with_diagnostics(events, clipped):
    """The events with norms by role, an effective rate, and shares clipped where wanted."""
    for kind, fields in events:
        if kind == "report":
            curves, rare = {}, {}
            for trial, curve in fields["curves"].items():
                count = len(curve["step"])
                shares = {f"clipped/{name}": [0.5] * count for name in ("query", "global")}
                curves[trial] = {**curve, **(shares if clipped else {})}
                norms = ("grad_norm", "update_norm", "param_norm")
                values = {f"{n}/{role}": [0.1] * count for n in norms for role in ("query", "norm")}
                rare[trial] = {"step": curve["step"], **values, "lr_per_norm": [1e-4] * count}
            fields = {**fields, "curves": curves, "diagnostics": rare}
        yield kind, fields


@pytest.mark.parametrize("clipped", [True, False])
def test_norms_by_component_are_drawn_where_they_were_measured(tmp_path, clipped):
    events = with_diagnostics(synthetic_run.events(**SMALL, rounds=3), clipped)
    page = write_report(synthetic_run.write(tmp_path / "run", events))
    assert "components" in figures(page)
    heights = {True: 7.2, False: 5.2}
    size = struct.unpack(">II", (page.parent / "components.png").read_bytes()[16:24])
    assert size == (9 * 150, heights[clipped] * 150)


def test_writing_again_replaces_the_figures(make_run):
    run = make_run(members=1, fixed=0, space={}, rounds=1)
    (run / "report").mkdir()
    (run / "report" / "lineage.png").write_bytes(PNG)
    first = write_report(run).read_bytes()
    assert "lineage" not in figures(run / "report" / "index.html")
    assert write_report(run).read_bytes() == first


def test_a_run_without_a_report_is_refused_in_one_line(make_run):
    with pytest.raises(UsageError, match="has no report yet") as refused:
        write_report(make_run(rounds=0))
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a run directory"):
        write_report(tmp_path)


def test_markup_escapes_text_and_attributes():
    assert tag("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'


def test_reporting_never_imports_jax(make_run):
    run = make_run(members=1, fixed=0, space={}, rounds=1)
    program = (
        "import sys\n"
        "from jaxhpo.report import write_report\n"
        "assert 'matplotlib' not in sys.modules, 'imported before it is needed'\n"
        f"write_report({str(run)!r})\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found & {'jax', 'jaxlib', 'flax', 'orbax'}, found & {'jax', 'flax', 'orbax'}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
