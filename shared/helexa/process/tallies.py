# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Counters and histograms that cost next to nothing until somebody looks at them.

`prometheus_client` takes two locks and walks over the buckets for each observation. What is here
adds to plain numbers, and makes Prometheus's samples of them when they are collected. Each is
counted by one thread only, the one that runs the loop.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override


class Count:
    """One number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        """Begin at zero."""
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`, which is not negative."""
        self.value += amount


class Spread:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin without any; `bounds` are the buckets' upper ends, the last one infinite."""
        self._bounds = bounds
        self.counts = [0] * len(bounds)
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        """Count `amount`."""
        self.counts[bisect_left(self._bounds, amount)] += 1
        self.sum += amount


Read = Callable[[], Iterable[tuple[tuple[str, ...], float]]]
"""Returns values with those of their labels."""

_Child = TypeVar("_Child", Count, Spread)


class _Family(Collector, Generic[_Child]):
    """Numbers of one name, one for each combination of label values."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], make: Callable[[], _Child]
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._make: Callable[[], _Child] = make
        self._children: dict[tuple[str, ...], _Child] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> _Child:
        """Return the number for these values of the labels, in the order of their names.

        Raises:
            ValueError: there are more or fewer values than labels.
        """
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not {values}")
            child = self._children[values] = self._make()
        return child

    @override
    def collect(self) -> Iterator[Metric]:
        yield self._family(list(self._children.items()))

    def describe(self) -> Iterable[Metric]:
        """Return the family without its numbers, from which the registry learns its names."""
        return [self._family([])]

    @abstractmethod
    def _family(self, children: list[tuple[tuple[str, ...], _Child]]) -> Metric: ...


class Counter(_Family[Count]):
    """A counter; without labels it is its own number."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        """Count `name`."""
        super().__init__(name, text, labels, Count)

    def inc(self, amount: float = 1) -> None:
        """Add `amount` to the number without labels."""
        self.labels().inc(amount)

    @override
    def _family(self, children: list[tuple[tuple[str, ...], Count]]) -> Metric:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in children:
            family.add_metric(values, count.value)
        return family


class Histogram(_Family[Spread]):
    """A histogram; without labels it is its own numbers."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> None:
        """Sort `name` into `buckets`, given by their upper bounds."""
        bounds = (*buckets, float("inf"))
        self._shown = [floatToGoString(bound) for bound in bounds]
        super().__init__(name, text, labels, lambda: Spread(bounds))

    def observe(self, amount: float) -> None:
        """Count `amount` in the numbers without labels."""
        self.labels().observe(amount)

    @override
    def _family(self, children: list[tuple[tuple[str, ...], Spread]]) -> Metric:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, spread in children:
            cumulated = map(float, accumulate(spread.counts))
            family.add_metric(values, list(zip(self._shown, cumulated, strict=True)), spread.sum)
        return family


class Reading(Collector):
    """A gauge that is read when somebody looks, and not kept."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        """Show `name`, without a value until `read` is set."""
        self.read: Read = tuple
        self._name = name
        self._text = text
        self._labels = labels

    @override
    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, amount in self.read():
            family.add_metric(values, amount)
        yield family

    def describe(self) -> Iterable[Metric]:
        """Return the family without values, from which the registry learns its name."""
        return [GaugeMetricFamily(self._name, self._text, labels=self._labels)]
