package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	v1 "k8s.io/api/core/v1"
)

// besideStalledReader has a kubectl exec whose output nobody reads.
func besideStalledReader(ctx context.Context, c *cluster) (string, error) {
	stalled, err := c.beside(ctx, webSocket, "exec", "web", "-c", "web", "--", "yes")
	if err != nil {
		return "", err
	}
	defer stalled.end()
	// The command is running once this has come; nothing after it is read.
	if _, err := io.ReadFull(stalled.stdout, make([]byte, 1)); err != nil {
		return "", fmt.Errorf("%w; kubectl said: %s", err, stalled.stderr)
	}
	return c.others(ctx)
}

// besideStalledWriter has a command that reads nothing of all that it is sent.
func besideStalledWriter(ctx context.Context, c *cluster) (string, error) {
	stalled, err := c.beside(ctx, webSocket, "exec", "-i", "web", "-c", "web", "--", "sh", "-c", "echo here; exec sleep 60")
	if err != nil {
		return "", err
	}
	defer stalled.end()
	if _, err := io.ReadFull(stalled.stdout, make([]byte, 1)); err != nil {
		return "", fmt.Errorf("%w; kubectl said: %s", err, stalled.stderr)
	}
	go func() {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := stalled.stdin.Write(chunk); err != nil {
				return
			}
		}
	}()
	return c.others(ctx)
}

// others follows logs and runs commands meanwhile. They must not notice anything.
func (c *cluster) others(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const followers = 5
	silences := make([]time.Duration, followers)
	logs := make(chan error, 1)
	lines := c.size(150, 100)
	go func() {
		logs <- atOnce(followers, func(number int) error {
			tail := int64(1)
			stream, err := c.client.CoreV1().Pods(namespace).GetLogs("ticks", &v1.PodLogOptions{Follow: true, TailLines: &tail}).Stream(ctx)
			if err != nil {
				return err
			}
			defer stream.Close()
			ticks := ticks{lines: bufio.NewScanner(stream)}
			err = ticks.read(lines)
			silences[number] = ticks.silence
			return err
		})
	}()
	longest := time.Duration(0)
	var failure error
	for running := true; running && failure == nil; {
		start := time.Now()
		if _, failure = c.exec(ctx, webSocket, nil, "true"); failure != nil {
			failure = fmt.Errorf("an exec beside it: %w", failure)
			break
		}
		longest = max(longest, time.Since(start))
		select {
		case failure = <-logs:
			running = false
		case <-time.After(500 * time.Millisecond):
		}
	}
	silence := time.Duration(0)
	for _, each := range silences {
		silence = max(silence, each)
	}
	if failure == nil && max(silence, longest) > c.limit(3*time.Second) {
		failure = fmt.Errorf("others noticed it")
	}
	return fmt.Sprintf("logs silent %.1f s, slowest exec %.1f s", silence.Seconds(), longest.Seconds()), failure
}
