"""Pictures of a batch side by side in OpenVINO, each on its own thread."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Streams:
    """As many inference requests as threads, shared by all who ask; safe to call from any thread.

    Args:
        compiled: an `openvino.CompiledModel` of that many streams.
        count: of the streams.
    """

    def __init__(self, compiled: Any, count: int) -> None:
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            self._free.put(compiled.create_infer_request())

    def __call__(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every picture through the network, by itself.

        Args:
            pictures: (N, H, W, 3), N at least 1.

        Returns:
            Each output of the network, (N, ...).
        """
        call = _Call(pictures)
        try:
            for number in range(len(pictures)):
                call.start(number, self._request(call))
            while call.running:
                self._free.put(call.finish())
        finally:
            for _, request in call.running:  # something failed: that is told, not what follows it
                with suppress(RuntimeError):
                    request.wait()
                self._free.put(request)
        return call.outputs

    def _request(self, call: _Call) -> Any:
        """One that nobody uses: a free one, else the next of this call's own, else another's."""
        try:
            return self._free.get_nowait()
        except Empty:
            return call.finish() if call.running else self._free.get()


class _Call:
    """One batch on its way: what is running, and what came out."""

    def __init__(self, pictures: NDArray[np.float32]) -> None:
        self.running: deque[tuple[int, Any]] = deque()
        self.outputs: list[NDArray[np.float32]] = []
        self._pictures = pictures

    def start(self, number: int, request: Any) -> None:
        self.running.append((number, request))
        request.start_async([self._pictures[number : number + 1]], share_inputs=True)

    def finish(self) -> Any:
        """Wait for the one that was started first, take its answer, and hand it back."""
        number, request = self.running[0]
        request.wait()
        found = [tensor.data for tensor in request.output_tensors]
        if not self.outputs:
            count = len(self._pictures)
            self.outputs = [np.empty((count, *one.shape[1:]), one.dtype) for one in found]
        for whole, one in zip(self.outputs, found, strict=True):
            whole[number] = one[0]
        self.running.popleft()
        return request
