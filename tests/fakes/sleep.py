"""Sleep and wake of vLLM 0.32, as v1/engine/core.py and v1/executor/abstract.py implement them, without any weights."""

from __future__ import annotations

import os
import threading
import time

from tests.fakes.vram import MIB

TYPE_CHECKING = False  # see engine.py
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.fakes.engine import Engine

_TAGS = frozenset(("weights", "kv_cache"))
_MODES = ("abort", "wait", "keep")

Answer = tuple[int, dict[str, object]]


class Sleeper:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asleep: set[str] = set()  # tags of the memory that is not on the GPU
        self.level = 0
        self.has_weights = True  # whether the weights are the model's own; without them it talks garbage
        self.is_paused = False  # new tasks wait
        self.is_frozen = False  # running tasks wait too
        self.aborts = 0
        self.running = 0
        self.change = threading.Condition()  # guards all of the above
        self.turn = threading.Lock()  # vLLM's core does one thing at a time: a sleep waits for the end of a wake

    @property
    def is_sleeping(self) -> bool:
        """Whether it reports a sleep: during any pause, and while only a part is awake."""
        return self.is_paused or bool(self.asleep)

    # -- tasks

    def begin(self) -> int:
        """Wait while the engine sleeps. Return the value to pass to `goes_on`."""
        with self.change:
            self.change.wait_for(lambda: not self.is_paused)
            self.running += 1
            return self.aborts

    def end(self) -> None:
        with self.change:
            self.running -= 1
            self.change.notify_all()

    def goes_on(self, began: int) -> bool:
        """Return whether a task that began then may produce more; wait while it is frozen."""
        with self.change:
            self.change.wait_for(lambda: not self.is_frozen)
            return began == self.aborts

    # -- endpoints

    def sleep(self, query: Mapping[str, Sequence[str]]) -> Answer:
        behaviour = self.engine.behaviour
        level, mode = query.get("level", ["1"])[-1], query.get("mode", ["abort"])[-1]
        if level not in ("0", "1", "2") or mode not in _MODES:
            return 400, {"error": {"message": "validation error", "type": "Bad Request", "code": 400}}
        if behaviour.sleep_status != 200:
            return behaviour.sleep_status, {"error": {"message": "CUDA error", "code": behaviour.sleep_status}}
        if behaviour.hang_in_sleep:
            threading.Event().wait()
        with self.turn:  # wait for the end of a running wake
            pass
        self.pause(mode)
        with self.turn:
            time.sleep(behaviour.sleep_seconds)
            if behaviour.die_in_sleep:
                self.engine.die()
            if level != "0" and "weights" not in self.asleep:  # otherwise vLLM logs "already sleeping" and does nothing
                self.discard(int(level))
        return 200, {"status": "sleeping", "level": int(level)}

    def wake(self, tags: Sequence[str]) -> Answer:
        if not self.engine.behaviour.wake_lies:
            with self.turn:
                self.engine.log("wake-begin")
                time.sleep(self.engine.behaviour.wake_seconds)
                wanted = [tag for tag in tags if tag != "scheduling"]
                if self.asleep and (wanted or not tags) and self.asleep.issuperset(wanted):
                    self.restore(set(wanted) or set(self.asleep))
                if not self.asleep:
                    self.resume()
        return 200, {"status": "sleeping" if self.asleep else "awake", "tags": list(tags) or None}

    def rpc(self, body: Mapping[str, object]) -> Answer:
        if body.get("method") != "reload_weights" or "weights" in self.asleep:
            return 500, {"error": {"message": "worker died", "code": 500}}
        self.has_weights = True
        self.engine.log("reload")
        return 200, {"results": [None]}

    def metrics(self) -> str:
        states = {"awake": not self.is_sleeping}
        states |= {"weights_offloaded": self.level == 1, "discard_all": self.level == 2}
        labels = f'engine="0",model_name="{self.engine.alias}"'
        lines = [
            f'vllm:engine_sleep_state{{{labels},sleep_state="{name}"}} {float(here)}\n' for name, here in states.items()
        ]
        names = ("kv_cache_usage_perc", "num_requests_running", "num_requests_waiting", "prompt_tokens_cached_total")
        lines += [f"vllm:{name}{{{labels}}} 0.0\n" for name in names]
        tokens = self.engine.api.tokens("vllm:prompt_tokens_total", "vllm:generation_tokens_total", f"{{{labels}}}")
        return "# TYPE vllm:engine_sleep_state gauge\n" + "".join(lines) + tokens

    # -- their implementation

    def pause(self, mode: str) -> None:
        with self.change:
            self.is_paused = True
            if mode == "wait":
                self.change.wait_for(lambda: self.running == 0)
            elif mode == "abort":
                self.aborts += 1
            else:
                self.is_frozen = True

    def abort(self) -> None:
        """Stop the output of running tasks."""
        with self.change:
            self.aborts += 1

    def resume(self) -> None:
        with self.change:
            self.is_paused = self.is_frozen = False
            self.level = 0
            self.change.notify_all()

    def discard(self, level: int) -> None:
        self.asleep |= _TAGS
        self.level = level
        self.has_weights = self.has_weights and level == 1
        if not self.engine.behaviour.sleep_frees_nothing:
            self.engine.leave_gpu()
            self.hold_memory()
        self.engine.log("sleep")

    def restore(self, tags: set[str]) -> None:
        self.engine.take_gpu()
        self.asleep -= tags
        self.hold_memory()
        if not self.asleep:
            self.engine.log("wake")

    def hold_memory(self, quarters: int = 4) -> None:
        """Hold the memory that the state of its sleep needs; while it loads, only this many `quarters` of it."""
        behaviour = self.engine.behaviour
        sizes = {"weights": behaviour.weights_bytes, "kv_cache": behaviour.kv_bytes}
        if any(sizes.values()) or not self.engine.share:
            held_bytes = sum(size for tag, size in sizes.items() if tag not in self.asleep)
            self.engine.hold_vram(os.getpid(), {self.engine.first_gpu: held_bytes})
        elif "weights" in self.asleep:
            self.engine.hold_vram(os.getpid(), dict.fromkeys(self.engine.share, behaviour.keeps_mib * MIB))
        else:
            shares = {device: share_bytes * quarters // 4 for device, share_bytes in self.engine.share.items()}
            self.engine.hold_vram(os.getpid(), shares)
