"""The templates of pages, and how numbers and names are written in them."""

from functools import cache

import jinja2

from tasks.pages import dataset_page, run_page


@cache
def templates() -> jinja2.Environment:
    """The templates of pages; everything that they print is escaped, and a missing name is an error."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    pages.filters |= {"count": lambda n: f"{n:,}", "percent": percent, "megabytes": megabytes}
    pages.filters |= {"words": dataset_page.words, "figure": lambda value: f"{value:.3f}", "signed": run_page.signed}
    return pages


def megabytes(size_bytes: int) -> str:
    """``253 MB``, on one line; a tenth is told where it matters, and what is smaller than one in kB."""
    number, unit = (size_bytes / 1e3, "kB") if size_bytes < 1e6 else (size_bytes / 1e6, "MB")
    return f"{number:,.{0 if number >= 100 or unit == 'kB' else 1}f}\N{NO-BREAK SPACE}{unit}"


def percent(share: float) -> str:
    """A share as a percentage that never rounds something to nothing, nor all but all to all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"
