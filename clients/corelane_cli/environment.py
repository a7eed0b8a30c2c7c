"""Settings that the environment gives a broker: CORELANE__LOG_RETENTION_MS=1000.

The name is the setting's, in capitals, with `_` for each dot and without a leading `corelane.`.
Two underscores: container platforms set CORELANE_PORT themselves, to something else, for a
service that is called corelane.
"""

import difflib
from collections.abc import Mapping
from typing import Final

from corelane.model.config import ConfigError, Fault
from corelane.model.config_keys import FACTORS, KEYS

PREFIX: Final = "CORELANE__"


def variable_of(key: str) -> str:
    """Return the name of the variable for a setting."""
    return PREFIX + key.removeprefix("corelane.").replace(".", "_").upper()


_KEYS: Final = {variable_of(name): name for name in [*(key.name for key in KEYS), *FACTORS]}

assert len(_KEYS) == len(KEYS) + len(FACTORS)


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that *environment* gives. Raises ConfigError for unknown variables."""
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    faults = [Fault(name, _unknown(name)) for name in sorted(given) if name not in _KEYS]
    if faults:
        raise ConfigError(faults)
    return {_KEYS[name]: value for name, value in given.items()}


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _KEYS, n=1, cutoff=0.5)
    return "no setting has this variable" + (f"; did you mean {near[0]}?" if near else "")
