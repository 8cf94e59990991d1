"""What a report shows of categories: what is taken for what, and precision and recall of each label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.pages import figures_categories
from tasks.pages.page_charts import chart

Row = dict[str, Any]
CONTENTS = {"confusions": "What is taken for what", "labels-told": "Label by label"}


def context(
    run_dir: Path, pack_dir: Path, evaluation: Mapping[str, Any], photos: Mapping[tuple[str, str], Row]
) -> dict[str, Any]:
    """What the templates of this system show."""
    pictures = evaluation["pictures"]
    drawn = figures_categories.confusion(pictures["classes"], pictures["confusion"])
    said = "Photos by their label (rows) and by what they were called (columns), as shares of the row."
    return {
        "pairs": pictures["confused_pairs"],
        "labels": sorted(pictures["by_class"], key=lambda each: (-(each["precision"] or 0), each["class"])),
        "chart": chart(drawn, "Confusion matrix", said),
    }
