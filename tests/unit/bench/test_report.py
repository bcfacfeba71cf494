import json
from dataclasses import replace

from ramify.bench.report import BenchResults, concurrency_table, pair_table, titled, write
from ramify.bench.scaling import SizeScaling, TreeCost
from ramify.bench.throughput import BenchRun, Pair


def pair(search: float, replay: float) -> Pair:
    run = BenchRun(32, 256, search, 6.0, 9, 1000, 400, requests=77, steps={"policy": 30, "value": 20})
    return Pair(run, replace(run, seconds=replay, cpu_seconds=4.0, steps={"policy": 10, "value": 5}))


RESULTS = BenchResults([pair(12, 10), pair(11, 10), pair(30, 10)])
GROWTH = [SizeScaling("mcts", 1.02, (TreeCost(100, 25, 0.005), TreeCost(2000, 500, 0.1)))]


def test_the_ratio_is_the_median_of_the_pairs():
    assert RESULTS.ratio == 1.2
    assert RESULTS.pairs[0].own_cpu == 2.0 / 12


def test_the_title_says_whether_the_target_is_met():
    assert "met" in titled(RESULTS)[0][0]
    assert "missed" in titled(BenchResults([pair(13, 10)]))[0][0]


def test_every_pair_has_a_line_and_the_median_one_more():
    lines = pair_table(RESULTS)
    assert len({len(line) for line in lines}) == 1
    assert [line[0] for line in lines[1:]] == ["1", "2", "3", "median"]


def test_rates_are_by_the_second():
    assert concurrency_table([RESULTS.pairs[1].searched])[1][3:5] == ["23.27", "91"]


def test_what_was_found_is_written_whole(tmp_path):
    results = replace(RESULTS, growth=GROWTH, concurrency=[RESULTS.pairs[0].searched])
    write(tmp_path, results, {"command": "ramify bench", "data": "countdown:dev"})
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["ratio"] == 1.2
    assert written["growth"][0]["sizes"][1]["nodes"] == 2000
    assert len(written["throughput"]["pairs"]) == 3
    assert "1.200" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "bench.png").stat().st_size > 1000
