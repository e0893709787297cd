"""The devices of this machine: which there are, which are free, and who uses the others.

A device is taken by a ``flock`` outside the home, inherited by the worker: two homes on one machine
never take the same one, and it stays taken until the last process that holds it is gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ftd.clock import monotonic
from ftd.config import Config, lock_directory
from ftd.files import try_lock
from ftd.gpus import Gpu, NvmlUnavailable, read_gpus, strangers, use

LOOK_AGAIN_S = 3.0


@dataclass(frozen=True)
class Seen:
    """A device as it is now."""

    id: str  # GPU UUID, or cpu:N
    kind: str  # gpu | cpu
    name: str
    memory_bytes: int | None
    state: str  # free, leased, external, unknown, missing
    detail: str = ""
    in_use: bool = False  # by somebody else, or possibly so; always False for CPU slots


class Devices:
    """Looks at the machine, and locks what a worker will use."""

    def __init__(self, config: Config, known_gpus: Mapping[str, str]) -> None:
        """`known_gpus`: UUID -> name of every GPU this home ever saw."""
        self._config = config.devices
        self._known = dict(known_gpus)
        self._gpus: list[Gpu] | None = None  # None: NVML did not answer
        self._looked_at: float | None = None
        self._locks = lock_directory(config)

    def look(self, leases: Mapping[str, int | None], *, refresh: bool = False) -> list[Seen]:
        """Every device and its state.

        `leases` maps the devices that our workers hold to the workers' pids.  The driver is asked
        again only when the last look is old or `refresh` is set.
        """
        if refresh or self._looked_at is None or monotonic() - self._looked_at > LOOK_AGAIN_S:
            self._refresh()
        return [*self._seen_gpus(leases), *self._seen_slots(leases)]

    def lock(self, device: str) -> int | None:
        """Take a device's lock; the descriptor to hand to the worker, or None if it is held."""
        return try_lock(self._lock_path(device), mode=0o666)

    def shared_with_others(self, device: str, worker: int) -> bool:
        """Whether somebody besides our `worker` (a pid) uses a GPU, or that cannot be known."""
        self._refresh()
        gpu = next((gpu for gpu in self._gpus or () if gpu.uuid == device), None)
        return gpu is None or bool(strangers(gpu, [worker]))

    def has_gpus(self) -> bool:
        """Whether this machine has, or ever had, a GPU that may be used."""
        return bool(self._known) or bool(self._gpus)

    def _refresh(self) -> None:
        self._looked_at = monotonic()
        if self._config.gpus == "none":
            self._gpus = []
            return
        try:
            self._gpus = read_gpus()
        except NvmlUnavailable:
            self._gpus = None
            return
        self._known.update({gpu.uuid: gpu.name for gpu in self._gpus if self._allowed(gpu.uuid)})

    def _allowed(self, uuid: str) -> bool:
        chosen = self._config.gpus
        return chosen == "auto" or uuid in chosen

    def _seen_gpus(self, leases: Mapping[str, int | None]) -> list[Seen]:
        present = {gpu.uuid: gpu for gpu in self._gpus or ()}
        workers = [pid for pid in leases.values() if pid is not None]
        idle_bytes = self._config.gpu_idle_memory_mib << 20
        seen = []
        for uuid, name in sorted(self._known.items()):
            if not self._allowed(uuid):
                continue
            gpu = present.get(uuid)
            if gpu is None:
                why = "NVML does not answer" if self._gpus is None else "not there any more"
                seen.append(Seen(uuid, "gpu", name, None, "missing", why, in_use=True))
                continue
            state, detail = use(gpu, strangers(gpu, workers), idle_bytes)
            in_use = state != "free"
            if uuid in leases:
                state = "leased"
            elif state == "free":
                state, detail = self._unless_locked(uuid)
            seen.append(Seen(uuid, "gpu", name, gpu.memory_bytes, state, detail, in_use))
        return seen

    def _seen_slots(self, leases: Mapping[str, int | None]) -> list[Seen]:
        seen = []
        for slot in range(self._num_slots()):
            device = f"cpu:{slot}"
            if device in leases:
                state, detail = "leased", ""
            else:
                state, detail = self._unless_locked(device)
            seen.append(Seen(device, "cpu", "CPU slot", None, state, detail))
        return seen

    def _num_slots(self) -> int:
        chosen = self._config.cpu_slots
        if isinstance(chosen, int):
            return chosen
        return 1 if self.has_gpus() else len(os.sched_getaffinity(0))

    def _unless_locked(self, device: str) -> tuple[str, str]:
        descriptor = self.lock(device)
        if descriptor is None:
            return "external", "held by another ftd home or by a process left behind"
        os.close(descriptor)
        return "free", ""

    def _lock_path(self, device: str) -> Path:
        return self._locks / f"{device.replace(':', '-')}.lock"
