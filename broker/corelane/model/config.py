"""The configuration of a node: one tree of records, parsed and checked once.

`parse` reports every fault of a file together, in sentences; what it returns is valid and is
never changed. Nothing here reads a file or the environment: the text is handed in.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, Final, Literal, cast

import msgspec

from corelane.model import limits
from corelane.model.config_keys import (
    FACTORS,
    HINTS,
    KEYS,
    KEYS_BY_NAME,
    Key,
    Reload,
    Value,
)
from corelane.model.config_listeners import Faults, Listener, host_fault, port_faults, resolve
from corelane.model.record import record


@record
class NodeConfig:
    """This machine."""

    id: int
    rack: str
    data_dir: str
    core_count: int
    pin_cores: bool
    hand_over_ms: int


@record
class NetworkConfig:
    """Addresses and connections."""

    bind_host: str
    port: int
    core_port_base: int
    advertised_host: str
    listeners: str
    advertised_listeners: str
    core_port_bases: str
    advertised_core_port_bases: str
    peer_port: int
    seeds: str
    admin_port: int
    advertise: str
    listen_backlog: int
    connections_max: int
    connection_idle_ms: int
    request_bytes_max: int
    receive_bytes: int


@record
class StorageConfig:
    """Memory and the write-ahead log of each core."""

    arena_bytes: int
    recent_bytes: int
    wal_dir: str
    wal_file_first_bytes: int
    wal_file_bytes: int
    wal_files_max: int
    wal_flight_bytes_max: int
    checkpoint_bytes: int
    checkpoint_interval_ms: int


@record
class TopicsConfig:
    """What topics are made of when nobody says."""

    auto_create_enable: bool
    delete_enable: bool
    partition_count_default: int
    replication_factor_default: int


@record
class LogConfig:
    """What a topic does unless its own configuration says other (`cluster/topic_config.py`)."""

    message_bytes_max: int
    segment_bytes: int
    roll_ms: int
    roll_jitter_ms: int
    retention_ms: int
    retention_bytes: int
    retention_check_interval_ms: int
    segment_delete_delay_ms: int
    cleanup_policy: str
    delete_retention_ms: int
    compression_type: str
    timestamp_type: str
    timestamp_before_max_ms: int
    timestamp_after_max_ms: int
    replicas_in_sync_min: int
    strict_validation: bool


@record
class ReplicationConfig:
    """Replicas that lag, and damage."""

    catchup_bytes_per_second: int
    feeding_bytes_per_second: int
    catchup_groups_max: int
    scrub_bytes_per_second: int
    balancer: str


@record
class FetchConfig:
    """Reading."""

    bytes_max: int
    sessions_max: int
    consistency: str


@record
class ProducersConfig:
    """Idempotent producers."""

    id_expiration_ms: int


@record
class GroupsConfig:
    """Consumer groups and the topic they are kept in."""

    partition_count: int
    replication_factor: int
    offsets_retention_minutes: int
    metadata_bytes_max: int
    session_timeout_ms_min: int
    session_timeout_ms_max: int
    initial_delay_ms: int
    members_max: int
    consumer_session_timeout_ms: int
    consumer_heartbeat_interval_ms: int
    consumer_migration_policy: str


@record
class TransactionsConfig:
    """Transactions and the topic they are kept in."""

    partition_count: int
    replication_factor: int
    timeout_ms_max: int
    id_expiration_ms: int
    abort_interval_ms: int
    push_age_ms: int


@record
class Config:
    """Everything an operator may choose. Equality ignores which keys were written down."""

    node: NodeConfig
    network: NetworkConfig
    storage: StorageConfig
    topics: TopicsConfig
    log: LogConfig
    replication: ReplicationConfig
    fetch: FetchConfig
    producers: ProducersConfig
    groups: GroupsConfig
    transactions: TransactionsConfig
    listeners: list[Listener]
    """What `network` says of them, resolved."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """The keys that the file or the command line named."""


@record
class Fault:
    """One thing wrong with a configuration; *key* is empty when it is the file as a whole."""

    key: str
    sentence: str


class ConfigError(Exception):
    """A configuration that cannot be used, with everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        assert faults
        self.faults = faults
        lines = [
            f"{fault.key}: {fault.sentence}" if fault.key else fault.sentence for fault in faults
        ]
        super().__init__("\n".join(lines))


_SECTIONS: Final[dict[str, type[Any]]] = {
    "node": NodeConfig,
    "network": NetworkConfig,
    "storage": StorageConfig,
    "topics": TopicsConfig,
    "log": LogConfig,
    "replication": ReplicationConfig,
    "fetch": FetchConfig,
    "producers": ProducersConfig,
    "groups": GroupsConfig,
    "transactions": TransactionsConfig,
}


def parse(text: str, overrides: Mapping[str, Value] | None = None) -> Config:
    """Return the configuration that TOML *text* and then *overrides* ask for.

    Keys may be dotted (`num.partitions = 3`), quoted or in tables; all mean the same. Overrides
    come from a command line, so numbers and truth values may be text there. Raises ConfigError.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Fault("", f"this is not TOML: {error}")]) from None
    faults: list[Fault] = []
    chosen: dict[str, Value] = {}
    _read(dict(_flatten(tree, "")), chosen, faults, is_strict=True)
    _read(dict(overrides or {}), chosen, faults, is_strict=False)
    sections = _build({key.name: chosen.get(key.name, key.default) for key in KEYS})
    wrong = Faults()
    listeners = resolve(sections["network"], wrong)
    config = Config(**sections, listeners=listeners, given=frozenset(chosen))
    faults += _relations(config, wrong)
    if faults:
        raise ConfigError(faults)
    return config


def defaults() -> Config:
    """Return what an empty file means."""
    return parse("")


def is_dynamic(name: str) -> bool:
    """Say whether a running broker takes another value for this setting."""
    key = KEYS_BY_NAME.get(name)
    return key is not None and key.reload is Reload.LIVE


def dynamic_fault(config: Config, dynamic: Mapping[str, str]) -> Fault | None:
    """Return what is wrong with *dynamic* settings on top of *config*, or None."""
    faults: list[Fault] = []
    _read(dict(dynamic), {}, faults, is_strict=False)
    if not faults:
        faults = _relations(with_dynamic(config, dynamic), Faults())
    return faults[0] if faults else None


def with_dynamic(config: Config, dynamic: Mapping[str, str]) -> Config:
    """Return *config* with settings that were changed while the broker runs.

    What cannot be read (another version may have stored it) counts as not set.
    """
    chosen: dict[str, Value] = {}
    _read(dict(dynamic), chosen, [], is_strict=False)
    if not chosen:
        return config
    return Config(**_build(values(config) | chosen), listeners=config.listeners, given=config.given)


def values(config: Config) -> dict[str, Value]:
    """Return every setting by the name it has in a file."""
    return {key.name: _at(config, key.path) for key in KEYS}


def check_ports(config: Config, core_count: int) -> None:
    """Raise ConfigError where ports of so many cores would meet: their number may be the CPUs'."""
    faults = Faults()
    port_faults(config.listeners, config.network, core_count, faults)
    if faults.by_key:
        raise ConfigError([Fault(key, sentence) for key, sentence in faults.by_key.items()])


@record
class MemoryPlan:
    """What one core may use; never more than configured."""

    arena_bytes: int
    receive_bytes: int
    request_bytes_max: int


def fit_memory(config: Config, memory_bytes: int | None, core_count: int) -> MemoryPlan:
    """Share *memory_bytes* (of machine or container; None: unknown) among *core_count* cores.

    Arena and receive memory together take at most half of a core's share: the rest is the
    interpreter, indexes, and the page cache that readers of old data live from.
    Raises ConfigError when that is too little to run on.
    """
    assert core_count > 0
    arena_bytes = config.storage.arena_bytes
    receive_bytes = config.network.receive_bytes
    wanted_bytes = arena_bytes + receive_bytes
    if memory_bytes is not None and memory_bytes // core_count // 2 < wanted_bytes:
        share_bytes = memory_bytes // core_count // 2
        arena_bytes = share_bytes * arena_bytes // wanted_bytes
        receive_bytes = share_bytes - arena_bytes
    if arena_bytes < limits.ARENA_BYTES_MIN or receive_bytes < limits.RECEIVE_BYTES_MIN:
        needed = 2 * (limits.ARENA_BYTES_MIN + limits.RECEIVE_BYTES_MIN) // limits.MIB
        sentence = (
            f"{core_count} cores do not fit into {(memory_bytes or 0) // limits.MIB} MiB of"
            f" memory; start fewer of them (about {needed} MiB are needed for each)"
        )
        raise ConfigError([Fault("corelane.cores", sentence)])
    request_bytes_max = min(config.network.request_bytes_max, receive_bytes, arena_bytes // 2)
    return MemoryPlan(arena_bytes, receive_bytes, request_bytes_max)


def _flatten(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    """Yield (dotted name, value); an empty table is yielded too, so that it is not overlooked."""
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read(
    raw: Mapping[str, object], chosen: dict[str, Value], faults: list[Fault], *, is_strict: bool
) -> None:
    """Check each of *raw* alone and put the good ones into *chosen*."""
    read: dict[str, str] = {}
    for name, value in raw.items():
        target, factor = FACTORS.get(name, (name, 1))
        key = KEYS_BY_NAME.get(target)
        if key is None:
            faults.append(Fault(name, _unknown(name)))
        elif target in read:
            faults.append(Fault(name, f"{read[target]} says the same; keep one of them"))
        else:
            read[target] = name
            try:
                checked = _check(key, value, factor, is_strict=is_strict)
            except msgspec.ValidationError:
                faults.append(Fault(name, _explain(key, value)))
            else:
                chosen[target] = checked


def _check(key: Key, value: object, factor: int, *, is_strict: bool) -> Value:
    if factor != 1:
        # -1 stays -1: "no limit" is the same in every unit.
        count = msgspec.convert(value, int, strict=is_strict)
        value = count if count < 0 else count * factor
    return cast("Value", msgspec.convert(value, _type_of(key), strict=is_strict))


def _type_of(key: Key) -> Any:
    """Return the type that msgspec checks a value of *key* against."""
    if isinstance(key.default, bool):
        return bool
    if isinstance(key.default, int):
        return Annotated[int, msgspec.Meta(ge=key.minimum, le=key.maximum)]
    return Literal[key.choices] if key.choices else str


def _unknown(name: str) -> str:
    if name in HINTS:
        return f"not a setting here: {HINTS[name]}"
    near = difflib.get_close_matches(name, [*KEYS_BY_NAME, *FACTORS], n=1, cutoff=0.5)
    return f"unknown setting; did you mean {near[0]}?" if near else "unknown setting"


def _explain(key: Key, value: object) -> str:
    if key.choices:
        allowed = "one of " + ", ".join(key.choices)
    elif isinstance(key.default, bool):
        allowed = "true or false"
    elif isinstance(key.default, int):
        allowed = f"a whole number from {key.minimum} to {key.maximum}"
    else:
        allowed = "text in quotes"
    unit = f" ({key.unit})" if key.unit else ""
    return f"must be {allowed}{unit}, not {value!r}"


def _build(by_name: Mapping[str, Value]) -> dict[str, Any]:
    sections: dict[str, dict[str, Value]] = {name: {} for name in _SECTIONS}
    for key in KEYS:
        section, attribute = key.path.split(".")
        sections[section][attribute] = by_name[key.name]
    return {name: make(**sections[name]) for name, make in _SECTIONS.items()}


def _at(config: Config, path: str) -> Value:
    section, attribute = path.split(".")
    return cast("Value", getattr(getattr(config, section), attribute))


def _relations(config: Config, wrong: Faults) -> list[Fault]:
    """Return what is wrong between settings that are each right alone."""
    network, storage, log = config.network, config.storage, config.log
    faults: list[Fault] = []

    def require(is_right: bool, key: str, sentence: str) -> None:
        if not is_right:
            faults.append(Fault(key, sentence))

    require(bool(config.node.data_dir), "corelane.data.dir", "must not be empty")
    bind_fault = host_fault(network.bind_host)
    require(bind_fault is None, "corelane.bind.host", bind_fault or "")
    for name in ("corelane.wal.first.file.bytes", "corelane.wal.file.bytes"):
        size = cast("int", _at(config, KEYS_BY_NAME[name].path))
        require(size % limits.BLOCK_BYTES == 0, name, f"must be a multiple of {limits.BLOCK_BYTES}")
    require(
        storage.wal_file_first_bytes <= storage.wal_file_bytes,
        "corelane.wal.first.file.bytes",
        "must not be larger than corelane.wal.file.bytes",
    )
    wal_bytes = storage.wal_file_bytes * storage.wal_files_max
    require(
        2 * storage.checkpoint_bytes <= wal_bytes,
        "corelane.checkpoint.bytes",
        f"must be at most half of the write-ahead log ({wal_bytes} bytes), which would fill"
        " up while a checkpoint is written",
    )
    require(
        network.request_bytes_max <= network.receive_bytes,
        "socket.request.max.bytes",
        "must not be larger than corelane.receive.bytes: the request could never arrive",
    )
    require(
        2 * network.request_bytes_max <= storage.arena_bytes,
        "socket.request.max.bytes",
        "must not be larger than half of corelane.arena.bytes, where its records must fit",
    )
    require(
        log.message_bytes_max <= network.request_bytes_max,
        "message.max.bytes",
        "must not be larger than socket.request.max.bytes: no request could carry the batch",
    )
    require(
        log.roll_jitter_ms <= log.roll_ms,
        "log.roll.jitter.ms",
        "must not be larger than log.roll.ms",
    )
    if not wrong.by_key:
        port_faults(config.listeners, network, max(config.node.core_count, 1), wrong)
    faults += [Fault(key, sentence) for key, sentence in wrong.by_key.items()]
    return faults


def _check_table() -> None:
    """The table and the records above name the same attributes, in types that agree."""
    for name, make in _SECTIONS.items():
        attributes = [key.path.split(".")[1] for key in KEYS if key.path.startswith(name + ".")]
        annotations = make.__annotations__
        assert sorted(attributes) == sorted(annotations), name
        for key in KEYS:
            section, attribute = key.path.split(".")
            assert section != name or annotations[attribute] is type(key.default), key.path


_check_table()
