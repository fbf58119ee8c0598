package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

func agentKilled(ctx context.Context, c *cluster) (string, error) {
	return c.whenKilled(ctx, c.agent, c.startAgent)
}

func serverKilled(ctx context.Context, c *cluster) (string, error) {
	return c.whenKilled(ctx, c.server, c.startServer)
}

// whenKilled kills a program while commands run. kubectl must not end as if its command had. On an older node it does,
// whatever the tunnel says: kube-apiserver takes the end of its SPDY connection for the command's. The program is started
// again at once, as a kubelet would do, and commands must run again.
func (c *cluster) whenKilled(ctx context.Context, victim *program, restart func() error) (string, error) {
	execs := make([]*background, 2)
	for number, pod := range []string{"web", "older"} {
		kubectl, err := c.beside(ctx, webSocket, "exec", pod, "-c", "web", "--", "sh", "-c", "echo here; exec sleep 60")
		if err != nil {
			return "", err
		}
		defer kubectl.end()
		if _, err := io.ReadFull(kubectl.stdout, make([]byte, 1)); err != nil {
			return "", fmt.Errorf("%w; kubectl said: %s", err, kubectl.stderr)
		}
		execs[number] = kubectl
	}
	killed := time.Now()
	victim.stop(syscall.SIGKILL)
	if err := restart(); err != nil {
		return "", err
	}
	again := make(chan error, 1)
	var after time.Duration
	go func() {
		err := until(ctx, c.limit(45*time.Second), "a command after the restart", c.runsCommands)
		after = time.Since(killed)
		again <- err
	}()
	codes := make([]int, len(execs))
	for number, kubectl := range execs {
		kubectl.command.Wait()
		codes[number] = kubectl.command.ProcessState.ExitCode()
	}
	note := fmt.Sprintf("exit code %d after %.1f s; older kubelet: %d", codes[0], time.Since(killed).Seconds(), codes[1])
	if err := <-again; err != nil {
		return note, err
	}
	note += fmt.Sprintf("; commands again after %.1f s", after.Seconds())
	if codes[0] == 0 {
		return note, errors.New("kubectl ended as if its command had")
	}
	return note, nil
}
