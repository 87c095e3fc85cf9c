"""What a TAEHV is called where people read of it. A variant's name alone is said of no model but one of that variant's widths
that speaks its diffusion model's latents."""

from collections.abc import Sequence

from tinyworld.core.variants import VARIANTS
from tinyworld.report.read import Run


def model_label(variant: str, encoder_width: int, decoder_widths: Sequence[int], own_latents: bool) -> str:
    """Such as "taew2_1", or "taew2_1 layout, narrow (32; 128, 64, 32, 32), own latents".

    variant: a key of `core.variants.VARIANTS`, whose layout the model has. own_latents: it learned without a reference VAE.
    """
    known = VARIANTS[variant]
    widths, public = (encoder_width, *decoder_widths), (known.encoder_width, *known.decoder_widths)
    words = [variant]
    if widths != public:
        narrow = all(width <= whole for width, whole in zip(widths, public, strict=True))
        inside = f"({encoder_width}; {', '.join(map(str, decoder_widths))})"
        words.append(f"{'narrow' if narrow else 'other widths'} {inside}")
    if own_latents:
        words.append("own latents")
    if len(words) > 1:
        words[0] = f"{variant} layout"
    return ", ".join(words)


def label_of_run(run: Run) -> str | None:
    """The same from a run's settings; the variant as it stands where they cannot be read, None where there is none."""
    variant = run.setting("model", "variant")
    if variant not in VARIANTS:
        return None if variant is None else str(variant)
    known = VARIANTS[variant]
    encoder = run.setting("model", "encoder_width") or known.encoder_width
    decoder = run.setting("model", "decoder_widths") or known.decoder_widths
    if not isinstance(decoder, list | tuple) or len(decoder) != len(known.decoder_widths):
        return str(variant)
    if not all(isinstance(width, int) for width in (encoder, *decoder)):
        return str(variant)
    return model_label(variant, encoder, decoder, _own_latents(run))


def _own_latents(run: Run) -> bool:
    """Without a teacher and not beside a frozen half, whose latents stay those of the weights it started from."""
    started, part = run.setting("model", "pretrained_model_path"), run.setting("model", "train_part")
    return run.setting("teacher", "use_ref_vae") is False and (started is None or part == "both")
