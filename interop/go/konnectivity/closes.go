package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
)

// outcomes counts what Close returned.
type outcomes struct {
	sync.Mutex
	counts map[string]int
}

func (o *outcomes) add(err error) {
	o.Lock()
	defer o.Unlock()
	if o.counts == nil {
		o.counts = map[string]int{}
	}
	o.counts[fmt.Sprint(err)]++
}

func (o *outcomes) note(of string) {
	if len(o.counts) > 0 {
		check.Note("%s: %v", of, o.counts)
	}
}

func checkCloses(way way) {
	checkLastWords(way)
	checkClosingTarget(way)
	checkResettingTarget(way)
}

// checkLastWords closes right behind the last write: the target must get all of it, and then the end.
func checkLastWords(way way) {
	var closes outcomes
	sizes := []int{1, 100, 10_000, 500_000}
	check.Tries(way.name+": bytes written right before Close reach the target", 100, 8, func(number int) error {
		words := noise(byte(number), sizes[number%len(sizes)])
		type heard struct {
			words []byte
			err   error
		}
		hearing := make(chan heard, 1)
		listening := target.Serve(func(conn *net.TCPConn) {
			words, err := io.ReadAll(conn)
			hearing <- heard{words, err}
		})
		defer listening.Close()
		conn, err := way.dial(context.Background(), listening.Address)
		if err != nil {
			return err
		}
		if _, err := conn.Write(words); err != nil {
			return err
		}
		err = conn.Close()
		closes.add(err)
		if err != nil && err.Error() != "tunnel closed" {
			return fmt.Errorf("close: %w", err)
		}
		got := <-hearing
		if string(got.words) != string(words) || got.err != nil {
			return fmt.Errorf("the target got %d of %d bytes, error %v", len(got.words), len(words), got.err)
		}
		return nil
	})
	closes.note("what Close returned")
}

// checkClosingTarget reads to the end what a target sent before it closed.
func checkClosingTarget(way way) {
	var closes outcomes
	payload := noise(3, 300_000)
	closing := target.Serve(func(conn *net.TCPConn) { conn.Write(payload) })
	defer closing.Close()
	check.Tries(way.name+": bytes written right before the target closes reach the client", 100, 8, func(int) error {
		conn, err := way.dial(context.Background(), closing.Address)
		if err != nil {
			return err
		}
		if err := wantRest(conn, payload); err != nil {
			return err
		}
		err = conn.Close()
		closes.add(err)
		if err != nil && err.Error() != "tunnel closed" {
			return fmt.Errorf("close: %w", err)
		}
		return nil
	})
	closes.note("what Close returned after the target's")
}

// checkResettingTarget looks at what is left of a connection that the target resets: the reader must come to an end,
// and Close must not wait.
func checkResettingTarget(way way) {
	var closes, reads outcomes
	payload := noise(4, 100_000)
	resetting := target.Serve(func(conn *net.TCPConn) {
		conn.Write(payload)
		io.ReadFull(conn, make([]byte, 1)) // the client has read some of it
		conn.SetLinger(0)
	})
	defer resetting.Close()
	check.Tries(way.name+": a target that resets is an end", 40, 8, func(int) error {
		conn, err := way.dial(context.Background(), resetting.Address)
		if err != nil {
			return err
		}
		half := make([]byte, len(payload)/2)
		if _, err := io.ReadFull(conn, half); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("!")); err != nil {
			return err
		}
		rest, err := io.ReadAll(conn)
		reads.add(fmt.Errorf("%d bytes, then %v", len(rest), err))
		start := time.Now()
		closes.add(conn.Close())
		if waited := time.Since(start); waited > 2*time.Second {
			return fmt.Errorf("Close waited %s", waited)
		}
		return nil
	})
	reads.note("what was read behind the first half")
	closes.note("what Close returned after the reset")
}
