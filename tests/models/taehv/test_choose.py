"""backend="auto": eager until others may pay, then the fastest, said aloud; never another result."""

import itertools
import logging
from collections.abc import Callable

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.models.taehv import choose
from tinyworld.models.taehv.choose import Chooser, worth_measuring


class Clock:
    """Time that passes only where steps say so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(choose.time, "perf_counter", lambda: self.now)

    def step(self, name: str, seconds: float) -> Callable[[], str]:
        def run() -> str:
            self.now += seconds
            return name

        return run


@pytest.mark.parametrize(("other", "winner"), [(0.5, "other"), (0.98, "eager"), (2.0, "eager")])
def test_the_fastest_goes_on_once_others_may_pay(
    other: float, winner: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    made = []

    def make() -> Callable[[], str]:
        made.append("other")
        return clock.step("other", other)

    chooser = Chooser("decoding", clock.step("eager", 1.0), {"other": make})
    with caplog.at_level(logging.INFO, "tinyworld"):
        for _ in range(int(choose.PATIENCE)):
            assert chooser() == "eager"
        assert not made and chooser.chosen is None and not caplog.records
        assert chooser() == "eager"  # the step after which it is chosen
    assert made == ["other"] and chooser.chosen == winner and chooser() == winner
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        "decoding: eager 1000.0 ms" in line
        and f"other {other * 1e3:.1f} ms" in line
        and f"{winner} from here on" in line
    )


def test_the_fastest_repetition_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    durations = itertools.cycle([0.3, 0.2, 0.9])

    def busy() -> None:
        clock.now += next(durations)

    assert choose.measured({"busy": busy}, ()) == {"busy": pytest.approx(0.2)}


def test_where_nothing_else_can_run_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worth_measuring(torch.bfloat16, torch.device("cpu")) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert worth_measuring(torch.float32, torch.device("cpu")) == []
    clock = Clock(monkeypatch)
    chooser = Chooser("decoding", clock.step("eager", 100.0), {})
    assert [chooser(), chooser()] == ["eager", "eager"] and chooser.chosen is None


@torch.no_grad()
def test_a_model_chooses_for_each_part_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    model = formula_model(small_spec("taew2_1"))
    monkeypatch.setattr("tinyworld.models.taehv.optimized.worth_measuring", lambda *_: ["compile"])
    monkeypatch.setattr("torch.compile", lambda step, **_: step)  # the same step under another name
    monkeypatch.setattr(choose, "PATIENCE", 0.0)
    monkeypatch.setattr(choose, "GAIN", 1e9)  # whatever is not eager wins
    fast = model.optimize(backend="auto")
    assert fast.running == "auto (encoding eager, decoding eager)"
    latents = fast.encode(clip(12))
    assert fast.running == "auto (encoding compile, decoding eager)"
    torch.testing.assert_close(fast.decode(latents), model.decode(latents), atol=2e-5, rtol=0)
    assert fast.running == "auto (encoding compile, decoding compile)"
