"""What the documentation shows: fenced blocks, and the commands in them and in running text, with their place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (
    "apt", "apt-get", "bash", "brew", "cat", "cd", "conda", "cp", "curl", "docker", "eval", "ffmpeg", "git", "hf",
    "huggingface-cli", "jupyter", "kubectl", "ls", "make", "mkdir", "mkdocs", "nohup", "nvidia-smi", "pip", "pipx", "pre-commit",
    "python", "python3", "pytest", "rm", "sbatch", "scancel", "singularity", "source", "squeue", "srun", "sudo", "tail",
    "tensorboard", "tinyworld", "torchrun", "trtexec", "uv", "wget",
)  # fmt: skip
"""First words by which a line or an inline span is taken for a command."""
SHELL = ("bash", "sh", "shell", "console")
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\w*)")
_SPAN = re.compile(r"(?<![`\\])`([^`]+)`(?!`)")
_ASSIGNED = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|\S*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language as written (empty without), its text, and the page's line of its first line."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command as shown, continuation lines joined, comment and prompt taken off, variables of its block put in."""

    page: str
    line: int
    text: str
    inline: bool

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README and everything below docs/, relative to the project."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, without the indentation that they share."""
    return [block for block, _ in _parts(page) if block is not None]


def commands(page: str) -> list[Command]:
    """Every command of a page: lines of shell blocks, of untagged blocks that hold commands, and inline spans."""
    found: list[Command] = []
    for block, prose in _parts(page):
        if block is None:
            found += _inline(page, *prose)
        elif block.language in SHELL or (not block.language and _has_command(block.text)):
            found += _lines(block)
        elif not block.language:
            found += _inline(page, block.line, block.text)
    return found


def _parts(page: str) -> Iterator[tuple[Block | None, tuple[int, str]]]:
    """Blocks and the prose between them, as (line, text)."""
    prose: list[str] = []
    inside: list[str] = []
    fence, language, start = "", "", 1
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if not fence and match:
            yield None, (start, "\n".join(prose))
            fence, language, start, inside = match[1], match[2].lower(), number + 1, []
        elif fence and line.strip() == fence:
            yield Block(page, start, language, _dedented(inside)), (0, "")
            fence, start, prose = "", number + 1, []
        else:
            (inside if fence else prose).append(line)
    assert not fence, f"{page}:{start}: the fence is not closed"
    yield None, (start, "\n".join(prose))


def _dedented(lines: list[str]) -> str:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def _has_command(text: str) -> bool:
    return any(line.split(" ", 1)[0] in PROGRAMS for line in text.splitlines())


def _lines(block: Block) -> Iterator[Command]:
    variables: dict[str, str] = {}
    pending, start = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        start = start if pending else number
        pending += line.rstrip().removesuffix("\\")
        if line.rstrip().endswith("\\"):
            continue
        text, pending = _bare(pending), ""
        for name, value in variables.items():
            text = re.sub(rf"\$(?:{name}\b|{{{name}}})", value.replace("\\", r"\\"), text)
        assigned = _ASSIGNED.match(text)
        if assigned:
            variables[assigned[1]] = assigned[2].strip("\"'")
        elif text:
            yield Command(block.page, start, text, inline=False)


def _bare(line: str) -> str:
    """Without prompt and comment, white space as one blank."""
    text = re.split(r"(?:^|\s)#(?:\s|$)", line.strip().removeprefix("$ "))[0]
    return " ".join(text.split())


def _inline(page: str, first: int, text: str) -> Iterator[Command]:
    for match in _SPAN.finditer(text):
        span = " ".join(match[1].replace("\\|", "|").split())
        if re.match(r"benchmarks/\w+\.py ", span):
            span = f"python {span}"
        if "\n\n" not in match[1] and span.split(" ", 1)[0] in PROGRAMS and span not in PROGRAMS:
            yield Command(page, first + text.count("\n", 0, match.start()), span, inline=True)
