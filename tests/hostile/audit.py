"""`./dev audit`: known vulnerabilities of what gigq depends on, as it is installed here (pip-audit).

Run as a program. 0: none is known. 1: some are. 2: the database could not be asked, or did not know one of
the packages, so that nothing is known; a mirror of the package index without it answers so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CLEAN, VULNERABLE, UNKNOWN = range(3)


def installed(name="gigq"):
    """Name and version of everything that a distribution needs, and what that needs in turn."""
    found: dict[str, str] = {}
    left = [name]
    while left:
        for requirement in distribution(left.pop()).requires or ():
            needed = re.match(r"[\w.-]+", requirement)
            if "extra ==" in requirement or needed is None:
                continue
            try:
                version = distribution(needed[0]).version
            except PackageNotFoundError:
                continue  # for another system or Python
            if needed[0] not in found:
                found[needed[0]] = version
                left.append(needed[0])
    return dict(sorted(found.items()))


def judge(answer, said=""):
    """What to say of pip-audit's JSON, and the exit status."""
    try:
        dependencies = json.loads(answer)["dependencies"]
    except (ValueError, LookupError, TypeError):
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        text = (
            f"The database of known vulnerabilities could not be asked: {last}\n"
            "Nothing is known. Run it where the package index or https://api.osv.dev can be reached "
            "(./dev audit -s osv)."
        )
        return text, UNKNOWN
    if not dependencies:
        return "Nothing was looked up.", UNKNOWN
    bad = [
        f"{each['name']} {each['version']}: {one['id']} (fixed in {', '.join(one['fix_versions']) or 'none'})"
        for each in dependencies
        for one in each.get("vulns", ())
    ]
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    if bad:
        return "Known vulnerabilities:\n" + "\n".join(bad), VULNERABLE
    if skipped:
        text = (
            f"The database could not be asked about {', '.join(skipped)}: the index that answers here does "
            "not hold it.\nNothing is known of them. Ask another: ./dev audit -s osv"
        )
        return text, UNKNOWN
    names = ", ".join(f"{each['name']} {each['version']}" for each in dependencies)
    return f"No vulnerability is known of {names}.", CLEAN


def main():
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder, "requirements.txt")
        pinned.write_text("".join(f"{name}=={version}\n" for name, version in installed().items()))
        ran = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--requirement", str(pinned), "--no-deps", "--disable-pip",
             "--progress-spinner", "off", "--format", "json", *sys.argv[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    text, status = judge(ran.stdout, ran.stderr)
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
