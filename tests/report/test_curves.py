"""Laws of the learning curves."""

from dataclasses import replace

from jaxhpo.report.curves import learning_curves
from jaxhpo.report.importance import stand_apart
from jaxhpo.report.summary import summarise


def test_a_group_whose_members_all_descend_from_others_keeps_the_numbers_of_the_axis(
    pbt_history, pbt_lineage
):
    rows = [
        row if row.parent is None else replace(row, group="children")
        for row in pbt_lineage.segments
    ]
    family = replace(pbt_lineage, segments=tuple(rows))
    figure = learning_curves(pbt_history, family, summarise(pbt_history))
    for axis in figure.axes:
        low, high = axis.get_ylim()
        assert [value for value in axis.get_yticks() if low < value < high and value != 0]


def test_numbers_under_a_slice_are_written_out_where_they_do_not_overlap():
    assert stand_apart([0.001, 0.01, 0.1], True)
    assert stand_apart([2], False)
    assert not stand_apart([0.0056, 0.0180, 0.0185], True)
