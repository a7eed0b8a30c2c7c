"""Make config/grafana/*.json: Corelane's dashboards for Grafana, from the tables below.

    python -m tests.tools.dashboards

Each panel says what it shows, in which unit, and what to look for. A test compares the files with
what this makes, and every name in them with what a broker shows.
"""

import json
from pathlib import Path
from typing import Final

from corelane.model.record import record

TARGET: Final = Path(__file__).parents[2] / "config/grafana"
COLUMNS: Final = 24
PANEL_HEIGHT: Final = 8
SCHEMA: Final = 39  # Grafana 10 and newer
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_NODE: Final = 'job=~"$job",instance=~"$instance"'


@record
class Panel:
    """One panel; *queries* are (expression, legend), with `$node` for the selected nodes."""

    title: str
    unit: str
    description: str
    queries: list[tuple[str, str]]
    kind: str = "timeseries"
    width: int = 8


def quantile(share: float, metric: str, by: str, more: str = "") -> str:
    """Return the expression for a quantile of a histogram."""
    return (
        f"histogram_quantile({share}, sum by ({by}, le)"
        f" (rate({metric}_bucket{{$node{more}}}[$__rate_interval])))"
    )


def rate(metric: str, by: str, more: str = "") -> str:
    """Return the expression for a counter's rate."""
    return f"sum by ({by}) (rate({metric}{{$node{more}}}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """Return the expression for how much of one counter another one is, by node."""
    return f"{rate(part, 'instance')} / {rate(whole, 'instance')}"


_DURATION: Final = "corelane_kafka_request_duration_seconds"

OVERVIEW: Final = [
    Panel("Nodes up", "short", "Nodes that answer on their admin port.",
          [("sum(up{$node})", "nodes")], "stat", 4),
    Panel("Cores up", "short", "Cores that serve; the rest restart, or the log says why not.",
          [("sum(corelane_shard_up{$node})", "cores")], "stat", 4),
    Panel("Topics", "short", "Topics of the cluster.",
          [("max(corelane_topics{$node})", "topics")], "stat", 4),
    Panel("Partitions", "short", "Partitions of the cluster.",
          [("max(corelane_partitions{$node})", "partitions")], "stat", 4),
    Panel("Leaderless", "short", "Partitions that can be neither written nor read: 0 is right.",
          [("sum(corelane_leaderless_partitions{$node})", "leaderless")], "stat", 4),
    Panel("Uptime", "s", "Since the youngest node was started.",
          [("min(corelane_uptime_seconds{$node})", "uptime")], "stat", 4),
    Panel("Records in", "binBps", "Bytes of record batches appended, as producers sent them.",
          [(rate("corelane_kafka_received_bytes_total", "instance"), "{{instance}}")]),
    Panel("Records out", "binBps", "Bytes of record batches sent to consumers.",
          [(rate("corelane_kafka_sent_bytes_total", "instance"), "{{instance}}")]),
    Panel("Records", "cps", "Records produced and fetched.",
          [(rate("corelane_kafka_records_produced_total", "instance"), "in {{instance}}"),
           (rate("corelane_kafka_records_fetched_total", "instance"), "out {{instance}}")]),
    Panel("Produce duration", "s", "From arrival to a durable answer. It contains one disk sync.",
          [(quantile(0.5, _DURATION, "instance", ',api="Produce"'), "p50 {{instance}}"),
           (quantile(0.95, _DURATION, "instance", ',api="Produce"'), "p95 {{instance}}"),
           (quantile(0.99, _DURATION, "instance", ',api="Produce"'), "p99 {{instance}}")]),
    Panel("Fetch duration", "s", "It contains the wait for records, up to fetch.max.wait.ms.",
          [(quantile(0.5, _DURATION, "instance", ',api="Fetch"'), "p50 {{instance}}"),
           (quantile(0.99, _DURATION, "instance", ',api="Fetch"'), "p99 {{instance}}")]),
    Panel("Sync duration", "s", "From a write to the write-ahead log to its durability.",
          [(quantile(0.5, "corelane_fsync_duration_seconds", "instance"), "p50 {{instance}}"),
           (quantile(0.99, "corelane_fsync_duration_seconds", "instance"), "p99 {{instance}}")]),
    Panel("Requests by API", "reqps", "Requests answered.",
          [(rate("corelane_kafka_requests_total", "api"), "{{api}}")]),
    Panel("Errors", "reqps", "Requests answered with an error, by the first one in the answer.",
          [(rate("corelane_kafka_requests_total", "api, error", ',error!="NONE"'),
            "{{api}} {{error}}")]),
    Panel("Connections", "short", "Client connections open, by the listener they came through.",
          [("sum by (instance, listener) (corelane_kafka_connections{$node})",
            "{{instance}} {{listener}}")]),
]  # fmt: skip

CORES: Final = [
    Panel("Busy", "percentunit", "Share of its CPU that a core's loop works. Above 0.8 it is full.",
          [(rate("corelane_shard_busy_seconds_total", "instance, shard"),
            "{{instance}} core {{shard}}")]),
    Panel("Loop lag", "s", "p90 of the longest time per second in which a core looked at nothing.",
          [(quantile(0.9, "corelane_shard_loop_lag_seconds", "instance, shard"),
            "{{instance}} core {{shard}}")]),
    Panel("Turn", "s", "p99 of one turn of a core's loop: what other clients wait for one.",
          [(quantile(0.99, "corelane_shard_turn_seconds", "instance, shard"),
            "{{instance}} core {{shard}}")]),
    Panel("CPU", "percentunit", "CPU time of a core's process, with its disk threads.",
          [(rate("corelane_shard_cpu_seconds_total", "instance, shard"),
            "{{instance}} core {{shard}}")]),
    Panel("Garbage collection", "percentunit", "Share of the time, between turns.",
          [(rate("corelane_shard_gc_seconds_total", "instance, shard"),
            "{{instance}} core {{shard}}")]),
    Panel("Memory", "bytes", "Resident memory of a core's process.",
          [("corelane_shard_rss_bytes{$node}", "{{instance}} core {{shard}}")]),
    Panel("Misrouted", "percentunit",
          "Share of requests that came through a door of the node and concern another core.",
          [(share("corelane_kafka_misrouted_requests_total", "corelane_kafka_requests_total"),
            "{{instance}}")]),
    Panel("Messages between cores", "cps", "Frames sent over the pipes of a node.",
          [(rate("corelane_shard_messages_total", "instance, from, to"),
            "{{instance}} {{from}} to {{to}}")]),
    Panel("Bytes between cores", "binBps", "Bytes of those frames.",
          [(rate("corelane_shard_message_bytes_total", "instance, from, to"),
            "{{instance}} {{from}} to {{to}}")]),
    Panel("Partitions led", "short", "Even is right; move what is busy with `cluster move-core`.",
          [("corelane_raft_leaders{$node}", "{{instance}} core {{shard}}")]),
    Panel("Queue", "short", "Requests received and not yet answered; Fetch waits are among them.",
          [("corelane_shard_queue_depth{$node}", "{{instance}} core {{shard}}")]),
    Panel("Connections", "short", "Client connections open on a core.",
          [("sum by (instance, shard) (corelane_kafka_connections{$node})",
            "{{instance}} core {{shard}}")]),
    Panel("Restarts", "short", "Times a core was started again in the last hour.",
          [("increase(corelane_shard_restarts_total{$node}[1h])", "{{instance}} core {{shard}}")]),
    Panel("Stale", "short", "1 where a core did not answer a scrape in time.",
          [("corelane_shard_stale{$node}", "{{instance}} core {{shard}}")]),
    Panel("Arena", "bytes", "Memory of the log's tail; at its limit producers wait.",
          [("corelane_shard_arena_bytes{$node}", "{{instance}} core {{shard}}")]),
]  # fmt: skip

TOPICS: Final = [
    Panel("Behind open transactions", "short",
          "Records that readers of committed ones wait for: they fall as transactions end.",
          [("topk(10, corelane_unstable_records{$node})", "{{topic}}-{{partition}}")], width=12),
    Panel("Oldest transaction", "s", "Open for so long; above transaction.max.timeout.ms it hangs.",
          [("topk(10, corelane_transaction_age_seconds{$node})", "{{topic}}-{{partition}}")],
          width=12),
    Panel("Bytes in", "binBps", "The ten topics that most is written to.",
          [(f"topk(10, {rate('corelane_kafka_received_bytes_total', 'topic')})", "{{topic}}")],
          width=12),
    Panel("Bytes out", "binBps", "The ten topics that most is read of.",
          [(f"topk(10, {rate('corelane_kafka_sent_bytes_total', 'topic')})", "{{topic}}")],
          width=12),
    Panel("Records in", "cps", "The ten topics with most records written.",
          [(f"topk(10, {rate('corelane_kafka_records_produced_total', 'topic')})", "{{topic}}")],
          width=12),
    Panel("Records out", "cps", "The ten topics with most records read.",
          [(f"topk(10, {rate('corelane_kafka_records_fetched_total', 'topic')})", "{{topic}}")],
          width=12),
    Panel("Size", "bytes", "The ten largest topics on disk.",
          [("topk(10, sum by (topic) (corelane_log_bytes{$node}))", "{{topic}}")], width=12),
    Panel("Not shown", "short", "Series of topics beyond the limit: one sum, `other topics`.",
          [("sum(corelane_metrics_dropped_series{$node})", "series")], "stat", 12),
]  # fmt: skip

STORAGE: Final = [
    Panel("Free", "bytes", "Space left on the disk of the data directory.",
          [("corelane_disk_free_bytes{$node}", "{{instance}}")]),
    Panel("Used", "percentunit", "Share of the disk; below 0.9 is comfortable.",
          [("1 - corelane_disk_free_bytes{$node} / corelane_disk_total_bytes{$node}",
            "{{instance}}")]),
    Panel("State", "short", "1 for what the disk is; anything but ok needs a person.",
          [("corelane_disk_state{$node}", "{{instance}} {{state}}")]),
    Panel("Sync duration", "s", "From a write to the write-ahead log to its durability.",
          [(quantile(0.5, "corelane_fsync_duration_seconds", "instance"), "p50 {{instance}}"),
           (quantile(0.99, "corelane_fsync_duration_seconds", "instance"), "p99 {{instance}}")]),
    Panel("Log writes", "iops", "Writes to the write-ahead log; each makes many records durable.",
          [(rate("corelane_wal_writes_total", "instance"), "{{instance}}")]),
    Panel("Records per log write", "short", "Group commit at work: the more the cheaper.",
          [(share("corelane_wal_records_total", "corelane_wal_writes_total"), "{{instance}}")]),
    Panel("Written", "binBps", "Bytes written: the log, then the segments behind it.",
          [(rate("corelane_wal_written_bytes_total", "instance"), "log {{instance}}"),
           (rate("corelane_segment_written_bytes_total", "instance"), "segments {{instance}}")]),
    Panel("Cold reads", "binBps", "Read from disk for consumers that are behind.",
          [(rate("corelane_cold_read_bytes_total", "instance"), "{{instance}}")]),
    Panel("Trimmed", "binBps", "Deleted by retention or DeleteRecords.",
          [(rate("corelane_log_trimmed_bytes_total", "instance"), "{{instance}}")]),
    Panel("Segments", "short", "Segment files of all partitions.",
          [("corelane_segments{$node}", "{{instance}}")]),
    Panel("Leader changes", "short", "Raft groups that got a leader, in the last hour.",
          [("increase(corelane_raft_leader_changes_total{$node}[1h])", "{{instance}}")]),
    Panel("Checkpoints", "cps", "Checkpoints completed; each frees log files.",
          [(rate("corelane_checkpoints_total", "instance"), "{{instance}}")]),
]  # fmt: skip

DASHBOARDS: Final = {
    "overview": ("Corelane: overview", OVERVIEW),
    "cores": ("Corelane: cores", CORES),
    "topics": ("Corelane: topics", TOPICS),
    "storage": ("Corelane: raft and disk", STORAGE),
}


def dashboard(name: str) -> dict[str, object]:
    """Return a dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"corelane-{name}",
        "title": title,
        "tags": ["corelane"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _placed(panels),
    }


def text(name: str) -> str:
    """Return the content of a dashboard's file."""
    return json.dumps(dashboard(name), indent=2) + "\n"


def _variables() -> list[dict[str, object]]:
    source: dict[str, object] = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Data source",
    }
    variables = [source]
    for name, query in (
        ("job", "label_values(corelane_build_info, job)"),
        ("instance", 'label_values(corelane_build_info{job=~"$job"}, instance)'),
    ):
        variables.append(
            {
                "name": name,
                "type": "query",
                "label": name.capitalize(),
                "datasource": _SOURCE,
                "query": query,
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return variables


def _placed(panels: list[Panel]) -> list[dict[str, object]]:
    placed: list[dict[str, object]] = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + height
        height = PANEL_HEIGHT // 2 if panel.kind == "stat" else PANEL_HEIGHT
        grid = {"x": x, "y": y, "w": panel.width, "h": height}
        placed.append(_panel(number, panel, grid))
        x += panel.width
    return placed


def _panel(number: int, panel: Panel, grid: dict[str, int]) -> dict[str, object]:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": _SOURCE,
            "expr": expression.replace("$node", _NODE),
            "legendFormat": legend,
        }
        for place, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": grid,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (TARGET / f"{each}.json").write_text(text(each))
