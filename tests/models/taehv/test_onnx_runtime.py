"""backend="onnx" gives what the eager step gives, takes over where there is a past, and says what keeps it from running."""

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.models.taehv import StreamingTaehv
from tinyworld.models.taehv.onnx_runtime import check_runtime

MODEL = formula_model(small_spec("taew2_1"))


@pytest.mark.slow
@torch.no_grad()
def test_equals_the_eager_model_at_every_size() -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason="pip install 'tinyworld[onnx]'")
    fast = MODEL.optimize(backend="onnx")
    assert fast.running == "onnx"
    for clips, height, width in [(1, 24, 40), (2, 19, 8)]:
        frames = clip(13, height, width, clips)
        torch.testing.assert_close(fast.reconstruct(frames), MODEL.reconstruct(frames), atol=1e-5, rtol=0)
    encoder, decoder = fast.folded_encoder.compiled, fast.folded_decoder.compiled
    assert encoder.session is not None and decoder.session is not None  # type: ignore[union-attr]
    frames = clip(9, 40, 24)
    pieces = StreamingTaehv(fast, tile=2).reconstruct(frames.split(3, 1))
    torch.testing.assert_close(torch.cat(list(pieces), 1), MODEL.reconstruct(frames), atol=1e-5, rtol=0)
    assert fast.decode(MODEL.encode(frames).double()).dtype == torch.float64


def test_what_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'tinyworld[onnx]'")
    with pytest.raises(ConfigError, match="fp32, not in bfloat16"):
        MODEL.optimize(torch.bfloat16, backend="onnx")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="onnxruntime-gpu"):
        check_runtime(torch.float32, torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(MissingExtraError, match=r"onnxruntime.*tinyworld\[onnx\]"):
        MODEL.optimize(backend="onnx")
