package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// batchTokens are the numbers of tokens whose client is another, see authority.
const batchTokens = 40_000_000

// bulkAtTheDoor lets one event void very many tokens that a process remembers, while others are in use: what do their
// holders notice? In every round the process is a new one, whose ledger has held nothing before.
func (b *bench) bulkAtTheDoor(ctx context.Context) error {
	voided := b.tokens
	var before, after windows
	var ratios50, ratios99 []float64
	var took []time.Duration
	for range min(b.times, 5) {
		one, err := b.launch(ctx, settings{"tcp", "standard", "256MiB", 2 * time.Second, wideOpen}, b.machine.serving)
		if err != nil {
			return err
		}
		err = b.void(ctx, one, voided, &before, &after, &took)
		one.stop()
		if err != nil {
			return err
		}
		last := len(before.p50) - 1
		ratios50, ratios99 = append(ratios50, after.p50[last]/before.p50[last]), append(ratios99, after.p99[last]/before.p99[last])
	}
	b.report.figure(fmt.Sprintf("at the door, one event voids %d remembered tokens: the operator has the answer after", voided), "%.1f ms", float64(slices.Max(took).Microseconds())/1000, limit{},
		"at most; every one that was tried is refused by then")
	b.report.figure("– median of other hits, over before", "%.2f×", median(ratios50), limit{1.1, 0}, fmt.Sprintf("%.0f µs, before %.0f µs; %d hits, all right", median(after.p50), median(before.p50), after.hits))
	b.report.figure("– p99 of other hits, over before", "%.2f×", median(ratios99), limit{1.1, 0},
		fmt.Sprintf("%.0f µs, before %.0f µs; in single rounds %.2f to %.2f", median(after.p99), median(before.p99), slices.Min(ratios99), slices.Max(ratios99)))
	return nil
}

func (b *bench) void(ctx context.Context, i *instance, tokens int, before, after *windows, took *[]time.Duration) error {
	if err := fill(ctx, i.forwardAuth, forwardAuth, 10_000); err != nil {
		return err
	}
	if _, err := drive(ctx, i.forwardAuth, 16, forwardAuth, count(batchTokens, tokens, new(atomic.Bool)), func() {}); err != nil {
		return fmt.Errorf("filling: %w", err)
	}
	hits, err := dialAll(ctx, i.forwardAuth, hitConns, forwardAuth)
	defer closeAll(hits)
	if err != nil {
		return err
	}
	window := func(w *windows) error {
		took, err := hitting(hits, time.Now().Add(3*b.length))
		w.add(took)
		return err
	}
	if err := window(before); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	began := time.Now()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+i.admin+"/v1/revocations", bytes.NewReader([]byte(`{"issuer":"main","client":"batch--frontend","why":"a benchmark"}`)))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer operator")
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	*took = append(*took, time.Since(began))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("POST /v1/revocations: %s %s", answer.Status, said)
	}
	for id := batchTokens; id < batchTokens+tokens; id += tokens / 100 {
		if _, err := hits[0].send(id); err != nil {
			return err
		}
		if hits[0].Status != http.StatusUnauthorized {
			return fmt.Errorf("a token that was revoked got %d", hits[0].Status)
		}
	}
	if err := window(after); err != nil {
		return fmt.Errorf("after: %w", err)
	}
	return nil
}
