"""What a dataset is: the flow parameter that the Prefect UI draws as a form and ``prefect.yaml`` lists."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import sources
from tasks.dedup import DedupRules
from tasks.filter import FilterRules
from tasks.labels import LabelRules
from tasks.rotate import RotateMode
from tasks.sources import SourceName
from tasks.sources.base import Query
from tasks.split import SplitRules


class Dataset(BaseModel):
    """A dataset by its queries and rules. Its photos are everything that its queries ever found, less removals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="A slug; it names the folder.")]
    source: Annotated[SourceName, Field(description="The site that the photos come from.")] = "flickr"
    queries: Annotated[tuple[Query, ...], Field(min_length=1, description="What to search for.")]
    filter: Annotated[FilterRules, Field(description="Which photos are good enough.")] = FilterRules()
    rotate: Annotated[RotateMode, Field(description="landscape: portraits are turned; upright; none.")] = "landscape"
    dedup: Annotated[DedupRules, Field(description="When two photos are the same.")] = DedupRules()
    labels: Annotated[LabelRules, Field(description="What photos are called when training.")] = LabelRules()
    split: Annotated[SplitRules, Field(description="Shares of train, val and test.")] = SplitRules()
    locations: Annotated[bool, Field(description="Publish where photos were taken.")] = False

    @model_validator(mode="after")
    def _queries_suit_the_source(self) -> Self:
        takes = sources.named(self.source).takes
        for query in self.queries:
            given = query.model_dump(exclude_defaults=True)  # a configuration that was written down names every field
            if strange := sorted(given.keys() - takes):
                raise ValueError(
                    f"the source {self.source!r} takes no {', '.join(strange)}: {', '.join(sorted(takes))}"
                )
        return self

    @property
    def query_ids(self) -> list[str]:
        """The ids of the queries, in their order."""
        return [query.query_id for query in self.queries]

    @property
    def rules(self) -> dict[str, object]:
        """The configuration as plain data, as it stands in ``snapshot.json``."""
        return self.model_dump(mode="json")
