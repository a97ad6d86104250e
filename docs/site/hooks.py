"""Hooks of MkDocs: the pages that are made of the code, the navigation, formulas, and links into the repository."""

from __future__ import annotations

import ast
import inspect
import io
import posixpath
import re
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from data_contracts.contracts import CONTRACTS
from data_contracts.schema import Contract, describe
from flows.cli.main import app
from flows.config.errors import nested_model
from flows.config.reference import assignment, describe_type, meanings, table_title
from flows.config.run_config import RunConfig
from pipeline.in_memory import PairTable, align_domains, random_walks, reach_vectors, shared_places
from pipeline.neighbours.stage import item_neighbours

NAVIGATION = {
    "Start": ["index.md", "tutorial.md", "usage.md", "data/logs.md", "data/recipes.md", "data/datasets.md", "faq.md"],
    "Method": ["method.md", "results.md", "scoreboard.md", "experiments-guide.md", "experiments.md"],
    "Python": ["python.md", "functions.md"],
    "Reference": ["settings.md", "artifacts.md", "commands.md", "licences.md"],
    "Operate": [
        *("operate/serving.md", "operate/updating.md", "operate/report.md", "operate/operations.md"),
        "operate/trust.md",
        *("operate/storage.md", "operate/prefect.md", "operate/kubernetes.md"),
    ],
    "Inside": ["architecture.md", "contributing.md", "changelog.md", "benchmarks/index.md"],
}
"""Pages by section; pages that do not exist are left out, pages that no section names come last."""

REPOSITORY = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "EXPERIMENTS.md": "experiments.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "README.md": "index.md",
}
"""Files of the repository that are pages of the site → path of the page."""

_LINK = re.compile(
    r"(?P<mark>!?)\[(?P<text>[^\]\[]+)\]\((?P<target>(?!https?:|#|mailto:)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)

_LABEL = re.compile(r"^(```\w+) +\w+$", re.MULTILINE)
"""A code block's language with a word for the tests behind it."""

FUNCTIONS: tuple[Callable[..., Any], ...] = (
    *(align_domains, PairTable, shared_places, reach_vectors, random_walks, item_neighbours),
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw formulas as pictures, so that pages load nothing from the network."""
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": formula}]
    }
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the pages of the repository, then build the navigation."""
    for name, make in {
        "settings.md": settings_page, "artifacts.md": artifacts_page, "commands.md": commands_page,
        "functions.md": functions_page, "licences.md": licences_page,
    }.items():  # fmt: skip
        files.append(File.generated(config, name, content=make()))
    root = Path(config.docs_dir).parent
    for source, name in REPOSITORY.items():
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=(root / source).read_text(encoding="utf-8")))
    for picture in sorted(root.glob("benchmarks/pictures/*.png")):
        files.append(File.generated(config, f"benchmarks/pictures/{picture.name}", content=picture.read_bytes()))
    config.nav = navigation({file.src_uri for file in files.documentation_pages()})
    return files


def navigation(pages: set[str]) -> list[dict[str, list[str]]]:
    """The sections with the pages that exist; pages that no section names are in the last."""
    sections = {title: [name for name in names if name in pages] for title, names in NAVIGATION.items()}
    rest = sorted(pages.difference(*NAVIGATION.values()))
    return [{title: names} for title, names in {**sections, "More": rest}.items() if names]


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Point links and pictures to files of the site; a link to a page that it has not becomes text."""
    sources = {name: source for source, name in REPOSITORY.items() if name != "index.md"}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewrite(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        name = REPOSITORY.get(path, path.removeprefix("docs/"))
        is_absent = files.get_file_from_path(name) is None
        if is_absent and (not path.startswith("docs/") or name in chain(*NAVIGATION.values())):
            return link[0] if link["mark"] else link["text"]
        target = posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")
        anchor = link["anchor"] if link["anchor"] and name != "index.md" else ""  # the README's headings are not there
        return f"{link['mark']}[{link['text']}]({target}{anchor})"

    return _LINK.sub(rewrite, _LABEL.sub(r"\1", markdown))


def formula(source: str, *_: Any, **__: Any) -> str:
    """SVG of a formula in TeX's notation, one picture a line, in the colour of the text."""
    with mpl.rc_context({"mathtext.fontset": "stix", "svg.fonttype": "path", "svg.hashsalt": source}):
        lines = [_svg(line) for line in source.strip().splitlines()]
    return f'<div class="formula">{"".join(lines)}</div>'


def _svg(line: str) -> str:
    figure, file = Figure(), io.StringIO()
    figure.text(0, 0, f"${line}$", fontsize=15)
    figure.savefig(file, format="svg", bbox_inches="tight", pad_inches=0.03, transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    label = line.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def settings_page() -> str:
    """Every key of a run's file."""
    head = (
        "# Every key of a run's file\n\nMade from the code that checks the file. `edda config` prints the same as a "
        "TOML file to start from; on the command line a key is `--set train.epochs=5`.\n"
    )
    return "\n".join([head, *_keys("", RunConfig, "Top level", "The run itself.")])


def _keys(prefix: str, model: type[BaseModel], title: str, meaning: str) -> Iterator[str]:
    schemas, texts, inner = model.model_json_schema(), meanings(model), []
    yield f"\n## {title}\n\n{meaning}\n\n| key | default | meaning |\n|---|---|---|"
    for name, field in model.model_fields.items():
        if of := nested_model(field.annotation):
            title = f"`{table_title(name, field, prefix)}`"
            inner.append((f"{prefix}{name}.", of, title, texts[name]))
            continue
        kind = describe_type(schemas["properties"][name], schemas)
        value = assignment(name, field, prefix).partition(" = ")[2]
        default = "must be given" if field.is_required() else f"`{value}`" if value else ""
        yield f"| `{name}` | {default} | {_cell(texts[name])}<br>*{_cell(kind)}* |"
    for table in inner:
        yield from _keys(*table)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def artifacts_page() -> str:
    """Every contract."""
    head = (
        "# Artifacts\n\nMade from the contracts that check each artifact when it is written and when it is read. An "
        "artifact is a folder `<store>/<artifact>/<key>/` of Parquet files and a `manifest.json`; "
        "`<store>/runs/<run>/<artifact>` links to the artifact that a run used. Partition columns are in the names of "
        "folders (`domain=books/`), not in files; readers of hive partitions (DuckDB, Polars, Arrow) add them.\n"
    )
    return "\n".join([head, *(_contract(contract) for contract in CONTRACTS.values())])


def _contract(contract: Contract) -> str:
    facts = {
        "unique": contract.key, "sorted by": contract.sorted_by, "folders by": contract.partitioned_by,
        "files beside the table": contract.files,
    }  # fmt: skip
    refers = [
        f"{_codes(r.columns)} → [{r.contract}](#{r.contract}) {_codes(r.target_columns)}"
        + (f" where `{r.where[0]}` is {r.where[1]}" if r.where else "")
        for r in contract.references
    ]
    rules = [f"**{title}:** {_codes(names)}" for title, names in facts.items() if names]
    rules += [f"**refers to:** {'; '.join(refers)}"] if refers else []
    meanings = describe(contract)
    rows = [f"| `{column.name}` | {column.type} | {_cell(meanings[column.name])} |" for column in contract.columns]
    table = "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])
    return (
        f"\n## {contract.name}\n\n{contract.meaning} *Version {contract.version}.*\n\n{table}\n\n{' · '.join(rules)}\n"
    )


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def commands_page() -> str:
    """Every command, as cyclopts documents it."""
    pages = re.sub(r"## Table of Contents\n.*?(?=\*\*Commands)", "", app.generate_docs(), flags=re.DOTALL)
    pages = pages.replace(" -m mkdocs", "")  # the way this process may have been started
    status = (
        "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Results go to standard output, the rest to "
    )
    return pages.replace("# edda\n", f"# Commands\n\n{status}standard error.\n", 1).replace("$", "&#36;")


def functions_page() -> str:
    """Signatures and docstrings of the public functions."""
    head = "# Functions\n\nMade from the code. Examples: [Python](python.md).\n"
    return "\n".join([head, *map(_function, FUNCTIONS)])


def _function(called: Callable[..., Any]) -> str:
    """The signature, or a class's fields, and the docstring."""
    source = inspect.getsource(called)
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    name, signature = called.__name__, "\n".join(source.splitlines()[: node.body[0].lineno - 1])
    description = "\n".join(_as_markdown(inspect.getdoc(called) or ""))
    return f"\n## {name}\n\n```python\nfrom {called.__module__} import {name}\n\n{signature}\n```\n\n{description}\n"


def _as_markdown(docstring: str) -> Iterator[str]:
    """A Google docstring as Markdown: sections in bold, their entries as a list."""
    section = ""
    for line in docstring.splitlines():
        if line in ("Args:", "Attributes:", "Returns:", "Raises:"):
            section = line
            yield f"**{line}**\n"
        elif section in ("", "Returns:"):
            yield line.strip()
        elif line[4:5].strip():
            names, text = line.strip().split(": ", 1)
            yield f"- `{names}`: {text}"
        else:
            yield f"  {line.strip()}"


def licences_page() -> str:
    """The licence of every installed package that EDDA depends on, and of those for development."""
    needed = _dependencies("edda-recsys")
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    rows = [
        f"| {name} | {found.version} | {_licence(found)} | {'EDDA' if name in needed else 'development, extras'} |"
        for name, found in sorted(installed.items())
        if name != "edda-recsys"
    ]
    head = (
        "# Licences\n\nOf the packages in the environment that built this page, as they declare them. Their versions "
        "are those of `constraints.txt`; `requirements.lock` has the digests of their files.\n\n"
        "| package | version | licence | for |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _dependencies(name: str) -> set[str]:
    """Canonical names of what an installed package depends on without extras, directly or not."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        try:
            requirements = distribution(waiting.pop()).requires or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, requirements):
            dependency = canonicalize_name(requirement.name)
            if dependency not in needed and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
                needed.add(dependency)
                waiting.append(dependency)
    return needed


def _licence(package: Distribution) -> str:
    """The licence expression, or else the classifiers, or else the first line of the licence's text."""
    metadata = package.metadata
    classifiers = [text.rsplit(" :: ", 1)[1] for text in metadata.get_all("Classifier") or []
                   if text.startswith("License :: ") and text.count(" :: ") > 1]  # fmt: skip
    text = (metadata.get("License") or "").strip().split("\n")[0]
    return (metadata.get("License-Expression") or ", ".join(classifiers) or text or "not declared").replace("|", "/")
