package target

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Silent is a target that never answers a connection: its queue is full, and then Linux drops what would open one more.
type Silent struct {
	Address string
	port    int
	socket  int
	queued  []net.Conn
}

// Silence makes such a target.
func Silence() (*Silent, error) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	silent := &Silent{socket: socket}
	if err := errors.Join(
		syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		syscall.Listen(socket, 0),
	); err != nil {
		silent.Close()
		return nil, err
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		silent.Close()
		return nil, err
	}
	silent.port = name.(*syscall.SockaddrInet4).Port
	silent.Address = fmt.Sprintf("127.0.0.1:%d", silent.port)
	for range 8 {
		conn, err := net.DialTimeout("tcp", silent.Address, 300*time.Millisecond)
		if err != nil {
			return silent, nil
		}
		silent.queued = append(silent.queued, conn)
	}
	silent.Close()
	return nil, errors.New("a listener with a queue of 0 answers eight connections")
}

// Connecting counts the sockets of this machine that wait for this target's answer.
func (s *Silent) Connecting() (int, error) {
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	defer table.Close()
	// The columns: number, local address, remote address, state; 02 is SYN_SENT, addresses are in host byte order.
	remote := fmt.Sprintf(" 0100007F:%04X 02 ", s.port)
	count := 0
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if strings.Contains(lines.Text(), remote) {
			count++
		}
	}
	return count, lines.Err()
}

// Close gives the port back.
func (s *Silent) Close() {
	for _, conn := range s.queued {
		conn.Close()
	}
	syscall.Close(s.socket)
}
