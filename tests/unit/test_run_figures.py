"""What the pages of runs and comparisons draw and colour is what was measured."""

import pytest

from tasks.pages import compare_page, figures_crops

ERRORS = {"label": "answer (whole where no crop is called), half crops", "bias": {"value": -0.05}}


def test_errors_are_drawn_with_the_weights_of_their_means() -> None:
    """One whole photo counts as its three crops do: half of the bars' area. Without weights (older) all count alike."""
    drawn = figures_crops.size_factor_errors(
        [ERRORS | {"values": [-0.1, 0, 0, 0], "weights": [0.75, 0.25, 0.25, 0.25]}]
    )
    assert drawn == figures_crops.size_factor_errors([ERRORS | {"values": [-0.1, -0.1, 0, 0]}])
    assert drawn != figures_crops.size_factor_errors([ERRORS | {"values": [-0.1, 0, 0, 0]}])


@pytest.mark.parametrize("beats", [True, False])
def test_an_arm_is_coloured_for_a_paired_win_alone(beats: bool) -> None:
    """Wherever its own interval lies beside the baseline."""
    for low, high in ((0.4, 0.7), (0.6, 0.7), (0.1, 0.2)):
        arm = {"arm": "a", "value": 0.6, "low": low, "high": high, "seed_std": None, "beats_baseline": beats}
        for better in ("higher", "lower"):
            figure = {"label": "F", "unit": "", "better": better, "baseline": 0.5, "baseline_label": "", "arms": [arm]}
            won, absent = compare_page.arm_row(figure, ["a", "b"]).cells
            assert (won.beats, absent.beats) == (beats, False)
