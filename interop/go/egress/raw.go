package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"konnectivity-quic.invalid/interop/harness/check"
	"konnectivity-quic.invalid/interop/harness/target"
)

const (
	greeting = "SSH-2.0-egress_check\r\n"
	farewell = "farewell\n"
)

// checkBanners dials targets that speak at once, as an SSH server does; then sends a line and reads it back.
func checkBanners() {
	for _, banner := range []string{greeting, greeting + strings.Repeat("and a long welcome\n", 5000)} {
		greeter := target.Greeter(banner)
		check.Tries(fmt.Sprintf("target that speaks first, %d bytes", len(banner)), tries(200, 1000), 8, func(int) error {
			conn, err := connect(greeter.Address)
			if err != nil {
				return err
			}
			defer conn.Close()
			got := make([]byte, len(banner))
			if count, err := io.ReadFull(conn, got); err != nil {
				return fmt.Errorf("%d bytes of the banner, then %w", count, err)
			}
			if string(got) != banner {
				return errors.New("the banner is not what the target sent")
			}
			if _, err := io.WriteString(conn, farewell); err != nil {
				return err
			}
			return wantRest(conn, farewell)
		})
		greeter.Close()
	}
}

// checkRefusals wants to see the agent's text, where the protocol has a place for it.
func checkRefusals() {
	refusals := []struct{ name, address, status, text string }{
		{"a port that refuses", target.Refusing(), "code 502: ", "connection refused"},
		{"a name that does not exist", "does-not-exist.invalid:80", "code 502: ", "no such host"},
	}
	for _, refusal := range refusals {
		want := refusal.text
		if connectProtocol {
			want = refusal.status
		}
		var err error
		check.Once(refusal.name, func() error {
			_, err = connect(refusal.address)
			return check.Want(err, want)
		})
		check.Note("%v", err)
	}
	check.Tries("refusals, eight at a time", tries(50, 500), 8, func(int) error {
		_, err := connect(target.Refusing())
		if connectProtocol {
			return check.Want(err, "code 502: ")
		}
		return check.Want(err, "connection refused")
	})
}

// checkHalfClose sends a file, ends its own half, and reads what the target says only after that.
func checkHalfClose() {
	const count = 1 << 20
	counting := target.Serve(func(conn *net.TCPConn) {
		received, err := io.Copy(io.Discard, conn)
		fmt.Fprintf(conn, "%d bytes, error %v", received, err)
	})
	defer counting.Close()
	check.Once("half-close", func() error {
		conn, err := connect(counting.Address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(make([]byte, count)); err != nil {
			return err
		}
		half, can := conn.(interface{ CloseWrite() error })
		if !can {
			return fmt.Errorf("%T cannot end one half", conn)
		}
		if err := half.CloseWrite(); err != nil {
			return err
		}
		return wantRest(conn, fmt.Sprintf("%d bytes, error %v", count, nil))
	})
}

func wantRest(conn net.Conn, want string) error {
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != want {
		err = fmt.Errorf("want %q and the end, got %q", want, got)
	}
	return err
}
