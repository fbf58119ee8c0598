package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Exec runs a command beside the container's main process.
func (p *processes) Exec(_ context.Context, id string, argv []string, stdin io.Reader, stdout, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	command := exec.Command(argv[0], argv[1:]...)
	command.Dir = p.containers[id].folder
	if tty {
		return outcome(execInTerminal(command, stdin, stdout, resize))
	}
	return outcome(execWithPipes(command, stdin, stdout, stderr))
}

func execWithPipes(command *exec.Cmd, stdin io.Reader, stdout, stderr io.WriteCloser) error {
	// A stream that cannot be written to any more ends the command by SIGPIPE.
	if stdout != nil {
		command.Stdout = spoil(stdout)
	}
	if stderr != nil {
		command.Stderr = stderr
	}
	if stdin != nil {
		// Not command.Stdin, for which Wait would wait: a command may end before its input.
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(spoil(pipe), stdin)
			pipe.Close()
		}()
	}
	if err := command.Start(); err != nil {
		return err
	}
	return command.Wait()
}

func execInTerminal(command *exec.Cmd, stdin io.Reader, stdout io.Writer, resize <-chan remotecommand.TerminalSize) error {
	terminal, err := pty.Start(command)
	if err != nil {
		return err
	}
	defer terminal.Close()
	go follow(terminal, resize)
	if stdin != nil {
		go func() {
			io.Copy(terminal, stdin)
			// Whoever has left cannot end the command any more.
			command.Process.Signal(syscall.SIGHUP)
		}()
	}
	if stdout != nil {
		// It ends, with EIO, when the last process has left the terminal.
		io.Copy(spoil(stdout), terminal)
	}
	return command.Wait()
}

// follow gives the terminal the sizes that come from the client.
func follow(terminal *os.File, resize <-chan remotecommand.TerminalSize) {
	for size := range resize {
		pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
	}
}

// outcome is an exit code in the form that the streaming server sends on.
func outcome(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return utilexec.CodeExitError{Err: err, Code: code}
}

// Attach joins the streams of the container's main process until that or the client ends.
func (p *processes) Attach(_ context.Context, id string, stdin io.Reader, stdout, stderr io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	container := p.containers[id]
	defer container.stdout.attach(stdout)()
	defer container.stderr.attach(stderr)()
	if container.terminal != nil {
		go follow(container.terminal, resize)
	}
	left := make(chan struct{})
	if stdin != nil && container.stdin != nil {
		go func() {
			io.Copy(spoil(container.stdin), stdin)
			close(left)
		}()
	}
	select {
	case <-container.done:
	case <-left:
	}
	return nil
}

// PortForward joins a stream with a port of the pod; the pod's address is its id here.
func (p *processes) PortForward(_ context.Context, address string, port int32, stream io.ReadWriteCloser) error {
	conn, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("cannot connect to the pod: %w", err)
	}
	defer conn.Close()
	go func() {
		if _, err := io.Copy(spoil(conn), stream); err != nil {
			conn.Close()
			return
		}
		conn.(*net.TCPConn).CloseWrite()
	}()
	// The stream's other half is closed by the streaming server, once the pod has ended its own.
	if _, err := io.Copy(spoil(stream), conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
