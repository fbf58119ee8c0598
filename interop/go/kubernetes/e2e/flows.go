package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

const (
	// Half of them follow logs, half run a command.
	flowsOfEach = 6
	// How long they last: 100 lines, ten a second.
	flowLines = 100
)

// flows are logs that are followed and commands that run for some seconds.
type flows struct {
	done    chan struct{}
	results []error
}

// startFlows returns when all of them have brought their first line.
func (c *cluster) startFlows(ctx context.Context) (*flows, error) {
	f := &flows{done: make(chan struct{}), results: make([]error, flowsOfEach)}
	var running sync.WaitGroup
	begun := make(chan struct{}, flowsOfEach)
	for number := range flowsOfEach {
		running.Go(func() {
			begin := sync.OnceFunc(func() { begun <- struct{}{} })
			if number%2 == 0 {
				f.results[number] = c.followTicks(ctx, begin)
			} else {
				f.results[number] = c.countSlowly(ctx, begin)
			}
		})
	}
	go func() {
		running.Wait()
		close(f.done)
	}()
	for range flowsOfEach {
		select {
		case <-begun:
		case <-f.done:
			_, err := f.wait()
			return nil, fmt.Errorf("not all logs and commands have begun: %w", err)
		}
	}
	return f, nil
}

// wait says how many have not come to their end, and why one of them has not.
func (f *flows) wait() (broken int, reason error) {
	<-f.done
	for _, err := range f.results {
		if err != nil {
			broken++
			reason = err
		}
	}
	return broken, reason
}

func (c *cluster) followTicks(ctx context.Context, begin func()) error {
	tail := int64(1)
	stream, err := c.client.CoreV1().Pods(namespace).GetLogs("ticks", &v1.PodLogOptions{Follow: true, TailLines: &tail}).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	ticks := ticks{lines: bufio.NewScanner(stream)}
	if err := ticks.read(1); err != nil {
		return err
	}
	begin()
	return ticks.read(flowLines)
}

func (c *cluster) countSlowly(ctx context.Context, begin func()) error {
	seen := &beginning{begin: begin}
	err := c.execTo(ctx, webSocket, nil, seen, "sh", "-c", fmt.Sprintf("for n in $(seq %d); do echo $n; sleep 0.1; done", flowLines))
	if err != nil {
		return err
	}
	var wanted bytes.Buffer
	for number := range flowLines {
		fmt.Fprintln(&wanted, number+1)
	}
	return want("what the command counted", wanted.String(), seen.kept.String())
}

// beginning keeps what is written and says when it begins.
type beginning struct {
	kept  bytes.Buffer // by name: its ReadFrom would go past Write
	begin func()
}

func (b *beginning) Write(bytes []byte) (int, error) {
	b.begin()
	return b.kept.Write(bytes)
}

// execsUntil runs one command after the other and counts them.
func (c *cluster) execsUntil(ctx context.Context, done <-chan struct{}) (all, failed int) {
	for {
		all++
		if c.runsCommands(ctx) != nil {
			failed++
		}
		select {
		case <-done:
			return all, failed
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *cluster) runsCommands(ctx context.Context) error {
	_, err := c.exec(ctx, webSocket, nil, "true")
	return err
}
