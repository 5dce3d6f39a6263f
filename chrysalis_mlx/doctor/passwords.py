"""What of this machine's settings must not be told: tokens, and the passwords in addresses.

An error of a library quotes what it could not read, and that may be half of a password: "Invalid port: 'pass'".
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping

from chrysalis_mlx.doctor.check import Check

_HIDDEN = "[hidden]"
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ADDRESSES = ("HF_ENDPOINT", "HF_INFERENCE_ENDPOINT", "OLLAMA_HOST")
_SHORTEST = 3  # letters; what is shorter stands in every sentence
_SIGNS = re.compile(r"[:/?#\s]+")  # where a library may cut an address whose password should have been escaped


def without_passwords(check: Check) -> Check:
    """The same check, whose words hold no password and no token of the environment."""
    secrets = sorted(_secrets(os.environ), key=len, reverse=True)
    if not secrets:
        return check
    secret = re.compile("|".join(map(re.escape, secrets)))
    fix = None if check.fix is None else secret.sub(_HIDDEN, check.fix)
    return dataclasses.replace(check, found=secret.sub(_HIDDEN, check.found), fix=fix)


def _secrets(environment: Mapping[str, str]) -> set[str]:
    found = {environment.get(name, "").strip() for name in _TOKENS}
    for name, value in environment.items():
        if name in _ADDRESSES or name.lower().endswith("_proxy"):
            found |= set(_of_address(value))
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _of_address(address: str) -> Iterator[str]:
    """The password of an address, or the token that stands alone in its place, and its query; whole and in pieces."""
    rest = address.partition("://")[2] or address
    user, at, place = rest.rpartition("@")
    if at:
        name, *password = _SIGNS.split(user)
        yield from (user, *(password or [name]))
    for setting in place.partition("?")[2].split("&"):
        yield setting.partition("=")[2] or setting
