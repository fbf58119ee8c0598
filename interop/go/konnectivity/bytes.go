package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
)

const bulk = 10_000_000

// noise is the same for the same seed.
func noise(seed byte, count int) []byte {
	noise := make([]byte, count)
	rand.NewChaCha8([32]byte{seed}).Read(noise)
	return noise
}

// withConn dials, uses the connection and closes it.
func withConn(way way, address string, use func(net.Conn) error) error {
	conn, err := way.dial(context.Background(), address)
	if err != nil {
		return err
	}
	err = use(conn)
	return errors.Join(err, closed(conn))
}

// writeWhileReading writes in pieces while it reads as much back, and wants to get what it wrote.
func writeWhileReading(conn net.Conn, payload []byte, piece int) error {
	wrote := make(chan error, 1)
	go func() {
		for rest := payload; len(rest) > 0; {
			count := min(piece, len(rest))
			if _, err := conn.Write(rest[:count]); err != nil {
				wrote <- err
				return
			}
			rest = rest[count:]
		}
		wrote <- nil
	}()
	got := make([]byte, len(payload))
	count, err := io.ReadFull(conn, got)
	if err != nil {
		return fmt.Errorf("%d of %d bytes back, then %w", count, len(got), err)
	}
	if sha256.Sum256(got) != sha256.Sum256(payload) {
		return errors.New("the checksums differ")
	}
	return <-wrote
}

func checkBytes(way way) {
	payload := noise(1, bulk)
	sum := sha256.Sum256(payload)
	echoing := target.Echo()
	defer echoing.Close()

	check.Once(way.name+": 10 MB to the target, checksum", func() error {
		taking := target.Serve(func(conn *net.TCPConn) {
			hash := sha256.New()
			io.CopyN(hash, conn, bulk)
			conn.Write(hash.Sum(nil))
		})
		defer taking.Close()
		return withConn(way, taking.Address, func(conn net.Conn) error {
			for piece := range slices.Chunk(payload, 32<<10) {
				if _, err := conn.Write(piece); err != nil {
					return err
				}
			}
			return wantRest(conn, sum[:])
		})
	})
	check.Once(way.name+": 10 MB from the target, checksum", func() error {
		giving := target.Serve(func(conn *net.TCPConn) { conn.Write(payload) })
		defer giving.Close()
		return withConn(way, giving.Address, func(conn net.Conn) error { return wantRest(conn, payload) })
	})
	check.Once(way.name+": 10 MB both ways at once, checksum", func() error {
		return withConn(way, echoing.Address, func(conn net.Conn) error { return writeWhileReading(conn, payload, 20_000) })
	})
	check.Once(way.name+": writes of 1 MiB in one call", func() error {
		return withConn(way, echoing.Address, func(conn net.Conn) error { return writeWhileReading(conn, payload, 1<<20) })
	})
	check.Once(way.name+": writes of one byte", func() error {
		return withConn(way, echoing.Address, func(conn net.Conn) error { return writeWhileReading(conn, payload[:3000], 1) })
	})
	check.Once(way.name+": empty writes are no end", func() error {
		return withConn(way, echoing.Address, func(conn net.Conn) error {
			for number := range 20 {
				if _, err := conn.Write(nil); err != nil {
					return err
				}
				if err := exchange(conn, numbered(number)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	checkTooLarge(way, echoing.Address)
}

// checkTooLarge writes more in one call than a gRPC server takes in one message. This ends the dial and nothing else.
func checkTooLarge(way way, address string) {
	check.Once(way.name+": a write of 5 MiB in one call ends its dial, and only that", func() error {
		other, err := way.dial(context.Background(), address)
		if err != nil {
			return err
		}
		defer other.Close()
		conn, err := way.dial(context.Background(), address)
		if err != nil {
			return err
		}
		defer conn.Close()
		go conn.Write(make([]byte, 5<<20))
		if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
			return fmt.Errorf("%d bytes back, error %v", len(rest), err)
		}
		return exchange(other, numbered(0))
	})
}

// wantRest reads until the end.
func wantRest(conn net.Conn, want []byte) error {
	got, err := io.ReadAll(conn)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes and the end, want %d", len(got), len(want))
		if len(got) == len(want) {
			err = errors.New("not the bytes that were sent")
		}
	}
	return err
}

// checkPages fetches with net/http a page that is sent in ten large pieces.
func checkPages(way way) {
	piece := noise(2, 2<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 10 {
			w.Write(piece)
		}
	}))
	defer server.Close()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return way.dial(ctx, address)
	}}
	client := http.Client{Transport: transport}
	check.Tries(way.name+": GET of 10 x 2 MiB, four at a time", tries(8, 20), 4, func(int) error {
		response, err := client.Get(server.URL)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err == nil && !bytes.Equal(got, bytes.Repeat(piece, 10)) {
			err = fmt.Errorf("%d bytes, or other bytes", len(got))
		}
		return err
	})
}
