package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
)

const greeting = "SSH-2.0-interop_check\r\n"

// checkTargetsThatSpeakFirst reads before it writes. The library is not ready for bytes that come right behind the
// answer to its dial, and loses them. How long it needs depends on how busy its process is: thorough tries keep it busy.
func checkTargetsThatSpeakFirst(way way) {
	beside := ""
	if !*quick {
		beside = ", beside two floods"
		defer load(way)()
	}
	for _, words := range []string{greeting, greeting + strings.Repeat("and a long welcome\n", 5000)} {
		greeter := target.Greeter(words)
		often, thousands, parallel := tries(30, 1000), tries(500, 3000), tries(8, 64)
		if len(words) > len(greeting) {
			often, thousands = tries(10, 200), tries(200, 1000)
		}
		try := func(number int) error { return greet(way, greeter.Address, words, fmt.Sprintf("line %d\n", number)) }
		name := fmt.Sprintf("%s: target that speaks first, %d bytes, ", way.name, len(words))
		check.Tries(name+"one after the other"+beside, often, 1, try)
		check.Tries(fmt.Sprintf("%s%d at a time%s", name, parallel, beside), thousands, parallel, try)
		greeter.Close()
	}
	for _, words := range []string{greeting, ""} {
		hasty := target.Hasty(words)
		check.Tries(fmt.Sprintf("%s: target that says %d bytes and ends at once", way.name, len(words)), tries(200, 1000), 16, func(int) error {
			return withConn(way, hasty.Address, func(conn net.Conn) error { return wantRest(conn, []byte(words)) })
		})
		hasty.Close()
	}
}

func greet(way way, address, words, line string) error {
	return withConn(way, address, func(conn net.Conn) error {
		got := make([]byte, len(words))
		if count, err := io.ReadFull(conn, got); err != nil {
			return fmt.Errorf("%d of %d bytes of the greeting, then %w", count, len(words), err)
		}
		if string(got) != words {
			return errors.New("not the greeting that the target sent")
		}
		if _, err := io.WriteString(conn, line); err != nil {
			return err
		}
		return wantRest(conn, []byte(line))
	})
}

// load keeps the programs busy with two dials that read as fast as they can.
func load(way way) (stop func()) {
	flood := target.Flood()
	var conns []net.Conn
	for range 2 {
		conn, err := way.dial(context.Background(), flood.Address)
		if err != nil {
			check.Note("no load: %v", err)
			break
		}
		conns = append(conns, conn)
		go io.Copy(io.Discard, conn)
	}
	return func() {
		for _, conn := range conns {
			conn.Close()
		}
		flood.Close()
	}
}
