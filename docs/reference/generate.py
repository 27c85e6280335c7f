"""Write docs/reference/cli.md and docs/reference/scenario.md from the program: ``python docs/reference/generate.py``.

A test fails when the files and the program differ.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as mi
import typer.main

from simloop.cli import app
from simloop.scenario.docs import field_docs, summary_of
from simloop.scenario.schema import scenario_structs
from simloop.scenario.types import expected

HERE = Path(__file__).resolve().parent
HEAD = "<!-- Written by docs/reference/generate.py; change the program, not this file. -->\n"


def cli_page() -> str:
    """Return the reference of the command, from its options' help texts."""
    command: Any = typer.main.get_command(app)
    parts = [HEAD, "# The `simloop` command\n", _paragraphs(command.help), _EXITS]
    for name, sub in command.commands.items():
        parts += [f"## simloop {name}\n", _paragraphs(sub.help), *_parameters(sub)]
    return "\n".join(parts)


_EXITS = """| exit status | meaning |
|---|---|
| 0 | done; also where the scenario's own `until_s` ended the run |
| 1 | the run failed: a deadlock, a policy that raised; the reason is on stderr |
| 2 | bad input: one line on stderr says where, what was found and what was expected; nothing was written |
| 130, 143 | Ctrl-C, SIGTERM: what there is was written, marked as partial; a second one ends all |

Results go to stdout; messages, logs and the progress bar go to stderr.
"""


def _paragraphs(text: str | None) -> str:
    return inspect.cleandoc(text or "") + "\n"


def _parameters(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    if shown:
        yield "| argument or option | meaning |\n|---|---|"
    for parameter in shown:
        yield f"| {_usage(parameter)} | {parameter.help} |"
    if shown:
        yield ""


def _usage(parameter: Any) -> str:
    if not parameter.opts[0].startswith("-"):
        name = parameter.metavar or parameter.name.upper()
        return f"`{name}`" if parameter.required else f"`[{name}]`"
    value = "" if parameter.is_flag else f" {parameter.metavar}"
    return ", ".join(f"`{name}{value}`" for name in sorted(parameter.opts, key=len, reverse=True))


def scenario_page() -> str:
    """Return the reference of scenario files, from the structs' docstrings and types."""
    tables = [_struct_table(struct) for struct in scenario_structs()]
    return "\n".join([HEAD, _INTRODUCTION, *tables])


_INTRODUCTION = """# Scenario files

A scenario is one YAML, JSON or TOML file; the three mean the same. Every key that is not listed here is an error, and
so is a key that stands twice or a number that is not finite. Plain YAML values are those of YAML 1.2: `1e3` is a
number, `no` is text. Names of files are relative to the scenario's own folder, in `--set` to the working directory.
`simloop schema` prints the same as a JSON Schema.

```yaml
model: llama-3.1-8b
workers:
  - {name: gpu, device: a100-sxm-80gb, count: 1, engine: {max_num_seqs: 256, max_num_batched_tokens: 2048}}
policies: {route: least_loaded, schedule: vllm}
workload: {requests: 2000, arrivals: {process: poisson, rate: 8}, lengths: {preset: azure-conv-2023}}
slo: {ttft_s: 15, max_gap_s: 0.3}
seed: 0
```

Units are in the keys: `_s` seconds, `_ms` milliseconds, `_gb_s` 10^9 bytes a second. Rates are per second; lengths are
tokens. Lists and mappings may be changed from the command line: `--set workers[0].count=4`,
`--set 'slo={ttft_s: 1}'`. A key that is not given has the default below; *required* ones have none.
"""


def _struct_table(struct: type[msgspec.Struct]) -> str:
    head = f"## {struct.__name__}\n\n{summary_of(struct)}\n\n| key | takes | default | meaning |\n|---|---|---|---|"
    return _plain("\n".join([head, *_rows(struct), ""]))


def _rows(struct: type[msgspec.Struct]) -> Iterator[str]:
    kind, docs = mi.type_info(struct), field_docs(struct)
    if not isinstance(kind, mi.StructType):
        return
    if kind.tag_field:
        yield f"| `{kind.tag_field}` | `{kind.tag}` | *required* | Says that it is this. |"
    for field in kind.fields:
        meaning = _cell(docs.get(field.name))
        yield f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} | {meaning} |"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _plain(text: str) -> str:
    """Turn the roles and double backquotes of docstrings into Markdown."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def _type(kind: mi.Type) -> str:
    if isinstance(kind, mi.Metadata):
        return _type(kind.type)
    if isinstance(kind, mi.StructType):
        name = kind.cls.__name__
        return f"[{name}](#{name.lower()})"
    if isinstance(kind, mi.ListType):
        return f"list of {_type(kind.item_type)}"
    if isinstance(kind, mi.UnionType):
        members = [member for member in kind.types if not isinstance(member, mi.NoneType)]
        return " or ".join(_type(member) for member in members)
    return expected(kind).removeprefix("a ")


def _default(field: mi.Field) -> str:
    if field.required:
        return "*required*"
    if field.default is not msgspec.NODEFAULT:
        return _value(field.default)
    return _value(field.default_factory())


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "all defaults"
    return f"`{msgspec.json.encode(value).decode()}`"


def main() -> None:
    """Write both pages."""
    (HERE / "cli.md").write_text(cli_page(), encoding="utf-8")
    (HERE / "scenario.md").write_text(scenario_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
