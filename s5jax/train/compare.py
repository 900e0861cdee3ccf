"""Two configs compared, where a workdir or a checkpoint has one already."""

import json
from typing import Any

__all__ = ["differences"]


def differences(old: Any, new: Any) -> str:
    """The fields in which two configs differ, as `Config.to_dict` gives them, in words; "" if there are none.

    Where the data lie, and whether on the device, makes no difference.
    """

    def compare(old: Any, new: Any, name: str) -> list[str]:
        if isinstance(old, dict) and isinstance(new, dict):
            fields = ((old.get(key), new.get(key), f"{name}.{key}") for key in sorted(old.keys() | new.keys()))
            return [line for field in fields for line in compare(*field)]
        if old == new or name in ("config.task.data_dir", "config.train.resident_gib"):
            return []
        return [f"\n  {name}: {old!r} there, {new!r} now"]

    found = compare(json.loads(json.dumps(old)), json.loads(json.dumps(new)), "config")
    return "make these fields agree:" + "".join(found) if found else ""
