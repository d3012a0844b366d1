"""What a code block of a document means, and how it is executed.

- ```` ```python ```` is executed in the document's own namespace, block after block. One whose first
  line is a comment that names a file (`# jobs.py`) is written to that file instead: a later block
  imports it or a console block runs it, as the reader would.
- ```` ```console ```` holds `$ command` lines and what they print. `...` in the output stands for
  anything, blanks and line breaks count as one blank, and a command without output is only run. A
  command must succeed. One that ends in `&` runs until the document ends, and then gets a TERM.
- ```` ```toml ```` is parsed, and written when its first line names a file.
- ```` ```sh ```` is for commands that set something up outside of the document; it is not executed
  here, but has to be there (`test_documents.py`).
- ```` ```text ```` is a picture.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser

NOT_EXECUTED = frozenset({"text", "sh"})
FILE_HEADER = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")
MARKER = "<<< command {} >>>"
COMMAND_TIMEOUT = 60


@dataclass
class Desk:
    """The folder in which one document's blocks are executed, and what was left there."""

    folder: Path
    files: dict[str, bool] = field(default_factory=dict)  # name -> whether a later block used it
    background: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """As a reader has it: our commands on the path, no settings of gigq."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("GIGQ_")}
        return bare | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / ".config"),
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        # gigq finds its settings by itself.
        self.files[name] = name.endswith(".toml")

    def mark_used(self, text: str) -> None:
        for name in self.files:
            module = re.escape(name.removesuffix(".py").replace("/", "."))
            if name in text or re.search(rf"\b{module}\b", text):
                self.files[name] = True

    def unused(self) -> list[str]:
        return [name for name, used in self.files.items() if not used]

    def run(self, block: str) -> str:
        """Run the commands of a block in one shell; everything that they print."""
        done = subprocess.run(
            ["bash", "-c", block],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        return done.stdout

    def start(self, command: str) -> None:
        self.background.append(
            subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

    def tidy(self) -> None:
        """End what runs in the background; it has to end well."""
        for process in self.background:
            process.send_signal(signal.SIGTERM)
        for process in self.background:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT)
            assert process.returncode == 0, f"{process.args}: {process.returncode}\n{output}"


def parser() -> Sybil:
    return Sybil(
        parsers=[
            CodeBlockParser(language="python", evaluator=evaluate_python),
            CodeBlockParser(language="console", evaluator=evaluate_console),
            CodeBlockParser(language="toml", evaluator=evaluate_toml),
        ],
        pattern="*.md",
    )


def execute(path: Path, desk: Desk) -> None:
    """Execute a document's blocks from top to bottom; the first that is not true raises."""
    document = parser().parse(path)
    document.namespace["desk"] = desk
    try:
        with forgotten_modules(desk.folder):
            for example in document.examples():
                example.evaluate()
    finally:
        desk.tidy()


def evaluate_python(example: Example) -> None:
    desk: Desk = example.namespace["desk"]
    source = str(example.parsed)
    desk.mark_used(source)
    if header := FILE_HEADER.match(source):
        desk.write(header[1], source)
        return
    # The blank lines put the document's own line numbers into a traceback.
    padding = "\n" * (example.line + example.parsed.line_offset)
    exec(compile(padding + source, example.path, "exec", dont_inherit=True), example.namespace)


def evaluate_toml(example: Example) -> None:
    desk: Desk = example.namespace["desk"]
    source = str(example.parsed)
    tomllib.loads(source)
    if header := FILE_HEADER.match(source):
        desk.write(header[1], source)


def evaluate_console(example: Example) -> None:
    desk: Desk = example.namespace["desk"]
    source = str(example.parsed)
    desk.mark_used(source)
    commands = list(commands_of(source))
    foreground = []
    for command, expected in commands:
        if command.rstrip().endswith("&"):
            assert not expected, f"a command in the background shows no output: {command}"
            desk.start(command.rstrip().removesuffix("&"))
        else:
            foreground.append((command, expected))
    script = "\n".join(
        f"echo '{MARKER.format(number)}'\n{command}\n"
        f'status=$?; [ $status -eq 0 ] || {{ echo "<exit status $status>"; exit; }}'
        for number, (command, _) in enumerate(foreground)
    )
    marker = re.escape(MARKER).replace(r"\{\}", r"\d+") + "\n"
    outputs = re.split(marker, desk.run(script))[1:]
    for number, (command, expected) in enumerate(foreground):
        assert number < len(outputs), f"{command} was not reached:\n{outputs[-1]}"
        printed = outputs[number]
        assert "<exit status " not in printed, f"$ {command}\n{printed}"
        assert not expected or alike(printed, expected), (
            f"$ {command}\n--- printed\n{printed}--- the document says\n{expected}"
        )


def commands_of(source: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block (`> ` goes on with it) with the output under it."""
    command: str | None = None
    output: list[str] = []
    for line in source.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield command, "\n".join(output)
            command, output = line[2:], []
        elif line.startswith("> ") and command is not None and not output:
            command += "\n" + line[2:]
        else:
            assert command is not None, f"output before a command: {line!r}"
            output.append(line)
    if command is not None:
        yield command, "\n".join(output).strip()


def alike(printed: str, expected: str) -> bool:
    """Whether two outputs say the same: `...` is anything, white space is one blank."""
    parts = [re.escape(" ".join(part.split())) for part in expected.split("...")]
    return re.fullmatch(r"\s*.*".join(parts), " ".join(printed.split()), re.DOTALL) is not None


@contextlib.contextmanager
def forgotten_modules(folder: Path) -> Iterator[None]:
    """Modules that a document's blocks import from its folder are gone afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def fences(text: str) -> list[str]:
    """The language of each fenced block, directives included."""
    languages = []
    opened = ""
    for line in text.splitlines():
        if found := re.match(r"(`{3,}|:{3,})(.*)", line.strip()):
            if opened and found[1] == opened and not found[2].strip():
                opened = ""
            elif not opened:
                opened = found[1]
                languages.append(found[2].strip())
    return languages
