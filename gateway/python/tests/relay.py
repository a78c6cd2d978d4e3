"""A wire between client and gateway: bytes both ways, until a test cuts it or freezes it."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Listens on a free port and passes everything on to one address."""

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        """Connections so far."""
        self._flows = threading.Event()
        self._flows.set()
        self._may_connect = threading.Event()
        self._may_connect.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, stay_down: bool = False) -> None:
        """Ends every connection without a close frame; who comes again waits until `mend`, if it is
        to stay down."""
        if stay_down:
            self._may_connect.clear()
        for pair in self._pairs:
            for end in pair:
                _shut(end)
        self._pairs.clear()

    def mend(self) -> None:
        """Lets connections through again."""
        self._may_connect.set()

    def freeze(self) -> None:
        """Passes nothing on any more, and ends nothing."""
        self._flows.clear()

    def close(self) -> None:
        """Ends everything."""
        self._flows.set()
        self._may_connect.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                self._may_connect.wait()
                gateway = socket.create_connection(self._target)
            except OSError:
                return
            self._pairs.append((client, gateway))
            self.accepted += 1
            self._flows.set()
            for source, sink in ((client, gateway), (gateway, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        finally:
            _shut(source)
            _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
