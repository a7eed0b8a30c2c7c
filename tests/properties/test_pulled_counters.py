"""Counters of cores that die and of scrapes that are lost: what is shown never goes back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from corelane.model.metrics import OTHER_TOPICS, TOPICS_SHOWN_MAX
from corelane.runtime.pulled import Pulled, TopicLimit

COUNTERS = ("wal_writes", "misrouted/Produce", "turn_us/le/3", f"topic_bytes_in/{OTHER_TOPICS}")
GAUGE = "requests_waiting"
SHOWN_TOPIC = "topic_bytes_in/t"
TOPIC_EXISTS = "log_bytes/t"

steps = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.sampled_from(COUNTERS), st.integers(0, 9)),
        st.tuples(st.sampled_from(["scrape", "lost scrape", "kill"])),
    ),
    max_size=60,
)


@given(steps)
def test_counters_never_go_back_and_only_a_death_between_two_scrapes_loses_some(
    script: list[tuple[str, ...] | tuple[str, str, int]],
) -> None:
    pulled = Pulled()
    boot = 1
    life: dict[str, float] = {}
    heard_of_the_dead = dict.fromkeys(COUNTERS, 0.0)
    heard: dict[str, float] = {}
    before: dict[str, float] = {}
    for step in script:
        match step:
            case ("count", str(name), int(count)):
                life[name] = life.get(name, 0.0) + count
            case ("scrape",):
                heard = dict(life)
                pulled.heard(boot, {**life, GAUGE: 7.0})
            case ("lost scrape",):
                pulled.not_heard()
            case _:
                for name, value in heard.items():
                    heard_of_the_dead[name] += value
                boot, life, heard = boot + 1, {}, {}
                pulled.not_heard()
        shown = pulled.shown()
        assert (GAUGE in shown) == pulled.is_fresh
        for name in COUNTERS:
            assert shown.get(name, 0.0) == heard_of_the_dead[name] + heard.get(name, 0.0)
            assert shown.get(name, 0.0) >= before.get(name, 0.0)
        before = shown


@given(st.lists(st.sampled_from(["produce", "scrape", "kill", "delete", "create"]), max_size=40))
def test_the_numbers_of_a_topic_end_with_it_and_begin_anew_with_another(script: list[str]) -> None:
    pulled = Pulled()
    boot, count, exists, heard_of_the_dead, heard = 1, 0.0, True, 0.0, 0.0
    for step in script:
        match step:
            case "produce" if exists:
                count += 1
            case "create" if not exists:
                exists = True
            case "delete":
                exists, count = False, 0.0
            case "kill":
                heard_of_the_dead, heard = heard_of_the_dead + heard, 0.0
                boot, count = boot + 1, 0.0
            case "scrape":
                values = {TOPIC_EXISTS: 1.0, SHOWN_TOPIC: count} if exists else {}
                pulled.heard(boot, values)
                heard = count
                if not exists:
                    heard_of_the_dead = 0.0
                shown = pulled.shown()
                assert (SHOWN_TOPIC in shown) == exists
                assert shown.get(SHOWN_TOPIC, 0.0) == heard_of_the_dead + heard


HIDDEN = 5


@given(
    st.lists(
        st.tuples(st.booleans(), st.tuples(*[st.integers(0, 5)] * HIDDEN)), min_size=1, max_size=4
    )
)
@settings(max_examples=30)
def test_topics_beyond_the_limit_are_added_up_and_their_sum_never_goes_back(
    scrapes: list[tuple[bool, tuple[int, ...]]],
) -> None:
    limit = TopicLimit()
    totals = [0] * (TOPICS_SHOWN_MAX + HIDDEN)
    other = f"topic_bytes_in/{OTHER_TOPICS}"
    before = 0.0
    for deletes_the_last, more in scrapes:
        for number, count in enumerate(more):
            totals[TOPICS_SHOWN_MAX + number] += count
        if deletes_the_last:
            totals[-1] = 0
        flat: dict[str, float] = {"topics": len(totals)}
        for number, total in enumerate(totals):
            flat[f"log_bytes/t{number}"] = 1.0
            flat[f"topic_bytes_in/t{number}"] = total
        limit.apply({0: flat})
        assert limit.hidden == HIDDEN
        labels = [key for key in flat if key.startswith("topic_bytes_in/")]
        assert len(labels) == TOPICS_SHOWN_MAX + 1
        assert flat["topic_bytes_in/t0"] == totals[0]
        assert flat[other] == max(before, sum(totals[TOPICS_SHOWN_MAX:]))
        assert flat[f"log_bytes/{OTHER_TOPICS}"] == HIDDEN, "a gauge of theirs may fall"
        before = flat[other]
