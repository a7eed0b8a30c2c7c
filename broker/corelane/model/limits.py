"""Every bound in the system in one place, with the relations that must hold between them.

A bound here is a promise about memory, time or format that no setting can lift. What an operator
may choose is in `config.py`; its ranges end here. Sizes are bytes, times are milliseconds.
"""

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- numbers of the wire format ------------------------------------------------------------

INT16_MAX: Final = 2**15 - 1
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1

BATCH_HEADER_BYTES: Final = 61
"""A record batch v2 without its records."""

BATCH_CONTROL_RECORDS_MAX: Final = 1

# --- a request and its connection ----------------------------------------------------------

REQUEST_HEADER_BYTES_MIN: Final = 8
"""Key, version, correlation id: a shorter frame cannot even be refused."""

REQUEST_BYTES_MAX: Final = 100 * MIB
"""Kafka's default of `socket.request.max.bytes`; one request is never larger."""

REQUEST_ROWS_MAX: Final = 100_000
"""Partitions, topics or keys one request may name; more closes the connection."""

CONNECTIONS_MAX: Final = 20_000
"""Connections of one core; the next one is closed as soon as it is accepted."""

CONNECTION_REQUESTS_MAX: Final = 256
"""Requests of one connection that may wait for their answers; then it is not read."""

CONNECTION_BACKLOG_BYTES_MAX: Final = 1 * MIB
"""Unsent answer bytes above which a connection is not read: a client that never reads stops."""

CONNECTION_NAME_CHARACTERS_MAX: Final = 256
"""Of a client id or client software name that is kept for logs and metrics."""

# --- a turn of the loop --------------------------------------------------------------------

TURN_MS_MAX: Final = 2
"""The budget of one turn: what is left keeps its ready mark, so heartbeats never wait long."""

TURN_BYTES_MAX: Final = 1 * MIB
"""Request bytes taken from one connection in one turn (the first frame is always taken)."""

TURN_FRAMES_MAX: Final = 64
"""Frames taken from one connection in one turn."""

TURN_EVENTS_MAX: Final = 512
"""Events one drain hands to a step."""

TICK_MS: Final = 10

ROOM_WAIT_MS_MAX: Final = 10_000
"""How long a Produce request waits for room in the log; then what does not fit is refused."""

# --- memory --------------------------------------------------------------------------------

BLOCK_BYTES: Final = 4 * KIB
"""What O_DIRECT aligns to: of WAL writes, segment writes and arena chunks."""

CHUNK_BYTES: Final = 1 * MIB
"""An ordinary arena chunk; a batch that does not fit gets a bigger one."""

WAL_RECORD_HEADER_BYTES: Final = 64

ARENA_BYTES_MIN: Final = 16 * MIB
RECEIVE_BYTES_MIN: Final = 8 * MIB
"""Below this a core cannot serve even a handful of clients with default batches."""

CORE_UNCOMMITTED_BYTES_MAX: Final = 64 * MIB
"""Entries of all groups of a core that are not committed; beyond: NOT_ENOUGH_REPLICAS."""

GROUP_UNCOMMITTED_BYTES_MAX: Final = 16 * MIB
"""The same for one group. One batch is always allowed, however large."""

# --- records and produce -------------------------------------------------------------------

BATCH_BYTES_MAX: Final = REQUEST_BYTES_MAX
"""`max.message.bytes` may be set higher, but no request can carry more."""

BATCH_RECORDS_MAX: Final = INT32_MAX
"""As the wire has it; a walked batch is bounded by its bytes (a record has at least 7)."""

BATCH_BYTES_DEFAULT: Final = 1_048_588
"""Kafka's `message.max.bytes`: 1 MiB and the 12 bytes of offset and length."""

PRODUCER_WINDOW_BATCHES: Final = 5
"""Kafka's NUM_BATCHES_TO_RETAIN; clients keep at most five produce requests in flight."""

PRODUCERS_PER_PARTITION_MAX: Final = 5_000
"""Producer ids remembered per partition; the one unused longest in log order is forgotten."""

PRODUCER_ID_BLOCK_COUNT: Final = 1_000
"""Producer ids the controller grants at once, as in Kafka."""

SEQUENCE_MAX: Final = INT32_MAX
"""After this sequence number comes 0."""

PRODUCER_EPOCH_MAX: Final = INT16_MAX - 1
"""Kafka never hands out the last int16: it is kept to fence a producer for good."""

# --- the log -------------------------------------------------------------------------------

WAL_FILE_FIRST_BYTES: Final = 4 * MIB
"""Small, so that a start is quick; later files are filled in the background."""

WAL_FILE_BYTES: Final = 64 * MIB
WAL_FILES_MAX: Final = 8
WAL_FLIGHT_BYTES_MAX: Final = 32 * MIB
"""WAL bytes handed to the disk and not yet durable; beyond, no Produce frame is read."""

SEGMENT_BYTES_MIN: Final = 1 * MIB
"""Kafka's lowest `segment.bytes` since 4.0."""

SEGMENT_BYTES_MAX: Final = INT32_MAX
SEGMENT_WRITE_BYTES_MAX: Final = 4 * MIB
"""One segment write: large enough for the disk, small enough not to hold up the next group."""

READ_BYTES_MAX: Final = 4 * MIB
"""One read of a segment, whatever a client asks for: readers share the arena with the log."""

FETCH_PARTS_MAX: Final = 1_024
"""Batches from memory in one partition's answer; clients with tiny ones ask again."""

FETCH_ANSWER_PARTS_MAX: Final = 8 * FETCH_PARTS_MAX
"""The same for a whole answer, exceeded by at most one partition."""

READS_WAITING_MAX: Final = 10_000
"""Reads that wait for memory; what is asked for beyond is answered empty, and asked for again."""

OPEN_FILES_MAX: Final = 512
"""Files each native thread keeps open."""

WORKED_BYTES_MAX: Final = 32 * MIB
"""Batches of a core that wait to be (de)compressed; beyond, no Produce frame is read."""

PARKED_BYTES_MAX: Final = 32 * MIB
"""Batches of a core that wait for a transaction's coordinator; those beyond are sent again."""

WORKS_MAX: Final = 64
"""Jobs handed to a core's workbench and not done yet; further ones wait in the shard."""

# --- topics and the cluster ----------------------------------------------------------------

TOPIC_NAME_CHARACTERS_MAX: Final = 249
"""With `-` and the partition a directory name stays within 255 (Kafka's rule, kept)."""

TOPIC_NAME_PATTERN: Final = re.compile(r"[a-zA-Z0-9._-]+\Z")

TOPICS_MAX: Final = 100_000
TOPIC_PARTITIONS_MAX: Final = 10_000
CORE_PARTITIONS_MAX: Final = 100_000
REPLICAS_MAX: Final = 7
"""Voters of one group; more would only slow its commits."""

TOPIC_CONFIGS_MAX: Final = 128
CONFIG_NAME_BYTES_MAX: Final = 256
CONFIG_VALUE_BYTES_MAX: Final = 4 * KIB

NODE_ID_MAX: Final = 2_000_000
"""Broker ids are node * 1000 + core and must fit 31 bits."""

CORES_MAX: Final = 998
"""What broker ids have room for."""
JOINED_CORES_MAX: Final = 256
"""Each is joined with every other one by two pipes; the net of a core has room for 256 links."""
ADVERTISED_BROKERS_MAX: Final = 128
"""In advertise=core: clients connect to every broker, and metadata names them all."""
NODE_GROUPS_MAX: Final = 1_000_000
"""Raft groups that the cores of a node tell each other about in one frame."""
FORWARD_BYTES_MAX: Final = 64 * MIB
"""Requests under way to one sibling; above it clients' produce requests are held back."""
PEER_NAME_BYTES_MAX: Final = 255
NODES_MAX: Final = 1_000
ENDPOINTS_MAX: Final = 1_024
HOST_CHARACTERS_MAX: Final = 255
RACK_CHARACTERS_MAX: Final = 255
PORT_MAX: Final = 65_535

COMMAND_BYTES_MAX: Final = 8 * MIB
"""One entry of the controller's log."""

# --- peers: the cores of other nodes -------------------------------------------------------

PEER_FRAME_BYTES_MAX: Final = REQUEST_BYTES_MAX + 8 * MIB
"""A frame of the data link: what a turn gathers, and one message with one batch of any size."""
PEER_SESSION_FRAME_BYTES_MAX: Final = 8 * MIB
PEER_GREETING_BYTES_MAX: Final = KIB
"""Of the first frame each way; so much is read from a stranger."""
PEER_REFUSAL_CHARACTERS_MAX: Final = 200
PEERS_MAX: Final = 4_096
"""Peer cores of one core; connections of further ones are refused."""
PEER_UNGREETED_MAX: Final = 256
"""Accepted connections that have not said who they are; the next one is closed."""
PEER_REFUSALS_LOGGED_MAX: Final = 64
"""Strangers whose refusal is remembered, so that it is logged once; beyond, none is logged."""
PEER_GREETING_MS_MAX: Final = 3_000
"""From dialing, or from being accepted, to the end of the greeting."""
PEER_BACKOFF_MS_MIN: Final = 50
PEER_BACKOFF_MS_MAX: Final = 5_000
PEER_BEAT_MS: Final = 100
PEER_BEAT_SOON_MS: Final = 5
"""Between heartbeats that reads wait for: one for all that came meanwhile."""
PEER_BEAT_PULL_MS: Final = PEER_BEAT_MS // 10
"""How much earlier a core beats to keep time with another one."""
PEER_SILENT_MS: Final = 5 * PEER_BEAT_MS
"""Without an answer for so long a peer core is silent."""
PEER_RECONNECT_MS: Final = 4 * PEER_SILENT_MS
"""Silence after which the connections are replaced: TCP alone would wait for minutes. Not sooner:
a peer that is merely late would have to greet again, too, before it is heard."""
PEER_ROUNDS_MAX: Final = 32
"""Heartbeat rounds under way to one peer; beyond, none is begun: nothing piles up unread."""
PEER_PAUSE_MS: Final = 3 * PEER_BEAT_MS
"""A core that was not run for so long holds nothing against its peers until they were asked."""
PEER_LATE_MS_MAX: Final = 333
"""A loop that is later leads badly: a third of the election time-out."""
PEER_BEAT_ROWS_MAX: Final = CORE_PARTITIONS_MAX
PEER_WAL_AGE_MS_MAX: Final = 2_000
"""A leader whose disk has finished nothing for so long is not believed to lead."""
PEER_DATA_AGE_MS_MAX: Final = 2_000
"""The same for a leader whose data does not arrive."""
PEER_TURN_BYTES: Final = 4 * MIB
"""What one frame of the data link gathers in a turn, besides one larger message."""
PEER_TURN_MESSAGES_MAX: Final = 8_192
PEER_FLIGHT_BYTES_MAX: Final = 32 * MIB
"""Bytes sent over a data link and not acknowledged; exceeded by at most one message."""
PEER_OWED_BYTES_MAX: Final = MIB
"""Bytes of a data link that are acknowledged by a frame of its own, if no other is sent."""
PEER_QUEUE_BYTES_MAX: Final = 16 * MIB
"""What waits for room on a data link; then the oldest is dropped, and raft repeats it."""
PEER_QUEUE_MESSAGES_MAX: Final = 16_384
PEER_LEADS_FRAME_BYTES: Final = 64 * KIB
PEER_CALL_BYTES_MAX: Final = MIB
"""One frame of who leads what; the rest waits for the next heartbeat."""
ELECTION_TIMEOUT_MS_MAX: Final = 8_000
"""To which a core that lags doubles its patience."""

assert CHUNK_BYTES % BLOCK_BYTES == 0
assert BLOCK_BYTES % WAL_RECORD_HEADER_BYTES == 0
assert WAL_FILE_FIRST_BYTES % BLOCK_BYTES == 0
assert WAL_FILE_BYTES % BLOCK_BYTES == 0
assert SEGMENT_WRITE_BYTES_MAX % BLOCK_BYTES == 0
assert WAL_FILE_FIRST_BYTES <= WAL_FILE_BYTES
assert BATCH_BYTES_DEFAULT < REQUEST_BYTES_MAX
assert BATCH_BYTES_MAX <= REQUEST_BYTES_MAX
assert BATCH_BYTES_DEFAULT + WAL_RECORD_HEADER_BYTES < ARENA_BYTES_MIN
assert 2 * READ_BYTES_MAX <= ARENA_BYTES_MIN
assert RECEIVE_BYTES_MIN >= 2 * TURN_BYTES_MAX
assert GROUP_UNCOMMITTED_BYTES_MAX <= CORE_UNCOMMITTED_BYTES_MAX
assert WAL_FLIGHT_BYTES_MAX <= CORE_UNCOMMITTED_BYTES_MAX
assert REQUEST_BYTES_MAX <= SEGMENT_BYTES_MAX, "the largest batch fits an empty segment"
assert SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX
assert TURN_FRAMES_MAX <= CONNECTION_REQUESTS_MAX
assert TURN_MS_MAX < TICK_MS
assert NODE_ID_MAX * 1_000 + 999 <= INT32_MAX
assert TOPIC_NAME_CHARACTERS_MAX + len("-99999") <= 255
assert TOPIC_PARTITIONS_MAX <= CORE_PARTITIONS_MAX
assert TOPIC_PARTITIONS_MAX * (8 + 1 + 4 * REPLICAS_MAX) <= COMMAND_BYTES_MAX
assert TOPIC_CONFIGS_MAX * (CONFIG_NAME_BYTES_MAX + CONFIG_VALUE_BYTES_MAX) <= COMMAND_BYTES_MAX
assert PRODUCER_WINDOW_BATCHES * (REQUEST_BYTES_MAX // 7) < SEQUENCE_MAX, (
    "a window never spans all sequence numbers, so a range names one batch"
)
assert PEER_FRAME_BYTES_MAX <= INT32_MAX
assert PEER_BEAT_ROWS_MAX * (20 + 16) + KIB <= PEER_SESSION_FRAME_BYTES_MAX
assert PEER_TURN_BYTES <= PEER_FLIGHT_BYTES_MAX
assert PEER_OWED_BYTES_MAX < PEER_TURN_BYTES, "what is not acknowledged yet holds nothing up"
assert REQUEST_BYTES_MAX + PEER_TURN_BYTES + MIB <= PEER_FRAME_BYTES_MAX
assert PEER_BEAT_MS * 2 < PEER_SILENT_MS, "one lost round is no silence"
assert PEER_ROUNDS_MAX * (PEER_BEAT_MS - 2 * PEER_BEAT_PULL_MS) > PEER_RECONNECT_MS
assert PEER_LEADS_FRAME_BYTES <= PEER_SESSION_FRAME_BYTES_MAX
assert PEER_CALL_BYTES_MAX + KIB <= PEER_SESSION_FRAME_BYTES_MAX
