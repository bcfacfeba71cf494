from __future__ import annotations

from typing import Any

import pytest

from ramify.treelog import LogError, TreeLog

pytestmark = pytest.mark.anyio


async def test_a_release_keeps_its_latest_verdict_and_figures(log: TreeLog, clock: Any) -> None:
    await log.record_release("v000001", "candidate")
    clock.advance(5)
    await log.record_release("v000001", "promoted", {"accuracy": {"lower": 0.4}})
    [release] = await log.releases()
    assert (release.state, release.figures) == ("promoted", {"accuracy": {"lower": 0.4}})
    assert release.updated_at - release.created_at == 5
    with pytest.raises(LogError, match="figures must be JSON"):
        await log.record_release("v000002", "promoted", {"auc": float("nan")})


async def test_the_active_release_is_the_last_activated_and_history_tells_the_one_before(url: str) -> None:
    async with await TreeLog.open(url) as log:
        assert await log.active_release() is None
        for release_id in ("v000001", "v000002", "v000003"):
            await log.record_release(release_id, "promoted")
        await log.activate("v000001")
        await log.activate("v000002", "canary agreed")
        with pytest.raises(LogError, match="v000009"):
            await log.activate("v000009")
    async with await TreeLog.open(url) as log:
        active = await log.active_release()
        assert active is not None
        assert active.release_id == "v000002"
        history = [(a.release_id, a.note) for a in await log.activations()]
        assert history == [("v000002", "canary agreed"), ("v000001", "")]
        assert [r.active for r in await log.releases()] == [False, True, False]
