"""Index the words of a folder: one job per file, and a last one that gathers them.

    python examples/folder_indexer.py FOLDER --find WORD

Two worker processes share the queue. The index is written beside the queue as `index.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from gigq import JobQueue, Workflow, task

WORD = re.compile(r"[^\W\d_]{3,}")


@task(max_attempts=2, timeout=60)
def index_file(path: str) -> dict[str, Any]:
    """The words of one file with their counts."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return {"path": path, "words": dict(Counter(word.lower() for word in WORD.findall(text)))}


@task(timeout=300)
def gather(target: str, parent_results: dict[str, Any]) -> dict[str, Any]:
    """Turn word counts of files into files of words, and write them."""
    index: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for result in parent_results.values():
        for word, count in result["words"].items():
            index[word][result["path"]] = count
    Path(target).write_text(json.dumps(index), encoding="utf-8")
    return {"files": len(parent_results), "words": len(index)}


def files_of(folder: Path) -> list[Path]:
    """Text files, by their look; hidden ones and caches are left out."""
    suffixes = {".md", ".py", ".txt", ".toml", ".rst"}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in suffixes
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts[:-1])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    parser.add_argument("--find", metavar="WORD", default="queue")
    parser.add_argument("--db", help="a queue to keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(options.folder.resolve(), options.db or f"{scratch}/jobs.db", options.find.lower())


def run(folder: Path, database: str, wanted: str) -> None:
    target = str(Path(database).resolve().with_name("index.json"))
    workflow = Workflow("index")
    files = [workflow.add_task(index_file, {"path": str(path)}) for path in files_of(folder)]
    last = workflow.add_task(gather, {"target": target}, depends_on=files)

    with JobQueue(database) as queue:
        workflow.submit_all(queue)
        print(f"{folder}: {len(files)} files")
        command = [sys.executable, "-m", "gigq", "--db", database, "run", "--quiet"]
        workers = [subprocess.Popen([*command, "--worker-id", name]) for name in ("one", "two")]  # noqa: S603 - our own interpreter
        summary = queue.result(last.id, timeout=300)
        for worker in workers:
            worker.wait(timeout=60)

    print(f"indexed {summary['files']} files, {summary['words']} different words")
    found = json.loads(Path(target).read_text(encoding="utf-8")).get(wanted, {})
    print(f"{wanted!r} is in {len(found)} files")
    for path, count in sorted(found.items(), key=lambda item: -item[1])[:5]:
        print(f"{count:5}  {Path(path).relative_to(folder)}")


if __name__ == "__main__":
    main()
