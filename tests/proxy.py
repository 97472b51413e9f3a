"""A way to a service on which faults can be set: real bytes to a real server while there is none."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 65536


@dataclass(frozen=True)
class Fault:
    """What happens to connections: cut at once, held without an answer, answered with these bytes, or carried with a delay before each chunk."""

    cut: bool = False
    silent: bool = False
    answer: bytes | None = None
    delay_seconds: float = 0.0


NONE, DOWN, SILENT = Fault(), Fault(cut=True), Fault(silent=True)


def answering(status: str, body: str = "", kind: str = "text/plain") -> Fault:
    """Every request is answered with this."""
    return Fault(answer=f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())


class FaultyProxy:
    """Carries bytes between clients and a server. A new fault also meets the connections that are open."""

    def __init__(self, port: int, host: str = "127.0.0.1", listen: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._listener = socket.create_server((listen, 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._fault = NONE
        self.met = 0
        """Connections that have met the present fault."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, fault: Fault) -> None:
        self._fault, self.met = fault, 0
        self.cut()

    def cut(self) -> None:
        """Cut the connections that are open; new ones meet the fault that is set."""
        while self._open:
            with suppress(OSError):  # it has ended by itself
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.set(DOWN)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.met += 1
            if self._fault.cut:
                near.close()
            elif self._fault.silent:
                self._open.append(near)
            elif self._fault.answer is not None:
                threading.Thread(target=self._answer, args=(near, self._fault.answer), daemon=True).start()
            else:
                self._connect(near)

    @staticmethod
    def _answer(near: socket.socket, answer: bytes) -> None:
        with suppress(OSError), near:
            near.recv(CHUNK)
            near.sendall(answer)
            near.shutdown(socket.SHUT_WR)
            while near.recv(CHUNK):  # the rest of the request; a client that is cut off while it sends does not read the answer
                pass

    def _connect(self, near: socket.socket) -> None:
        far = socket.create_connection(self._target)
        self._open += [near, far]
        threading.Thread(target=self._carry, args=(near, far, self._fault.delay_seconds), daemon=True).start()
        threading.Thread(target=self._carry, args=(far, near, 0.0), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, delay: float) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                time.sleep(delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
