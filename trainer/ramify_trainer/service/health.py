"""Whether the trainer is ready: the server answers, the lease is held, and the present phase gets on."""

from __future__ import annotations

from dataclasses import dataclass

from ramify_trainer.loop.rounds import Loop


@dataclass
class Health:
    """Written by the service."""

    loop: Loop
    stall_seconds: float
    away: str | None = "it was not asked yet"
    """Why the server does not count as there; None where it does."""

    @property
    def leased(self) -> bool:
        return self.loop.puller.leased

    @property
    def reason(self) -> str | None:
        """Why the trainer is not ready; None where it is."""
        watch = self.loop.watch
        if self.away is not None:
            return f"the server at {self.loop.config.server.url} is away: {self.away}"
        if not self.leased:
            return f"the lease of the consumer {self.loop.config.name} is not held"
        if watch.idle > self.stall_seconds:
            return f"the phase {watch.phase} has not moved for {watch.idle:.0f} s"
        return None

    def report(self) -> dict[str, object]:
        """For people."""
        watch, state = self.loop.watch, getattr(self.loop, "state", None)
        return {
            "ready": self.reason is None,
            "reason": self.reason,
            "round": None if state is None else state.round,
            "phase": watch.phase,
            "done": watch.done,
            "total": watch.total,
            "idle_seconds": round(watch.idle, 1),
            "release": None if state is None else state.incumbent,
        }
