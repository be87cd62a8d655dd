"""The processes that torchrun or `accelerate launch` started for one command.

Accelerate finds the devices and connects the processes. Without a launcher there is one process,
which is the main one and waits for nobody.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

T = TypeVar("T")

LONGEST_WAIT = 24
"""Hours that a process waits for the others; a process that fails ends all of them at once."""


@dataclass(frozen=True)
class Processes:
    """This process among those that work together."""

    rank: int
    """Number of this process, from 0."""
    count: int
    device: torch.device
    """The device of this process: Accelerate's choice."""

    @classmethod
    def start(cls) -> Processes:
        """Connects the processes of a launcher; the second call returns the same.

        Raises:
            ValueError: torchrun started several processes, but Accelerate runs each on its own.
        """
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        # torch's default of 10 or 30 minutes is shorter than a process may have to wait.
        waiting = {"timeout": timedelta(hours=LONGEST_WAIT)} if _launched() else {}
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **waiting)
        if state.num_processes != _launched(least=1):
            raise ValueError(
                f"torchrun started {_launched()} processes, but Accelerate finds no devices for "
                "them; to run the processes on CPUs, set ACCELERATE_USE_CPU=1"
            )
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints for all."""
        return self.rank == 0

    def device_called(self, name: str) -> torch.device:
        """The torch device of that name, or that of this process for `auto`.

        Raises:
            ValueError: torch knows no such device.
        """
        if name == "auto":
            return self.device
        try:
            return torch.device(name)
        except RuntimeError:
            raise ValueError(
                f"no device is called {name!r}; expected auto, cpu, mps, cuda or cuda:1"
            ) from None

    def wait(self) -> None:
        """Returns when all processes have called it."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()

    def agree(self, answer: T) -> T:
        """Gives every process the main process's answer, which can be pickled.

        What a process finds on the disk or on its clock may differ from what another one finds.
        """
        if self.count == 1:
            return answer
        answers = [answer]
        torch.distributed.broadcast_object_list(answers, src=0)
        return answers[0]

    def gather(self, part: T) -> list[T]:
        """Gives every process the parts of all, in the order of the ranks."""
        parts = [part] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(parts, part)
        return parts


def _launched(least: int = 0) -> int:
    """Number of processes that a launcher started; `least` if there was no launcher."""
    return int(os.environ.get("WORLD_SIZE", least))
