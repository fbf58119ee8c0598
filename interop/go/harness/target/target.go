// Package target runs what the dials lead to, each target on a loopback port of its own.
package target

import (
	"bufio"
	"io"
	"net"
)

// Target accepts connections until it is closed.
type Target struct {
	Address  string
	listener net.Listener
}

// Serve runs a target with a goroutine for each connection, which is closed when the goroutine is done.
func Serve(handle func(*net.TCPConn)) *Target {
	listener := listen()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			}()
		}
	}()
	return &Target{listener.Addr().String(), listener}
}

// Close takes no more connections; those that are there go on.
func (t *Target) Close() { t.listener.Close() }

// Echo sends back what it gets.
func Echo() *Target {
	return Serve(func(conn *net.TCPConn) { io.Copy(conn, conn) })
}

// Greeter speaks first, as an SSH server does; then it sends back one line.
func Greeter(greeting string) *Target {
	return Serve(func(conn *net.TCPConn) {
		io.WriteString(conn, greeting)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		io.WriteString(conn, line)
	})
}

// Hasty speaks and ends its half at once; then it waits for the other half.
func Hasty(words string) *Target {
	return Serve(func(conn *net.TCPConn) {
		io.WriteString(conn, words)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	})
}

// Flood sends without an end, to whoever reads.
func Flood() *Target {
	return Serve(func(conn *net.TCPConn) {
		go io.Copy(io.Discard, conn)
		chunk := make([]byte, 64<<10)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	})
}

// Refusing is an address that nothing listens on.
func Refusing() string {
	listener := listen()
	defer listener.Close()
	return listener.Addr().String()
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return listener
}
