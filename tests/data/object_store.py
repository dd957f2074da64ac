"""moto's S3 server in a process of its own, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

BUCKET = "bucket"

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def object_store(files: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a server that has ``files`` in :data:`BUCKET`; it ends with this process at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        put(f"{url}/{BUCKET}", b"")
        for name, content in files.items():
            put(f"{url}/{BUCKET}/{name}", content)
        yield url
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def put(url: str, content: bytes) -> None:
    """Upload; moto asks for no signature."""
    request = urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"}, method="PUT")
    with urllib.request.urlopen(request, timeout=20):
        pass
