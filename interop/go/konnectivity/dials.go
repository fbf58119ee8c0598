package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

// exchange writes bytes and reads them back.
func exchange(conn net.Conn, payload []byte) error {
	if _, err := conn.Write(payload); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	got := make([]byte, len(payload))
	if count, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("%d of %d bytes back, then %w", count, len(got), err)
	}
	if !bytes.Equal(got, payload) {
		return errors.New("not the bytes that were sent")
	}
	return nil
}

// echo dials, exchanges some bytes and closes.
func echo(dial func(context.Context, string) (net.Conn, error), address string, payload []byte) error {
	conn, err := dial(context.Background(), address)
	if err != nil {
		return err
	}
	err = exchange(conn, payload)
	return errors.Join(err, closed(conn))
}

func numbered(number int) []byte { return fmt.Appendf(nil, "%64d", number) }

func checkEchoes(way way) {
	echoing := target.Echo()
	defer echoing.Close()
	try := func(number int) error { return echo(way.dial, echoing.Address, numbered(number)) }
	check.Tries(way.name+": dial, echo, close, one after the other", tries(200, 1000), 1, try)
	check.Tries(way.name+": dial, echo, close, 32 at a time", tries(300, 3000), 32, try)
}

// checkManyAtOnce holds many dials open on one connection.
func checkManyAtOnce(way way) {
	echoing := target.Echo()
	defer echoing.Close()
	conns := make([]net.Conn, tries(300, 1000))
	check.Tries(way.name+": dials held open on one connection", len(conns), 64, func(number int) (err error) {
		conns[number], err = way.dial(context.Background(), echoing.Address)
		return err
	})
	for range 2 {
		check.Tries(way.name+": echo on each of them", len(conns), 64, func(number int) error {
			if conns[number] == nil {
				return errors.New("no connection")
			}
			return exchange(conns[number], numbered(number))
		})
	}
	check.Tries(way.name+": close of each of them", len(conns), 64, func(number int) error {
		if conns[number] == nil {
			return errors.New("no connection")
		}
		return closed(conns[number])
	})
}

// checkHeaderTables sends with each dial metadata of its own: some new, some repeated, short and long, so that the
// header table of the connection is filled, referred to and evicted from for as long as the connection lives.
func checkHeaderTables(frontend frontend) {
	var dials atomic.Int64
	addMetadata := func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
		streamer grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		number := int(dials.Add(1))
		pairs := []string{"repeated", "always the same", fmt.Sprintf("name-%d", number), "a new name",
			"new-value", fmt.Sprintf("value %d", number), "some-bin", string(numbered(number))}
		switch {
		case number%10 == 0: // more than the whole table
			pairs = append(pairs, "long", strings.Repeat("long enough ", 500))
		case number%25 == 1: // more than one frame
			pairs = append(pairs, "longest", strings.Repeat("0123456789abcdef", 2000))
		}
		return streamer(metadata.AppendToOutgoingContext(ctx, pairs...), desc, conn, method, options...)
	}
	tunnel, err := frontend.reusable(grpc.WithStreamInterceptor(addMetadata))
	if err != nil {
		check.Once("header tables: connect", func() error { return err })
		return
	}
	echoing := target.Echo()
	defer echoing.Close()
	try := func(number int) error { return echo(dialing(tunnel), echoing.Address, numbered(number)) }
	check.Tries("reusable: metadata that changes the header table, one dial after the other", tries(200, 3000), 1, try)
	check.Tries("reusable: metadata that changes the header table, 32 dials at a time", tries(500, 3000), 32, try)
	check.Once("reusable: the connection of the metadata is closed", tunnel.Close)
}

func checkNoAgent(frontend frontend) {
	reusable, err := frontend.reusable()
	if err != nil {
		check.Once("reusable: connect", func() error { return err })
		return
	}
	for _, way := range []way{{"single-use", frontend.single}, {"reusable", dialing(reusable)}} {
		check.Once(way.name+": without an agent: No agent available", func() error {
			return dialFails(way, target.Refusing(), "endpoint", "No agent available")
		})
	}
}

func checkFailedDials(way way) {
	check.Tries(way.name+": a port that refuses: connection refused", tries(20, 200), 8, func(int) error {
		return dialFails(way, target.Refusing(), "endpoint", "connection refused")
	})
	check.Once(way.name+": a name that does not exist: no such host", func() error {
		return dialFails(way, "does-not-exist.invalid:80", "endpoint", "no such host")
	})
	check.Once(way.name+": an address without a port: missing port in address", func() error {
		return dialFails(way, "127.0.0.1", "endpoint", "missing port in address")
	})
	if !*quick || way.name == "single-use" {
		checkDialTimeout(way)
	}
	echoing := target.Echo()
	defer echoing.Close()
	check.Once(way.name+": a dial after failed ones", func() error { return echo(way.dial, echoing.Address, numbered(0)) })
}

// checkDialTimeout waits until the agent gives up, after 5 s.
func checkDialTimeout(way way) {
	check.Once(way.name+": a target that does not answer: i/o timeout", func() error {
		silent, err := target.Silence()
		if err != nil {
			return err
		}
		defer silent.Close()
		return dialFails(way, silent.Address, "endpoint", "i/o timeout")
	})
}

// dialFails wants an error that the library puts into a class.
func dialFails(way way, address, reason, text string) error {
	conn, err := way.dial(context.Background(), address)
	if err == nil {
		conn.Close()
	}
	if err := check.Want(err, text); err != nil {
		return err
	}
	if typed, got := client.GetDialFailureReason(err); !typed || string(got) != reason {
		return fmt.Errorf("want the reason %s, got %s", reason, got)
	}
	return nil
}

// checkCancelledDial gives up a dial that waits, and looks whether the agent gives it up too, long before its own limit.
func checkCancelledDial(way way) {
	check.Once(way.name+": a cancelled dial is cancelled at the agent", func() error {
		silent, err := target.Silence()
		if err != nil {
			return err
		}
		defer silent.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		failure := make(chan error, 1)
		go func() {
			_, err := way.dial(ctx, silent.Address)
			failure <- err
		}()
		if err := connecting(silent, 1, 4*time.Second); err != nil {
			return fmt.Errorf("the agent does not dial: %w", err)
		}
		cancel()
		if err := check.Want(<-failure, "dial timeout, context"); err != nil {
			return err
		}
		return connecting(silent, 0, time.Second)
	})
}

// connecting waits until so many sockets wait for the silent target's answer.
func connecting(silent *target.Silent, want int, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		count, err := silent.Connecting()
		if err != nil || count == want {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %s: %d sockets connecting, want %d", limit, count, want)
		}
	}
}
