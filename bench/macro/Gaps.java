// The same as gaps.py with Kafka's own producer at its default settings.
//
// Usage: java Gaps.java BOOTSTRAP TOPIC PARTITIONS SECONDS

import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Gaps {
    private static final long EVERY_NS = 200_000_000L;
    private static final long GAP_NS_MIN = 250_000_000L;
    private static final long OPEN_NS_MIN = 1_000_000_000L;
    private static final long TELL_EVERY_NS = 500_000_000L;

    public static void main(String[] arguments) {
        String topic = arguments[1];
        int count = Integer.parseInt(arguments[2]);
        long endNs = System.nanoTime() + (long) (Double.parseDouble(arguments[3]) * 1e9);
        AtomicLongArray lastNs = new AtomicLongArray(count);
        AtomicLong failed = new AtomicLong();
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "key.serializer", ByteArraySerializer.class,
            "value.serializer", ByteArraySerializer.class);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            long tellNs = System.nanoTime();
            for (long nextNs = tellNs; nextNs < endNs;) {
                nextNs += EVERY_NS;
                if (nextNs >= tellNs) {
                    tellNs = nextNs + TELL_EVERY_NS;
                    for (int index = 0; index < count; index++) {
                        tell(index, lastNs.get(index), OPEN_NS_MIN);
                    }
                }
                for (int index = 0; index < count; index++) {
                    int partition = index;
                    producer.send(
                        new ProducerRecord<>(topic, partition, null, new byte[100]),
                        (where, error) -> {
                            if (error != null) {
                                failed.incrementAndGet();
                            } else {
                                tell(partition, lastNs.getAndSet(partition, System.nanoTime()), GAP_NS_MIN);
                            }
                        });
                }
                LockSupport.parkNanos(Math.max(0, nextNs - System.nanoTime()));
            }
        }
        for (int index = 0; index < count; index++) {
            tell(index, lastNs.get(index), GAP_NS_MIN);
        }
        System.out.println("failed " + failed);
    }

    /** Prints a gap up to now; the monotonic clock of the JVM is that of Linux. */
    private static void tell(int partition, long beganNs, long gapNsMin) {
        long gapNs = System.nanoTime() - beganNs;
        if (beganNs != 0 && gapNs >= gapNsMin) {
            System.out.printf("gap %d %.3f %.3f%n", partition, beganNs / 1e9, gapNs / 1e9);
        }
    }
}
