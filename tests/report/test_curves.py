"""Laws of the learning curves."""

from dataclasses import replace

from jaxhpo.report.curves import learning_curves
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
