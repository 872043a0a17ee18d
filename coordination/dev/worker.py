"""Runs one agent file as a worker of the development stack: `python -m coordination.dev.worker FILE_OR_MODULE`.

LiveKit's own `start` does the work. What this adds are the options that several workers on one machine need (a health
port of its own, on loopback; a number of idle processes; no refusal of calls because the machine is busy; a bounded
drain), and a file that tells the parent when the worker is registered with the server.

The agent's module is imported under its own name, never as `__main__`: LiveKit sends the entrypoint to its job
processes by that name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from livekit.agents import AgentServer
from livekit.agents.__main__ import main as livekit_main
from livekit.agents._exceptions import CLIError
from livekit.agents.cli.discover import get_import_data

from coordination.dev.errors import DevError
from coordination.dev.ports import LOOPBACK
from coordination.dev.targets import agent_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until the worker is told to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    sys.path.insert(0, str(Path.cwd()))
    try:
        file = agent_file(options.target)
        server = _import_server(file)
    except (DevError, CLIError) as fault:
        print(f"{options.target}: {fault}", file=sys.stderr)
        return 2
    except Exception as fault:  # noqa: BLE001 - the agent's own module may raise anything
        _print_own_frames(fault, Path(options.target).stem)
        return 1
    server.update_options(
        num_idle_processes=options.idle_processes,
        drain_timeout=options.drain_timeout,
        session_end_timeout=float(options.drain_timeout),
    )
    if server.load_fnc is None:
        # LiveKit measures the load of the CPU, and drops a call without a word when it is high; on a machine that runs
        # everything at once it often is.
        server.load_fnc = _load
        server.update_options(load_threshold=math.inf)
    # LiveKit has no public way to change these two once the object exists.
    server._port = options.health_port  # pyright: ignore[reportPrivateUsage]
    server._host = LOOPBACK  # pyright: ignore[reportPrivateUsage]
    if options.ready_file is not None:
        _announce(server, options.ready_file, options.health_port)
    return livekit_main(["start", str(file), "--log-level", options.log_level])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coordination.dev.worker", description=__doc__)
    parser.add_argument("target", help="a Python file, a folder with an agent.py, or a module")
    parser.add_argument("--health-port", type=int, default=0)
    parser.add_argument("--idle-processes", type=int, default=1)
    parser.add_argument("--drain-timeout", type=int, default=2, help="seconds")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--ready-file", type=Path, default=None)
    return parser


def _import_server(file: Path) -> AgentServer:
    data = get_import_data(path=file)
    module = importlib.import_module(data.module_data.module_import_str)
    return getattr(module, data.app_name)


def _print_own_frames(fault: Exception, stem: str) -> None:
    """The traceback from the agent's file on; how it came to be imported tells its author nothing."""
    frame = fault.__traceback__
    while frame is not None and Path(frame.tb_frame.f_code.co_filename).stem != stem:
        frame = frame.tb_next
    traceback.print_exception(fault.with_traceback(frame or fault.__traceback__))


def _load(server: AgentServer) -> float:
    """Grows with the number of calls, so that workers of one role share them, and never says "full"."""
    return min(0.9, len(server.active_jobs) / 20)


def _announce(server: AgentServer, file: Path, health_port: int) -> None:
    def registered(worker_id: str, _: object) -> None:
        role = server._agent_name  # pyright: ignore[reportPrivateUsage] - there is no public name for it
        temporary = file.with_suffix(".new")
        fleet = str(getattr(server, "worker_id", ""))
        told = {"worker": worker_id, "fleet": fleet, "role": role, "health_port": health_port}
        temporary.write_text(json.dumps(told))
        os.replace(temporary, file)  # whoever waits for the file finds it whole

    server.on("worker_registered", registered)  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    sys.exit(main())
