"""`netprobe inject` itself: reads, injects or removes, prints."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.airflow.inject.document import Source, Unreadable, read
from agent.airflow.inject.injecting import Injector, Refused
from agent.airflow.inject.places import CHART_LISTS, OLD_CHART_LISTS, Lists
from agent.airflow.inject.sidecar import IMAGE, LIMITS, REQUESTS, Mode, Options, Position, snippet
from agent.exit_codes import FINE, NOT_STARTED, USAGE

STDIN = "-"
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(m|k|Ki|M|Mi|G|Gi)?")
_UNITS = {None: 1, "m": 1e-3, "k": 1e3, "Ki": 1 << 10, "M": 1e6, "Mi": 1 << 20, "G": 1e9, "Gi": 1 << 30}
_IMAGE = re.compile(r"[\w][\w.:/@-]*")
_NEW_LISTS_SINCE = (1, 21)
_NATIVE_SINCE = (1, 14)
"""Before, the chart's schema of values has no restartPolicy of a container."""


def main(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    problems = list(_contradictions(arguments))
    options = _options(arguments, problems)
    if problems:
        _say(*(f"netprobe inject: {problem}" for problem in problems))
        return USAGE
    if arguments.format == "hook-snippet":
        return _print(snippet(options))
    name = "<stdin>" if arguments.file == STDIN else arguments.file
    try:
        data = sys.stdin.buffer.read() if arguments.file == STDIN else Path(arguments.file).read_bytes()
    except OSError as error:
        _say(f"{name}: expected a file that can be read, got an error: {error.strerror}")
        return USAGE
    injector = Injector(options=options, chart=_chart(arguments), base=arguments.container)
    try:
        source = read(name, data)
        result = injector.remove(source) if arguments.remove else injector.inject(source)
    except (Refused, Unreadable) as error:
        _say(*(str(problem) for problem in error.args))
        return USAGE
    if arguments.diff:
        return _print("".join(_diff(source, result)))
    if arguments.in_place:
        return _write(Path(arguments.file), result.text, before=source.text)
    return _print(result.text)


# --- what was asked for ----------------------------------------------------------------------------------------------


def _contradictions(arguments: argparse.Namespace) -> Iterator[str]:
    """Options that do not go together."""
    if arguments.in_place and arguments.diff:
        yield "--in-place does not go with --diff"
    if arguments.in_place and arguments.file == STDIN:
        yield "--in-place needs a FILE"
    if arguments.format == "hook-snippet":
        for name in ("remove", "diff", "in_place", "container"):
            if getattr(arguments, name):
                yield f"--{name.replace('_', '-')} does not go with --format hook-snippet"
        if arguments.file != STDIN:
            yield f"--format hook-snippet reads no file, got {arguments.file!r}"
    if arguments.format == "chart-values":
        yield from _contradictions_of_a_chart(arguments)
    elif arguments.chart_version is not None:
        yield "--chart-version goes with --format chart-values"


def _contradictions_of_a_chart(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.mode == "legacy" and not arguments.no_share_process_namespace and not arguments.remove:
        yield "the chart has no value for shareProcessNamespace: --mode legacy needs --no-share-process-namespace"
    if arguments.share_env_from:
        yield "--share-env-from needs a pod: the values of the chart hold envFrom as text"
    if arguments.container:
        yield "--container does not go with --format chart-values"
    version = _version(arguments.chart_version or "")
    if arguments.chart_version is not None and version is None:
        yield f"expected --chart-version such as 1.20, got {arguments.chart_version!r}"
    if version is not None and version < _NATIVE_SINCE and arguments.mode == "native" and not arguments.remove:
        yield "a chart before 1.14 takes no native sidecar: use pod_mutation_hook (--format hook-snippet)"


def _options(arguments: argparse.Namespace, problems: list[str]) -> Options:
    image = IMAGE if arguments.image is None else arguments.image
    if not _IMAGE.fullmatch(image):
        problems.append(f"expected --image such as registry.example.com/netprobe:1.0, got {image!r}")
    requests = _quantities("--requests", arguments.requests, REQUESTS, problems)
    limits = _quantities("--limits", arguments.limits, LIMITS, problems)
    for name, asked in requests.items():
        # An API server refuses such a pod, and there would be no task.
        if _amount(asked) > _amount(limits[name]):
            problems.append(f"expected --limits {name} to be at least what is asked for ({asked}), got {limits[name]}")
    return Options(
        mode=Mode(arguments.mode),
        position=Position(arguments.position),
        image=image,
        pull_policy=arguments.image_pull_policy,
        config_map=arguments.config_map,
        requests=requests,
        limits=limits,
        startup_probe=not arguments.no_startup_probe,
        share_process_namespace=not arguments.no_share_process_namespace,
        share_env=tuple(arguments.share_env),
        share_env_from=arguments.share_env_from,
    )


def _quantities(option: str, text: str | None, default: Mapping[str, str], problems: list[str]) -> Mapping[str, str]:
    """`cpu=10m,memory=64Mi`, as kubectl takes it; what is left out keeps its default."""
    found = dict(default)
    for part in text.split(",") if text is not None else ():
        name, _, quantity = part.partition("=")
        if name not in default or not _QUANTITY.fullmatch(quantity):
            problems.append(f"expected {option} such as cpu=10m,memory=64Mi, got {part!r}")
        else:
            found[name] = quantity
    return found


def _amount(quantity: str) -> float:
    """What a quantity of Kubernetes comes to."""
    found = _QUANTITY.fullmatch(quantity)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"v?([0-9]{1,9})\.([0-9]{1,9})(?:[.+-]|\Z)", text)
    return (int(found[1]), int(found[2])) if found else None


def _chart(arguments: argparse.Namespace) -> Lists | None:
    if arguments.format != "chart-values":
        return None
    version = _version(arguments.chart_version) if arguments.chart_version is not None else None
    return OLD_CHART_LISTS if version is not None and version < _NEW_LISTS_SINCE else CHART_LISTS


# --- what comes out --------------------------------------------------------------------------------------------------


def _diff(before: Source, after: Source) -> Iterator[str]:
    """As `patch` reads it."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", source.text) for source in (before, after))
    for line in difflib.unified_diff(old, new, fromfile=before.name, tofile=before.name):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _print(text: str) -> int:
    try:
        # Bytes: line ends come out as they came in.
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _say(f"netprobe: expected to write to standard output, got an error: {error.strerror}")
        return NOT_STARTED
    return FINE


def _write(path: Path, text: str, *, before: str) -> int:
    """Put text into a file at once: whoever reads it meanwhile sees the old one or the new one."""
    if text == before:
        return FINE
    target = path.resolve()
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(text.encode())
                file.flush()
                temporary.chmod(target.stat().st_mode & 0o7777)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        _say(f"{path}: expected a file that can be written, got an error: {error.strerror}")
        return USAGE
    return FINE


def _say(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
