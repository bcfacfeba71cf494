from rich.console import Console

from ramify.cli.tree_view import draw
from ramify.search.records import Answer, Sampling, SearchParams
from ramify.search.tree import Tree


def tree() -> Tree:
    grown = Tree(
        id="tree_1",
        created_at=0.0,
        model="m",
        prompt="1 2 to 3\n",
        prompt_tokens=(1,),
        params=SearchParams(),
        sampling=Sampling(),
        seed=0,
    )
    for visits in (9, 5, 3, 1):
        grown.add(grown.root, text=f"step {visits}\n", visits=visits, value_sum=visits / 2, value=0.25)
    grown.add(grown.nodes[4], text="[the end]", terminal="eos", visits=1, value_sum=1.0)
    grown.add(grown.nodes[1], text="a slip", terminal="eos", visits=4)
    grown.add(grown.nodes[1], text="too long", terminal="truncated", visits=4)
    grown.answer = Answer(node=5, text="step 1\n[the end]", final="f", value=1.0, visits=1, votes=1.0)
    return grown


def shown(**options) -> str:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(draw(tree(), **options))
    return captured.get()


def test_the_most_visited_branches_come_first_and_the_rest_is_counted():
    text = shown(branches=2)
    assert text.index("step 9") < text.index("step 1")
    assert "step 3" not in text
    assert "and 2 more" in text


def test_the_chosen_path_is_drawn_however_few_its_visits():
    text = shown(branches=1, lines=3)
    assert "[the end] ★" in text
    assert "step 1" in text


def test_complete_answers_are_marked_as_the_verifier_judged_them():
    text = shown(right={5})
    assert "✓ [the end]" in text
    assert "✗ a slip" in text
    assert "… too long" in text


def test_without_a_verdict_there_is_no_mark():
    assert "✓" not in shown()
    assert "✗" not in shown()


def test_every_node_says_visits_mean_and_value():
    assert "N 9  Q 0.50  v 0.25" in shown()
