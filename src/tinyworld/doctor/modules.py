"""A Python module that is missing: which of our extras brings it, or what else to install."""

from tinyworld.doctor.causes import Cause, Facts

EXTRAS = {
    "wandb": ("wandb",),
    "deepspeed": ("deepspeed",),
    "fantasy": ("transformers",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "multipart"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "docs": ("mkdocs", "material", "mkdocstrings"),
    "notebook": ("nbclient", "nbformat", "ipykernel"),
}
"""Extra of pyproject.toml → what its packages are imported as."""
NEEDED = (
    "torch", "numpy", "safetensors", "accelerate", "pydantic", "yaml", "av", "rich", "tensorboard", "torchmetrics", "plotly",
    "jinja2", "PIL", "diffusers", "huggingface_hub", "shtab",
)  # fmt: skip
"""What tinyworld cannot do without, as it is imported; an installation has it."""
OTHER_NAMES = {"yaml": "pyyaml", "PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
"""Modules whose package has another name."""
FILE_OF_THE_CODE = " If it is a file of the code that you run, start that code from its own folder."


def _whose(facts: Facts) -> Facts:
    module, _, inner = str(facts["module"]).partition(".")
    package = OTHER_NAMES.get(module, module)
    if inner:
        return {
            "whose": f"Where {module} is installed, it is another version than the code that asks was written for.",
            "install": f"pip install -U {package}",
            "otherwise": FILE_OF_THE_CODE,
        }
    extra = next((name for name, modules in EXTRAS.items() if module in modules), None)
    if extra is not None:
        return {
            "whose": f"It belongs to the extra {extra} of tinyworld, which is installed on request.",
            "install": f"pip install 'tinyworld[{extra}]'",
            "otherwise": "",
        }
    if module in (*NEEDED, "tinyworld"):
        return {
            "whose": "Every installation of tinyworld has it, so another Python ran than the one tinyworld is installed in.",
            "install": "pip install tinyworld",
            "otherwise": " Or start the Python that has it already: source VENV/bin/activate.",
        }
    return {
        "whose": "tinyworld does not use it; another program or one of its libraries does.",
        "install": f"pip install {package}",
        "otherwise": f" A package may be named otherwise than its module; its documentation says.{FILE_OF_THE_CODE}",
    }


MISSING_MODULE = Cause(
    slug="missing-module",
    title="A Python package is not installed",
    patterns=(r"No module named ['\"]?(?P<module>(?!(?:cv2|torchvision)\b)[A-Za-z_][\w.]*)",),
    fits=_whose,
    last_resort=True,
    why="The Python that ran has no {module}. {whose}",
    prevented="What a command of tinyworld needs beyond its own packages is looked for first, and named with the extra that "
    "brings it.",
    now="python -m {install}, with the Python that ran.{otherwise}",
)
"""A last resort: many libraries note a missing module and go on."""
