"""What mkdocs makes from the code: a page of every package (`reference/api`), and the tables of settings."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cion_jax", "data_prep")
TABLES = "<!-- tables of settings -->"
_ATTRIBUTE = re.compile(r"^(\w+(?:, \w+)*): (.*)")


def on_config(config: Any) -> Any:
    """Puts the pages of the packages into the navigation."""
    reference = next(section["Reference"] for section in config["nav"] if "Reference" in section)
    api = next(entry for entry in reference if isinstance(entry, dict))
    api["Python API"] = [{package: f"reference/api/{package}.md"} for package in packages()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the packages."""
    from mkdocs.structure.files import File

    for package, modules in packages().items():
        files.append(File.generated(config, f"reference/api/{package}.md", content=page(package, modules)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the tables of settings in their place."""
    if TABLES not in markdown:
        return markdown
    return markdown.replace(TABLES, "\n\n".join(table(title, cls) for title, cls in configs().items()))


def packages() -> dict[str, list[str]]:
    """Package -> its modules that have anything public in them, by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        if _public(path):
            parts = path.relative_to(ROOT).with_suffix("").parts
            package = ".".join(parts[:-1])
            found.setdefault(package, []).append(package if parts[-1] == "__init__" else ".".join(parts))
    return found


def page(package: str, modules: list[str]) -> str:
    """Markdown of the page of a package, for mkdocstrings."""
    return f"# {package}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"


def _public(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return any(isinstance(node, kinds) and node.name[0] != "_" for node in ast.parse(path.read_text()).body)


def configs() -> dict[str, type]:
    """Title -> the dataclass that a config file is frozen into."""
    from cion_jax.tasks import schemas
    from data_prep.config import Config

    training = {f"Training, task `{name}` (`cion-train`, `cion-plan`)": cls for name, cls in schemas().items()}
    return training | {"Denoising (`cion-prep`)": Config}


def table(title: str, cls: type) -> str:
    """Markdown of all settings of a config."""
    lines = [f"## {title}", "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    for cells in rows(cls, "config"):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def rows(cls: type, path: str) -> Iterator[tuple[str, str, str, str]]:
    """(setting, type, default, meaning) of a dataclass and those in it.

    The meaning is what the docstring says of the attribute; of one without a word of its own the docstring's summary.
    """
    hints, summary = typing.get_type_hints(cls), (cls.__doc__ or "").partition("\n")[0]
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        meanings |= attributes(base.__doc__ or "")
    for field in dataclasses.fields(cls):
        hint, default = hints[field.name], _default(field)
        if dataclasses.is_dataclass(hint):
            yield from rows(typing.cast(type, hint), f"{path}.{field.name}")
        else:
            kind = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
            kind = kind.replace("typing.", "")
            yield f"`{path}.{field.name}`", f"`{kind}`", f"`{default!r}`", meanings.get(field.name, summary)


def attributes(docstring: str) -> dict[str, str]:
    """Name -> text of a docstring's section `Attributes:`; `a, b: text` says the same of both."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        if not line.strip():
            break
        if match := _ATTRIBUTE.match(line.strip()):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
