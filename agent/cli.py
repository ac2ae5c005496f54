"""The command line: arguments, exit codes, and one line instead of a traceback.

Each command imports what it needs when it runs: `netprobe --version` loads no HTTP server, and the daemon no table.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.airflow.discovery.arguments import add_arguments as add_discover_arguments
from agent.airflow.inject.arguments import add_arguments as add_inject_arguments
from agent.exit_codes import FINE, INTERRUPTED, NOT_STARTED, USAGE
from agent.lean import lean_imports
from agent.listening import DEFAULT_PORT, EVERYWHERE

if TYPE_CHECKING:
    from agent.config import Config, Problem

CONFIG_VARIABLE = "NETPROBE_CONFIG"
FAIL_OPEN, END_WITH_TASK = "--fail-open", "--end-with-task"
AGENT_URL = f"http://localhost:{DEFAULT_PORT}"
"""The agent of this pod: containers of a pod share their loopback."""

_URLS_HELP = """what to probe instead of the configured targets, such as dns:db, tcp://db:5432 or https://api.example.com/;
with --config, beside them"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Usage errors and --help leave through SystemExit, as argparse does."""
    _replace_closed_streams()
    arguments = _parsed(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read standard output has seen enough; the interpreter flushes once more and must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except Exception as error:  # noqa: BLE001 - whoever types a command gets a sentence
        _say(f"netprobe: internal error: {type(error).__name__}: {error} ({_origin(error)})")
        return NOT_STARTED
    return code


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        given = sys.argv[1:] if argv is None else argv
        if end.code == FINE or given[:1] != ["run"] or FAIL_OPEN not in given:
            raise
    # It has been said what is wrong with the rest.
    return parser.parse_args(["run", FAIL_OPEN, *({END_WITH_TASK} & {*given})])


def _replace_closed_streams() -> None:
    """Give the streams that whoever started this closed (`>&-`) to /dev/null: a sidecar works without a reader.

    In this order each gets its own descriptor back, so that no connection takes it and receives what was meant for it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - stays open


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netprobe",
        description="Asks the network what a task is about to ask it, and says in one sentence why the answer is bad.",
        epilog="Exit codes: 0 all good, 1 a target failed, 2 usage or configuration, 3 could not start.",
    )
    parser.add_argument("--version", action="version", version=f"netprobe {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str, *, config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        if config:
            _add_config(sub)
        sub.set_defaults(run=run, parser=sub)
        return sub

    run = command("run", _run, "probe the configured targets on their schedule and export what is found")
    run.add_argument("--listen", type=_listen, metavar="HOST:PORT", help="listen here, whatever server.listen says")
    about = (
        "work without a configuration, or with one that cannot be used, with what the environment names; never give up"
    )
    run.add_argument(FAIL_OPEN, action="store_true", help=about)
    about = "end once the task's container has ended: for an ordinary container of a pod with shareProcessNamespace"
    run.add_argument(END_WITH_TASK, action="store_true", help=about)

    check = command("check", _check, "probe everything once, now")
    check.add_argument("urls", nargs="*", metavar="URL", help=_URLS_HELP)
    check.add_argument("--output", choices=("table", "json"), default="table", help="what to print (default: table)")

    explain = command("explain", _explain, "ask a running agent what is wrong, and print what it says", config=False)
    explain.add_argument(
        "--url", type=_place, default=AGENT_URL, metavar="URL", help=f"the agent (default: {AGENT_URL})"
    )
    explain.add_argument("--output", choices=("text", "json"), default="text", help="what to print (default: text)")

    about = "print what the environment names and the agent would probe, and what it would not, and why"
    add_discover_arguments(command("discover", _discover, about))
    about = "add the sidecar to a pod template, or take it out again"
    add_inject_arguments(command("inject", _inject, about, config=False))

    config = commands.add_parser("config", help="check, show or describe the configuration")
    actions = config.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, action, about in (
        ("validate", _config_validate, "report every problem of the configuration"),
        ("show", _config_show, "print the configuration with every default filled in and secrets masked"),
        ("schema", _config_schema, "print the JSON Schema of a configuration file, for editors"),
    ):
        sub = actions.add_parser(name, help=about, description=about)
        _add_config(sub)
        sub.set_defaults(run=action, parser=sub)

    about = "watch the agent at work on servers of its own, some of which break and heal"
    demo = command("demo", _demo, about, config=False)
    demo.add_argument(
        "--listen", type=_listen, metavar="HOST:PORT", help=f"listen here (default: 127.0.0.1:{DEFAULT_PORT})"
    )
    demo.add_argument("--duration", type=_duration, metavar="60s", help="end after this time (default: at Ctrl-C)")
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help=f"configuration file, or a directory of them (default: what {CONFIG_VARIABLE} says)",
    )


def _listen(text: str) -> Any:
    from agent.config.sections import LISTEN  # noqa: PLC0415 - only where the option is used

    return _read(LISTEN, text)


def _place(text: str) -> Any:
    from agent.explain import place_of  # noqa: PLC0415 - only where the option is used

    try:
        return place_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> Any:
    from agent.keys import duration  # noqa: PLC0415 - only where the option is used

    return _read(duration("1s", "1d"), text)


def _read(kind: Any, text: str) -> Any:
    """An option's value by the rules of the configuration."""
    import voluptuous as vol  # noqa: PLC0415

    try:
        return kind(text)
    except vol.Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _load(arguments: argparse.Namespace) -> Config:
    """Load the configuration that --config or the environment names.

    Raises ConfigError; leaves with a usage error where none is named.
    """
    from agent.config import load  # noqa: PLC0415

    arguments.config = _config_path(arguments)
    if arguments.config is None:
        parser: argparse.ArgumentParser = arguments.parser
        parser.error(f"expected --config PATH or {CONFIG_VARIABLE}, got neither")
    return load(arguments.config, os.environ)


def _load_in_pod(arguments: argparse.Namespace) -> Config:
    """Load the configuration; where the environment names a place without one, what the sidecar does without it.

    Raises ConfigError; leaves with a usage error where none is named.
    """
    from agent.config.fallback import absent, without_configuration  # noqa: PLC0415

    path = _config_path(arguments)
    if arguments.config is None and path is not None and absent(path):
        return without_configuration()
    return _load(arguments)


def _load_or_default(arguments: argparse.Namespace) -> tuple[Config, Sequence[Problem]]:
    """Load the configuration that --config or the environment names, or have one that needs none. Raises nothing."""
    from agent.config import load_or_default  # noqa: PLC0415

    return load_or_default(_config_path(arguments), os.environ)


def _config_path(arguments: argparse.Namespace) -> Path | None:
    """What --config says, or else the environment."""
    named = os.environ.get(CONFIG_VARIABLE)
    path: Path | None = arguments.config
    return path or (Path(named) if named else None)


def _with_problems(command: Any) -> Any:
    """Turn a ConfigError into its problems, one a line on standard error."""

    def run(arguments: argparse.Namespace) -> int:
        from agent.config import ConfigError  # noqa: PLC0415

        try:
            code: int = command(arguments)
        except ConfigError as error:
            _say(str(error))
            return USAGE
        return code

    return run


def _run(arguments: argparse.Namespace) -> int:
    return _run_whatever_happens(arguments) if arguments.fail_open else _run_or_say_why(arguments)


def _run_whatever_happens(arguments: argparse.Namespace) -> int:
    """Run, or at least let the pod start and end: a sidecar that cannot work must not cost a task."""
    try:
        return _run_agent(arguments)
    except Exception as error:  # noqa: BLE001 - there is nobody to tell but whoever reads the log
        if arguments.end_with_task:
            # An ordinary container keeps its pod from ending, and nobody waits for it to start.
            _say(f"netprobe: internal error: {type(error).__name__} ({_origin(error)})")
            return FINE
        from agent import last_resort  # noqa: PLC0415

        last_resort.serve(*_where_to_listen(arguments), f"{type(error).__name__} ({_origin(error)})")
        return FINE


@_with_problems
def _run_or_say_why(arguments: argparse.Namespace) -> int:
    return _run_agent(arguments)


def _run_agent(arguments: argparse.Namespace) -> int:
    # Process 1 of a container misses a SIGTERM that comes before it listens for one, and the pod then waits out its
    # grace period. Nothing has begun yet that would have to be ended.
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(FINE))
    try:
        with _answering_early(arguments):
            import asyncio  # noqa: PLC0415

            lean_imports()
            config, problems = _load_or_default(arguments) if arguments.fail_open else (_load(arguments), ())
            from agent.app import run  # noqa: PLC0415 - after the configuration, whose problems need no server
        return asyncio.run(
            run(
                config,
                problems=problems,
                listen=arguments.listen,
                fail_open=arguments.fail_open,
                end_with_task=arguments.end_with_task,
            )
        )
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise


def _answering_early(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Let a start-up probe pass while the agent is being loaded, where it is certain that there is no start gate."""
    if not arguments.fail_open or arguments.end_with_task:
        return nullcontext()
    from agent import early  # noqa: PLC0415

    if early.undecided(_config_path(arguments)):
        return nullcontext()
    return early.answering(*_where_to_listen(arguments))


def _where_to_listen(arguments: argparse.Namespace) -> tuple[str, int]:
    """What --listen says, or the default."""
    if arguments.listen is None:
        return EVERYWHERE, DEFAULT_PORT
    return arguments.listen.host, arguments.listen.port


@_with_problems
def _check(arguments: argparse.Namespace) -> int:
    from agent.config import DiagnosisOptions, SchedulerOptions, targets_from_urls  # noqa: PLC0415

    # Who types a URL asks about that URL: the pod's own configuration joins in only where it is asked for.
    config = _load_in_pod(arguments) if arguments.config is not None or not arguments.urls else None
    if config is not None and config.discover is not None:
        from agent.airflow.discovery.complete import complete  # noqa: PLC0415 - only where it is asked for

        config, _ = complete(config, os.environ)
    targets = (*(config.targets if config else ()), *targets_from_urls(arguments.urls))
    import asyncio  # noqa: PLC0415

    from agent.check import Output, check  # noqa: PLC0415

    output = Output(arguments.output)
    concurrency = (config.scheduler if config else SchedulerOptions()).concurrency
    diagnosis = config.diagnosis if config else DiagnosisOptions()
    return asyncio.run(check(targets, output=output, concurrency=concurrency, diagnosis=diagnosis))


def _explain(arguments: argparse.Namespace) -> int:
    from agent.explain import explain  # noqa: PLC0415

    return explain(arguments.url, output=arguments.output)


def _inject(arguments: argparse.Namespace) -> int:
    from agent.airflow.inject.command import main as run  # noqa: PLC0415

    return run(arguments)


@_with_problems
def _discover(arguments: argparse.Namespace) -> int:
    from agent.airflow.discovery.command import main as run  # noqa: PLC0415

    return run(arguments, _load_in_pod(arguments) if _config_path(arguments) is not None else None)


@_with_problems
def _config_validate(arguments: argparse.Namespace) -> int:
    from agent.config import hardcoded_addresses  # noqa: PLC0415

    config = _load(arguments)
    for remark in hardcoded_addresses(config.targets):
        _say(f"{arguments.config}: warning: target {remark.target.name}: {remark.text}")
    count = len(config.targets)
    found = ", and what discovery finds where it runs" if config.discover is not None else ""
    _print(f"{arguments.config}: {count} target{'' if count == 1 else 's'}{found}")
    return FINE


@_with_problems
def _config_show(arguments: argparse.Namespace) -> int:
    import yaml  # noqa: PLC0415

    from agent.config import show  # noqa: PLC0415

    _print(yaml.safe_dump(show(_load(arguments)), sort_keys=False, width=120).rstrip())
    return FINE


def _config_schema(_: argparse.Namespace) -> int:
    import json  # noqa: PLC0415

    from agent.config import json_schema  # noqa: PLC0415

    _print(json.dumps(json_schema(), indent=2))
    return FINE


def _demo(arguments: argparse.Namespace) -> int:
    from agent import demo  # noqa: PLC0415

    return demo.main(arguments.listen, arguments.duration)


def _print(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _say(f"netprobe: expected to write to standard output, got an error: {error.strerror}")
        raise SystemExit(NOT_STARTED) from None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _origin(error: BaseException) -> str:
    """The line that raised, for a report."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    path = Path(trace.tb_frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{trace.tb_lineno}"
