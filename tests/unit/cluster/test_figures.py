"""The metrics of several replicas as one page."""

from __future__ import annotations

import pytest

from ramify.cluster.figures import reading, together, wanted

PAGE = """# HELP ramify_searches_total Searches ended.
# TYPE ramify_searches_total counter
ramify_searches_total{status="complete"} 3.0
# HELP ramify_reserved_tokens Tokens that running searches may still generate.
# TYPE ramify_reserved_tokens gauge
ramify_reserved_tokens 120.0
"""


def test_each_sample_is_labelled_with_its_replica_and_each_family_stands_once() -> None:
    page = together({0: PAGE, 12: PAGE.replace("120", "7"), 3: None}).decode()
    assert page.count("# TYPE ramify_reserved_tokens gauge") == 1
    assert page.count("# TYPE ramify_searches_total counter") == 1
    for line in (
        'ramify_searches_total{replica="12",status="complete"} 3.0',
        'ramify_reserved_tokens{replica="0"} 120.0',
        'ramify_reserved_tokens{replica="12"} 7.0',
        'ramify_replica_scraped{replica="0"} 1.0',
        'ramify_replica_scraped{replica="3"} 0.0',
    ):
        assert line in page.splitlines()


@pytest.mark.parametrize("page", ["<html>", '{"error": 1}', "a_metric nothing", 'a{b="c'])
def test_what_is_no_page_of_metrics_counts_as_none(page: str) -> None:
    lines = together({0: PAGE, 1: page}).decode().splitlines()
    assert 'ramify_replica_scraped{replica="1"} 0.0' in lines
    assert 'ramify_reserved_tokens{replica="0"} 120.0' in lines


def test_a_reading_is_of_the_metric_without_labels() -> None:
    assert reading(PAGE, "ramify_reserved_tokens") == 120.0
    with pytest.raises(KeyError):
        reading(PAGE, "ramify_searches_total")


@pytest.mark.parametrize(
    ("reserved", "replicas"), [((), 1), ((0.0, 0.0), 1), ((900.0, 0.0), 1), ((900.0, 101.0), 2), ((5000.0,), 5)]
)  # fmt: skip
def test_there_are_as_many_replicas_as_carry_the_reserved_tokens(
    reserved: tuple[float, ...], replicas: int
) -> None:
    assert wanted(reserved, 1000) == replicas
    assert wanted(reserved, None) == 1
