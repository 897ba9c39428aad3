"""Flags that are of no use without another one."""

from corrflow import InputError


def check_needed(command: str, config: object, names: str, needed: str) -> None:
    """InputError names a flag that was given and is of no use without the number `needed`."""
    for name in names.split():
        value = getattr(config, name)
        if value is not None and value is not False and not getattr(config, needed):
            flag = name.replace("_", "-")
            raise InputError(f"{command}: {flag}: expected --{needed} N with it")
