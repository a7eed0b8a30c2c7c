// A Kafka Streams application: counts the records of each value, and writes each count to a topic.
//
// Usage: java Counting.java BOOTSTRAP APPLICATION INPUT OUTPUT GUARANTEE STATE_DIRECTORY HALT EXPECTED
//
// With HALT above zero it dies when it has read so many records, as by a power cut, without a word to
// anybody. Otherwise it runs until its output has EXPECTED committed records, waits a little for more,
// and prints what the output has, in the order of each partition, a line each: count KEY COUNT.

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Produced;

public final class Counting {
    private static final Duration PATIENCE = Duration.ofSeconds(90);
    private static final Duration AFTERWARDS = Duration.ofSeconds(2);

    public static void main(String[] arguments) {
        String bootstrap = arguments[0];
        Topology topology = topology(arguments[2], arguments[3], Long.parseLong(arguments[6]));
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments[4]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, -1);
        settings.put("auto.offset.reset", "earliest");
        settings.put("session.timeout.ms", 6000);
        try (KafkaStreams streams = new KafkaStreams(topology, settings)) {
            streams.start();
            List<String> lines = read(bootstrap, arguments[3], Long.parseLong(arguments[7]));
            streams.close(Duration.ofSeconds(30));
            lines.forEach(System.out::println);
        }
    }

    private static Topology topology(String input, String output, long halt) {
        AtomicLong seen = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(Serdes.String(), Serdes.String()))
            .peek((key, value) -> {
                if (seen.incrementAndGet() == halt) {
                    Runtime.getRuntime().halt(0);
                }
            })
            .groupBy((key, value) -> value, Grouped.with(Serdes.String(), Serdes.String()))
            .count()
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to(output, Produced.with(Serdes.String(), Serdes.String()));
        return builder.build();
    }

    /** Reads what is committed of a topic until it has so many records, and a little longer. */
    private static List<String> read(String bootstrap, String topic, long expected) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap,
            "isolation.level", "read_committed",
            "auto.offset.reset", "earliest",
            "key.deserializer", StringDeserializer.class,
            "value.deserializer", StringDeserializer.class);
        List<String> lines = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            List<TopicPartition> places = consumer.partitionsFor(topic).stream()
                .map(each -> new TopicPartition(each.topic(), each.partition()))
                .toList();
            consumer.assign(places);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (System.nanoTime() < deadline) {
                int before = lines.size();
                consumer.poll(Duration.ofMillis(100))
                    .forEach(each -> lines.add("count " + each.key() + " " + each.value()));
                if (before < expected && lines.size() >= expected) {
                    deadline = System.nanoTime() + AFTERWARDS.toNanos();
                }
            }
        }
        return lines;
    }
}
