"""Write docs/reference/attributes.md from lstm_trace/conventions.py: each name with the string below it. `--check` only compares."""

import ast
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "lstm_trace" / "conventions.py"
TARGET = ROOT / "docs" / "reference" / "attributes.md"


def rows(source: str) -> list[tuple[str, str, str, str]]:
    """Return (section, name, type, meaning) for every documented constant."""
    body, lines, found, section = ast.parse(source).body, source.splitlines(), [], ""
    for statement, following in itertools.pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Constant)):
            continue
        for number in range(statement.lineno - 2, -1, -1):
            if lines[number].startswith("# --- "):
                section = lines[number].strip("# -")
                break
            if lines[number].strip() and not lines[number].startswith(("#", '"')):
                break
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and section:
            kind, _, meaning = str(following.value.value).partition(": ")
            found.append((section, str(statement.value.value), kind, meaning))
    return found


def page() -> str:
    """Return the whole page."""
    text, section = ["# Attributes, events and metrics", "", "Made from `lstm_trace/conventions.py` by `make docs`.", ""], ""
    for where, name, kind, meaning in rows(SOURCE.read_text()):
        if where != section:
            section = where
            text += ["", f"## {where}", "", "| name | type | meaning |", "|---|---|---|"]
        text.append(f"| `{name}{'{…}' if name.endswith('.') else ''}` | {kind} | {meaning} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.exists() and TARGET.read_text() == made else f"{TARGET.relative_to(ROOT)} is stale: run make docs")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(made)
