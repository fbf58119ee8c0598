package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
)

// An echo beside a stalled reader may take this long: far below the 10 s after which the library cuts the reader off.
const tolerable = 2 * time.Second

// checkStalledReader has a client that does not read what a target sends without an end, and four others that work.
func checkStalledReader(way way) {
	flood, echoing := target.Flood(), target.Echo()
	defer flood.Close()
	defer echoing.Close()
	check.Once(way.name+": four clients echo beside one that does not read", func() error {
		conns := make([]net.Conn, 4)
		for number := range conns {
			conn, err := way.dial(context.Background(), echoing.Address)
			if err != nil {
				return err
			}
			defer conn.Close()
			conns[number] = conn
		}
		before, _, err := echoFor(time.Second, conns)
		if err != nil {
			return fmt.Errorf("before the stall: %w", err)
		}
		stalled, err := way.dial(context.Background(), flood.Address)
		if err != nil {
			return err
		}
		defer func() { go stalled.Close() }() // which waits for an answer that is behind all the rest
		during, longest, err := echoFor(time.Duration(tries(3, 12))*time.Second, conns)
		check.Note("echoes per second without and beside the stalled one: %.0f, %.0f; the longest took %s", before, during, longest.Round(time.Millisecond))
		if err != nil {
			return fmt.Errorf("beside the stalled one: %w", err)
		}
		if longest > tolerable {
			return fmt.Errorf("an echo took %s", longest)
		}
		return echo(way.dial, echoing.Address, numbered(0))
	})
}

// echoFor echoes on all connections at once and says how often each second, and how long the longest echo took.
func echoFor(duration time.Duration, conns []net.Conn) (rate float64, longest time.Duration, failure error) {
	var all sync.WaitGroup
	counts, times, failures := make([]int, len(conns)), make([]time.Duration, len(conns)), make([]error, len(conns))
	start := time.Now()
	for number, conn := range conns {
		all.Go(func() {
			for time.Since(start) < duration {
				began := time.Now()
				if failures[number] = exchange(conn, numbered(number)); failures[number] != nil {
					return
				}
				times[number] = max(times[number], time.Since(began))
				counts[number]++
			}
		})
	}
	all.Wait()
	total := 0
	for number, count := range counts {
		total += count
		if failures[number] != nil {
			failure = failures[number]
		}
	}
	return float64(total) / time.Since(start).Seconds(), slices.Max(times), failure
}
