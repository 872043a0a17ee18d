"""Loaded by every Python process that has this folder on its path: there is no Redis here, and nowhere else to go.

Importing redis fails, and so does every connection except those to LiveKit and to the backend. What was refused is
written to the file that REFUSED names.
"""

import os
import sys
from urllib.parse import urlsplit

ALLOWED = {urlsplit(os.environ.get(name, "")).port for name in ("LIVEKIT_URL", "BATON_BACKEND_URL")}


def _refuse(what: str) -> None:
    with open(os.environ["REFUSED"], "a", encoding="utf-8") as file:
        file.write(f"{what}\n")


class NoRedis:
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in ("redis", "hiredis"):
            _refuse(f"import {name}")
            raise ImportError(f"{name} cannot be imported here")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[1] not in ALLOWED:
            _refuse(f"connect {address}")
            raise ConnectionRefusedError(f"{address} is out of reach here")


sys.meta_path.insert(0, NoRedis())
sys.addaudithook(_audit)
