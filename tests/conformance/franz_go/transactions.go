package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

const perTransaction = 10

// transactions commits every other one; readers of committed records see just those.
func transactions(ctx context.Context, bootstrap, topic string) error {
	if err := create(ctx, bootstrap, topic, 2); err != nil {
		return err
	}
	producer, err := connect(
		bootstrap,
		kgo.TransactionalID("of-"+topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer producer.Close()
	for number := range 6 {
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		records := make([]*kgo.Record, 0, perTransaction)
		for i := range perTransaction {
			value := fmt.Appendf(nil, "%d/%d", number, i)
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: value})
		}
		if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		if err := producer.EndTransaction(ctx, kgo.TransactionEndTry(number%2 == 0)); err != nil {
			return err
		}
	}
	values, err := committed(ctx, bootstrap, topic, 3*perTransaction)
	if err != nil {
		return err
	}
	for value := range values {
		if number := value[0]; number != '0' && number != '2' && number != '4' {
			return fmt.Errorf("%s was aborted and is read", value)
		}
	}
	return nil
}

// committed returns the committed values of a topic, each with how often it is there.
func committed(ctx context.Context, bootstrap, topic string, count int) (map[string]int, error) {
	consumer, err := connect(
		bootstrap,
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	values := map[string]int{}
	for read := 0; read < count; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("%d of %d committed records: %w", read, count, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			values[string(record.Value)]++
			read++
		})
	}
	return values, nil
}

// transform moves records from one topic to another, with the offsets in the same transactions.
func transform(ctx context.Context, bootstrap, topic string) error {
	source := topic + "-source"
	const count = 100
	for _, name := range []string{topic, source} {
		if err := create(ctx, bootstrap, name, 1); err != nil {
			return err
		}
	}
	filler, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer filler.Close()
	for i := range count {
		record := &kgo.Record{Topic: source, Value: fmt.Appendf(nil, "%d", i)}
		if err := filler.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
	}
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(bootstrap),
		kgo.TransactionalID("of-"+topic),
		kgo.ConsumerGroup("of-"+topic),
		kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
	)
	if err != nil {
		return err
	}
	defer session.Close()
	for read, turn := 0, 0; read < count; turn++ {
		fetches := session.PollRecords(ctx, 30)
		if err := fetches.Err0(); err != nil {
			return err
		}
		if err := session.Begin(); err != nil {
			return err
		}
		got := 0
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(ctx, &kgo.Record{Topic: topic, Value: record.Value}, nil)
			got++
		})
		isCommit := turn != 1 // one is aborted, and read again
		done, err := session.End(ctx, kgo.TransactionEndTry(isCommit))
		if err != nil {
			return err
		}
		if done {
			read += got
		}
	}
	values, err := committed(ctx, bootstrap, topic, count)
	if err != nil {
		return err
	}
	if len(values) != count {
		return fmt.Errorf("%d different records, not %d", len(values), count)
	}
	return nil
}
