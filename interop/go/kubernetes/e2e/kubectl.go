package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// transport is how kubectl streams to kube-apiserver.
type transport string

const (
	webSocket transport = "true"
	spdy      transport = "false"
)

// result is what a kubectl that has ended printed and said.
type result struct {
	stdout, stderr string
	code           int
}

// command is a kubectl that is not started yet. It is killed when the context ends.
func (c *cluster) command(ctx context.Context, over transport, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(c.options.kubernetes, "kubectl"), arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig(), "HOME="+c.folder, "TERM=xterm",
		"KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+string(over), "KUBECTL_PORT_FORWARD_WEBSOCKETS="+string(over))
	command.WaitDelay = time.Second
	return command
}

// kubectl runs one to its end. It is an error only when there is no exit code.
func (c *cluster) kubectl(ctx context.Context, over transport, stdin io.Reader, arguments ...string) (result, error) {
	command := c.command(ctx, over, arguments...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = stdin, &stdout, &stderr
	err := command.Run()
	got := result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return got, nil
	}
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w; it said: %.300s", strings.Join(arguments, " "), err, got.stderr)
	}
	return got, err
}

// succeed runs one that must end with code 0.
func (c *cluster) succeed(ctx context.Context, over transport, stdin io.Reader, arguments ...string) (string, error) {
	got, err := c.kubectl(ctx, over, stdin, arguments...)
	if err == nil && got.code != 0 {
		err = fmt.Errorf("kubectl %s: exit code %d; it said: %.300s", strings.Join(arguments, " "), got.code, got.stderr)
	}
	return got.stdout, err
}

// background is a kubectl that goes on beside a check.
type background struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.ReadCloser
	stderr  *bytes.Buffer
	cancel  context.CancelFunc
}

// beside starts one whose output is read by whoever asked for it, or is not read at all.
func (c *cluster) beside(ctx context.Context, over transport, arguments ...string) (*background, error) {
	ctx, cancel := context.WithCancel(ctx)
	b := &background{command: c.command(ctx, over, arguments...), stderr: &bytes.Buffer{}, cancel: cancel}
	var err error
	if b.stdin, err = b.command.StdinPipe(); err != nil {
		cancel()
		return nil, err
	}
	if b.stdout, err = b.command.StdoutPipe(); err != nil {
		cancel()
		return nil, err
	}
	b.command.Stderr = b.stderr
	if err := b.command.Start(); err != nil {
		cancel()
		return nil, err
	}
	return b, nil
}

// end kills it.
func (b *background) end() {
	b.cancel()
	b.command.Wait()
}
