"""How an exported model is loaded elsewhere: lines of code for its card and for the command line."""

from tinyworld.core.errors import UserError
from tinyworld.interop.families import FAMILIES, OWN
from tinyworld.interop.match import KINDS
from tinyworld.interop.public_files import comfyui_note, refuse_for_comfyui
from tinyworld.interop.source import Exported


def taehv_usage(source: Exported, name: str) -> str:
    """tinyworld, diffusers and ComfyUI, as far as each can take it; name: of the repository."""
    blocks = [f"tinyworld:\n\n{python(tinyworld_lines(name))}"]
    variant, latents = source.about.get("variant"), source.about.get("latents")
    known = source.about.get("teacher") in (None, *KINDS)
    if known and latents != OWN and (variant is None or FAMILIES[variant].vae_class):
        blocks.append(f"In a pipeline of diffusers:\n\n{python(diffusers_lines(name))}")
    blocks.append(_comfyui(source))
    return "\n\n".join(blocks)


def tinyworld_lines(name: str) -> list[str]:
    return [
        "from tinyworld import Taehv",
        "",
        f'model = Taehv.from_pretrained("{name}").eval().optimize()',
        "frames = model.reconstruct(frames)  # N T 3 H W in [0, 1]",
    ]


def diffusers_lines(name: str) -> list[str]:
    return [
        "from tinyworld.interop.diffusers import TaehvVae",
        "",
        f'pipe.vae = TaehvVae.from_pretrained("{name}", like=pipe.vae).to(pipe.device, pipe.dtype)',
    ]


def fantasy_usage(source: Exported, name: str) -> str:
    """The commands that take a branch."""
    short = name.rpartition("/")[2]
    lines = [
        *([f"hf download {name} --local-dir {short}"] if "/" in name else []),
        f"tinyworld lift VIDEO --base WAN_TRANSFORMER --weights {short} --codec WAN_VAE",
        f"tinyworld generate --base WAN_TRANSFORMER --weights {short} --codec WAN_VAE --help",
    ]
    digest = source.branch()[1].base_digest or "not recorded"
    shell = "```bash\n" + "\n".join(lines) + "\n```"
    return f"{shell}\n\nThe transformer must be the one of digest `{digest}`; another one is refused."


def python(lines: list[str]) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def _comfyui(source: Exported) -> str:
    if source.about.get("latents") == OWN:
        return "ComfyUI: no. It decodes a diffusion model's latents, and this model's are its own."
    spec, _ = source.taehv()
    try:
        refuse_for_comfyui(spec, source.about)
    except UserError as refusal:
        return f"ComfyUI: not as it is. {refusal}"
    note = comfyui_note(spec, source.about)
    return "ComfyUI: `tinyworld export MODEL --to comfyui --output …`, then put the file into `models/vae`." + (
        f" {note}" if note else ""
    )
