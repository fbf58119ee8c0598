package main

import (
	"context"
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

// whenKilled kills a program while a command runs. kubectl must not end as if the command had. Then it starts the
// program again and waits until commands run again.
func (c *cluster) whenKilled(ctx context.Context, victim *program, restart func() error) (string, error) {
	kubectl, err := c.beside(ctx, webSocket, "exec", "web", "-c", "web", "--", "sh", "-c", "echo here; exec sleep 60")
	if err != nil {
		return "", err
	}
	defer kubectl.end()
	if _, err := io.ReadFull(kubectl.stdout, make([]byte, 1)); err != nil {
		return "", fmt.Errorf("%w; kubectl said: %s", err, kubectl.stderr)
	}
	killed := time.Now()
	victim.stop(syscall.SIGKILL)
	kubectl.command.Wait()
	note := fmt.Sprintf("exit code %d after %.1f s", kubectl.command.ProcessState.ExitCode(), time.Since(killed).Seconds())
	if err := restart(); err != nil {
		return note, err
	}
	if err := c.waitForAgent(ctx); err != nil {
		return note, err
	}
	if err := until(ctx, c.limit(30*time.Second), "a command after the restart", func(ctx context.Context) error {
		_, err := c.exec(ctx, webSocket, nil, "true")
		return err
	}); err != nil {
		return note, err
	}
	if kubectl.command.ProcessState.ExitCode() == 0 {
		return note, fmt.Errorf("kubectl ended as if the command had")
	}
	return note, nil
}
