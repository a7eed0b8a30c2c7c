// Conformance steps done with franz-go: `conformance BOOTSTRAP STEP`; silence and status 0 are good.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const stepSeconds = 30

type step func(ctx context.Context, bootstrap string, topic string) error

var steps = map[string]step{
	"topics":     topics,
	"plain":      func(c context.Context, b, t string) error { return roundTrip(c, b, t, plain()...) },
	"idempotent": func(c context.Context, b, t string) error { return roundTrip(c, b, t) },
	"leader-acks": func(c context.Context, b, t string) error {
		return roundTrip(c, b, t, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	},
	"codecs":       codecs,
	"offsets":      offsets,
	"group":        group,
	"tail":         tail,
	"transactions": transactions,
	"transform":    transform,
}

func main() {
	if len(os.Args) != 3 || steps[os.Args[2]] == nil {
		fmt.Fprintln(os.Stderr, "usage: conformance BOOTSTRAP STEP")
		os.Exit(2)
	}
	bootstrap, name := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), stepSeconds*time.Second)
	defer cancel()
	topic := fmt.Sprintf("franz-%s-%d", name, time.Now().UnixNano())
	if err := steps[name](ctx, bootstrap, topic); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func plain() []kgo.Opt {
	return []kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks())}
}

func connect(bootstrap string, options ...kgo.Opt) (*kgo.Client, error) {
	options = append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, options...)
	return kgo.NewClient(options...)
}

// create makes a topic and returns an error if the broker refuses it.
func create(ctx context.Context, bootstrap, topic string, partitions int32) error {
	client, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(ctx, partitions, -1, nil, topic)
	return err
}

func topics(ctx context.Context, bootstrap, topic string) error {
	client, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	retention := "3600000"
	configs := map[string]*string{"retention.ms": &retention}
	if _, err := admin.CreateTopic(ctx, 3, -1, configs, topic); err != nil {
		return err
	}
	if _, err := admin.CreateTopic(ctx, 3, -1, nil, topic); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("creating it twice gave %v", err)
	}
	listed, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	if got := len(listed[topic].Partitions); got != 3 {
		return fmt.Errorf("%d partitions listed, not 3", got)
	}
	described, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	for _, config := range described[0].Configs {
		if config.Key == "retention.ms" && config.MaybeValue() != retention {
			return fmt.Errorf("retention.ms is %s", config.MaybeValue())
		}
	}
	if _, err := admin.DeleteTopics(ctx, topic); err != nil {
		return err
	}
	return nil
}

// roundTrip writes to two partitions by their numbers and reads both again.
func roundTrip(ctx context.Context, bootstrap, topic string, options ...kgo.Opt) error {
	if err := create(ctx, bootstrap, topic, 2); err != nil {
		return err
	}
	options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	producer, err := connect(bootstrap, options...)
	if err != nil {
		return err
	}
	defer producer.Close()
	const count = 500
	records := make([]*kgo.Record, 0, 2*count)
	for i := range 2 * count {
		records = append(records, &kgo.Record{
			Topic:     topic,
			Partition: int32(i % 2),
			Key:       fmt.Appendf(nil, "key %d", i),
			Value:     fmt.Appendf(nil, "value %d", i),
			Headers:   []kgo.RecordHeader{{Key: "number", Value: fmt.Appendf(nil, "%d", i)}},
		})
	}
	if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	for partition := range int32(2) {
		read, err := consume(ctx, bootstrap, topic, partition, count)
		if err != nil {
			return err
		}
		for i, record := range read {
			want := fmt.Sprintf("value %d", 2*i+int(partition))
			if string(record.Value) != want || record.Offset != int64(i) {
				return fmt.Errorf("at %d: %q, offset %d", i, record.Value, record.Offset)
			}
			if len(record.Headers) != 1 || record.Headers[0].Key != "number" {
				return fmt.Errorf("at %d: headers %v", i, record.Headers)
			}
		}
	}
	return nil
}

// consume reads count records of a partition from its start, without a group.
func consume(
	ctx context.Context, bootstrap, topic string, partition int32, count int,
) ([]*kgo.Record, error) {
	start := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(0)}}
	consumer, err := connect(bootstrap, kgo.ConsumePartitions(start))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	var read []*kgo.Record
	for len(read) < count {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		read = append(read, fetches.Records()...)
	}
	if len(read) != count {
		return nil, fmt.Errorf("%d records, not %d", len(read), count)
	}
	return read, nil
}

// group reads half of a topic as one member of a group, and the rest as another.
func group(ctx context.Context, bootstrap, topic string) error {
	if err := create(ctx, bootstrap, topic, 2); err != nil {
		return err
	}
	const count = 40
	writer, err := connect(bootstrap, kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer writer.Close()
	for i := 0; i < count; i++ {
		value := []byte(fmt.Sprintf("%d", i))
		if err := writer.ProduceSync(ctx, kgo.SliceRecord(value)).FirstErr(); err != nil {
			return err
		}
	}
	seen := map[string]int{}
	for _, wanted := range []int{count / 2, count} {
		member, err := connect(
			bootstrap,
			kgo.ConsumerGroup("of-"+topic),
			kgo.ConsumeTopics(topic),
			kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		)
		if err != nil {
			return err
		}
		for len(seen) < wanted {
			fetches := member.PollRecords(ctx, wanted-len(seen))
			if err := fetches.Err(); err != nil {
				member.Close()
				return err
			}
			records := fetches.Records()
			for _, record := range records {
				seen[string(record.Value)]++
			}
			if err := member.CommitRecords(ctx, records...); err != nil {
				member.Close()
				return err
			}
		}
		member.Close()
	}
	for value, times := range seen {
		if times != 1 {
			return fmt.Errorf("record %s was read %d times", value, times)
		}
	}
	return nil
}

func codecs(ctx context.Context, bootstrap, topic string) error {
	all := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
	for name, codec := range all {
		err := roundTrip(ctx, bootstrap, topic+"-"+name, kgo.ProducerBatchCompression(codec))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// offsets asks for the start, the end and a time.
func offsets(ctx context.Context, bootstrap, topic string) error {
	if err := create(ctx, bootstrap, topic, 1); err != nil {
		return err
	}
	client, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	start := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for i := range 10 {
		at := start.Add(time.Duration(i) * time.Second)
		record := &kgo.Record{Topic: topic, Value: []byte("x"), Timestamp: at}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	admin := kadm.NewClient(client)
	wanted := []struct {
		name string
		list func() (kadm.ListedOffsets, error)
		want int64
	}{
		{"start", func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, topic) }, 0},
		{"end", func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, topic) }, 10},
		{"time", func() (kadm.ListedOffsets, error) {
			return admin.ListOffsetsAfterMilli(ctx, start.UnixMilli()+3500, topic)
		}, 4},
	}
	for _, each := range wanted {
		listed, err := each.list()
		if err != nil {
			return fmt.Errorf("%s: %w", each.name, err)
		}
		found, _ := listed.Lookup(topic, 0)
		if found.Err != nil || found.Offset != each.want {
			return fmt.Errorf("%s: offset %d, error %v", each.name, found.Offset, found.Err)
		}
	}
	return nil
}

// tail waits at the end of a partition for a record that is written a second later.
func tail(ctx context.Context, bootstrap, topic string) error {
	if err := create(ctx, bootstrap, topic, 1); err != nil {
		return err
	}
	producer, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer producer.Close()
	sent := make(chan error, 1)
	go func() {
		time.Sleep(time.Second)
		record := &kgo.Record{Topic: topic, Value: []byte("late")}
		sent <- producer.ProduceSync(ctx, record).FirstErr()
	}()
	if _, err := consume(ctx, bootstrap, topic, 0, 1); err != nil {
		return err
	}
	return <-sent
}
