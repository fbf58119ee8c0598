package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// noRoute proves that what the other checks reach they reach through the tunnel.
func noRoute(ctx context.Context, _ *cluster) (string, error) {
	for _, address := range []string{nodeAddress + ":10250", "10.244.1.10:8080", "10.96.0.10:8080"} {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		cancel()
		if err == nil {
			conn.Close()
			return "", fmt.Errorf("%s can be reached without the tunnel", address)
		}
	}
	return "", nil
}

func readLogs(ctx context.Context, c *cluster) (string, error) {
	var wanted strings.Builder
	for number := range logLines {
		fmt.Fprintf(&wanted, "line %d of the log\n", number)
	}
	all, err := c.succeed(ctx, webSocket, nil, "logs", "lines")
	if err != nil {
		return "", err
	}
	last, err := c.succeed(ctx, webSocket, nil, "logs", "lines", "--tail=1")
	if err != nil {
		return "", err
	}
	return "", errors.Join(
		want("the whole log", wanted.String(), all),
		want("its last line", fmt.Sprintf("line %d of the log\n", logLines-1), last),
	)
}

// followLogs reads lines while they are written, ten a second.
func followLogs(ctx context.Context, c *cluster) (string, error) {
	kubectl, err := c.beside(ctx, webSocket, "logs", "-f", "ticks", "--tail=1")
	if err != nil {
		return "", err
	}
	defer kubectl.end()
	ticks := ticks{lines: bufio.NewScanner(kubectl.stdout)}
	if err := ticks.read(c.size(50, 20)); err != nil {
		return "", fmt.Errorf("%w; kubectl said: %s", err, kubectl.stderr)
	}
	if ticks.silence > c.limit(2*time.Second) {
		err = fmt.Errorf("silent for %.1f s, at ten lines a second", ticks.silence.Seconds())
	}
	return fmt.Sprintf("longest silence %.2f s", ticks.silence.Seconds()), err
}

// ticks reads the lines of the pod of that name. None may be missing.
type ticks struct {
	lines *bufio.Scanner
	next  int
	// The longest time without a line.
	silence time.Duration
}

func (t *ticks) read(count int) error {
	var before time.Time
	for range count {
		if !t.lines.Scan() {
			return fmt.Errorf("the log ended: %v", t.lines.Err())
		}
		now := time.Now()
		if !before.IsZero() {
			t.silence = max(t.silence, now.Sub(before))
		}
		before = now
		number, err := strconv.Atoi(strings.TrimPrefix(t.lines.Text(), "tick "))
		if err != nil {
			return fmt.Errorf("not a line of this log: %q", t.lines.Text())
		}
		if t.next != 0 && number != t.next {
			return fmt.Errorf("tick %d after tick %d", number, t.next-1)
		}
		t.next = number + 1
	}
	return nil
}

// size is how much of something there is to be, in full and with --quick.
func (c *cluster) size(full, quick int) int {
	if c.options.quick {
		return quick
	}
	return full
}
